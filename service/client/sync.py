"""The client that blocks until it has an answer."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from time import monotonic, sleep
from types import TracebackType
from typing import Concatenate, ParamSpec, TypeVar

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


def _asked(describe: Callable[P, Call[T]]) -> Callable[Concatenate[Client, P], T]:
    """A call's description as a method that makes it."""

    @wraps(describe)
    def ask(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._make(describe(*args, **kwargs))

    ask.__signature__ = method_signature(describe)  # type: ignore[attr-defined]
    return ask


class Client:
    """Asks a running service. Any number of threads may share one; close it, or use it in a `with`.

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
            self._http = httpx.Client(**opening(server, key, verify))

    def __enter__(self) -> Client:
        """Nothing is sent yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

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

    def follow(self, job: ExplanationJob | str) -> Iterator[ExplanationJob]:
        """An explanation now and after each change, until it is over: its last state is `done`, `failed` or
        `cancelled`. Where the connection breaks, it goes on with another.

        Raises NotFound, `unknown_explanation`, where there is none, and what `Client`'s calls raise.
        """
        return self._follow(job, Patience(Retries(self._retries.times, self._retries.longest), self._timeout))

    def _make(self, call: Call[T]) -> T:
        patience = Patience(self._retries, self._timeout)
        step = advance(call, None)
        while isinstance(step, Request):
            if step.after is not None:
                for _ in self._follow(step.after, patience):
                    pass
            step = advance(call, self._send(step, patience))
        return step.value

    def _send(self, request: Request, patience: Patience) -> Answer:
        patience.begin()
        while True:
            seconds = patience.seconds()
            try:
                with self._opened(request, seconds) as response:
                    answer = _read(response, monotonic() + seconds)
            except NoAnswer as failure:
                sleep(patience.after_failure(request, failure))
                continue
            wait = patience.after_refusal(request, answer)
            if wait is None:
                return answer
            sleep(wait)

    def _follow(self, job: ExplanationJob | str, patience: Patience) -> Iterator[ExplanationJob]:
        following = Following(job)
        patience.begin()
        while not following.over:
            seconds = patience.seconds()
            failure: SichtbarError = ConnectionLost("the stream of events ended before the explanation did")
            try:
                with self._opened(following.request(), seconds, EVENT_SECONDS) as response:
                    if response.status_code != 200:
                        _read(response, monotonic() + seconds).checked()
                    for piece in response.iter_bytes():
                        for known in following.feed(piece):
                            patience.begin()
                            yield known
                        patience.seconds()
            except (NoAnswer, RateLimited, Unavailable) as error:
                failure = error
            if not following.over:
                sleep(patience.after_break(failure))

    @contextmanager
    def _opened(self, request: Request, seconds: float, silence: float | None = None) -> Iterator[httpx.Response]:
        """An answer whose body is still to come."""
        asked = content(request, seconds, self._request_id)
        with (
            own_errors(),
            self._http.stream(request.method, request.path, timeout=timeouts(seconds, silence), **asked) as response,
        ):
            yield response


def _read(response: httpx.Response, until: float) -> Answer:
    body = Body(until)
    for piece in response.iter_bytes():
        body.add(piece, monotonic())
    return body.answer(response)
