"""The client for programs that do other things meanwhile: asyncio, or trio."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial, wraps
from time import monotonic
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, TypeVar

import anyio
import httpx

import service.client.calls as calls
from service.client.connection import EVENT_SECONDS, SERVER, Body, content, longest, opening, timeouts
from service.client.errors import ConnectionLost, NoAnswer, RateLimited, SichtbarError, Unavailable, own_errors
from service.client.exchange import Answer, Call, Request, advance, method_signature
from service.client.following import Following
from service.client.retries import RETRIES, Patience, Retries
from service.http.schemas import ExplanationJob

P = ParamSpec("P")
T = TypeVar("T")


def _asked(describe: Callable[P, Call[T]]) -> Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]]:
    """A call's description as a method that makes it."""

    @wraps(describe)
    async def ask(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._make(describe(*args, **kwargs))

    ask.__signature__ = method_signature(describe)  # type: ignore[attr-defined]
    return ask


class AsyncClient:
    """As `Client`, for `await`: any number of tasks may share one; close it, or use it in an `async with`.

    `server`: its address, with the path below which a proxy serves it. `key`: an API key, where it wants one.
    `timeout`: seconds that an answer may take; the service is told, and gives up as well. `retries`: see `Retries`.
    `request_id`: called for each request, names it in the service's log; a `ContextVar.get` passes on the name of the
    request that is served meanwhile. `verify`: false, or a context of certificates that are trusted, for HTTPS.

    Raises NotSent where the address, the key or the timeout is none.
    """

    def __init__(
        self,
        server: str = SERVER,
        *,
        key: str | None = None,
        timeout: float = 60.0,
        retries: Retries = RETRIES,
        request_id: Callable[[], str] | None = None,
        verify: bool | ssl.SSLContext = True,
    ) -> None:
        self._timeout = longest(timeout)
        self._retries = retries
        self._request_id = request_id
        with own_errors():
            self._http = httpx.AsyncClient(**opening(server, key, verify))

    async def __aenter__(self) -> AsyncClient:
        """Nothing is sent yet."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it."""
        await self.close()

    async def close(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    predict = _asked(calls.predict)
    explain = _asked(calls.explain)
    explain_numbers = _asked(calls.explain_numbers)
    explain_later = _asked(calls.explain_later)
    job = _asked(calls.job)
    cancel = _asked(calls.cancel)
    preview = _asked(calls.preview)
    result = _asked(calls.result)
    activations = _asked(calls.activations)
    activations_image = _asked(calls.activations_image)
    activations_statistics = _asked(calls.activations_statistics)
    filters = _asked(calls.filters)
    filters_image = _asked(calls.filters_image)
    filters_statistics = _asked(calls.filters_statistics)
    layers = _asked(calls.layers)
    graph = _asked(calls.graph)
    walk = _asked(calls.walk)
    models = _asked(calls.models)
    model = _asked(calls.model)
    card = _asked(calls.card)
    report = _asked(calls.report)
    download_report = _asked(calls.download_report)
    image = _asked(calls.image)
    image_file = _asked(calls.image_file)
    live = _asked(calls.live)
    ready = _asked(calls.ready)

    async def follow(self, job: ExplanationJob | str) -> AsyncIterator[ExplanationJob]:
        """An explanation now and after each change, until it is over: its last state is `done`, `failed` or
        `cancelled`. Where the connection breaks, it goes on with another.

        Raises NotFound, `unknown_explanation`, where there is none, and what `Client`'s calls raise.
        """
        patience = Patience(Retries(self._retries.times, self._retries.longest), self._timeout)
        async for known in self._follow(job, patience):
            yield known

    async def _make(self, call: Call[T]) -> T:
        patience = Patience(self._retries, self._timeout)
        step = await anyio.to_thread.run_sync(partial(advance, call, None))
        while isinstance(step, Request):
            if step.after is not None:
                async for _ in self._follow(step.after, patience):
                    pass
            answer = await self._send(step, patience)
            step = await anyio.to_thread.run_sync(partial(advance, call, answer))
        return step.value

    async def _send(self, request: Request, patience: Patience) -> Answer:
        patience.begin()
        while True:
            seconds = patience.seconds()
            try:
                async with self._opened(request, seconds) as response:
                    answer = await _read(response, monotonic() + seconds)
            except NoAnswer as failure:
                await anyio.sleep(patience.after_failure(request, failure))
                continue
            wait = patience.after_refusal(request, answer)
            if wait is None:
                return answer
            await anyio.sleep(wait)

    async def _follow(self, job: ExplanationJob | str, patience: Patience) -> AsyncIterator[ExplanationJob]:
        following = Following(job)
        patience.begin()
        while not following.over:
            seconds = patience.seconds()
            failure: SichtbarError = ConnectionLost("the stream of events ended before the explanation did")
            try:
                async with self._opened(following.request(), seconds, EVENT_SECONDS) as response:
                    if response.status_code != 200:
                        (await _read(response, monotonic() + seconds)).checked()
                    async for piece in response.aiter_bytes():
                        for known in following.feed(piece):
                            patience.begin()
                            yield known
                        patience.seconds()
            except (NoAnswer, RateLimited, Unavailable) as error:
                failure = error
            if not following.over:
                await anyio.sleep(patience.after_break(failure))

    @asynccontextmanager
    async def _opened(
        self, request: Request, seconds: float, silence: float | None = None
    ) -> AsyncIterator[httpx.Response]:
        """An answer whose body is still to come."""
        asked = content(request, seconds, self._request_id)
        with own_errors():
            opened = self._http.stream(request.method, request.path, timeout=timeouts(seconds, silence), **asked)
            async with opened as response:
                yield response


async def _read(response: httpx.Response, until: float) -> Answer:
    body = Body(until)
    async for piece in response.aiter_bytes():
        body.add(piece, monotonic())
    return body.answer(response)
