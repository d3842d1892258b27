"""One JSON object a line on standard output, from us and from every library."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from contextlib import suppress
from time import monotonic

import structlog
from pydantic_core import to_json
from structlog.typing import EventDict, Processor

DELETE = b"\x7f"
SELDOM_SECONDS = 60.0
SHARED: list[Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    # Without local variables: they hold strangers' pictures.
    structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False)),
]


class Seldom:
    """Whether it is time, once a minute, to log what may happen many times a second."""

    def __init__(self) -> None:
        self._quiet_until = -1.0

    def __call__(self) -> bool:
        """The first time, and the next a minute later."""
        if monotonic() < self._quiet_until:
            return False
        self._quiet_until = monotonic() + SELDOM_SECONDS
        return True


def configure_logging(level: str, **bound: object) -> None:
    """Send structlog's and the standard library's records the same way, each with what is `bound`. Only a program calls
    this, at its start.
    """

    def bind(logger: object, method: str, event: EventDict) -> EventDict:
        return {**event, **bound}

    shared: list[Processor] = [*SHARED, bind] if bound else SHARED
    number = logging.getLevelName(level.upper())
    structlog.configure(
        processors=[*shared, _as_json],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stdout),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _as_json,
            ],
        )
    )
    handler.addFilter(_is_no_startup_failure)
    logging.captureWarnings(True)
    # They are about strangers' pictures, which get an answer of their own.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    logging.basicConfig(handlers=[handler], level=max(number, logging.WARNING), force=True)


def _as_json(logger: object, method: str, event: EventDict) -> str:
    # Every request has a line: Python's own encoder takes five times as long. It is for what a terminal, or whoever
    # splits lines, might take for more than text, and for names that are none.
    with suppress(ValueError):
        line = to_json(event, fallback=repr, inf_nan_mode="strings")
        if line.isascii() and DELETE not in line:
            return line.decode()
    return json.dumps(event, default=repr).replace("\x7f", "\\u007f")


def _is_no_startup_failure(record: logging.LogRecord) -> bool:
    # uvicorn repeats a failed start, and its traceback as text; create_app has said the reason in one line already.
    repeated = ("Traceback (most recent call last)", "Application startup failed")
    return not (record.name == "uvicorn.error" and str(record.msg).startswith(repeated))
