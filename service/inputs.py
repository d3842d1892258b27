"""What people write into queries, documents and variables: plain numbers, and no name that nobody knows."""

from __future__ import annotations

import re
from collections.abc import Callable

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator
from pydantic_core import PydanticCustomError


def _plain(pattern: str, expected: str, *others: type) -> Callable[[object], object]:
    # Python's own numbers may have signs, spaces and underscores: a typo would pass for a number. And of JSON Pydantic
    # takes `true` for 1, and 5.0 for whole: types that are no such number are the `others`.
    written = re.compile(pattern, re.ASCII)

    def check(given: object) -> object:
        if isinstance(given, others) or (isinstance(given, str) and not written.fullmatch(given)):
            raise PydanticCustomError("plain_number", "expected {plain}", {"plain": expected})
        return given

    return check


# Outermost, so that a document of the API still tells what bounds a number has.
WHOLE = BeforeValidator(_plain(r"-?\d+", "a whole number in digits, such as 5", bool, float))
NUMBER = BeforeValidator(_plain(r"-?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", "a number, such as 0.5", bool))


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
