"""The process that explains, from the start of the service to its end, however that comes."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import anyio
import httpx
import pytest
import structlog
from fastapi import FastAPI

from service.app import create_app
from service.explaining import Explaining
from service.metrics import Metrics
from service.settings import Settings
from tests.conftest import PATIENCE
from tests.service.http.explaining import QUICK, SLOW, ended, metric, picture, until
from tests.service.test_main import Program, Start, start

__all__ = ["start"]

PICTURE = picture(200)


def client_of(program: Program) -> httpx.Client:
    return httpx.Client(base_url=str(program.wait_for("serving")["url"]), timeout=PATIENCE)


def pid_of(program: Program) -> int:
    """The process that explains."""
    before = [line for line in program.log if line["event"] == "explainer_started"]
    return int(str((before or [program.wait_for("explainer_started")])[0]["pid"]))


def runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_it_is_loaded_in_the_background_once_the_service_is_ready(start: Start) -> None:
    program = start(SICHTBAR_EXPLAIN_PRELOAD="true", SICHTBAR_EXPLAIN_NICE="7")
    with client_of(program) as client:
        assert client.get("/health/ready").status_code == 200
        pid = pid_of(program)
        niceness = min(19, os.getpriority(os.PRIO_PROCESS, os.getpid()) + 7)
        until(lambda: os.getpriority(os.PRIO_PROCESS, pid) == niceness)
        until(lambda: "libtensorflow" in Path(f"/proc/{pid}/maps").read_text())
        assert client.post("/explain", params=QUICK, files={"file": PICTURE}).status_code == 200
    mapped = Path(f"/proc/{program.process.pid}/maps").read_text()
    assert "libopenvino" in mapped
    assert "libtensorflow" not in mapped


def test_nothing_is_started_before_it_is_asked_for_where_it_is_not_preloaded(start: Start) -> None:
    program = start()
    with client_of(program) as client:
        assert client.get("/health/ready").status_code == 200
        assert not [line for line in program.log if line["event"] == "explainer_started"]
        client.post("/explain", params=QUICK, files={"file": picture(201)})
    program.wait_for("explainer_started")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
def test_it_ends_with_the_service(start: Start, number: signal.Signals) -> None:
    program = start(SICHTBAR_DRAIN_SECONDS="1")
    with client_of(program) as client:
        place = client.post("/explanations", params=SLOW, files={"file": PICTURE}).headers["location"]
        pid = pid_of(program)
        until(lambda: client.get(place).json()["progress"])
        assert runs(pid)
        program.process.send_signal(number)
        assert program.process.wait(30) == (0 if number == signal.SIGTERM else -signal.SIGKILL)
    until(lambda: not runs(pid))


def test_a_job_of_a_service_that_was_killed_has_failed_and_is_not_forgotten(start: Start, tmp_path: Path) -> None:
    settings = {"SICHTBAR_STORE": str(tmp_path / "store")}
    first = start(**settings)
    with client_of(first) as client:
        place = client.post("/explanations", params=SLOW, files={"file": PICTURE}).headers["location"]
        over = client.post("/explanations", params=QUICK, files={"file": PICTURE}).headers["location"]
        client.delete(over)
        until(lambda: client.get(place).json()["progress"])
        first.process.kill()
        first.process.wait()
    with client_of(start(**settings)) as client:
        job = client.get(place).json()
        assert (job["state"], job["error"]["code"]) == ("failed", "explanation_interrupted")
        assert "has ended; ask for it again" in job["error"]["detail"]
        assert job["finished"]
        assert client.get(f"{place}/result").status_code == 410
        assert client.delete(place).json()["state"] == "failed"
        assert client.get(over).json()["state"] == "cancelled"


def test_after_sigterm_no_job_is_taken_and_those_under_way_fail_when_time_is_up(start: Start, tmp_path: Path) -> None:
    settings = {"SICHTBAR_STORE": str(tmp_path / "store")}
    first = start(**settings, SICHTBAR_DRAIN_SECONDS="2", SICHTBAR_SHUTDOWN_DELAY="1")
    with client_of(first) as client:
        place = client.post("/explanations", params=SLOW, files={"file": PICTURE}).headers["location"]
        first.process.send_signal(signal.SIGTERM)
        first.wait_for("draining")
        refused = client.post("/explanations", params={**SLOW, "seed": 1}, files={"file": PICTURE})
        assert (refused.status_code, refused.json()["code"]) == (503, "draining")
        with client.stream("GET", f"{place}/events") as stream:
            told = list(stream.iter_lines())
        assert [line for line in told if line.startswith("event: ")][-1] == "event: failed"
        assert '"code":"explanation_interrupted"' in [line for line in told if line.startswith("data: ")][-1]
    assert first.process.wait(30) == 0
    with client_of(start(**settings)) as client:
        job = client.get(place).json()
        assert (job["state"], job["error"]["code"]) == ("failed", "explanation_interrupted")
        assert "ask for it again" in job["error"]["detail"]
        result = client.get(f"{place}/result")
        assert (result.status_code, result.json()["code"]) == (410, "explanation_interrupted")
        assert "retry-after" not in result.headers


def test_a_job_under_way_at_sigterm_may_finish(start: Start, tmp_path: Path) -> None:
    settings = {"SICHTBAR_STORE": str(tmp_path / "store")}
    first = start(**settings)
    with client_of(first) as client:
        place = client.post("/explanations", params={"samples": 200}, files={"file": PICTURE}).headers["location"]
    assert first.stop() == 0
    with client_of(start(**settings)) as client:
        assert client.get(place).json()["state"] == "done"
        assert client.get(f"{place}/result", params={"format": "json"}).json()["label"] == "circle"


def test_a_drawing_asked_for_before_sigterm_is_answered(start: Start) -> None:
    program = start(SICHTBAR_EXPLAIN_WAIT=str(PATIENCE), SICHTBAR_DRAIN_SECONDS=str(PATIENCE))
    with client_of(program) as client, ThreadPoolExecutor(1) as pool:
        query = {"samples": 1000, "superpixels": 100}
        asked = pool.submit(
            httpx.post, client.base_url.join("/explain"), params=query, files={"file": PICTURE}, timeout=PATIENCE
        )
        until(lambda: metric(client, "sichtbar_explanation_jobs", state="running"))
        program.process.send_signal(signal.SIGTERM)
        answer = asked.result()
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png"), answer.text
    assert program.process.wait(30) == 0


def test_explanations_are_given_while_the_delay_after_sigterm_lasts(start: Start) -> None:
    program = start(SICHTBAR_SHUTDOWN_DELAY="600")
    with client_of(program) as client:
        assert client.post("/explain", params=QUICK, files={"file": PICTURE}).status_code == 200
        program.process.send_signal(signal.SIGTERM)
        program.wait_for("draining")
        for seed in range(2):
            answer = client.post("/explain", params={**QUICK, "seed": seed}, files={"file": PICTURE})
            assert answer.status_code == 200, answer.text
    # Nobody needs to wait for its end.
    assert program.stop() == 0


def test_predictions_do_not_notice_that_it_dies(
    serve: Callable[[FastAPI], httpx.Client], shapes_models: Path, tmp_path: Path
) -> None:
    app = create_app(Settings(models=shapes_models, engine="openvino", store=str(tmp_path / "store")))
    client = serve(app)
    client.timeout = PATIENCE
    for _ in range(2):
        place = client.post("/explanations", params=SLOW, files={"file": PICTURE}).headers["location"]
        until(lambda place=place: client.get(place).json()["progress"])
        os.kill(app.state.classifier.explainer.pid, signal.SIGKILL)
        assert client.post("/predict", files={"file": PICTURE}).status_code == 200
        assert client.get("/health/ready").status_code == 200
        assert ended(client, place)["error"]["code"] == "explainer_died"
    assert metric(client, "sichtbar_explainer_restarts_total") == 1


@pytest.mark.anyio
async def test_sweeping_goes_on_after_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    explaining, swept = Explaining(Settings(), Metrics()), asyncio.Event()

    async def break_once() -> None:
        monkeypatch.setattr(explaining.explanations, "sweep", note)
        raise KeyError("bug")

    async def note() -> None:
        swept.set()

    explaining.explanations = explaining.jobs = cast(Any, SimpleNamespace(sweep=break_once))
    monkeypatch.setattr("service.explaining.SWEEP_SECONDS", 0.01)
    with structlog.testing.capture_logs() as logged:
        sweeper = asyncio.create_task(explaining._sweep())
        with anyio.fail_after(5):
            await swept.wait()
        sweeper.cancel()
    assert [line["event"] for line in logged] == ["bug"]
