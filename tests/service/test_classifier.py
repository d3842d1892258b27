from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from service.classifier import Classifier, Picture, rank
from service.engines import open_engine
from service.engines.base import Engine, Outputs
from service.errors import BrokenImage, DeadlineExceeded, Overloaded, UnknownImage
from service.repository import Version
from service.settings import Settings
from tests.conftest import draw, encode, until

pytestmark = pytest.mark.anyio
Gated = tuple[Version, "GatedEngine"]
PICTURE = Picture(encode(draw("circle", 1)))


@pytest.fixture
async def classifier(shapes_models: Path, request: pytest.FixtureRequest) -> AsyncIterator[Classifier]:
    """Lets two pictures wait, by default for ten seconds."""
    timeout = getattr(request, "param", 10)
    settings = Settings(models=shapes_models, engine="openvino", max_queue=2, max_batch=8, timeout=timeout)
    async with Classifier(settings) as classifier:
        yield classifier


class GatedEngine:
    """The real engine, which a test can hold up."""

    name = "gated"
    compiles = False

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.gate = threading.Event()
        self.entered = threading.Event()

    def predict(self, images: NDArray[np.uint8]) -> Outputs:
        self.entered.set()
        assert self.gate.wait(10)
        return self._engine.predict(images)


@pytest.fixture
async def gated(classifier: Classifier, shapes_models: Path) -> AsyncIterator[Gated]:
    """A version that answers once the gate is open."""
    folder = shapes_models / "shapes" / "1"
    engine = GatedEngine(open_engine("openvino", folder, threads=0))
    manifest = classifier.repository.find(None, None).manifest
    async with classifier.repository.batcher(manifest, engine) as batcher:
        yield Version(folder, manifest, engine.name, batcher), engine
        engine.gate.set()


@pytest.mark.parametrize("classifier", [0.3], indirect=True, ids=["0.3 s"])
async def test_an_answer_that_comes_too_late_is_an_error_and_no_wait(classifier: Classifier, gated: Gated) -> None:
    version, engine = gated
    with pytest.raises(DeadlineExceeded, match=r"no answer within 0\.3 s"):
        await classifier.classify([PICTURE], version, 1)
    engine.gate.set()
    assert (await classifier.classify([PICTURE], version, 1))[0].predictions[0].label == "circle"


async def test_one_picture_too_many_is_refused_at_once(classifier: Classifier, gated: Gated) -> None:
    version, engine = gated
    tasks = [asyncio.create_task(classifier.classify([PICTURE], version, 1))]
    await until(engine.entered.is_set)
    tasks += [asyncio.create_task(classifier.classify([PICTURE], version, 1)) for _ in range(2)]
    await until(lambda: version.batcher.waiting == 2)
    with pytest.raises(Overloaded, match="2 pictures are waiting"):
        await classifier.classify([PICTURE], version, 1)
    engine.gate.set()
    await asyncio.gather(*tasks)


async def test_a_bad_picture_costs_its_neighbours_no_inference(classifier: Classifier) -> None:
    version = classifier.repository.find(None, None)
    with pytest.raises(BrokenImage):
        await classifier.classify([PICTURE, Picture(PICTURE.data[:50])], version, 1)
    counted = classifier.metrics.predictions.labels("shapes", "1")._value.get()
    assert counted == 0


async def test_a_request_that_fails_leaves_nothing_in_the_queue(classifier: Classifier, gated: Gated) -> None:
    version, engine = gated
    first = asyncio.create_task(classifier.classify([PICTURE], version, 1))
    await until(engine.entered.is_set)
    with pytest.raises(Overloaded):
        await classifier.classify([PICTURE] * 5, version, 1)
    again = asyncio.create_task(classifier.classify([PICTURE], version, 1))
    engine.gate.set()
    assert [len(answer) for answer in await asyncio.gather(first, again)] == [1, 1]
    assert classifier.metrics.predictions.labels("shapes", "1")._value.get() == 2


async def test_the_service_is_ready_while_it_takes_pictures(classifier: Classifier) -> None:
    assert classifier.ready
    classifier.draining = True
    assert not classifier.ready


def test_ranking_is_by_probability_and_ties_keep_the_labels_order() -> None:
    outputs = Outputs(np.array([0.2, 0.3, 0.3, 0.2], np.float32), np.zeros(4, np.float32), np.zeros((), np.float32))
    assert [prediction.label for prediction in rank(outputs, "abcd", 3)] == ["b", "c", "a"]


async def test_a_picture_is_kept_while_the_model_runs(classifier: Classifier, gated: Gated) -> None:
    version, engine = gated
    data = encode(draw("circle", 31337))
    task = asyncio.create_task(classifier.classify([Picture(data)], version, 1))
    await until(engine.entered.is_set)
    await until(lambda: classifier.images.holds(hashlib.sha256(data).hexdigest()))
    engine.gate.set()
    assert await classifier.images.get(str((await task)[0].image_id)) == data


async def test_a_picture_that_is_refused_is_not_kept(classifier: Classifier, gated: Gated) -> None:
    version, engine = gated
    tasks = [asyncio.create_task(classifier.classify([PICTURE], version, 1))]
    await until(engine.entered.is_set)
    tasks += [asyncio.create_task(classifier.classify([PICTURE], version, 1)) for _ in range(2)]
    await until(lambda: version.batcher.waiting == 2)
    refused = encode(draw("circle", 31338))
    with pytest.raises(Overloaded):
        await classifier.classify([Picture(refused)], version, 1)
    with pytest.raises(UnknownImage):
        await classifier.images.get(hashlib.sha256(refused).hexdigest())
    engine.gate.set()
    await asyncio.gather(*tasks)


async def test_a_picture_that_is_only_checked_waits_no_longer_than_any(monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = Classifier(Settings(timeout=0.05))
    monkeypatch.setattr(classifier._decoders, "run", lambda _: asyncio.sleep(60))
    with pytest.raises(DeadlineExceeded, match="no answer within"):
        await classifier.check(PICTURE, keep=False)


async def test_a_large_body_is_read_on_a_decoder_s_thread_and_a_small_one_at_once(classifier: Classifier) -> None:
    here = threading.get_ident()
    assert await classifier.read(b"x", threading.get_ident) == here
    assert await classifier.read(b"x" * 20_000, threading.get_ident) != here


async def test_a_large_body_waits_no_longer_than_any(monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = Classifier(Settings(timeout=0.05))
    monkeypatch.setattr(classifier._decoders, "run", lambda _: asyncio.sleep(60))
    with pytest.raises(DeadlineExceeded, match="no answer within"):
        await classifier.read(b"x" * 20_000, lambda: None)
