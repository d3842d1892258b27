from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from service import decode as module
from service.decode import FORMATS, decode, fit, pixels_if_quick, pixels_of
from service.errors import BrokenImage, EmptyImage, ImageError, ImageTooLarge, UnsupportedImage
from service.jpeg import read_plain
from service.manifest import Input
from tests.conftest import ROOT, draw, encode

MAX = 1_000_000
MAX_PHOTOGRAPH = 12_000_000
RED, BLUE = (250, 5, 5), (5, 5, 250)
SQUARE = Input(height=20, width=20, resize="crop")


def pixel(data: bytes, x: int = 0, y: int = 0) -> tuple[int, ...]:
    return decode(data, max_pixels=MAX).getpixel((x, y))


def plain(mode: str, colour: object, **info: object) -> Image.Image:
    image = Image.new(mode, (8, 6), colour)
    image.info.update(info)
    return image


def corner_red() -> Image.Image:
    """8 x 6, blue, its upper left quarter red."""
    image = Image.new("RGB", (8, 6), BLUE)
    image.paste(RED, (0, 0, 4, 3))
    return image


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_gives_the_pixels_that_were_saved(kind: str) -> None:
    options = {"quality": 100} if kind in {"JPEG", "WEBP", "AVIF"} else {}
    image = decode(encode(plain("RGB", RED), kind, **options), max_pixels=MAX)
    assert image.mode == "RGB"
    assert image.size == (8, 6)
    assert np.abs(np.asarray(image).astype(int) - RED).max() <= 8


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(encode(plain("L", 100)), (100, 100, 100), id="grey"),
        pytest.param(encode(plain("1", 1)), (255, 255, 255), id="one-bit"),
        pytest.param(encode(plain("I;16", 0x8000)), (128, 128, 128), id="16-bit-grey"),
        pytest.param(encode(plain("I;16", 0xFFFF)), (255, 255, 255), id="16-bit-white"),
        pytest.param(encode(plain("I;16", 0x8000), "TIFF"), (128, 128, 128), id="16-bit-tiff"),
        pytest.param(encode(plain("I", 0x4000), "TIFF"), (64, 64, 64), id="32-bit-integers-of-16-bit-range"),
        pytest.param(encode(plain("LA", (0, 255))), (0, 0, 0), id="grey-opaque"),
        pytest.param(encode(plain("LA", (0, 0))), (255, 255, 255), id="grey-transparent"),
        pytest.param(encode(plain("RGBA", (255, 0, 0, 0))), (255, 255, 255), id="transparent-onto-white"),
        pytest.param(encode(plain("RGBA", (255, 0, 0, 255))), (255, 0, 0), id="opaque"),
        pytest.param(encode(plain("RGBA", (255, 0, 0, 51))), (255, 204, 204), id="a-fifth-of-red-onto-white"),
        pytest.param(encode(plain("RGB", RED), transparency=RED), (255, 255, 255), id="transparent-colour"),
        pytest.param(encode(plain("CMYK", (0, 255, 255, 0)), "JPEG", quality=100), (255, 0, 0), id="cmyk"),
        pytest.param(encode(plain("CMYK", (0, 255, 255, 0)), "TIFF"), (255, 0, 0), id="cmyk-tiff"),
        pytest.param(encode(plain("RGB", RED).quantize(4)), RED, id="palette"),
        pytest.param(
            encode(plain("RGB", RED).quantize(4), transparency=0), (255, 255, 255), id="palette-with-transparency"
        ),
        pytest.param(
            encode(plain("RGB", RED), "GIF", save_all=True, append_images=[plain("RGB", BLUE)]), RED, id="first-frame"
        ),
        pytest.param(
            encode(plain("RGB", RED), "TIFF", save_all=True, append_images=[plain("RGB", BLUE)]), RED, id="first-page"
        ),
    ],
)
def test_every_kind_of_pixel_becomes_rgb(data: bytes, expected: tuple[int, ...]) -> None:
    assert np.abs(np.subtract(pixel(data), expected)).max() <= 3


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_a_picture_upright(kind: str, orientation: int) -> None:
    upright = corner_red()
    # What the camera stores for each value: EXIF 2.32, 4.6.4 A.
    stored = {
        1: upright,
        2: upright.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: upright.transpose(Image.Transpose.ROTATE_180),
        4: upright.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: upright.transpose(Image.Transpose.TRANSPOSE),
        6: upright.transpose(Image.Transpose.ROTATE_90),
        7: upright.transpose(Image.Transpose.TRANSVERSE),
        8: upright.transpose(Image.Transpose.ROTATE_270),
    }[orientation]
    exif = Image.Exif()
    exif[module.ORIENTATION_TAG] = orientation
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
    image = decode(encode(stored, kind, exif=exif, **options), max_pixels=MAX)
    assert image.size == upright.size
    assert np.abs(np.asarray(image).astype(int) - np.asarray(upright)).max() <= 60


