"""Grafana's dashboards ask for what the service tells: every expression, asked of a real Prometheus that scrapes it."""

from __future__ import annotations

import json
import math
import os
import re
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import combinations, count
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from fastapi import FastAPI
from PIL import Image

from service.app import create_app
from service.metrics import Metrics
from service.settings import Settings
from tests.conftest import ROOT, draw, encode
from tests.service.http.explaining import SLOW, ended, until
from tests.test_alerts import Prometheus, with_prometheus

GRAFANA = ROOT / "docker" / "grafana"
DASHBOARDS = {
    path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted((GRAFANA / "dashboards").glob("*.json"))
}
# Grafana's own variables, as Prometheus is asked in the test.
BUILT_IN = {"__rate_interval": "10s"}
# What a service that is well does not tell.
MAY_BE_EMPTY = {
    "on-call: Alerts": "no alert fires, nor is about to",
    "on-call: Starts": "it was not restarted within the minute",
}


PANELS = [
    pytest.param(dashboard, panel, id=f"{name}: {panel['title']}")
    for name, dashboard in DASHBOARDS.items()
    for panel in dashboard["panels"]
]


def expressions() -> dict[str, str]:
    """Every expression by its place: panels', annotations', and those of the variables."""
    found: dict[str, str] = {}
    for name, dashboard in DASHBOARDS.items():
        for panel in dashboard["panels"]:
            for target in panel["targets"]:
                found[f"{name}: {panel['title']}: {target['refId']}"] = target["expr"]
        for annotation in dashboard["annotations"]["list"]:
            found[f"{name}: {annotation['name']}"] = annotation["expr"]
        for variable in dashboard["templating"]["list"]:
            (metric, label) = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["definition"]).groups()
            found[f"{name}: ${variable['name']}"] = f'{metric}{{{label}!=""}}'
    return found


EXPRESSIONS = expressions()


def asked(expression: str, **variables: str) -> str:
    """The expression as Grafana sends it."""
    return re.sub(r"\$(\w+)", lambda name: (BUILT_IN | variables)[name[1]], expression)


def may_be_empty(place: str) -> bool:
    return any(place.startswith(known) or known.split(": ")[1] == place.split(": ")[1] for known in MAY_BE_EMPTY)


@pytest.mark.parametrize("dashboard", DASHBOARDS.values(), ids=DASHBOARDS)
def test_grafana_can_read_each_dashboard(dashboard: dict[str, Any]) -> None:
    assert dashboard["schemaVersion"] >= 41
    assert dashboard["title"].startswith("Sichtbar")
    assert dashboard["description"]
    for what in ("id", "title"):
        assert set(Counter(panel[what] for panel in dashboard["panels"]).values()) == {1}
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for a, b in combinations(places, 2):
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        assert beside or a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"], (a, b)


def test_no_two_dashboards_have_one_address() -> None:
    assert set(Counter(dashboard["uid"] for dashboard in DASHBOARDS.values()).values()) == {1}


@pytest.mark.parametrize(("dashboard", "panel"), PANELS)
def test_each_panel_says_what_it_shows_and_asks_by_known_names(
    dashboard: dict[str, Any], panel: dict[str, Any]
) -> None:
    (source,) = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "prometheus.yml").read_text())["datasources"]
    known = {variable["name"] for variable in dashboard["templating"]["list"]} | set(BUILT_IN)
    told = {sample for family in Metrics().registry.collect() for sample in _samples(family.name, family.type)}
    assert panel["description"]
    assert panel["targets"]
    for target in panel["targets"]:
        assert target["datasource"] == {"type": source["type"], "uid": source["uid"]}
        assert set(re.findall(r"\$(\w+)", target["expr"])) <= known
        assert set(re.findall(r"\bsichtbar_\w+", target["expr"])) <= told


def _samples(name: str, kind: str) -> list[str]:
    endings = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"], "info": ["_info"]}
    return [name + ending for ending in endings.get(kind, [""])]


