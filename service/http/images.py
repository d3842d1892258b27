"""A kept picture, as its sender sent it."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, Path, Response
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from service import errors
from service.decode import media_type
from service.http.bodies import BINARY
from service.http.errors import responses
from service.http.etags import ETAG, IfNoneMatch, unless_held
from service.http.native import Nothing, Service
from service.http.schemas import ImageId

router = APIRouter()

# The server takes one once the last has gone, and each must go within the time a body may take to arrive.
PIECE = 64 * 1024
HEADERS = {
    # A stranger's bytes: a picture, whatever else they may also be.
    "content-security-policy": "default-src 'none'; sandbox",
    "content-disposition": "inline",
}
FOUND: dict[int | str, dict[str, Any]] = {
    200: {"description": "The picture.", "headers": ETAG, "content": {"image/*": {"schema": BINARY}}},
    304: {"description": "The client's copy is still right.", "headers": ETAG},
}


class _Sent(Response):
    """A picture that is in hand until it has been sent."""

    held: AsyncExitStack
    seconds: float

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI.

        Raises:
            ClientDisconnect: the client does not read.
        """
        async with self.held:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            for place in range(0, len(self.body), PIECE):
                piece = self.body[place : place + PIECE]
                await self._send({"type": "http.response.body", "body": piece, "more_body": True}, send)
            await self._send({"type": "http.response.body"}, send)

    async def _send(self, message: Message, send: Send) -> None:
        try:
            with anyio.fail_after(self.seconds):
                await send(message)
        except TimeoutError:
            raise ClientDisconnect from None


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
    async with AsyncExitStack() as held:
        data = await held.enter_async_context(service.picture(image_id))

        async def send() -> Response:
            kind = await anyio.to_thread.run_sync(media_type, data)
            return _Sent(data, media_type=kind, headers=headers)

        answer = await unless_held(headers, if_none_match, send)
        if isinstance(answer, _Sent):
            answer.held, answer.seconds = held.pop_all(), service.settings.timeout
        return answer
