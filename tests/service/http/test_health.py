from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families

from service.app import create_app
from service.settings import Settings
from tests.conftest import draw, encode

PICTURE = encode(draw("circle", 1))


def samples(client: httpx.Client) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(client.get("/metrics").text)
        for sample in family.samples
    }


def test_a_loaded_service_is_live_and_ready(live: httpx.Client) -> None:
    assert live.get("/health/live").json() == {"status": "live"}
    assert live.get("/health/ready").json() == {"status": "ready"}


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/metrics"])
def test_a_monitor_may_ask_for_the_head_alone(live: httpx.Client, path: str) -> None:
    answer = live.head(path)
    assert answer.status_code == 200
    assert answer.content == b""
    assert answer.headers["content-type"] == live.get(path).headers["content-type"]


@pytest.mark.parametrize(
    "path",
    [
        "/health/live",
        "/health/ready",
        "/metrics",
        "/",
        "/docs",
        "/openapi.json",
        "/v1/models/shapes",
        "/v2",
        "/v2/health/ready",
        "/v2/models/stats",
    ],
)
def test_what_probes_scrapers_and_proxies_add_to_an_address_is_ignored(live: httpx.Client, path: str) -> None:
    assert live.get(f"{path}?module=http_2xx&nocache=1&nocache=2").status_code == 200


def test_a_draining_service_lives_but_is_not_ready_and_still_answers(
    shapes_models: Path, serve: Callable[[FastAPI], httpx.Client]
) -> None:
    app = create_app(Settings(models=shapes_models, engine="openvino"))
    client = serve(app)
    app.state.classifier.draining = True
    assert client.get("/health/live").status_code == 200
    ready = client.get("/health/ready")
    assert (ready.status_code, ready.json()) == (503, {"status": "not ready"})
    assert client.post("/predict", files={"file": PICTURE}).status_code == 200


def test_metrics_count_what_happened(shapes_models: Path, serve: Callable[[FastAPI], httpx.Client]) -> None:
    client = serve(create_app(Settings(models=shapes_models, engine="openvino")))
    files = [("file", PICTURE)] * 3
    client.post("/predict", files=files)
    client.post("/predict", files={"file": b"no picture"})
    client.get("/secret/path/of/a/scanner")
    found = samples(client)

    def value(name: str, **labels: str) -> float:
        return found[name, tuple(sorted(labels.items()))]

    shapes = {"model": "shapes", "version": "1"}
    assert value("sichtbar_predictions_total", **shapes) == 3
    for stage in ("decode", "queue", "inference"):
        assert value("sichtbar_stage_seconds_count", **shapes, stage=stage) == 3
    assert value("sichtbar_batch_size_sum", **shapes) == 3
    assert value("sichtbar_queue_length", **shapes) == 0
    assert value("sichtbar_errors_total", code="unsupported_image") == 1
    assert value("sichtbar_errors_total", code="not_found") == 1
    assert value("sichtbar_http_requests_total", method="POST", route="/predict", status="200") == 1
    assert value("sichtbar_http_requests_total", method="POST", route="/predict", status="415") == 1
    assert value("sichtbar_http_requests_total", method="GET", route="unmatched", status="404") == 1
    assert value("sichtbar_http_request_seconds_count", route="/predict") == 2
    assert value("sichtbar_model_version_state", **shapes, state="available", engine="openvino") == 1
    assert any(name == "sichtbar_build_info" for name, _ in found)
    assert any(name == "process_resident_memory_bytes" for name, _ in found)


def test_no_label_comes_from_a_stranger(live: httpx.Client) -> None:
    live.get("/attack-1234")
    live.post("/predict?model=attack-1234", files={"file": PICTURE})
    live.request("ATTACK1234", "/predict")
    assert "attack" not in live.get("/metrics").text.lower()


def test_two_apps_have_registries_of_their_own(shapes_models: Path) -> None:
    apps = [create_app(Settings(models=shapes_models)) for _ in range(2)]
    assert apps[0].state.classifier.metrics.registry is not apps[1].state.classifier.metrics.registry


def test_the_documentation_needs_no_other_host(live: httpx.Client) -> None:
    page = live.get("/docs")
    assert "http://" not in page.text
    assert "https://" not in page.text
    assert live.get("/static-offline-docs/swagger-ui-bundle.js").status_code == 200
