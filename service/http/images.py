"""A kept picture, as its sender sent it."""

from __future__ import annotations

from typing import Annotated, Any

import anyio
from fastapi import APIRouter, Path, Response

from service import errors
from service.decode import media_type
from service.http.bodies import BINARY
from service.http.errors import responses
from service.http.etags import ETAG, IfNoneMatch, unless_held
from service.http.native import Nothing, Service
from service.http.schemas import ImageId

router = APIRouter()

HEADERS = {
    # A stranger's bytes: a picture, whatever else they may also be.
    "content-security-policy": "default-src 'none'; sandbox",
    "content-disposition": "inline",
    "x-content-type-options": "nosniff",
}
FOUND: dict[int | str, dict[str, Any]] = {
    200: {"description": "The picture.", "headers": ETAG, "content": {"image/*": {"schema": BINARY}}},
    304: {"description": "The client's copy is still right.", "headers": ETAG},
}


@router.head("/images/{image_id}", include_in_schema=False)
@router.get(
    "/images/{image_id}",
    summary="A picture that was classified",
    response_class=Response,
    responses=FOUND | responses(errors.UnknownImage, errors.InvalidRequest, errors.Overloaded, errors.StoreUnavailable),
)
async def image(
    image_id: Annotated[ImageId, Path()], query: Nothing, service: Service, if_none_match: IfNoneMatch = None
) -> Response:
    """The file's bytes as they were sent. Pictures expire: unused for a while, or to make room for others."""
    # The name is the content's: what it names never changes.
    lasting = f"private, max-age={service.settings.store_max_seconds}, immutable"
    headers = {**HEADERS, "etag": f'"{image_id}"', "cache-control": lasting}
    async with service.picture(image_id) as data:

        async def send() -> Response:
            kind = await anyio.to_thread.run_sync(media_type, data)
            return Response(data, media_type=kind, headers=headers)

        return await unless_held(headers, if_none_match, send)
