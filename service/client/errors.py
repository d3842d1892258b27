"""Everything that the client raises, by what to do about it; files that cannot be read stay Python's own OSError.

SichtbarError
├── NotSent                     what was given cannot be sent: it must change
├── NoAnswer                    the service did not answer
│   ├── Unreachable             there is no connection, so that nothing was asked
│   ├── TimedOut                it took too long
│   └── ConnectionLost          the connection broke before the answer was there
├── UnexpectedAnswer            what answered is not this service, or of another version
└── Refused                     the service answered with a problem; it has a status, a code, a title and a detail
    ├── RequestError            4xx: the request must change before it can succeed
    │   ├── Unauthenticated     401
    │   ├── Forbidden           403
    │   ├── NotFound            404
    │   ├── Gone                410
    │   ├── TooLarge            413
    │   ├── Unsupported         415
    │   └── Invalid             422
    ├── TryLater                the same request may succeed later
    │   ├── RateLimited         429
    │   ├── Unavailable         503
    │   └── DeadlineExceeded    504
    └── ServiceFailed           other 5xx: the service's own failure

`code` tells apart what has one status, as `unknown_model` and `unknown_image`: service/errors.py lists the codes, and a
later service may have more.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx


class SichtbarError(Exception):
    """Anything that the client raises."""


class NotSent(SichtbarError):
    """What was given cannot be sent: it must change."""


class NoAnswer(SichtbarError):
    """The service did not answer."""


class Unreachable(NoAnswer):
    """There is no connection, so that nothing was asked."""


class TimedOut(NoAnswer):
    """It took too long."""


class ConnectionLost(NoAnswer):
    """The connection broke before the answer was there."""


class UnexpectedAnswer(SichtbarError):
    """What answered is not this service, or of another version."""


class Refused(SichtbarError):
    """The service answered with a problem."""

    def __init__(
        self,
        status: int,
        code: str,
        title: str,
        detail: str,
        *,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(f"{code}: {detail}")
        self.status = status
        """Of HTTP."""
        self.code = code
        """The kind of problem, stable: programs may switch on it."""
        self.title = title
        """The kind of problem, in words."""
        self.detail = detail
        """This problem: what was expected and what came."""
        self.request_id = request_id
        """What the service's log calls the request."""
        self.retry_after = retry_after
        """Seconds after which the service said that it may be asked again."""


class RequestError(Refused):
    """The request must change before it can succeed."""


class Unauthenticated(RequestError):
    """The request shows no key that is known there."""


class Forbidden(RequestError):
    """The request shows a key that is not for this call."""


class NotFound(RequestError):
    """There is no such model, version, picture, label, layer, report or explanation, or not any more."""


class Gone(RequestError):
    """The explanation was cancelled or cut short: ask for it again."""


class TooLarge(RequestError):
    """The picture has too many bytes or pixels."""


class Unsupported(RequestError):
    """The bytes are no picture of a format that the service reads."""


class Invalid(RequestError):
    """A parameter or a picture is not as it has to be."""


class TryLater(Refused):
    """The same request may succeed later."""


class RateLimited(TryLater):
    """The key was shown more often than it may be."""


class Unavailable(TryLater):
    """Too much is under way, the service stops, or what it needs is not there at the moment."""


class DeadlineExceeded(TryLater):
    """The service gave up: no answer within the deadline."""


class ServiceFailed(Refused):
    """The service's own failure."""


BY_STATUS: dict[int, type[Refused]] = {
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    410: Gone,
    413: TooLarge,
    415: Unsupported,
    422: Invalid,
    429: RateLimited,
    503: Unavailable,
    504: DeadlineExceeded,
}


def refusal(status: int) -> type[Refused]:
    """The class of a status from 400 on."""
    return BY_STATUS.get(status, RequestError if status < 500 else ServiceFailed)


# The nearest base class decides.
MAPPED: dict[type[Exception], type[SichtbarError]] = {
    httpx.InvalidURL: NotSent,
    httpx.UnsupportedProtocol: NotSent,
    httpx.LocalProtocolError: NotSent,
    httpx.CookieConflict: NotSent,
    httpx.ConnectError: Unreachable,
    httpx.ConnectTimeout: Unreachable,
    httpx.PoolTimeout: Unreachable,
    httpx.ProxyError: Unreachable,
    httpx.TimeoutException: TimedOut,
    httpx.NetworkError: ConnectionLost,
    httpx.ProtocolError: ConnectionLost,
    httpx.StreamError: ConnectionLost,
    httpx.DecodingError: UnexpectedAnswer,
    httpx.TooManyRedirects: UnexpectedAnswer,
    httpx.HTTPStatusError: UnexpectedAnswer,
    httpx.HTTPError: NoAnswer,
}


def mapped(error: Exception) -> SichtbarError | None:
    """What the client raises instead of an exception of httpx's; None: it is none of them."""
    kind = next((MAPPED[base] for base in type(error).__mro__ if base in MAPPED), None)
    return None if kind is None else kind(str(error) or type(error).__name__)


@contextmanager
def own_errors() -> Iterator[None]:
    """Raise the client's own exceptions instead of httpx's."""
    try:
        yield
    except Exception as error:
        own = mapped(error)
        if own is None:
            raise
        raise own from error