def test_damaged_exif_costs_the_turn_and_not_the_picture() -> None:
    assert pixel(encode(plain("RGB", RED), "JPEG", quality=100, exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff"))[0] > 240


def test_no_bytes_are_an_empty_image() -> None:
    with pytest.raises(EmptyImage, match="0 bytes"):
        decode(b"", max_pixels=MAX)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"<svg xmlns='http://www.w3.org/2000/svg'/>", id="svg"),
        pytest.param(b"%PDF-1.7 ...", id="pdf"),
        pytest.param(b"%!PS-Adobe-3.0 EPSF-3.0\n", id="eps-that-would-start-ghostscript"),
        pytest.param(encode(plain("RGB", RED), "ICO"), id="ico"),
        pytest.param(encode(plain("RGB", RED), "PPM"), id="ppm"),
        pytest.param(encode(plain("F", 0.5), "TIFF"), id="floating-point-pixels"),
        pytest.param(b"\x00" * 100, id="zeros"),
        pytest.param(b"x", id="one-byte"),
    ],
)
def test_other_files_are_unsupported(data: bytes) -> None:
    with pytest.raises(UnsupportedImage, match="expected"):
        decode(data, max_pixels=MAX)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_truncated_file_is_broken_and_never_half_a_picture(kind: str, share: float) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    data = encode(noise, kind)
    with pytest.raises(BrokenImage, match="truncated or damaged"):
        decode(data[: int(len(data) * share)], max_pixels=MAX)


def test_too_many_pixels_are_refused_from_the_header_alone() -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header_only = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 9000, 9000, 8, 2, 0, 0, 0))
    with pytest.raises(ImageTooLarge, match=f"at most {MAX} pixels, got 9000 x 9000"):
        decode(header_only + chunk(b"IDAT", b"") + chunk(b"IEND", b""), max_pixels=MAX)
    huge = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0))
    with pytest.raises(ImageTooLarge, match=f"at most {MAX} pixels"):
        decode(huge + chunk(b"IDAT", b"") + chunk(b"IEND", b""), max_pixels=MAX)


def tiled_tiff(tile: int) -> bytes:
    """10 x 10 grey pixels in one tile of `tile` x `tile`."""
    tags = [
        (256, 10),
        (257, 10),
        (258, 8),
        (259, 1),
        (262, 1),
        (277, 1),
        (322, tile),
        (323, tile),
        (324, 140),
        (325, tile**2),
    ]
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    head = b"II*\0" + struct.pack("<I", 8) + directory + struct.pack("<I", 0)
    return head.ljust(140, b"\0") + b"\x80" * min(tile**2, 1024)


def test_a_small_picture_in_a_large_tile_counts_as_large() -> None:
    assert pixel(tiled_tiff(16)) == (128, 128, 128)
    with pytest.raises(ImageTooLarge, match=f"at most {MAX} pixels, got 10 x 10 or more"):
        decode(tiled_tiff(32768), max_pixels=MAX)
    assert pixels_if_quick(tiled_tiff(300), SQUARE, max_pixels=MAX) is None


def test_a_jpeg_of_very_many_scans_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(ImageTooLarge, match="at most 100 scans in a JPEG, got 101"):
        decode(b"\xff\xd8\xff" + b"\xff\xda" * 101, max_pixels=MAX)


def test_the_limit_itself_is_allowed() -> None:
    assert decode(encode(plain("RGB", RED)), max_pixels=48).size == (8, 6)
    with pytest.raises(ImageTooLarge):
        decode(encode(plain("RGB", RED)), max_pixels=47)


def test_mutated_files_raise_nothing_but_image_errors() -> None:
    chance = random.Random(7)
    originals = [encode(draw("circle", 1), kind) for kind in FORMATS]
    outcomes = set()
    for _ in range(2000):
        data = bytearray(chance.choice(originals))
        for _ in range(chance.randint(1, 20)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        try:
            decode(bytes(data), max_pixels=MAX)
        except ImageError as error:
            outcomes.add(type(error))
    assert outcomes >= {BrokenImage, UnsupportedImage}


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(encode(draw("circle", 1, (257, 256))), id="few-bytes-of-many-pixels"),
        pytest.param(encode(draw("circle", 1, (257, 256)), "JPEG"), id="few-bytes-of-many-pixels-as-jpeg"),
        pytest.param(b"\xff\xd8\xff" + b"x" * module.QUICK_BYTES, id="many-bytes"),
        pytest.param(encode(draw("circle", 1)) + b"zTXt", id="png-with-compressed-text"),
        pytest.param(b"\xff\xd8\xff" + b"\xff\xda" * 17, id="jpeg-of-many-scans"),
        *[
            pytest.param(encode(draw("circle", 1), "AVIF").replace(b"avif", brand, 1), id=f"avif-of-brand-{brand!r}")
            for brand in (b"avif", b"mif1")
            if "AVIF" in FORMATS
        ],
    ],
)
def test_what_takes_long_is_not_read_at_once(data: bytes) -> None:
    assert pixels_if_quick(data, SQUARE, max_pixels=MAX) is None


