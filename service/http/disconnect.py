"""Work for a client that may go: when it does, the work ends as well."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

T = TypeVar("T")
# Where a connection puts it in the state of its requests.
PRESENCE = "presence"


class Presence:
    """Whether the client at the other end of a connection is there, and whom to tell when it has gone."""

    def __init__(self) -> None:
        self.gone = False
        self._told: set[Callable[[], object]] = set()

    def leave(self) -> None:
        """It has gone."""
        self.gone = True
        for tell in tuple(self._told):
            tell()

    @contextmanager
    def tells(self, tell: Callable[[], object]) -> Iterator[None]:
        """Call `tell` when it goes, while the context is open."""
        self._told.add(tell)
        try:
            yield
        finally:
            self._told.discard(tell)


@contextmanager
def while_there(request: Request) -> Iterator[None]:
    """Cancel what is awaited inside when the client goes.

    Its connection tells: every prediction is watched so, and a task that listens, as below, takes ten times as long.

    Raises:
        ClientDisconnect: it has gone.
    """
    presence: Presence | None = request.scope.get("state", {}).get(PRESENCE)
    if presence is None:
        yield
        return
    if presence.gone:
        raise ClientDisconnect
    task = asyncio.current_task()
    assert task is not None
    with presence.tells(task.cancel):
        try:
            yield
        except asyncio.CancelledError:
            if not presence.gone:
                raise
            if sys.version_info >= (3, 11):
                task.uncancel()
            raise ClientDisconnect from None


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
