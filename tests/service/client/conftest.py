"""Both clients, asked alike: a test is a sentence about either."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal

from service.client import AsyncClient, Client, retries
from service.http.schemas import ExplanationJob


class Blocking:
    """An `AsyncClient` on an event loop of its own, whose calls are waited for."""

    def __init__(self, client: AsyncClient, run: Callable[..., Any]) -> None:
        self._client = client
        self._run = run

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *args, **options: self._run(partial(getattr(self._client, name), *args, **options))

    def follow(self, job: ExplanationJob | str) -> Iterator[ExplanationJob]:
        events = self._client.follow(job)

        async def step() -> ExplanationJob | None:
            return await anext(events, None)

        while (known := self._run(step)) is not None:
            yield known
        self._run(events.aclose)


@contextmanager
def blocking(*args: Any, **options: Any) -> Iterator[Blocking]:
    with start_blocking_portal() as portal:

        async def make() -> AsyncClient:
            return AsyncClient(*args, **options)

        client = portal.call(make)
        yield Blocking(client, portal.call)
        portal.call(client.close)


Connect = Callable[..., Any]


@pytest.fixture(params=["sync", "async"])
def connect(request: pytest.FixtureRequest) -> Iterator[Connect]:
    """Make a client of either kind; it is closed at the end."""
    made: Callable[..., AbstractContextManager[Any]] = Client if request.param == "sync" else blocking
    with ExitStack() as open_until_then:
        yield lambda *args, **options: open_until_then.enter_context(made(*args, **options))


@pytest.fixture
def client(connect: Connect, live: Any) -> Any:
    """A client of the live server."""
    return connect(str(live.base_url))


@pytest.fixture
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody says when to come again, it is at once."""
    monkeypatch.setattr(retries, "FIRST_WAIT", 0.0)
