"""A `/predict` request's body in, picture files out: multipart, raw bytes or JSON."""

from __future__ import annotations

import base64
import binascii

from fastapi import Request
from pydantic import ValidationError

from service.classifier import Picture
from service.errors import InvalidRequest, NoImage, UnsupportedMediaType
from service.http.multipart import read_form
from service.http.schemas import PredictBody

FIELD = "file"


async def read_pictures(request: Request, max_images: int) -> list[Picture]:
    """Read the body in the form that its content type tells.

    Raises:
        UnsupportedMediaType: the content type is none of the three.
        InvalidRequest: the body is not of that form.
        NoImage: a form without a file.
        TooManyImages: a form of more than `max_images` files.
        BodyTooLarge, Overloaded: from the stream's limits.
    """
    content_type = request.headers.get("content-type", "")
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
        raise InvalidRequest('expected {"image": "<base64>"} and nothing beside it, got more')
    try:
        encoded = PredictBody.model_validate_json(body).image
    except ValidationError as invalid:
        problem = invalid.errors()[0]
        where = ".".join(map(str, problem["loc"])) or "the body"
        raise InvalidRequest(f'expected {{"image": "<base64>"}}; {where}: {problem["msg"]}') from None
    try:
        return Picture(base64.b64decode(encoded, validate=True))
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest(f"expected `image` in base64: {error}") from None
