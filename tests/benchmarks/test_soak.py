"""What is made of a soak's figures, and that a short one runs."""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.soak import SWAPPED, Soaked, soak
from tests.conftest import ROOT
from tests.service.test_main import Program, start  # noqa: F401 - a fixture.

MIB = 2**20


def soaked(*megabytes: tuple[int, int], errors: tuple[str, ...] = ()) -> Soaked:
    sizes = [(service * MIB, explainer * MIB) for service, explainer in megabytes]
    return Soaked(Counter({"GET /models 200": 9}), list(errors), 2, sizes)


def test_growth_is_the_last_over_that_after_the_first_minutes() -> None:
    found = soaked((100, 700), (200, 800), (210, 780), (204, 816))
    assert found.growth(2) == (pytest.approx(1.02), pytest.approx(1.02))
    assert found.problems(2) == []


def test_a_short_soak_is_held_against_its_last_mark() -> None:
    assert soaked((100, 700), (200, 800)).growth(5) == (1, 1)


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        (soaked((100, 700), (106, 700)), "memory of the service: expected at most 105% of that at mark 1, got 106.0%"),
        (soaked((100, 700), (100, 770)), "memory of the process that explains: expected at most 105%"),
        (soaked((100, 700), errors=("GET /a: expected 200, got 500", "b")), "2 unexpected answers, such as GET /a"),
    ],
    ids=["service", "explainer", "error"],
)
def test_what_is_not_as_it_should_be_is_told(found: Soaked, problem: str) -> None:
    (told,) = found.problems(1)
    assert told.startswith(problem)


def test_a_short_soak_asks_for_everything_and_gets_it(
    tmp_path: Path,
    start: Callable[..., Program],  # noqa: F811
) -> None:
    models = shutil.copytree(ROOT / "models", tmp_path / "models")
    program = start(
        SICHTBAR_MODELS=str(models),
        SICHTBAR_DEFAULT_MODEL=SWAPPED,
        SICHTBAR_VERSIONS=f"all {SWAPPED}=latest:1",
        SICHTBAR_SETTLE_SECONDS="0.2",
    )
    url = str(program.wait_for("serving")["url"])
    found = asyncio.run(soak(url, program.process.pid, models, minutes=0.1, clients=3, swap_minutes=0.05))
    assert found.errors == []
    assert found.swaps == 1
    assert len(found.resident) == 1
    assert {call.split()[1].split("/")[1] for call in found.calls} >= {"predict", "v1", "v2"}
