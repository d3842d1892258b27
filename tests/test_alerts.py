"""What Prometheus is told to watch is there, and its alerts fire when they should: by a real Prometheus."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from fastapi import FastAPI

from service.app import create_app
from service.settings import Settings
from tests.conftest import ROOT, draw, encode
from tests.service.http.explaining import until

FOLDER = ROOT / "docker" / "prometheus"
RULES = [
    rule
    for group in yaml.safe_load((FOLDER / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]
NAME = re.compile(r"\b(?:sichtbar|process)_\w+|\bup\b")
PICTURE = encode(draw("circle", 1))

with_prometheus = pytest.mark.skipif(
    not (shutil.which("prometheus") and shutil.which("promtool")), reason="no prometheus: apt-get install prometheus"
)


@with_prometheus
@pytest.mark.parametrize(
    "arguments", [["check", "config", "prometheus.yml"], ["check", "rules", "alerts.yml"]], ids=lambda words: words[-1]
)
def test_prometheus_takes_the_files(arguments: list[str]) -> None:
    checked = subprocess.run(["promtool", *arguments], cwd=FOLDER, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@with_prometheus
def test_each_alert_fires_on_what_deserves_it_and_no_other_does() -> None:
    checked = subprocess.run(
        ["promtool", "test", "rules", "alerts.test.yml"], cwd=FOLDER, capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_each_alert_says_how_bad_it_is_and_what_to_do_and_has_a_case(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert set(rule["annotations"]) == {"summary", "runbook"}
    assert f'alertname="{rule["alert"]}"' in (FOLDER / "alerts.test.yml").read_text(encoding="utf-8")


class Prometheus:
    """A real one, with our rules, that scrapes one service."""

    def __init__(self, folder: Path, target: httpx.URL) -> None:
        config = yaml.safe_load((FOLDER / "prometheus.yml").read_text(encoding="utf-8"))
        config["global"] = {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"}
        (job,) = config["scrape_configs"]
        del job["dns_sd_configs"]
        job["static_configs"] = [{"targets": [f"{target.host}:{target.port}"]}]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        shutil.copy(FOLDER / "alerts.yml", folder)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        self.process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={address}",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.client = httpx.Client(base_url=f"http://{address}")

    def get(self, path: str, **query: str) -> Any:
        answer = self.client.get(f"/api/v1{path}", params=query).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    def up(self) -> bool:
        assert self.process.poll() is None, "it ended"
        try:
            if not self.client.get("/-/ready").is_success:
                return False
        except httpx.TransportError:
            return False
        return bool(self.get("/query", query='up{job="sichtbar"} == 1')["result"])

    def close(self) -> None:
        self.client.close()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


@pytest.fixture
def served(
    shapes_models: Path, serve: Callable[[FastAPI], httpx.Client], tmp_path: Path
) -> tuple[FastAPI, httpx.Client]:
    # What another test explained is not explained again.
    app = create_app(Settings(models=shapes_models, engine="openvino", store=str(tmp_path / "images")))
    return app, serve(app)


@pytest.fixture
def prometheus(served: tuple[FastAPI, httpx.Client], tmp_path: Path) -> Iterator[Prometheus]:
    running = Prometheus(tmp_path, served[1].base_url)
    try:
        until(running.up)
        yield running
    finally:
        running.close()


@with_prometheus
def test_every_rule_is_about_what_a_service_under_load_tells(
    served: tuple[FastAPI, httpx.Client], prometheus: Prometheus
) -> None:
    app, client = served
    # A little of everything that only shows once it has happened.
    for _ in range(20):
        assert client.post("/predict", files={"file": PICTURE}).status_code == 200
    assert client.post("/predict", files={"file": b"no picture"}).status_code == 415
    app.state.classifier.repository.tell_labels("shapes", "stable is to be version 2, which is not loaded")
    assert client.post("/explain?samples=32&wait=60", files={"file": PICTURE}, timeout=60).status_code == 200
    until(lambda: prometheus.get("/query", query="sichtbar_explanations_total")["result"])
    names = set(prometheus.get("/label/__name__/values"))
    for rule in RULES:
        asked = set(NAME.findall(rule["expr"]))
        assert asked, rule["alert"]
        assert asked <= names, rule["alert"]
        prometheus.get("/query", query=rule["expr"])
    evaluated = until(
        lambda: [
            rule
            for group in prometheus.get("/rules")["groups"]
            for rule in group["rules"]
            if rule["health"] != "unknown"
        ]
    )
    assert {rule["name"]: rule["health"] for rule in evaluated} == {rule["alert"]: "ok" for rule in RULES}
    assert [alert for alert in prometheus.get("/alerts")["alerts"] if alert["state"] == "firing"] == []
    # It is told to stop.
    app.state.classifier.draining = True
    until(
        lambda: (
            ("SichtbarNotReady", "pending")
            in [(alert["labels"]["alertname"], alert["state"]) for alert in prometheus.get("/alerts")["alerts"]]
        )
    )
