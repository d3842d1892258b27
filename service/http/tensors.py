"""JSON in, pictures and pixels out: what a tensor of pictures may look like in other projects' protocols."""

from __future__ import annotations

import reprlib

import numpy as np

from service.classifier import Picture, Pixels
from service.errors import InvalidRequest
from service.http.bodies import from_base64
from service.manifest import Input

INPUT = "images"
# Values of a request beside its pixels.
MOST_OTHERS = 10_000


def input_shape(target: Input) -> tuple[int, int, int]:
    """Of one picture, as the model takes it: rows, columns, and red, green, blue."""
    return (target.height, target.width, 3)


def output_shapes(classes: int) -> dict[str, tuple[int, ...]]:
    """Of each output, float32; -1 is the number of pictures."""
    return {"probabilities": (-1, classes), "logits": (-1, classes), "recognition": (-1,)}


def check_size(document: bytes, images: int, target: Input) -> None:
    """Look for too many values, before a parser makes an object of each.

    Raises:
        InvalidRequest: there are more than pictures and what stands beside them need.
    """
    rows, columns, channels = input_shape(target)
    numbers = images * rows * columns * channels
    for what, mark, most in (("values", b",", numbers + MOST_OTHERS), ("objects", b"{", 2 * images + MOST_OTHERS)):
        if (found := document.count(mark)) > most:
            raise InvalidRequest(
                f"expected at most {images} pictures of {rows} x {columns} x {channels} numbers, got {found} {what}"
            )


def encoded_picture(text: object, name: str) -> Picture:
    """A picture file in base64.

    Raises:
        InvalidRequest: it is no base64.
    """
    if not isinstance(text, str):
        raise InvalidRequest(f"expected `{name}` in base64, got {reprlib.repr(text)}")
    return Picture(from_base64(text, name), name)


def pixels(numbers: object, shape: tuple[int, ...], name: str) -> Pixels:
    """Whole numbers from 0 to 255, in lists that are nested as `shape` says.

    Raises:
        InvalidRequest: they are of another shape, or not such numbers.
    """
    found = np.array(numbers, dtype=object)
    kinds = set(map(type, found.flat))
    if list in kinds:
        raise InvalidRequest(f"expected `{name}` of shape {list(shape)}, got lists of different lengths")
    if found.shape != shape:
        raise InvalidRequest(f"expected `{name}` of shape {list(shape)}, got {list(found.shape)}")
    try:
        if kinds == {int}:
            return found.astype(np.uint8)
    except OverflowError:
        pass
    wrong = next(number for number in found.flat if type(number) is not int or not 0 <= number <= 255)
    raise InvalidRequest(f"expected whole numbers from 0 to 255 in `{name}`, got {reprlib.repr(wrong)}")