TURNED = Image.Exif()
TURNED[module.ORIENTATION_TAG] = 6
XMP = b'<x xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>'


@pytest.mark.parametrize(
    ("mode", "kind", "options"),
    [
        *(pytest.param("RGB", "JPEG", {"subsampling": rule}, id=f"subsampling-{rule}") for rule in range(3)),
        pytest.param("RGB", "JPEG", {"progressive": True}, id="progressive"),
        pytest.param("RGB", "JPEG", {"quality": 1}, id="coarse"),
        pytest.param("RGB", "JPEG", {"keep_rgb": True}, id="stored-as-rgb"),
        pytest.param("RGB", "JPEG", {"exif": TURNED}, id="turned-by-exif"),
        pytest.param("RGB", "JPEG", {"xmp": XMP}, id="turned-by-xmp"),
        pytest.param("L", "JPEG", {}, id="grey"),
        pytest.param("CMYK", "JPEG", {}, id="cmyk"),
        *(pytest.param("RGB", kind, {}, id=kind) for kind in FORMATS if kind != "AVIF"),
    ],
)
def test_what_is_read_at_once_is_what_would_be_read_in_time(mode: str, kind: str, options: dict[str, Any]) -> None:
    # Odd sizes end amid a block.
    data = encode(draw("circle", 1, (61, 47)).convert(mode), kind, **options)
    pixels = pixels_if_quick(data, SQUARE, max_pixels=MAX)
    assert pixels is not None
    np.testing.assert_array_equal(pixels, pixels_of(data, SQUARE, max_pixels=MAX))


@pytest.mark.parametrize("quality", [1, 30, 90])
@pytest.mark.parametrize("options", [{"subsampling": 0}, {"subsampling": 1}, {"subsampling": 2}, {"progressive": True}])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_plain_jpeg_has_the_pixels_that_pillow_reads(mode: str, options: dict[str, Any], quality: int) -> None:
    data = encode(draw("circle", 1, (61, 47)).convert(mode), "JPEG", quality=quality, **options)
    assert read_plain(data, MAX) is not None
    with Image.open(io.BytesIO(data)) as image:
        np.testing.assert_array_equal(np.asarray(decode(data, max_pixels=MAX)), np.asarray(image.convert("RGB")))


def outcome(read: Callable[..., object], data: bytes) -> object:
    try:
        return read(data, SQUARE, max_pixels=MAX)
    except ImageError as error:
        return type(error), str(error)


def test_whatever_a_jpeg_says_of_its_components_it_is_an_answer() -> None:
    data = encode(draw("circle", 1, (64, 64)), "JPEG", subsampling=0)
    begin = data.index(b"\xff\xc0")
    for at in range(begin + 1, begin + 19):
        for value in range(256):
            changed = data[:at] + bytes([value]) + data[at + 1 :]
            at_once = outcome(pixels_if_quick, changed)
            if at_once is not None:
                np.testing.assert_equal(at_once, outcome(pixels_of, changed))


def test_of_a_damaged_jpeg_the_same_is_said_or_read_at_once_and_in_time(times: int) -> None:
    chance = random.Random(3)
    originals = [
        encode(draw("circle", 1, (64, 64)), "JPEG", quality=quality, progressive=progressive)
        for quality in (30, 90)
        for progressive in (False, True)
    ]
    read = 0
    for _ in range(1000 * times):
        data = bytearray(chance.choice(originals))
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        at_once, in_time = (outcome(each, bytes(data)) for each in (pixels_if_quick, pixels_of))
        if at_once is not None:
            np.testing.assert_equal(at_once, in_time)
            read += isinstance(in_time, np.ndarray)
    assert 0.1 < read / (1000 * times) < 0.9


