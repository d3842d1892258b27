"""One header of a request."""

from __future__ import annotations

from starlette.types import Scope


def header(scope: Scope, name: bytes) -> str | None:
    """A header's first value, by its name in lower case.

    Every request is asked for several that it mostly has not: Starlette's mapping raises and catches an exception then.
    """
    for each, value in scope["headers"]:
        if each == name:
            text: str = value.decode("latin-1")
            return text
    return None
