"""Work for a client that may go: when it does, the work ends as well."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

T = TypeVar("T")


async def until_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Await `work`, but no longer than the client does. The request's body has been read, or it has none.

    Raises:
        ClientDisconnect: it has gone.
        BodyTooLarge, Overloaded: it sends a body that nobody asked for, from the stream's limits.
    """
    working, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        # Retrieved here, it is no error that nobody saw, even if the work is done.
        refused = gone.exception() if gone.done() else None
        if working.done():
            return working.result()
        raise refused or ClientDisconnect
    finally:
        working.cancel()
        gone.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