def test_a_picture_that_is_read_at_once_may_be_too_large_too() -> None:
    for kind in ("PNG", "JPEG"):
        with pytest.raises(ImageTooLarge, match="at most 47 pixels, got 8 x 6"):
            pixels_if_quick(encode(plain("RGB", RED), kind), SQUARE, max_pixels=47)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        # 4 x 2 pixels, columns 10, 20, 30, 40; on white.
        pytest.param("squash", [[15, 35], [15, 35]], id="squash-averages-all-columns"),
        pytest.param("crop", [[20, 30], [20, 30]], id="crop-keeps-the-middle"),
    ],
)
def test_resize_rules(rule: str, expected: list[list[int]]) -> None:
    columns = np.repeat(np.array([[10, 20, 30, 40]], np.uint8), 2, axis=0)
    image = Image.fromarray(np.stack([columns] * 3, axis=-1))
    pixels = fit(image, Input(height=2, width=2, resize=rule))
    assert pixels.shape == (2, 2, 3)
    assert pixels.dtype == np.uint8
    assert np.abs(pixels[..., 0].astype(int) - expected).max() <= 3


def test_pad_shows_the_whole_picture_on_white() -> None:
    pixels = fit(plain("RGB", RED).resize((8, 4)), Input(height=8, width=8, resize="pad"))
    assert (pixels[:2] == 255).all()
    assert (pixels[2:6] == RED).all()
    assert (pixels[6:] == 255).all()


@pytest.mark.parametrize("rule", ["squash", "crop", "pad"])
@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1)], ids=str)
def test_extreme_shapes_fit(rule: str, size: tuple[int, int]) -> None:
    pixels = fit(Image.new("RGB", size, RED), Input(height=5, width=7, resize=rule))
    assert pixels.shape == (5, 7, 3)


def photograph(size: tuple[int, int], **options: object) -> bytes:
    """A JPEG of an example, enlarged, with the noise of a camera."""
    with Image.open(ROOT / "examples" / "lemon.png") as example:
        image = np.asarray(example.convert("RGB").resize(size, Image.Resampling.BICUBIC), np.float32)
    noise = np.random.default_rng(0).normal(0, 8, image.shape)
    return encode(Image.fromarray(np.clip(image + noise, 0, 255).astype(np.uint8)), "JPEG", quality=90, **options)


@pytest.mark.parametrize(
    ("size", "target", "expected"),
    [
        pytest.param((2400, 1800), Input(height=75, width=75, resize="crop"), (600, 450), id="quarter"),
        pytest.param((2400, 2100), Input(height=75, width=75, resize="squash"), (300, 263), id="eighth"),
        pytest.param((511, 900), Input(height=20, width=20, resize="crop"), (511, 900), id="not-below-256"),
        pytest.param((1200, 900), Input(height=224, width=224, resize="pad"), (600, 450), id="half"),
        pytest.param((1200, 900), Input(height=224, width=226, resize="pad"), (1200, 900), id="not-below-twice"),
        pytest.param(
            (1200, 900), Input(height=112, width=112, resize="crop", crop_share=0.4), (1200, 900), id="nor-of-the-crop"
        ),
        pytest.param(
            (1200, 900), Input(height=20, width=20, resize="crop", oversampling=None), (1200, 900), id="in-full"
        ),
    ],
)
def test_a_large_jpeg_is_decoded_small_and_gives_the_same_input(
    size: tuple[int, int], target: Input, expected: tuple[int, int]
) -> None:
    data = photograph(size)
    image = decode(data, max_pixels=MAX_PHOTOGRAPH, target=target)
    assert image.size == expected
    whole = fit(decode(data, max_pixels=MAX_PHOTOGRAPH), target).astype(int)
    difference = np.abs(fit(image, target) - whole)
    assert difference.mean() <= 0.5
    # Colour is stored coarser than light: at an edge between colours the two ways of averaging differ more.
    assert np.quantile(difference, 0.99) <= 4


def test_a_large_jpeg_is_turned_as_it_is_in_full() -> None:
    target = Input(height=40, width=60, resize="crop")
    exif = Image.Exif()
    exif[0x0112] = 6
    data = photograph((1600, 1200), exif=exif)
    image = decode(data, max_pixels=MAX_PHOTOGRAPH, target=target)
    assert image.size == (300, 400)
    whole = fit(decode(data, max_pixels=MAX_PHOTOGRAPH), target).astype(int)
    assert np.quantile(np.abs(fit(image, target) - whole), 0.99) <= 4


def test_other_files_are_decoded_in_full() -> None:
    data = encode(plain("RGB", RED).resize((1600, 1200)), "WEBP")
    target = Input(height=20, width=20, resize="crop")
    assert decode(data, max_pixels=MAX_PHOTOGRAPH, target=target).size == (1600, 1200)


def test_a_large_jpeg_that_breaks_off_is_broken_at_any_size() -> None:
    data = photograph((1200, 900))
    with pytest.raises(BrokenImage):
        decode(data[: len(data) // 2], max_pixels=MAX_PHOTOGRAPH, target=Input(height=20, width=20, resize="crop"))
