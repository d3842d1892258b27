"""An AVIF file in, how many pixels its decoding holds, before libavif sees it.

libavif looks for an item among all others, decodes every frame at the size that the AV1 data says, hidden ones too, and
only then scales the last to what the file's header says. Pillow sets none of its limits.

Boxes are those of ISO/IEC 14496-12, items those of ISO/IEC 23008-12, units and sequence headers those of the AV1
bitstream specification, sections 5.3 to 5.5. All that libavif finds is found here, and perhaps more.
"""

from __future__ import annotations

from collections.abc import Iterator

from service.errors import ImageTooLarge

BRANDS = (b"avif", b"avis", b"mif1", b"msf1")
BOXES = (b"meta", b"moov", b"trak", b"mdia", b"minf", b"stbl", b"iprp")
DEPTH = 5
# Of items and samples; with every other box's head. A picture of hundreds of tiles has 20 kB of them.
TABLES = (b"iinf", b"iloc", b"iref", b"ipma", b"grpl", b"stsc", b"stsz", b"stco", b"co64", b"stts", b"stss")
MOST_TABLE_BYTES = 32_768
MOST_UNITS = 10_000
MOST_EXTENTS = 16
# Colour, transparency, a gain map and a thumbnail.
USUAL_FRAMES = 4
# A frame header, a frame, and a header again.
SEQUENCE_HEADER, FRAMES = 1, (3, 6, 7)


