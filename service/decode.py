"""Bytes from a stranger in, upright RGB pixels out. Training reads its pictures through here too: both see the same."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
    features,
)

from service.avif import decoded_pixels
from service.errors import BrokenImage, EmptyImage, ImageError, ImageTooLarge, UnsupportedImage
from service.jpeg import read_plain
from service.manifest import Input

# The only parsers that ever run on a stranger's bytes. A plugin registers itself when it is imported; for a format that
# is not registered, Pillow would import every plugin that it has.
PLUGINS = {
    "JPEG": JpegImagePlugin,
    "PNG": PngImagePlugin,
    "WEBP": WebPImagePlugin,
    "GIF": GifImagePlugin,
    "BMP": BmpImagePlugin,
    "TIFF": TiffImagePlugin,
    "AVIF": AvifImagePlugin,
}
FORMATS = tuple(name for name in PLUGINS if name != "AVIF" or features.check("avif"))

QUICK_BYTES, QUICK_PIXELS = 16_384, 65_536
# Chunks that a PNG may inflate a thousandfold; AVIF, of which libavif reads much before the first pixel; and the start
# of a JPEG's scan: a whole pass over its pixels.
LONG = (b"zTXt", b"iTXt", b"iCCP", b"ftyp")
JPEG_SCAN = b"\xff\xda"
# Encoders make about ten.
QUICK_SCANS, MAX_SCANS = 16, 100

# Explanations, too, are drawn over what was decoded.
LEAST_SIDE = 256

ORIENTATION_TAG = 0x0112
TIFF_TILE_WIDTH, TIFF_TILE_LENGTH = 322, 323
# EXIF 2.32, 4.6.4 A: how to turn what the camera stored into what it saw.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(data: bytes, *, max_pixels: int, target: Input | None = None) -> Image.Image:
    """Read one picture file: upright, RGB, 8 bits a channel, transparency on white, the first frame of several.

    `target`: what it is read for; a large JPEG is then read at a half, a quarter or an eighth of its size, by the
    manifest's `oversampling`.

    Raises:
        EmptyImage: `data` is empty.
        UnsupportedImage: the bytes are of none of `FORMATS`, or their pixels have no defined colour.
        ImageTooLarge: its headers promise more than `max_pixels`, or a JPEG `MAX_SCANS`; nothing was decoded.
        BrokenImage: the file is truncated or damaged.
    """
    if (plain := _plain(data, max_pixels)) is not None:
        return plain
    with _opened(data, max_pixels) as image:
        return _decoded(image, target)


def pixels_of(data: bytes, target: Input, *, max_pixels: int) -> NDArray[np.uint8]:
    """What a model sees of a picture file: uint8 [height, width, 3].

    Raises:
        ImageError: see `decode`.
    """
    return fit(decode(data, max_pixels=max_pixels, target=target), target)


def pixels_if_quick(data: bytes, target: Input, *, max_pixels: int) -> NDArray[np.uint8] | None:
    """See `pixels_of`; None where that takes longer than handing the work to another thread: many bytes or pixels."""
    if (plain := _plain(data, max_pixels)) is not None:
        return fit(plain, target)
    if not _few_bytes(data) or any(mark in data for mark in LONG):
        return None
    with _opened(data, max_pixels) as image:
        return fit(_decoded(image, target), target) if _pixels(image) <= QUICK_PIXELS else None


class Placement(NamedTuple):
    """Which part of a picture a model sees, and where in its input that part comes to lie, in pixels."""

    seen: tuple[float, float, float, float]
    """Of the picture: left, top, right, bottom."""
    corner: tuple[int, int]
    """Of the input: left and top of the part; white is around it."""
    inner: tuple[int, int]
    """Of the input: the part's width and height."""