def test_the_page_that_grafana_opens_with_is_for_whoever_is_on_call() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]["grafana"]
    home = Path(compose["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    (provider,) = yaml.safe_load((GRAFANA / "provisioning" / "dashboards" / "sichtbar.yml").read_text())["providers"]
    assert home.parent == Path(provider["options"]["path"])
    first = DASHBOARDS[home.stem]["panels"]
    assert [panel["title"] for panel in first[:2]] == ["Does it answer?", "Is it ready?"]
    assert f"./docker/grafana/dashboards:{home.parent}:ro" in compose["volumes"]


@pytest.fixture
def served(own_models: Path, serve: Callable[[FastAPI], httpx.Client], tmp_path: Path) -> httpx.Client:
    """A service that keeps answers, has no room for many pictures, could not load a version, nor end an explanation."""
    broken = own_models / "shapes" / "2"
    broken.mkdir()
    (broken / "manifest.json").write_text("{}")
    settings = Settings(
        models=own_models,
        engine="openvino",
        settle_seconds=0,
        cache_bytes=2**20,
        store=str(tmp_path / "pictures"),
        store_max_bytes=3 * 4096,
    )
    app = create_app(settings)
    client = serve(app)
    job = client.post("/explanations", params=SLOW, files={"file": encode(draw("circle", 1))}).json()["links"]["self"]
    until(lambda: client.get(job).json()["state"] == "running")
    os.kill(app.state.classifier.explainer.pid, signal.SIGKILL)
    assert ended(client, job)["state"] == "failed"
    # What explains starts anew, which takes a while.
    a_little_of_everything(client, seed=0)
    return client


@pytest.fixture
def prometheus(served: httpx.Client, tmp_path: Path) -> Iterator[Prometheus]:
    running = Prometheus(tmp_path, served.base_url)
    try:
        until(running.up)
        yield running
    finally:
        running.close()


def a_little_of_everything(client: httpx.Client, seed: int) -> None:
    picture = encode(draw("circle", seed))
    for _ in range(2):
        assert client.post("/predict", files={"file": picture}).status_code == 200
    for method in ("lime", "lime", "gradcam"):
        explained = client.post("/explain", params={"method": method, "wait": 60}, files={"file": picture}, timeout=70)
        assert explained.status_code == 200
    assert client.post("/activations?layer=input", files={"file": picture}, timeout=60).status_code == 200
    assert client.post("/predict", files={"file": b"no picture"}).status_code == 415
    late = client.post(
        "/predict?store=false", files={"file": picture + b"."}, headers={"x-request-timeout": "0.000001"}
    )
    assert late.status_code == 504
    assert client.get(f"/images/{'0' * 64}").status_code == 404
    too_large = encode(Image.effect_noise((200, 200), 90).convert("RGB"))
    assert client.post("/predict", files={"file": too_large}).json()["images"][0]["image_id"] is None


@with_prometheus
def test_every_expression_of_every_dashboard_returns_data(served: httpx.Client, prometheus: Prometheus) -> None:
    target = f"{served.base_url.host}:{served.base_url.port}"
    silent, seeds = dict(EXPRESSIONS), count(1)

    def all_tell() -> bool:
        a_little_of_everything(served, next(seeds))
        for place, expression in list(silent.items()):
            query = asked(expression, instance=re.escape(target).replace("\\", "\\\\"), model="shapes")
            found = prometheus.get("/query", query=query)["result"]
            if may_be_empty(place) or any(not math.isnan(float(series["value"][1])) for series in found):
                del silent[place]
        return not silent

    try:
        until(all_tell)
    except AssertionError:
        pytest.fail(f"no data for {silent}")


def test_what_may_be_empty_is_there() -> None:
    assert all(any(place.startswith(known) for place in EXPRESSIONS) for known in MAY_BE_EMPTY)
