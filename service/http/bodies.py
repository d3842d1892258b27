"""A `/predict` request's body in, picture files out: multipart, raw bytes or JSON."""

from __future__ import annotations

import base64
import binascii

from fastapi import Request
from pydantic import ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from service.classifier import Picture
from service.errors import InvalidRequest, NoImage, UnsupportedMediaType
from service.http.schemas import PredictBody

FIELD = "file"


async def read_pictures(request: Request, max_bytes: int) -> list[Picture]:
    """Read the body in the form that its content type tells.

    Raises:
        UnsupportedMediaType: the content type is none of the three.
        InvalidRequest: the body is not of that form.
        NoImage: a form without a file.
        BodyTooLarge: from the stream's limit.
    """
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await _from_form(request, max_bytes)
    if kind.startswith("image/") or kind == "application/octet-stream":
        return [Picture(await request.body())]
    if kind == "application/json":
        return [_from_json(await request.body())]
    raise UnsupportedMediaType(
        f"expected multipart/form-data with a field `{FIELD}`, image/* or application/json, got {kind or 'no type'}"
    )


async def _from_form(request: Request, max_bytes: int) -> list[Picture]:
    parser = MultiPartParser(request.headers, request.stream())
    # The body's limit bounds the memory; no picture touches the disk.
    parser.spool_max_size = max_bytes
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError) as error:
        raise InvalidRequest(f"expected multipart/form-data, got a body that is none: {error}") from None
    try:
        return await _files(form)
    finally:
        await form.close()


async def _files(form: FormData) -> list[Picture]:
    unknown = set(form) - {FIELD}
    if unknown:
        raise InvalidRequest(f"expected the field `{FIELD}` only, got {', '.join(sorted(unknown))}")
    uploads = form.getlist(FIELD)
    if not uploads:
        raise NoImage(f"expected one or several files in the field `{FIELD}`, got none")
    pictures = []
    for upload in uploads:
        if not isinstance(upload, UploadFile):
            raise InvalidRequest(f"expected files in the field `{FIELD}`, got text")
        pictures.append(Picture(await upload.read(), upload.filename))
    return pictures


def _from_json(body: bytes) -> Picture:
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
