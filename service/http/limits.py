"""The outermost layer: a request's id, its log line, its metrics, the answer to a bug, and the limit of its body."""

from __future__ import annotations

import asyncio
import math
import re
from time import perf_counter
from uuid import uuid4

import anyio
import structlog
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import BodyTooLarge, DeadlineExceeded, Draining, InvalidRequest, MalformedRequest, Overloaded
from service.http.errors import answer, bug, failure
from service.http.headers import header
from service.metrics import Metrics
from service.tracing import Trace, Tracing

# What a client may call its request: safe in a log line and in a header.
REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
CLIENT_GONE = 499
# Where a connection says, in the state of a request, what is wrong with the rest of its body.
DAMAGE = "damage"
# What a browser must not make of an answer: another type, a frame of another page, a hint where its reader came from.
SAFE = {"x-content-type-options": "nosniff", "x-frame-options": "DENY", "referrer-policy": "no-referrer"}
SAFE_BYTES = [(name.encode(), value.encode()) for name, value in SAFE.items()]
SECONDS = re.compile(r"\d{1,9}(\.\d{1,9})?")
MOST_SECONDS = 3600
METHODS = {"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"}

log = structlog.get_logger()


class RequestContext:
    """Names, times, counts and logs each request, and answers 500 to what nobody expected."""

    def __init__(self, app: ASGIApp, metrics: Metrics, tracing: Tracing) -> None:
        self._app = app
        self._metrics = metrics
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        named = header(scope, b"x-request-id")
        request_id = named if named and REQUEST_ID.fullmatch(named) else uuid4().hex
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        trace = self._tracing.request(_method(scope, "HTTP"), path, scope.get("scheme", "http"), Headers(scope=scope))
        status: int | None = None

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                # An HTTPStatus, which Python before 3.11 writes by its name, is one as well.
                status = int(message["status"])
                headers = [*message["headers"], (b"x-request-id", request_id.encode())]
                if trace is not None:
                    headers.append((b"traceresponse", trace.response.encode()))
                given = {name for name, _ in headers}
                headers += [each for each in SAFE_BYTES if each[0] not in given]
                message = {**message, "headers": headers}
            await send(message)

        started = perf_counter()
        # The server runs each request in a context of its own: nothing need be unbound.
        structlog.contextvars.bind_contextvars(request_id=request_id)
        if trace is not None:
            structlog.contextvars.bind_contextvars(trace_id=trace.id)
        try:
            await self._app(scope, receive, send_named)
        except ClientDisconnect:
            status = CLIENT_GONE
        except asyncio.CancelledError:
            # The server does so to requests that outlast its drain, and would answer in a form of its own.
            if status is None:
                stopped = Draining("the service stopped before it had an answer")
                await answer(failure(scope, stopped), self._metrics, scope, receive, send_named)
        except Exception:
            log.exception("bug")
            if status is None:
                await answer(bug(scope), self._metrics, scope, receive, send_named)
            status = 500
        finally:
            self._record(scope, status or CLIENT_GONE, perf_counter() - started, trace)

    def _record(self, scope: Scope, status: int, seconds: float, trace: Trace | None) -> None:
        route = getattr(scope.get("route"), "path", None)
        self._metrics.request_of(_method(scope, "other"), route or "unmatched", str(status)).inc()
        self._metrics.request_seconds_of(route or "unmatched").observe(seconds)
        if trace is not None:
            trace.end(_method(scope, "HTTP"), route, status)
        log.info("request", method=scope["method"], path=scope["path"], status=status, seconds=round(seconds, 6))


def _method(scope: Scope, other: str) -> str:
    method: str = scope["method"]
    return method if method in METHODS else other


class Deadline:
    """Gives up what the client would not wait for: it says so in `X-Request-Timeout`, in seconds."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI. An answer that has begun goes on."""
        given = header(scope, b"x-request-timeout") if scope["type"] == "http" else None
        if given is None:
            await self._app(scope, receive, send)
            return
        if not SECONDS.fullmatch(given) or not 0 < float(given) <= MOST_SECONDS:
            refused = InvalidRequest(
                f"expected X-Request-Timeout in seconds, more than 0 and at most {MOST_SECONDS}, got {given!r}"
            )
            await answer(failure(scope, refused), self._metrics, scope, receive, send)
            return
        with anyio.move_on_after(float(given)) as patience:

            async def send_in_time(message: Message) -> None:
                patience.deadline = math.inf
                await send(message)

            await self._app(scope, receive, send_in_time)
        if patience.cancelled_caught:
            late = DeadlineExceeded(f"no answer within {given} s, as X-Request-Timeout asks")
            await answer(failure(scope, late), self._metrics, scope, receive, send)


class BodyLimit:
    """Counts bodies' bytes while they stream: one request's, and those of all requests under way."""

    def __init__(self, app: ASGIApp, max_bytes: int, max_total: int) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._max_total = max_total
        self._total = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI. Whoever reads a byte too many gets `BodyTooLarge`, or `Overloaded` where others hold too many; and
        whoever reads what cannot be read, `MalformedRequest`.
        """
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = header(scope, b"content-length") or "0"
        received = 0

        async def receive_counted() -> Message:
            nonlocal received
            if announced.isdecimal() and int(announced) > self._max_bytes:
                raise BodyTooLarge(f"expected at most {self._max_bytes} bytes, got {announced}")
            message = await receive()
            if damage := scope.get("state", {}).get(DAMAGE):
                raise MalformedRequest(damage)
            size = len(message.get("body", b""))
            received += size
            self._total += size
            if received > self._max_bytes:
                raise BodyTooLarge(f"expected at most {self._max_bytes} bytes, got more")
            if self._total > self._max_total:
                raise Overloaded(f"requests under way hold {self._max_total} bytes already")
            return message

        try:
            await self._app(scope, receive_counted, send)
        finally:
            self._total -= received
