"""Routes without FastAPI, and what their paths name."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Receive, Scope, Send

from service.classifier import Classifier
from service.errors import UnknownVersion
from service.http.headers import header
from service.manifest import VERSION_NAME
from service.repository import Version

Answer = Callable[[Request], Coroutine[Any, Any, Response]]


class _Plain:
    """A function from a request to its answer, as an ASGI app. What it raises is answered where all of it is."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._answer(Request(scope, receive, send))
        await response(scope, receive, send)


class PlainRoute(Route):
    """A route of the framework below FastAPI.

    FastAPI's own handling of a request costs as much of the event loop's time as reading, classifying and answering.
    """

    def __init__(
        self, path: str, answer: Answer, *, methods: Sequence[str], middleware: Sequence[Middleware] | None = None
    ) -> None:
        super().__init__(path, _Plain(answer), methods=methods, middleware=middleware)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """As FastAPI's routes do, name the route to whoever counts requests."""
        match, child = super().matches(scope)
        return match, {**child, "route": self}


def service_of(request: Request) -> Classifier:
    """Who answers."""
    classifier: Classifier = request.app.state.classifier
    return classifier


def admit(request: Request, version: Version) -> None:
    """Ask whether a request may wait for a version, before its body is read.

    Raises:
        Overloaded, Draining: see `Classifier.admit`.
    """
    announced = header(request.scope, b"content-length") or "0"
    service_of(request).admit(version, int(announced) if announced.isdecimal() else 0)


def version_of(request: Request) -> Version:
    """The version that the path names by model and number; without a number, the model's highest.

    Raises:
        UnknownModel, UnknownVersion: see `Repository.find`.
    """
    named = request.path_params.get("version")
    return service_of(request).repository.find(
        request.path_params["model"], None if named is None else version_number(named)
    )


def version_number(text: str) -> int:
    """A version's number, as a path has it.

    Raises:
        UnknownVersion: no version can be called so.
    """
    if not VERSION_NAME.fullmatch(text):
        raise UnknownVersion(f"expected a version's number, got {text[:40]!r}")
    return int(text)
