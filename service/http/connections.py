"""One connection: a request's head must be one, arrive in time, and be of a bounded size; uvicorn bounds neither.

Without that a client could hold connections open for ever, byte by byte ("slowloris"), or fill the memory with headers.
And where more comes than can be begun, it is turned away here, before anything is made of it.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus

import structlog
from httptools import (
    HttpParserCallbackError,
    HttpParserError,
    HttpParserInvalidMethodError,
    HttpParserInvalidURLError,
    HttpParserUpgrade,
    HttpRequestParser,
    parse_url,
)
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.errors import MalformedRequest
from service.http.disconnect import PRESENCE, Presence
from service.http.door import Door
from service.http.errors import BUG, PROBLEM_TYPE, problem_of
from service.http.limits import DAMAGE
from service.http.schemas import Problem
from service.metrics import Metrics

# Beyond what comes with its first bytes; as many may stand between two parts of a body, or behind it.
MAX_HEAD_BYTES = 64 * 1024
HEAD_SECONDS = 10.0
# How long a connection without a request stays once the server stops: one may be on its way.
LINGER_SECONDS = 0.5

TOO_SLOW = Problem(
    title="The request's head did not arrive in time",
    status=408,
    detail=f"expected the request line and headers within {HEAD_SECONDS:g} s",
    code="head_too_slow",
)
TOO_LARGE = Problem(
    title="The request's head is too large",
    status=431,
    detail=f"expected at most {MAX_HEAD_BYTES} bytes of request line and headers, got more",
    code="head_too_large",
)


log = structlog.get_logger()


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1, with these bounds; the app's lifespan names the `door` and the `metrics`, if it has them.

    Nothing else is spoken: who asks for WebSocket or HTTP/2 by `Upgrade` is answered as if he had not.
    When it stops, what was sent before is answered, whether it was read or not.
    """

    _arriving = _unwanted = _stopping = False
    # What comes behind a head or a body that cannot be read is not looked at.
    _over = False
    _refusal: Problem | None = None
    _awaited: asyncio.TimerHandle | None = None
    _begun = False
    _bytes = _beside = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client that sends nothing is as slow as one can be."""
        super().connection_made(transport)
        self._presence = Presence()
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing more is awaited, nor for whoever waited here."""
        self._end_head()
        super().connection_lost(exc)
        self._presence.leave()

    def data_received(self, data: bytes) -> None:
        """Count what comes of a head that was begun before and is not complete after, or beside a body."""
        if self._over:
            return
        begun = self._begun
        self._unset_keepalive_if_required()
        if self._arriving:
            self._beside += len(data)
        try:
            self._read(data)
            if self._beside > MAX_HEAD_BYTES:
                raise HttpParserError(f"more than {MAX_HEAD_BYTES} bytes of chunks' sizes or trailers")
        except HttpParserError as error:
            self._give_up(error)
            return
        if begun and self._begun:
            self._bytes += len(data)
            if self._bytes > MAX_HEAD_BYTES:
                self._refuse(TOO_LARGE)
        # What comes after its answer has as much time as a head; most heads come whole.
        if (self._begun or self._unwanted) and self._awaited is None:
            self._await_head()

    def _read(self, data: bytes) -> None:
        while data:
            try:
                self.parser.feed_data(data)
            except HttpParserUpgrade as asked:
                # The parser has taken the end of the head for that of the request.
                (read,) = asked.args
                kept = [b"%b: %b\r\n" % header for header in self.headers if header[0] != b"upgrade"]
                line = b"%b %b HTTP/%b\r\n" % (
                    self.parser.get_method(),
                    self.url,
                    self.parser.get_http_version().encode(),
                )
                data = b"".join((line, *kept, b"\r\n", data[read:]))
                # That parser takes nothing more where the connection is to be closed.
                self.parser = HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
            else:
                return

    def _give_up(self, error: HttpParserError) -> None:
        """Say what is wrong with a request, and hear no other: nobody knows where the next one would begin."""
        self._over = True
        cause = error.__context__ if isinstance(error, HttpParserCallbackError) else error
        if not isinstance(cause, HttpParserError):
            log.error("bug", exc_info=cause)
            self._begun = True
            self._refuse(BUG)
        elif self._unwanted:
            self.transport.close()
        elif self._arriving:
            # Who reads the body is told, and answers.
            self.cycle.scope["state"][DAMAGE] = f"expected a valid HTTP/1.1 body, got an invalid one: {cause}"
            self.cycle.keep_alive = False
            self.cycle.message_event.set()
        else:
            self._begun = True
            malformed = MalformedRequest(f"expected a valid HTTP/1.1 request, got an invalid one: {cause}")
            self._refuse(problem_of(malformed))

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self.scope["state"][PRESENCE] = self._presence
        self._begun = True

    def on_headers_complete(self) -> None:
        """The rest is the body, which has bounds of its own."""
        if self.parser.get_method() == b"CONNECT":
            raise HttpParserInvalidMethodError("CONNECT is for proxies")
        if self.parser.should_upgrade():
            return
        self._end_head()
        if not self.url.startswith(b"/"):
            self.url = _without_host(self.url)
        self._arriving = True
        door: Door | None = self.app_state.get("door")
        # What has no body costs little, and tells whoever watches how it goes.
        costs = door is not None and self.parser.get_method() == b"POST"
        # An answer must not overtake that to an earlier request.
        if door is None or not costs or door.takes(self.loop) or self._answers_another():
            super().on_headers_complete()
        else:
            self._turn_away(door)
        if self._stopping and self._answers_another():
            self.cycle.keep_alive = False
        # Trailers are none of the request's headers.
        self.headers = []

    def on_response_complete(self) -> None:
        """An answer may come before all of its request has."""
        super().on_response_complete()
        self._unwanted = self._arriving and not self._answers_another()
        if self._refusal is not None and not self._answers_another():
            self._say(self._refusal)

    def on_body(self, body: bytes) -> None:
        """Nobody reads what was answered already."""
        self._beside = 0
        if not self._unwanted:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """After what was answered already the next request may come."""
        if self.parser.should_upgrade():
            return
        self._arriving, self._beside = False, 0
        if not self._unwanted:
            super().on_message_complete()
            return
        self._unwanted = False
        self._end_head()
        self._unset_keepalive_if_required()
        if self._keeps_alive():
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
        else:
            self.transport.close()

    def _turn_away(self, door: Door) -> None:
        refusal = door.refuse(self.loop, self.url.decode("latin-1"))
        close = b"" if self._keeps_alive() else b"connection: close\r\n"
        self.transport.write(refusal.head + close + b"\r\n" + refusal.body)
        self._unwanted = True

    def _answers_another(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _keeps_alive(self) -> bool:
        return bool(self.parser.should_keep_alive()) and not self._stopping

    def shutdown(self) -> None:
        """Answer no request but those that are here, or about to be."""
        self._stopping = True
        if self._answers_another():
            super().shutdown()
        else:
            self.loop.call_later(LINGER_SECONDS, self._leave)

    def _leave(self) -> None:
        if not self._answers_another():
            self.transport.close()

    def _await_head(self) -> None:
        self._awaited = self.loop.call_later(HEAD_SECONDS, self._refuse, TOO_SLOW)

    def _end_head(self) -> None:
        self._begun, self._bytes = False, 0
        if self._awaited is not None:
            self._awaited.cancel()
            self._awaited = None

    def _refuse(self, problem: Problem) -> None:
        begun = self._begun
        self._end_head()
        if not begun:
            # A browser opens connections before it needs them.
            self.transport.close()
            return
        metrics: Metrics | None = self.app_state.get("metrics")
        if metrics is not None:
            metrics.errors.labels(problem.code).inc()
        log.info("head_refused", status=problem.status, code=problem.code, detail=problem.detail)
        if self._answers_another():
            # No answer may stand amid another.
            self._over, self._refusal = True, problem
        else:
            self._say(problem)

    def _say(self, problem: Problem) -> None:
        if not self.transport.is_closing():
            body = problem.model_dump_json().encode()
            head = (
                f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}\r\ncontent-type: {PROBLEM_TYPE}\r\n"
                f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + body)
            self.transport.close()


def _without_host(url: bytes) -> bytes:
    """The path and query of an address as proxies are asked for it; without a path it means `/`."""
    try:
        parsed = parse_url(url)
    except HttpParserInvalidURLError:
        raise HttpParserInvalidURLError(f"no address: {url.decode('latin-1')}") from None
    return (parsed.path or b"/") + (b"?" + parsed.query if parsed.query else b"")
