"""What is wrong with a document or a call, by Pydantic, in a line of words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

# Characters of what came.
MOST_SHOWN = 100


def first_problem(invalid: ValidationError, whole: str = "", *, show: bool = True) -> str:
    """Where a document is first not valid, what was expected there, and what came; `whole`: what to call it where it is
    none.
    """
    problem = {**invalid.errors()[0]}
    problem["loc"] = problem["loc"] or ((whole,) if whole else ())
    return described(problem, show=show)


def described(problem: Mapping[str, Any], *, show: bool = True) -> str:
    """One of Pydantic's problems: where it is, what was expected there, and what came, unless a `ValueError` of the
    service's own says that.
    """
    where = ".".join(map(str, problem["loc"]))
    said = problem["msg"].removeprefix("Value error, ")
    text = f"{where}: {said}" if where else said
    return f"{text}, got {_shown(problem.get('input'))}" if show and problem["type"] != "value_error" else text


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=_text).encode("utf-8", "replace").decode()
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}…"


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
