"""Versions swapped under load; `python -m benchmarks.swaps` does it fifty times, and looks at memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from benchmarks.swaps import swap
from tests.conftest import draw, encode
from tests.reliability.conftest import Models

SWAPS, CLIENTS = 4, 16


def test_no_answer_fails_or_is_wrong_while_versions_are_swapped(
    serve_models: Callable[..., Models], times: int
) -> None:
    swaps = SWAPS * times
    models = serve_models(SICHTBAR_VERSIONS="latest:1")
    url, pid = str(models.client.base_url), models.program.process.pid
    picture = encode(draw("square", 1))
    found = asyncio.run(swap(url, pid, models.folder / "shapes", models.source, picture, swaps, CLIENTS))
    assert found.failed == []
    assert found.wrong == []
    assert found.answers.keys() == set(range(1, swaps + 2))
