from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import get_args

import httpx
import pytest
from fastapi import FastAPI

from service.app import create_app
from service.choices import Method
from service.errors import BrokenImage, DeadlineExceeded, InferenceFailed
from service.http import pages
from service.images.store import Reason
from service.metrics import LABELS, Metrics
from service.repository import State
from service.settings import Settings
from tests import documents
from tests.conftest import draw, encode
from tests.service.http.explaining import metric

PICTURE = encode(draw("circle", 1))
SAMPLE = re.compile(r"^(sichtbar_\w+?)(?:_created)?(?:\{(.*)\})? \S+$", re.MULTILINE)
LABEL = re.compile(r'(\w+)="([^"]*)"')


@pytest.mark.parametrize(
    ("error", "counted"),
    [
        (None, "answered"),
        (BrokenImage("x"), "refused"),
        (DeadlineExceeded("x"), "unavailable"),
        (InferenceFailed("x"), "failed"),
        (ZeroDivisionError(), "failed"),
        (GeneratorExit(), "abandoned"),
    ],
    ids=lambda case: case if isinstance(case, str) else type(case).__name__,
)
def test_a_request_to_a_version_is_counted_by_whose_fault_its_end_was(
    error: BaseException | None, counted: str
) -> None:
    metrics = Metrics()
    with suppress(type(error) if error else ()), metrics.model_request("shapes", "1"):
        if error is not None:
            raise error
    (family,) = metrics.model_requests.collect()
    found = {sample.labels["outcome"]: sample.value for sample in family.samples if sample.name.endswith("_total")}
    assert found == {counted: 1}


def test_only_an_answered_request_is_timed(shapes_models: Path, serve: Callable[[FastAPI], httpx.Client]) -> None:
    client = serve(create_app(Settings(models=shapes_models, engine="openvino")))
    client.post("/predict", files=[("file", PICTURE)] * 2)
    client.post("/predict", files={"file": b"no picture"})
    shapes = {"model": "shapes", "version": "1"}
    assert metric(client, "sichtbar_model_requests_total", **shapes, outcome="answered") == 1
    assert metric(client, "sichtbar_model_requests_total", **shapes, outcome="refused") == 1
    assert metric(client, "sichtbar_model_request_seconds_count", **shapes) == 1


def test_a_refused_picture_is_counted_by_reason_wherever_it_is_sent(
    shapes_models: Path, serve: Callable[[FastAPI], httpx.Client]
) -> None:
    client = serve(create_app(Settings(models=shapes_models, engine="openvino", max_pixels=10_000)))
    assert metric(client, "sichtbar_images_refused_total") == 0
    broken, large = PICTURE[:-100], encode(draw("circle", 1, (101, 100)))
    for path in ("/predict", "/explain", "/activations?layer=input"):
        assert client.post(path, files={"file": broken}).status_code == 422
    client.post("/predict", files={"file": large})
    client.post("/predict", files={"file": b"text"})
    client.post("/predict", files={"file": b""})
    counted = {
        reason: metric(client, "sichtbar_images_refused_total", reason=reason)
        for reason in LABELS["sichtbar_images_refused.reason"]
    }
    assert counted == {"broken_image": 3, "image_too_large": 1, "unsupported_image": 1, "empty_image": 1}


def test_drawing_and_looking_are_timed(live: httpx.Client) -> None:
    shapes = {"model": "shapes", "version": "1"}
    drawn = metric(live, "sichtbar_stage_seconds_count", **shapes, stage="render")
    looked = metric(live, "sichtbar_look_seconds_count", **shapes)
    picture = encode(draw("square", 4711))
    assert live.post("/explain?method=gradcam&wait=60", files={"file": picture}, timeout=60).status_code == 200
    assert live.post("/activations?layer=input", files={"file": picture}, timeout=60).status_code == 200
    assert metric(live, "sichtbar_stage_seconds_count", **shapes, stage="render") == drawn + 1
    assert metric(live, "sichtbar_look_seconds_count", **shapes) == looked + 1


def test_it_is_told_whether_the_service_is_ready_and_how_many_may_wait(
    shapes_models: Path, serve: Callable[[FastAPI], httpx.Client]
) -> None:
    app = create_app(Settings(models=shapes_models, engine="openvino", max_queue=7))
    client = serve(app)
    assert metric(client, "sichtbar_ready") == 1
    assert metric(client, "sichtbar_queue_limit") == 7
    assert metric(client, "sichtbar_model_loads_total", model="shapes", version="1") == 1
    app.state.classifier.draining = True
    assert metric(client, "sichtbar_ready") == 0


def test_every_label_that_is_scraped_is_one_of_its_closed_set(live: httpx.Client) -> None:
    live.post("/predict", files={"file": PICTURE})
    live.post("/predict?model=stranger", files={"file": PICTURE})
    live.post("/predict", files={"file": b"no picture"})
    live.get("/stranger")
    live.request("STRANGER", "/predict")
    live.post("/v1/models/stranger:predict", json={"instances": []})
    app = create_app(Settings())
    routes = {
        "unmatched",
        "turned away",
        *app.openapi()["paths"],
        *(getattr(route, "path", "") for route in (*app.routes, *pages.router.routes)),
    }
    in_words: dict[str, Callable[[str], object]] = {
        "model": "shapes".__eq__,
        "version": "1".__eq__,
        "route": routes.__contains__,
        "status": re.compile(r"\d{3}").fullmatch,
        "code": re.compile(r"[a-z_]+").fullmatch,
        "sichtbar_build.version": bool,
    }
    seen = set()
    for name, labels in SAMPLE.findall(live.get("/metrics").text):
        for label, value in LABEL.findall(labels):
            family = documents.family(name)
            if label == "le":
                continue
            key = f"{family}.{label}" if f"{family}.{label}" in LABELS else label
            values = LABELS[key]
            assert value in values if isinstance(values, tuple) else in_words[key](value), (name, label, value)
            seen.add(key)
    assert {"model", "version", "route", "code", "sichtbar_stage_seconds.stage"} <= seen


def test_no_label_set_is_stale() -> None:
    used = set()
    for name, _, labels, _ in documents.scraped():
        family = documents.family(name)
        used |= {f"{family}.{label}" if f"{family}.{label}" in LABELS else label for label in labels}
    assert used == set(LABELS)


@pytest.mark.parametrize(
    ("key", "literal"),
    [
        ("sichtbar_images_not_stored.reason", Reason),
        ("sichtbar_model_version_state.state", State),
        ("method", Method),
    ],
)
def test_label_sets_are_the_code_s(key: str, literal: object) -> None:
    assert set(LABELS[key]) == set(get_args(literal))
