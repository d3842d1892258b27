"""Pictures in, in any form that Python has for them; the bytes of picture files out."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from service.client.errors import NotSent

Picture = str | os.PathLike[str] | bytes | bytearray | memoryview | Image.Image | NDArray[np.uint8]
"""A file's path or its bytes; a Pillow image; or uint8 [height, width, 3], RGB, [.., 4], RGBA, or [height, width]."""
Pictures = Picture | Sequence[Picture]
"""One or several; an array of uint8 [pictures, height, width, channels] are several."""

# Of PNG, which keeps every pixel; others are brought to colours first.
MODES = {"1", "L", "LA", "P", "RGB", "RGBA", "I;16"}
# The service reads the pixels at once: smaller is not worth the time.
COMPRESSION = 1


class File(NamedTuple):
    """A picture file."""

    name: str | None
    data: bytes


def files(pictures: Pictures) -> list[File]:
    """The files of one or several pictures.

    Raises:
        NotSent: there is none, or one is no picture.
        OSError: a file cannot be read.
    """
    several: Sequence[Picture]
    if isinstance(pictures, np.ndarray):
        several = list(pictures) if pictures.ndim == 4 else [pictures]
    elif isinstance(pictures, Sequence) and not isinstance(pictures, (str, bytes, bytearray, memoryview)):
        several = pictures
    else:
        several = [pictures]
    if not several:
        raise NotSent("expected at least one picture, got none")
    return [file(picture) for picture in several]


def file(picture: Picture) -> File:
    """The file of a picture.

    Raises:
        NotSent: it is no picture.
        OSError: it cannot be read.
    """
    if isinstance(picture, (bytes, bytearray, memoryview)):
        return File(None, bytes(picture))
    if isinstance(picture, (str, os.PathLike)):
        path = Path(picture)
        if "://" in str(picture) and not path.exists():
            raise NotSent(f"expected a path, bytes, a Pillow image or a NumPy array, got an address: {picture}")
        # A name need not be text.
        return File(path.name.encode("utf-8", "replace").decode(), path.read_bytes())
    if isinstance(picture, Image.Image):
        return File(None, _png(picture))
    if isinstance(picture, np.ndarray):
        return File(None, _png(_image(picture)))
    raise NotSent(f"expected a path, bytes, a Pillow image or a NumPy array, got {type(picture).__name__}")


def _image(pixels: NDArray[np.uint8]) -> Image.Image:
    if pixels.dtype != np.uint8 or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))):
        raise NotSent(
            "expected uint8 [height, width, 3], [height, width, 4] or [height, width], "
            f"got {pixels.dtype} {list(pixels.shape)}"
        )
    if not pixels.size:
        raise NotSent(f"expected pixels, got none: {list(pixels.shape)}")
    return Image.fromarray(pixels)


def _png(image: Image.Image) -> bytes:
    # As the service does with a file: what a camera stored lying is turned upright.
    upright = ImageOps.exif_transpose(image)
    if upright.mode == "F":
        raise NotSent("expected integer pixels, got 32-bit floating point, whose white is not defined")
    written = io.BytesIO()
    (upright if upright.mode in MODES else upright.convert("RGB")).save(
        written, "PNG", compress_level=COMPRESSION, icc_profile=None
    )
    return written.getvalue()
