"""Routes without FastAPI, and what their paths name."""

from __future__ import annotations

from starlette.requests import Request
from starlette.routing import Match, Route
from starlette.types import Scope

from service.classifier import Classifier
from service.errors import UnknownVersion
from service.manifest import VERSION_NAME
from service.repository import Version


class PlainRoute(Route):
    """A route of the framework below FastAPI.

    FastAPI's own handling of a request costs as much of the event loop's time as reading, classifying and answering.
    """

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
    announced = request.headers.get("content-length", "0")
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
