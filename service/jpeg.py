"""A small, plain JPEG in, its pixels out, at less than half of what Pillow takes to find its way through the file.

Both call libjpeg-turbo in the same way, so that the pixels are the same.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from simplejpeg import decode_jpeg, decode_jpeg_header

START = b"\xff\xd8\xff"
# What may turn the picture. Bytes that look so by chance cost only time.
TURNING = (b"Exif\0", b"http://ns.adobe.com/xap/")
PLAIN = ("YCbCr", "Gray")


def read_plain(data: bytes, max_pixels: int) -> NDArray[np.uint8] | None:
    """RGB, uint8 [height, width, 3]; None for what is not plain, damaged or larger: Pillow reads that."""
    if not data.startswith(START) or any(mark in data for mark in TURNING):
        return None
    try:
        height, width, colours, _ = decode_jpeg_header(data)
        if colours not in PLAIN or height * width > max_pixels:
            return None
        pixels: NDArray[np.uint8] = decode_jpeg(data, "RGB", fastdct=False, fastupsample=False, strict=True)
    # Whatever it stumbles over, also in files that are whole: Pillow says what that is.
    except Exception:
        return None
    return pixels
