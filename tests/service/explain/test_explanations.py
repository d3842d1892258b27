from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import anyio
import pytest
import structlog

from service.errors import DeadlineExceeded, ExplainerDied, Overloaded
from service.explain import explanations as module
from service.explain.explanations import Asked, Explanations
from service.explain.flights import landed
from service.explain.process import Explainer
from service.explain.question import Question
from service.explain.results import Results
from service.explain.style import Style
from service.metrics import Metrics
from service.repository import Version
from tests.service.explain.test_overlay import lime

pytestmark = pytest.mark.anyio


class Known(SimpleNamespace):
    """Unlike its base, one may refer to it weakly."""


def version() -> Version:
    manifest = SimpleNamespace(name="shapes", version=1)
    known = Known(manifest=manifest, metric_labels=("shapes", "1"), digest="0", engine="openvino", folder=Path("/"))
    return cast(Version, known)


def explaining(run: Callable[..., Awaitable[Any]], **options: float) -> Explanations:
    explainer = cast(Explainer, SimpleNamespace(run=run))
    results = Results(None, max_seconds=60)
    limits: dict[str, Any] = {"limit": 4, "max_bytes": 100, "max_pixels": 100, "seconds": 60.0, **options}
    return Explanations(explainer, results, Metrics(), **limits)


async def never(*arguments: object, **options: object) -> None:
    await anyio.sleep_forever()


async def picture() -> bytes:
    return b"picture"


async def test_an_explanation_takes_no_longer_than_it_may() -> None:
    explanations = explaining(never, seconds=0.05)
    flight = explanations.join(Asked("1" * 64, version(), Question()), b"picture")
    with anyio.fail_after(5), pytest.raises(DeadlineExceeded):
        await landed(flight)
    explanations.leave(flight)


async def test_pictures_of_explanations_are_bounded_until_these_have_landed() -> None:
    explanations = explaining(never, max_bytes=10)
    flight = explanations.join(Asked("1" * 64, version(), Question()), bytes(6))
    with pytest.raises(Overloaded):
        explanations.join(Asked("2" * 64, version(), Question()), bytes(6))
    explanations.leave(flight)
    await asyncio.wait({flight.task})
    explanations.join(Asked("2" * 64, version(), Question()), bytes(6))
    await explanations.close(0)


async def test_too_many_drawings_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_DRAWINGS", 1)
    explanations = explaining(never)

    async def draw(image_id: str) -> None:
        await explanations.draw(Asked(image_id, version(), Question()), lime(), Style(), picture, keep=True)

    async with anyio.create_task_group() as group:
        group.start_soon(draw, "1" * 64)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(Overloaded):
            await draw("2" * 64)
        group.cancel_scope.cancel()


async def test_what_cannot_be_preloaded_is_logged_and_the_next_is_loaded() -> None:
    versions = [version(), version()]

    async def die(*arguments: object, **options: object) -> None:
        raise ExplainerDied("it died")

    with structlog.testing.capture_logs() as logged:
        await explaining(die).preload([weakref.ref(each) for each in versions])
    assert [(line["event"], line["model"]) for line in logged] == [("preload_failed", "shapes")] * 4
