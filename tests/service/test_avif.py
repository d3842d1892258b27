from __future__ import annotations

import base64
import contextlib
import io
import itertools
import struct
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, features

from service.avif import MOST_EXTENTS, MOST_TABLE_BYTES, MOST_UNITS, decoded_pixels
from service.decode import decode
from service.errors import BrokenImage, ImageError, ImageTooLarge
from tests.conftest import draw, encode

pytestmark = pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")

# By SVT-AV1 1.4, which writes no single picture but a sequence of one; and a grid of 2 x 1, by aom 3.6: both 64 x 64.
SVT = base64.b64decode(
    "AAAAIGZ0eXBhdmlmAAAAAGF2aWZtaWYxbWlhZk1BMUIAAADybWV0YQAAAAAAAAAoaGRscgAAAAAAAAAAcGljdAAAAAAAAAAAAAAAAGxpYmF2aWYA"
    "AAAADnBpdG0AAAAAAAEAAAAeaWxvYwAAAABEAAABAAEAAAABAAABGgAAAB4AAAAoaWluZgAAAAAAAQAAABppbmZlAgAAAAABAABhdjAxQ29sb3IA"
    "AAAAamlwcnAAAABLaXBjbwAAABRpc3BlAAAAAAAAAEAAAABAAAAAEHBpeGkAAAAAAwgICAAAAAxhdjFDgQAMAAAAABNjb2xybmNseAABAA0ABoAA"
    "AAAXaXBtYQAAAAAAAAABAAEEAQKDBAAAACZtZGF0EgAKCgAAAAKv/59/MAgyDhAAi4AAAAAABAAnJwDJ"
)
GRID = base64.b64decode(
    "AAAAIGZ0eXBhdmlmAAAAAGF2aWZtaWYxbWlhZk1BMUEAAAF/bWV0YQAAAAAAAAAoaGRscgAAAAAAAAAAcGljdAAAAAAAAAAAAAAAAGxpYmF2aWYA"
    "AAAADnBpdG0AAAAAAAEAAAA6aWxvYwAAAABEAAADAAEAAAABAAABpwAAAAgAAgAAAAEAAAGvAAAAHwADAAAAAQAAAa8AAAAfAAAAXGlpbmYAAAAA"
    "AAMAAAAaaW5mZQIAAAAAAQAAZ3JpZENvbG9yAAAAABppbmZlAgAAAQACAABhdjAxQ29sb3IAAAAAGmluZmUCAAABAAMAAGF2MDFDb2xvcgAAAAAc"
    "aXJlZgAAAAAAAAAQZGltZwABAAIAAgADAAAAi2lwcnAAAABfaXBjbwAAABRpc3BlAAAAAAAAAIAAAABAAAAAEHBpeGkAAAAAAwgICAAAABNjb2xy"
    "bmNseAABAA0ABoAAAAAUaXNwZQAAAAAAAABAAAAAQAAAAAxhdjFDgSAAAAAAACRpcG1hAAAAAAAAAAMAAQMBAgMAAgQEAoUDAAMEBAKFAwAAAC9t"
    "ZGF0AAAAAQCAAEASAAoJOBV//YQENBpAMhAWQAYYYYQAwzDGT0Nn1dCA"
)
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 64, 4), np.uint8), "RGBA")
FILES = [
    encode(draw("circle", 1), "AVIF"),
    encode(NOISE, "AVIF", quality=20),
    encode(NOISE.convert("RGB"), "AVIF", save_all=True, append_images=[draw("circle", 1, (64, 48))], speed=10),
    SVT,
    GRID,
]


def box(kind: bytes, *parts: bytes) -> bytes:
    data = b"".join(parts)
    return struct.pack(">I4s", 8 + len(data), kind) + data


