"""What people write into queries, documents and variables: plain numbers, and no name that nobody knows."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator


def _plain(pattern: str, expected: str) -> Callable[[object], object]:
    # Python's own numbers may have signs, spaces and underscores: a typo would pass for a number.
    written = re.compile(pattern, re.ASCII)

    def check(given: object) -> object:
        if isinstance(given, str) and not written.fullmatch(given):
            raise ValueError(f"expected {expected}")
        return given

    return check


# Outermost, so that a document of the API still tells what bounds a number has.
WHOLE = BeforeValidator(_plain(r"-?\d+", "a whole number in digits, such as 5"))
DECIMAL = BeforeValidator(_plain(r"-?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", "a number, such as 0.5"))
Whole = Annotated[int, WHOLE]
Decimal = Annotated[float, DECIMAL]


class Known(BaseModel):
    """A document, or the parameters of a call: a typo in a name must not be ignored silently."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _knows_every_name(cls, given: object) -> object:
        if isinstance(given, dict) and (unknown := sorted(given.keys() - cls.model_fields)):
            names = ", ".join(cls.model_fields)
            raise ValueError(
                f"expected {f'nothing but {names}' if names else 'nothing'}, got {', '.join(unknown)[:100]}"
            )
        return given
