"""Compressed bodies in, what they hold out: gzip and deflate, in pieces, so that a limit can count while they grow."""

from __future__ import annotations

import asyncio
import zlib

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import InvalidRequest, UnsupportedMediaType
from service.http.headers import header

PIECE = 65_536
# zlib's names for the two formats; HTTP's `deflate` is zlib's own (RFC 9110, 8.4.1.2).
WINDOW_BITS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


class Inflate:
    """Inflates the bodies that say so in `Content-Encoding`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI. Whoever reads a body gets `InvalidRequest` where it is damaged."""
        if scope["type"] == "http":
            encoding = (header(scope, b"content-encoding") or "").strip().lower()
            if encoding not in ("", "identity"):
                receive = _Inflated(encoding, receive)
        await self._app(scope, receive, send)


class _Inflated:
    """Receives a compressed body, and gives it inflated."""

    def __init__(self, encoding: str, receive: Receive) -> None:
        self._encoding = encoding
        self._receive = receive
        self._inflating = zlib.decompressobj(WINDOW_BITS.get(encoding, zlib.MAX_WBITS))
        self._arriving = True

    async def __call__(self) -> Message:
        if self._encoding not in WINDOW_BITS:
            raise UnsupportedMediaType(f"expected gzip or deflate as Content-Encoding, got {self._encoding[:40]!r}")
        # Others have their turn between two pieces: a body may grow a thousandfold.
        await asyncio.sleep(0)
        while True:
            compressed = self._inflating.unconsumed_tail
            if self._arriving and not compressed:
                message = await self._receive()
                if message["type"] != "http.request":
                    return message
                compressed, self._arriving = message.get("body", b""), message.get("more_body", False)
            elif self._inflating.eof:
                # The body is over; what comes is the client's leaving.
                return await self._receive()
            piece = self._inflate(compressed)
            more = self._arriving or not self._inflating.eof
            if piece or not more:
                return {"type": "http.request", "body": piece, "more_body": more}

    def _inflate(self, compressed: bytes) -> bytes:
        try:
            piece = self._inflating.decompress(compressed, PIECE)
        except zlib.error:
            raise self._damaged() from None
        cut_off = not (piece or compressed or self._arriving or self._inflating.eof)
        if cut_off or self._inflating.unused_data:
            raise self._damaged()
        return piece

    def _damaged(self) -> InvalidRequest:
        return InvalidRequest(f"expected a body in {self._encoding}, got one that is damaged")