def placement(source: tuple[int, int], target: Input) -> Placement:
    """Where a picture of so many columns and rows goes, by the manifest's resize rule."""
    whole = (0.0, 0.0, float(source[0]), float(source[1]))
    size = (target.width, target.height)
    if target.resize == "squash":
        return Placement(whole, (0, 0), size)
    if target.resize == "crop":
        return Placement(_centred_box(source, size, target.crop_share), (0, 0), size)
    scale = min(size[0] / source[0], size[1] / source[1])
    inner = (max(1, round(source[0] * scale)), max(1, round(source[1] * scale)))
    return Placement(whole, ((size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2), inner)


def media_type(data: bytes) -> str:
    """What a picture's own header says it is, such as `image/png`."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return Image.MIME[str(image.format)]
    # It has been decoded once, perhaps by a service that reads more formats.
    except Exception:
        return "application/octet-stream"


def fit(image: Image.Image, target: Input) -> NDArray[np.uint8]:
    """Bring an RGB picture to a model's input: uint8 [height, width, 3], by the manifest's resize rule.

    Resampling is Pillow's bilinear filter with antialiasing: linear in the pixels, up to rounding.
    """
    place = placement(image.size, target)
    part = image.resize(place.inner, Image.Resampling.BILINEAR, box=place.seen)
    if place.inner == (target.width, target.height):
        return np.asarray(part)
    canvas = Image.new("RGB", (target.width, target.height), "white")
    canvas.paste(part, place.corner)
    return np.asarray(canvas)


def _few_bytes(data: bytes) -> bool:
    return len(data) <= QUICK_BYTES and data.count(JPEG_SCAN) <= QUICK_SCANS


def _plain(data: bytes, max_pixels: int) -> Image.Image | None:
    """A small, plain JPEG; it is read so by everyone, for no two readers refuse the same files."""
    pixels = read_plain(data, min(QUICK_PIXELS, max_pixels)) if _few_bytes(data) else None
    if pixels is None:
        return None
    height, width, _ = pixels.shape
    return Image.frombuffer("RGB", (width, height), pixels, "raw", "RGB", 0, 1)


@contextmanager
def _opened(data: bytes, max_pixels: int) -> Iterator[Image.Image]:
    """A picture of which no more than the header was read, and what is told of it if it is none."""
    if not data:
        raise EmptyImage("expected a picture, got 0 bytes")
    if data.startswith(b"\xff\xd8") and (scans := data.count(JPEG_SCAN)) > MAX_SCANS:
        raise ImageTooLarge(f"expected at most {MAX_SCANS} scans in a JPEG, got {scans}")
    try:
        if (held := decoded_pixels(data)) > max_pixels:
            raise ImageTooLarge(f"expected at most {max_pixels} pixels, got AV1 frames of {held} or more")
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if _pixels(image) > max_pixels:
                raise ImageTooLarge(f"expected at most {max_pixels} pixels, got {image.width} x {image.height} or more")
            yield image
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise _unidentified(data) from None
    except Image.DecompressionBombError:
        raise ImageTooLarge(f"expected at most {max_pixels} pixels, got many more") from None
    # Damaged files drive Pillow's parsers into every kind of exception; whichever it is, the file is to blame.
    except Exception as cause:
        raise BrokenImage("the picture is truncated or damaged") from cause


def _decoded(image: Image.Image, target: Input | None) -> Image.Image:
    if target is not None and target.oversampling is not None:
        side = max(LEAST_SIDE, ceil(target.oversampling * max(target.width, target.height) / target.crop_share))
        # JPEG alone can, and never below the size asked for.
        image.draft(None, (side, side))
    image.load()
    return _upright(image, _rgb(image))


def _pixels(image: Image.Image) -> int:
    """How many pixels decoding will hold, by the header alone."""
    tags = getattr(image, "tag_v2", {})
    # A tiled TIFF is decoded by whole tiles, however small the picture is.
    tile = int(tags.get(TIFF_TILE_WIDTH, 0)) * int(tags.get(TIFF_TILE_LENGTH, 0))
    return max(image.width * image.height, tile)


def _centred_box(source: tuple[int, int], target: tuple[int, int], share: float) -> tuple[float, float, float, float]:
    """A centred part of `source` with the aspect of `target`: left, top, right, bottom in pixels; 1 = the largest."""
    scale = min(source[0] / target[0], source[1] / target[1]) * share
    left, top = ((s - t * scale) / 2 for s, t in zip(source, target, strict=True))
    return (left, top, source[0] - left, source[1] - top)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise UnsupportedImage("expected integer pixels, got 32-bit floating point, whose white is not defined")
    if image.mode.startswith("I"):
        image = _eight_bits(image)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        on_white = Image.new("RGB", image.size, "white")
        on_white.paste(rgba, mask=rgba.getchannel("A"))
        return on_white
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    # Pillow's own conversion clips at 255 instead of scaling.
    sixteen = np.clip(np.asarray(image), 0, 65535).astype(np.uint16)
    return Image.fromarray((sixteen >> 8).astype(np.uint8))


def _upright(image: Image.Image, rgb: Image.Image) -> Image.Image:
    try:
        turn = UPRIGHT.get(image.getexif().get(ORIENTATION_TAG, 1))
    # The pixels are whole; damaged metadata only costs the turn.
    except Exception:
        return rgb
    return rgb if turn is None else rgb.transpose(turn)


def _unidentified(data: bytes) -> ImageError:
    if any(accepts(data[:16]) is True for _, accepts in (Image.OPEN[name] for name in FORMATS) if accepts):
        return BrokenImage("the picture is truncated or damaged")
    return UnsupportedImage(f"expected {', '.join(FORMATS[:-1])} or {FORMATS[-1]}, got none of them")
