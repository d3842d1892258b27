"""What commands that ask a running service share: where it is, with which key, and what is said when it goes wrong."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import typer
from rich.console import Console
from rich.progress import Progress

from service.client import (
    Forbidden,
    NoAnswer,
    NotSent,
    Refused,
    SichtbarError,
    Unauthenticated,
    UnexpectedAnswer,
    Unreachable,
)
from service.commands.sources import SourceError
from service.errors import ServiceError
from service.explain.folder import NotWritten

Key = Annotated[
    str | None,
    typer.Option(help="API key, where the service wants one.", envvar="SICHTBAR_API_KEY", show_envvar=True),
]

CODES: dict[type[Exception], str] = {
    Unreachable: "no_service",
    NoAnswer: "no_answer",
    NotSent: "not_sent",
    UnexpectedAnswer: "unexpected_answer",
    SourceError: "no_image",
    NotWritten: "not_written",
    OSError: "unreadable",
}
FAILURES = (SichtbarError, SourceError, OSError)
# What would go wrong with every picture.
HOPELESS = (Unreachable, Unauthenticated, Forbidden)


class Problem(NamedTuple):
    """What went wrong, for people and for programs."""

    code: str
    detail: str


def progress() -> Progress:
    """Bars that vanish at the end, for a person who looks on."""
    console = Console(stderr=True)
    return Progress(console=console, transient=True, disable=not console.is_terminal)


def problem(error: Exception, server: str = "") -> Problem:
    """What is said of a failure."""
    if isinstance(error, Refused):
        return Problem(error.code, error.detail)
    if isinstance(error, ServiceError):
        return Problem(error.code, str(error))
    code = next(code for kind, code in CODES.items() if isinstance(error, kind))
    if isinstance(error, Unreachable):
        return Problem(
            code,
            f"no service answers at {server} ({error}): start one with ./scripts/serve, or name another by --server",
        )
    return Problem(code, str(error))
