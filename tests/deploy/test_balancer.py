"""A real HAProxy, with our configuration, before two real services that share no explanations."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from service.app import create_app
from service.settings import Settings
from tests.conftest import ROOT
from tests.service.http.explaining import QUICK, ended, picture, until

CONFIG = (ROOT / "docker" / "haproxy" / "haproxy.cfg").read_text(encoding="utf-8")

pytestmark = pytest.mark.skipif(not shutil.which("haproxy"), reason="no haproxy: apt-get install haproxy")


@pytest.fixture
def replicas(shapes_models: Path, tmp_path: Path, serve: Callable[[FastAPI], httpx.Client]) -> list[FastAPI]:
    """Two services; their `state.url` says where they are."""
    apps = []
    for name in ("one", "other"):
        app = create_app(Settings(models=shapes_models, engine="openvino", store=str(tmp_path / name)))
        app.state.url = serve(app).base_url
        apps.append(app)
    return apps


@pytest.fixture
def balancer(replicas: list[FastAPI], tmp_path: Path) -> Iterator[httpx.Client]:
    """A client of the balancer, with a connection of its own for each request."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Instead of the names that Docker resolves.
    servers = "\n".join(f"    server s{app.state.url.port} 127.0.0.1:{app.state.url.port}" for app in replicas)
    text = re.sub(r"^ +server-template .*$", servers, CONFIG, flags=re.MULTILINE)
    text = text.replace(" resolvers docker init-addr none", "").replace("bind :8000", f"bind 127.0.0.1:{port}")
    (tmp_path / "haproxy.cfg").write_text(text)
    process = subprocess.Popen(["haproxy", "-f", tmp_path / "haproxy.cfg"], stdout=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    with httpx.Client(base_url=url, headers={"connection": "close"}, timeout=60) as client:

        def ready() -> bool:
            assert process.poll() is None, "it ended"
            try:
                return client.get("/health/ready").status_code == 200
            except httpx.TransportError:
                return False

        try:
            until(ready)
            yield client
        finally:
            process.terminate()
            process.wait()


def answered(app: FastAPI) -> float:
    registry: CollectorRegistry = app.state.classifier.metrics.registry
    return registry.get_sample_value("sichtbar_predictions_total", {"model": "shapes", "version": "1"}) or 0.0


def test_haproxy_takes_the_file() -> None:
    checked = subprocess.run(
        ["haproxy", "-c", "-f", ROOT / "docker" / "haproxy" / "haproxy.cfg"], capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stderr


def test_replicas_share_the_requests(balancer: httpx.Client, replicas: list[FastAPI]) -> None:
    for seed in range(8):
        assert balancer.post("/predict", files={"file": picture(seed)}).status_code == 200
    assert all(answered(app) > 0 for app in replicas)


def test_whoever_asks_for_a_job_reaches_the_replica_that_took_it(balancer: httpx.Client) -> None:
    jobs = [
        balancer.post("/explanations", params=QUICK, files={"file": picture(seed)}).headers["location"]
        for seed in range(6)
    ]
    assert [ended(balancer, job)["state"] for job in jobs] == ["done"] * 6
    assert all(balancer.get(f"{job}/result").headers["content-type"] == "image/png" for job in jobs)


def test_a_replica_that_is_not_ready_is_asked_nothing(balancer: httpx.Client, replicas: list[FastAPI]) -> None:
    draining, other = replicas
    draining.state.classifier.draining = True
    seeds = count()

    def other_answers_all() -> bool:
        before = answered(other)
        for _ in range(4):
            assert balancer.post("/predict", files={"file": picture(next(seeds))}).status_code in (200, 503)
        return answered(other) == before + 4

    until(other_answers_all)