def decoded_pixels(data: bytes) -> int:
    """Of the largest frame; of more frames than a picture has, so many pixels that each has its share. 0 of no AVIF.

    Raises:
        ImageTooLarge: there are more items or units than a picture has.
        ValueError, IndexError: it is truncated or damaged.
    """
    if data[4:8] != b"ftyp" or data[8:12] not in BRANDS:
        return 0
    file = memoryview(data)
    frames, largest, left = 0, 0, MOST_UNITS
    for coded in _coded(file, file, [MOST_TABLE_BYTES]):
        began = False
        for kind, unit in _units(coded):
            left -= 1
            if left < 0:
                raise ImageTooLarge(f"expected at most {MOST_UNITS} AV1 units in an AVIF, got more")
            if kind == SEQUENCE_HEADER:
                began, largest = True, max(largest, _pixels_of_a_frame(unit))
            elif kind in FRAMES:
                # Another item's sequence would be taken for it.
                if not began:
                    raise ValueError("a frame precedes its sequence header")
                frames += 1
    if not frames:
        raise ValueError("there is no frame")
    return max(largest, largest * frames // USUAL_FRAMES)


class _Bits:
    """Unsigned integers, one after the other."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> int:
        start, self._at = self._at, self._at + count
        if self._at > 8 * len(self._data):
            raise ValueError("a box or unit ends too early")
        some = int.from_bytes(self._data[start // 8 : -(-self._at // 8)], "big")
        return (some >> (-self._at % 8)) & ((1 << count) - 1)


def _coded(file: memoryview, within: memoryview, left: list[int], depth: int = 0) -> Iterator[memoryview]:
    """AV1 data of items, and of the first sample of tracks. `left`: of `MOST_TABLE_BYTES`."""
    found: dict[bytes, memoryview] = {}
    for kind, body in _boxes(within):
        left[0] -= 8 + (len(body) if kind in TABLES else 0)
        if left[0] < 0:
            raise ImageTooLarge(f"expected at most {MOST_TABLE_BYTES} bytes of tables in an AVIF, got more")
        if kind in BOXES and depth < DEPTH:
            yield from _coded(file, body[4:] if kind == b"meta" else body, left, depth + 1)
        elif kind in TABLES or kind == b"idat":
            if kind in found and kind != b"ipma":
                raise ValueError(f"there are two boxes {kind!r}")
            found[kind] = body
    if b"iinf" in found and b"iloc" in found:
        yield from _items(file, found)
    if b"stsz" in found:
        yield from _first_sample(file, found)


def _boxes(data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    while len(data) >= 8:
        size, kind, head = int.from_bytes(data[:4], "big"), bytes(data[4:8]), 8
        if size == 1:
            size, head = int.from_bytes(data[8:16], "big"), 16
        size = size or len(data)
        if not head <= size <= len(data):
            raise ValueError(f"a box {kind!r} of {size} bytes does not fit")
        yield kind, data[head:size]
        data = data[size:]


def _items(file: memoryview, found: dict[bytes, memoryview]) -> Iterator[memoryview]:
    info = found[b"iinf"]
    coded = {item for kind, body in _boxes(info[8 if info[0] else 6 :]) if (item := _coded_item(_Bits(body)))}
    bits = _Bits(found[b"iloc"])
    version, _ = bits.take(8), bits.take(24)
    offset, length, base, index = (8 * bits.take(4) for _ in range(4))
    wide, joined = 32 if version == 2 else 16, 0
    for _ in range(bits.take(wide)):
        item, method = bits.take(wide), bits.take(16) & 15 if version else 0
        source = found.get(b"idat", memoryview(b"")) if method == 1 else file
        _, start = bits.take(16), bits.take(base)
        extents: list[memoryview] = []
        for _ in range(bits.take(16)):
            _ = bits.take(index) if version else 0
            begin = start + bits.take(offset)
            extents.append(source[begin : begin + bits.take(length)])
            if len(extents) > MOST_EXTENTS:
                raise ImageTooLarge(f"expected an item of an AVIF in at most {MOST_EXTENTS} extents, got more")
        if item in coded and len(extents) > 1:
            joined += sum(map(len, extents))
            if joined > len(file):
                raise ValueError("items in several extents are larger than the file")
            yield memoryview(b"".join(extents))
        elif item in coded:
            yield from extents


def _coded_item(bits: _Bits) -> int | None:
    """The number of an item that is an AV1 picture."""
    wide = 32 if bits.take(8) == 3 else 16
    _, item, _ = bits.take(24), bits.take(wide), bits.take(16)
    return item if bits.take(32).to_bytes(4, "big") == b"av01" else None


def _first_sample(file: memoryview, found: dict[bytes, memoryview]) -> Iterator[memoryview]:
    sizes = _Bits(found[b"stsz"])
    _, size, _ = sizes.take(32), sizes.take(32), sizes.take(32)
    size = size or sizes.take(32)
    for kind, wide in ((b"stco", 32), (b"co64", 64)):
        if kind in found:
            chunks = _Bits(found[kind])
            _, _, begin = chunks.take(32), chunks.take(32), chunks.take(wide)
            yield file[begin : begin + size]


def _units(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Open bitstream units, up to one that does not fit: there decoders stop too."""
    while data:
        kind, at = data[0] >> 3 & 15, 2 if data[0] & 4 else 1
        size = len(data) - at
        if data[0] & 2:
            size = 0
            for shift in range(0, 56, 7):
                byte = data[at] if at < len(data) else 0
                at += 1
                size |= (byte & 127) << shift
                if byte < 128:
                    break
        if not 0 <= size <= len(data) - at:
            return
        yield kind, data[at : at + size]
        data = data[at + size :]


def _pixels_of_a_frame(sequence: memoryview) -> int:
    """By its sequence header, section 5.5."""
    bits = _Bits(sequence)
    bits.take(4)
    single = bits.take(1)
    if single:
        bits.take(5)
    else:
        _skip_operating_points(bits)
    width_bits, height_bits = bits.take(4) + 1, bits.take(4) + 1
    usual, most = (bits.take(width_bits) + 1) * (bits.take(height_bits) + 1), 1 << width_bits + height_bits
    # But for a single picture a frame may say another size, of as many bits; encoders take the fewest that will do.
    return usual if single or most <= 4 * usual else most


def _skip_operating_points(bits: _Bits) -> None:
    delay_bits = 0
    if bits.take(1):
        bits.take(64)
        if bits.take(1):
            zeros = next((zeros for zeros in range(32) if bits.take(1)), None)
            if zeros is None:
                raise ValueError("pictures have no end of time between them")
            bits.take(zeros)
        if bits.take(1):
            delay_bits = bits.take(5) + 1
            bits.take(42)
    delay = bits.take(1)
    for _ in range(bits.take(5) + 1):
        bits.take(12)
        bits.take(1 if bits.take(5) > 7 else 0)
        if delay_bits and bits.take(1):
            bits.take(2 * delay_bits + 1)
        if delay and bits.take(1):
            bits.take(4)