def bits(*fields: tuple[int, int]) -> bytes:
    """Of pairs of a value and how many bits it has."""
    written = "".join(f"{value:0{count}b}" for value, count in fields)
    return int(written.ljust(-(-len(written) // 8) * 8, "0"), 2).to_bytes(-(-len(written) // 8), "big")


def unit(kind: int, data: bytes, *, says_size: bool = True) -> bytes:
    return bytes([kind << 3 | 2, len(data)]) + data if says_size else bytes([kind << 3]) + data


def sequence(width: int, height: int, *, single: bool = True, size_bits: int = 16) -> bytes:
    about = [(0, 5)] if single else [(0, 2), (0, 5), (0, 12), (5, 5)]
    size = [(size_bits - 1, 4), (size_bits - 1, 4), (width - 1, size_bits), (height - 1, size_bits)]
    return unit(1, bits((0, 3), (1, 1), (int(single), 1), *about, *size, (0, 16)))


FRAME = unit(6, bytes(4))


def avif(*items: bytes, kind: bytes = b"av01", within: bool = False, pieces: int = 1) -> bytes:
    """Items of one kind, each in so many pieces, in a box of their own or `within` that of the descriptions."""
    start = box(b"ftyp", b"avifmif1")

    def meta(begin: int) -> bytes:
        places = []
        for number, item in enumerate(items, 1):
            cuts = [len(item) * piece // pieces for piece in range(pieces + 1)]
            extents = [struct.pack(">II", begin + a, b - a) for a, b in itertools.pairwise(cuts)]
            places.append(struct.pack(">HHHH", number, within, 0, pieces) + b"".join(extents))
            begin += len(item)
        iloc = box(b"iloc", struct.pack(">IBBH", 1 << 24, 0x44, 0, len(items)), *places)
        infos = [
            box(b"infe", struct.pack(">IHH4s", 2 << 24, number, 0, kind), b"\0") for number in range(1, len(items) + 1)
        ]
        iinf = box(b"iinf", struct.pack(">IH", 0, len(items)), *infos)
        return box(b"meta", bytes(4), iloc, iinf, box(b"idat", *items) if within else b"")

    if within:
        return start + meta(0)
    return start + meta(len(start) + len(meta(0)) + 8) + box(b"mdat", *items)


@pytest.mark.parametrize("size", [(1, 1), (17, 9), (257, 256)], ids=str)
@pytest.mark.parametrize("subsampling", ["4:2:0", "4:2:2", "4:4:4", "4:0:0"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_what_pillow_writes_holds_the_pixels_that_it_shows(size: tuple[int, int], subsampling: str, mode: str) -> None:
    picture = draw("circle", 1, size).convert(mode)
    for more in ({"quality": 1}, {"quality": 100, "xmp": b"<?xpacket?>", "icc_profile": bytes(100_000)}):
        data = encode(picture, "AVIF", speed=10, subsampling=subsampling, **more)
        assert decoded_pixels(data) == size[0] * size[1]


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_of_an_animation_the_first_frame_counts(mode: str) -> None:
    frames = [draw("circle", shade, (64, 48)).convert(mode) for shade in range(20)]
    data = encode(frames[0], "AVIF", save_all=True, append_images=frames[1:], speed=10)
    assert decoded_pixels(data) == 64 * 48
    # Without its still picture.
    assert decoded_pixels(data.replace(b"iloc", b"free")) == 64 * 48


@pytest.mark.parametrize(("data", "size"), [(SVT, (64, 64)), (GRID, (128, 64))], ids=["sequence", "grid"])
def test_what_others_write_is_read(data: bytes, size: tuple[int, int]) -> None:
    assert decoded_pixels(data) == 64 * 64
    assert decode(data, max_pixels=size[0] * size[1]).size == size


@pytest.mark.parametrize("data", [encode(draw("circle", 1)), b"", b"\0\0\0\x18ftypheic" + bytes(20)])
def test_of_other_files_nothing_is_said(data: bytes) -> None:
    assert decoded_pixels(data) == 0


@pytest.mark.parametrize("options", [{}, {"save_all": True, "append_images": [draw("square", 1, (300, 300))]}])
def test_frames_larger_than_their_file_says_are_refused(options: dict[str, object]) -> None:
    data = encode(draw("circle", 1, (300, 300)), "AVIF", **options)
    forged = data.replace(struct.pack(">II", 300, 300), struct.pack(">II", 30, 30))
    forged = forged.replace(struct.pack(">II", 300 << 16, 300 << 16), struct.pack(">II", 30 << 16, 30 << 16))
    with Image.open(io.BytesIO(forged)) as image:
        assert image.size == (30, 30)
    assert decode(forged, max_pixels=90_000).size == (30, 30)
    with pytest.raises(ImageTooLarge, match="at most 89999 pixels, got AV1 frames of 90000 or more"):
        decode(forged, max_pixels=89_999)


def test_the_largest_item_counts_wherever_it_lies() -> None:
    small, large = sequence(8, 8) + FRAME, sequence(900, 700) + FRAME
    for data in (
        avif(small, large),
        avif(large, small),
        avif(small, large, within=True),
        avif(small, large, pieces=3),
        avif(small, sequence(8, 8) + sequence(900, 700) + FRAME),
        avif(small, sequence(900, 700) + unit(3, bytes(4), says_size=False)),
        avif(small, b"\x0e\0" + sequence(900, 700)[1:] + FRAME),
    ):
        assert decoded_pixels(data) == 900 * 700


def test_of_items_that_are_no_av1_pictures_nothing_is_read() -> None:
    exif = avif(sequence(900, 700) + FRAME, kind=b"Exif")
    with pytest.raises(ValueError, match="there is no frame"):
        decoded_pixels(exif)


def test_frames_that_are_not_shown_count_too() -> None:
    assert decoded_pixels(avif(sequence(40, 50) + FRAME * 4)) == 40 * 50
    assert decoded_pixels(avif(sequence(40, 50) + FRAME * 40)) == 40 * 50 * 10
    assert decoded_pixels(avif(*[sequence(40, 50) + FRAME] * 40)) == 40 * 50 * 10


@pytest.mark.parametrize("frame", [3, 6, 7])
def test_a_frame_without_a_sequence_of_its_own_is_refused(frame: int) -> None:
    with pytest.raises(ValueError, match="a frame precedes its sequence header"):
        decoded_pixels(avif(sequence(8, 8) + FRAME, unit(frame, bytes(4))))


def test_a_frame_that_may_say_its_own_size_counts_as_the_largest_that_it_may_be() -> None:
    assert decoded_pixels(avif(sequence(500, 300, single=False, size_bits=9) + FRAME)) == 500 * 300
    assert decoded_pixels(avif(sequence(500, 300, single=False, size_bits=13) + FRAME)) == 8192 * 8192
    # A single picture may not.
    assert decoded_pixels(avif(sequence(500, 300, size_bits=13) + FRAME)) == 500 * 300


def test_all_that_may_stand_before_a_size_is_passed_over() -> None:
    timing = [(1, 1), (1, 32), (1, 32), (1, 1), (0b00101, 5)]
    model = [(1, 1), (9, 5), (1, 32), (3, 5), (4, 5)]
    point = [(0, 12), (9, 5), (1, 1), (1, 1), (0, 21), (1, 1), (0, 4)]
    size = [(9, 4), (8, 4), (899, 10), (399, 9)]
    data = unit(1, bits((0, 3), (0, 1), (0, 1), *timing, *model, (1, 1), (1, 5), *point, *point, *size, (0, 9)))
    assert decoded_pixels(avif(data + FRAME)) == 900 * 400


def test_more_items_units_or_pieces_than_a_picture_has_are_refused_before_they_are_looked_up() -> None:
    one = sequence(8, 8) + FRAME
    # libavif takes seconds for 40,000 items.
    many = avif(*[b""] * 40_000)
    with pytest.raises(ImageTooLarge, match=f"at most {MOST_TABLE_BYTES} bytes of tables in an AVIF"):
        decode(many, max_pixels=64)
    with pytest.raises(ImageTooLarge, match=f"at most {MOST_TABLE_BYTES} bytes of tables in an AVIF"):
        decode(avif(one) + box(b"free") * 40_000, max_pixels=64)
    with pytest.raises(ImageTooLarge, match=f"at most {MOST_UNITS} AV1 units"):
        decode(avif(one + unit(15, b"") * MOST_UNITS), max_pixels=64)
    with pytest.raises(ImageTooLarge, match=f"at most {MOST_EXTENTS} extents"):
        decode(avif(one, pieces=MOST_EXTENTS + 1), max_pixels=64)


@pytest.mark.parametrize("items", [1, 3])
def test_pieces_that_overlap_are_not_put_together(items: int) -> None:
    data = bytearray(avif(*[sequence(8, 8) + FRAME + bytes(600)] * items, pieces=2))
    share = struct.pack(">II", 0, len(data) // items)
    for number in range(items):
        begin = data.index(b"iloc") + 20 + 24 * number
        data[begin : begin + 16] = share * 2
    with pytest.raises(ValueError, match="items in several extents are larger than the file"):
        decoded_pixels(bytes(data))


def test_boxes_in_boxes_without_end_are_not_entered() -> None:
    data = b""
    for _ in range(2000):
        data = box(b"moov", data)
    with pytest.raises(ValueError, match="there is no frame"):
        decoded_pixels(avif() + data)


def change(data: bytes, places: Sequence[tuple[int, int]], end: int) -> bytes:
    changed = bytearray(data)
    for at, value in places:
        changed[at % len(changed)] = value
    return bytes(changed[: end % (len(changed) + 1)])


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(FILES),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=8),
    st.one_of(st.just(-1), st.integers(0, 10_000)),
)
def test_of_a_damaged_file_it_says_a_size_or_that_it_is_damaged(
    data: bytes, places: list[tuple[int, int]], end: int
) -> None:
    changed = change(data, places, end)
    with contextlib.suppress(ImageTooLarge, ValueError, IndexError):
        assert decoded_pixels(changed) >= 0
    with contextlib.suppress(ImageError):
        decode(changed, max_pixels=10_000)


@pytest.mark.parametrize("data", FILES[:4])
def test_a_truncated_file_is_broken_wherever_it_ends(data: bytes) -> None:
    for end in (13, 40, 100, 250, len(data) - 30, len(data) - 1):
        with pytest.raises(BrokenImage, match="truncated or damaged"):
            decode(data[:end], max_pixels=10_000)
