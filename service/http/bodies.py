"""A request's body in, picture files out: multipart, raw bytes or JSON; and how that is documented and may fail."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Awaitable
from typing import Any, TypeVar

from fastapi import Request
from pydantic import ValidationError

from service import errors
from service.classifier import Picture
from service.deadline import Deadline
from service.errors import BodyTooSlow, InvalidRequest, NoImage, UnsupportedMediaType
from service.http.headers import header
from service.http.multipart import read_form
from service.http.schemas import PredictBody
from service.problems import first_problem

FIELD = "file"
NO_BASE64 = re.compile(r"[^A-Za-z0-9+/=]")
BINARY = {"type": "string", "format": "binary"}
PREDICT_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": [FIELD],
                "additionalProperties": False,
                "properties": {FIELD: {"type": "array", "items": BINARY, "minItems": 1}},
            },
            "encoding": {FIELD: {"contentType": "image/*"}},
        },
        "image/*": {"schema": BINARY},
        "application/octet-stream": {"schema": BINARY},
        "application/json": {
            "schema": PredictBody.model_json_schema(),
            # A red pixel, as PNG.
            "example": {
                "image": "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
            },
        },
    },
}
FORM = PREDICT_BODY["content"]["multipart/form-data"]
# As `POST /predict`, but for the number of files.
PICTURE_BODY: dict[str, Any] = {
    "required": True,
    "content": PREDICT_BODY["content"]
    | {
        "multipart/form-data": FORM
        | {
            "schema": FORM["schema"]
            | {"properties": {FIELD: {"type": "array", "items": BINARY, "minItems": 1, "maxItems": 1}}}
        }
    },
}

IMAGE_ERRORS = (errors.EmptyImage, errors.BrokenImage, errors.UnsupportedImage, errors.ImageTooLarge)
BODY_ERRORS = (
    errors.BodyTooSlow,
    errors.BodyTooLarge,
    errors.UnsupportedMediaType,
    errors.NoImage,
    errors.TooManyImages,
)

T = TypeVar("T")


async def in_time(body: Awaitable[T], seconds: float) -> T:
    """Await a body, but no longer than so many seconds.

    Raises:
        BodyTooSlow: it did not arrive in time.
    """
    async with Deadline(seconds, lambda: BodyTooSlow(f"expected the whole body within {seconds:g} s")):
        return await body


async def read_picture(request: Request, seconds: float) -> Picture:
    """Read the body's one picture.

    Raises:
        BodyTooSlow: it did not arrive within so many seconds.
        ClientError: see `read_pictures`.
    """
    (picture,) = await in_time(read_pictures(request, 1), seconds)
    return picture


async def read_pictures(request: Request, max_images: int) -> list[Picture]:
    """Read the body in the form that its content type tells.

    Raises:
        UnsupportedMediaType: the content type is none of the three.
        InvalidRequest: the body is not of that form.
        NoImage: a form without a file.
        TooManyImages: a form of more than `max_images` files.
        BodyTooLarge, Overloaded: from the stream's limits.
    """
    content_type = header(request.scope, b"content-type") or ""
    kind = content_type.split(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return _from_form(content_type, await request.body(), max_images)
    if kind.startswith("image/") or kind == "application/octet-stream":
        return [Picture(await request.body())]
    if kind == "application/json":
        return [_from_json(await request.body())]
    raise UnsupportedMediaType(
        f"expected multipart/form-data with a field `{FIELD}`, image/* or application/json, got {kind or 'no type'}"
    )


def from_base64(encoded: str, name: str) -> bytes:
    """Decode what RFC 4648, section 4, has encoded, alone or in a `data:` URL, as a browser's canvas gives it.

    Raises:
        InvalidRequest: it is not base64.
    """
    if encoded.startswith("data:"):
        kind, _, encoded = encoded.partition(",")
        if not kind.endswith(";base64"):
            raise InvalidRequest(f"expected `{name}` in base64, as `data:image/png;base64,...`, got {kind[:40]!r}")
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        wrong = NO_BASE64.search(encoded)
        came = f"{wrong[0]!r} as character {wrong.start() + 1}" if wrong else f"what is none: {error}"
        raise InvalidRequest(f"expected `{name}` in base64 (RFC 4648, section 4), got {came}") from None


def _from_form(content_type: str, body: bytes, max_images: int) -> list[Picture]:
    parts = read_form(content_type, body, max_images)
    if unknown := {part.field for part in parts} - {FIELD}:
        raise InvalidRequest(f"expected the field `{FIELD}` only, got {', '.join(sorted(unknown))}")
    if not parts:
        raise NoImage(f"expected one or several files in the field `{FIELD}`, got none")
    if any(part.filename is None for part in parts):
        raise InvalidRequest(f"expected files in the field `{FIELD}`, got text")
    return [Picture(part.content, part.filename) for part in parts]


def _from_json(body: bytes) -> Picture:
    # One key and one string of base64: looked for before a parser builds a million of them.
    if body.count(b'"') > 4 or body.count(b",") > 1:
        raise InvalidRequest(
            'expected {"image": "<base64>"} and nothing beside it, got more: parameters go in the query'
        )
    try:
        encoded = PredictBody.model_validate_json(body).image
    except ValidationError as invalid:
        raise InvalidRequest(f'expected {{"image": "<base64>"}}; {first_problem(invalid, "the body")}') from None
    return Picture(from_base64(encoded, "image"))
