"""What both clients tell httpx, and what they make of what it tells."""

from __future__ import annotations

import math
import ssl
from collections.abc import Callable
from typing import Any

import httpx

from service import __version__
from service.client.errors import NotSent, TimedOut
from service.client.exchange import Answer, Request

SERVER = "http://127.0.0.1:8000"
# The service closes a connection on which nothing was asked for 5 s: a request must not meet that.
LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=3.0)
CONNECT_SECONDS = 10.0
# After the service has given up, for its answer to arrive.
GRACE_SECONDS = 2.0
# The service says after 10 s that a stream of events is still there.
EVENT_SECONDS = 30.0
# The service would refuse to wait longer.
MOST_SECONDS = 3600.0
# How much of the time for an answer, and how long at the most, the service waits for an explanation before that becomes
# a job: the rest is for a picture on its way there, and for the answer.
JOB_SHARE, JOB_SECONDS = 0.5, 20.0


def opening(server: str, key: str | None, verify: bool | ssl.SSLContext) -> dict[str, Any]:
    """How an HTTP client is made that asks a service, whichever of the two it is.

    Raises:
        NotSent: `server` is no address of HTTP, or `key` is none that a header can hold.
    """
    return {"base_url": _address(server), "headers": _headers(key), "verify": verify, "limits": LIMITS}


def _address(server: str) -> httpx.URL:
    try:
        known = httpx.URL(server)
    except httpx.InvalidURL as error:
        raise NotSent(f"server: expected an address such as {SERVER}, got {server!r}: {error}") from None
    if known.scheme not in ("http", "https") or not known.host:
        raise NotSent(f"server: expected an address such as {SERVER}, got {server!r}")
    return known


def longest(timeout: float) -> float:
    """Seconds that an answer may take.

    Raises:
        NotSent: nothing can be answered within them.
    """
    if not 0 < timeout < math.inf:
        raise NotSent(f"timeout: expected seconds, more than 0, got {timeout}")
    return timeout


def _headers(key: str | None) -> dict[str, str]:
    """Of every request; white space around the key, as at the end of a file, is none of it."""
    known = {"user-agent": f"sichtbar-client/{__version__}"}
    if key is None:
        return known
    key = key.strip()
    if not key or not all("!" <= character <= "~" for character in key):
        # Nobody may read it in a log.
        raise NotSent(
            "key: expected visible ASCII characters, as `python -m service key` prints them, got others or none"
        )
    return known | {"authorization": f"Bearer {key}"}


def content(request: Request, seconds: float, request_id: Callable[[], str] | None) -> dict[str, Any]:
    """A request as httpx takes it, with how long its answer may take."""
    own = {"x-request-timeout": f"{min(max(seconds, 0.001), MOST_SECONDS):.3f}"}
    if request_id is not None:
        own["x-request-id"] = request_id()
    asked = request.content()
    if request.lasting:
        asked["params"]["wait"] = f"{min(JOB_SHARE * seconds, JOB_SECONDS):.3f}"
    return asked | {"headers": asked["headers"] | own}


def timeouts(seconds: float, silence: float | None = None) -> httpx.Timeout:
    """For httpx; `silence`: how long a stream may say nothing, once it has begun."""
    quiet = seconds + GRACE_SECONDS if silence is None else silence
    return httpx.Timeout(seconds + GRACE_SECONDS, connect=min(seconds, CONNECT_SECONDS), read=quiet)


class Body:
    """An answer's body while it comes: it must be there in time, however slowly it trickles."""

    def __init__(self, until: float) -> None:
        self._until = until + GRACE_SECONDS
        self._bytes = bytearray()

    def add(self, piece: bytes, now: float) -> None:
        """Take a piece.

        Raises:
            TimedOut: it is late.
        """
        self._bytes += piece
        if now > self._until:
            raise TimedOut(f"the answer was not complete in time, after {len(self._bytes)} bytes")

    def answer(self, response: httpx.Response) -> Answer:
        """The whole answer."""
        return Answer(response.status_code, dict(response.headers), bytes(self._bytes))
