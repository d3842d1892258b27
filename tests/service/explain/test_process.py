"""The process that explains, asked for functions of these tests."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from multiprocessing.connection import Pipe
from pathlib import Path
from unittest.mock import Mock

import anyio
import pytest
import structlog
from structlog.testing import capture_logs

import service.explain
from service.errors import ExplainerDied, ModelUnavailable
from service.explain import process as module
from service.explain.messages import Task
from service.explain.model import Model
from service.explain.process import Explainer
from service.explain.question import Progress, Report
from service.explain.tasks import load_engine
from service.manifest import read_manifest
from tests.conftest import ROOT, until

pytestmark = pytest.mark.anyio

VERSION = ROOT / "models" / "fruit_cnn" / "1"


def environment(model: Model, report: Report, names: list[str]) -> list[str | None]:
    return [os.environ.get(name) for name in names]


def work(model: Model, report: Report) -> None:
    while True:
        time.sleep(0.01)
        report(Progress(1, 2, 0.0, None))


def sleep(model: Model, report: Report, seconds: float) -> None:
    report(Progress(1, 2, 0.0, None))
    time.sleep(seconds)


def mark(model: Model, report: Report, text: str) -> str | None:
    """Leave a text at the model; what was there."""
    before = getattr(model, "marked", None)
    model.marked = text  # type: ignore[attr-defined]
    return before


@pytest.fixture
async def explainer() -> AsyncIterator[Explainer]:
    opened = Explainer("openvino", threads=1, nice=0)
    yield opened
    await opened.close()


async def test_matrices_are_multiplied_on_one_thread(explainer: Explainer) -> None:
    names = list(module.ONE_THREAD)
    assert await explainer.run(environment, VERSION, names) == ["1"] * len(names)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
async def test_a_signal_to_the_whole_group_does_not_end_it(explainer: Explainer, number: signal.Signals) -> None:
    await explainer.run(environment, VERSION, [])
    pid = explainer.pid
    assert pid
    os.kill(pid, number)
    await explainer.run(environment, VERSION, [])
    assert explainer.pid == pid


async def leave(explainer: Explainer, function: Callable[..., None], *arguments: float) -> None:
    """Ask, and be cancelled once it is under way."""
    under_way = asyncio.Event()
    asked = asyncio.create_task(
        explainer.run(function, VERSION, *arguments, lane="long", on_progress=lambda progress: under_way.set())
    )
    await under_way.wait()
    asked.cancel()
    with suppress(asyncio.CancelledError):
        await asked


async def test_a_task_that_hangs_is_ended_with_the_process(
    explainer: Explainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HANG_SECONDS", 0.2)
    await leave(explainer, sleep, 600.0)
    pid = explainer.pid
    with pytest.raises(ExplainerDied):
        await explainer.run(environment, VERSION, [], lane="long")
    await explainer.run(environment, VERSION, [], lane="long")
    assert explainer.pid != pid


async def test_the_process_lives_on_when_what_was_cancelled_ends(
    explainer: Explainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HANG_SECONDS", 2.0)
    kill = Mock()
    monkeypatch.setattr(module, "_kill", kill)
    await leave(explainer, work)
    pid = explainer.pid
    under_way = asyncio.Event()
    long = asyncio.create_task(
        explainer.run(sleep, VERSION, 3.0, lane="long", on_progress=lambda progress: under_way.set())
    )
    await under_way.wait()
    # Behind it.
    with anyio.move_on_after(0.1):
        await explainer.run(environment, VERSION, [], lane="long")
    await long
    assert explainer.pid == pid
    kill.assert_not_called()


def test_nothing_is_explained_to_a_service_that_died() -> None:
    ours, theirs = Pipe()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", service.explain.__name__, "openvino", "1", "0", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
        )
    for number in range(2):
        ours.send(Task(number, "long", sleep, VERSION, (60.0,)))
    assert ours.poll(30)
    # What it said is unread: its next look at the pipe is an error, not the end.
    ours.close()
    try:
        assert process.wait(10) == 0
    finally:
        process.kill()


async def test_a_version_that_is_forgotten_is_loaded_anew(explainer: Explainer) -> None:
    digest = read_manifest(VERSION).digest
    said = [await explainer.run(mark, VERSION, text, lane="long", digest=digest) for text in "ab"]
    explainer.forget(VERSION, "another")
    said.append(await explainer.run(mark, VERSION, "c", lane="long", digest=digest))
    explainer.forget(VERSION, digest)
    said.append(await explainer.run(mark, VERSION, "d", lane="long", digest=digest))
    assert said == [None, "a", "b", None]


async def test_a_version_whose_files_were_replaced_is_never_taken_for_the_old_one(
    explainer: Explainer, tmp_path: Path
) -> None:
    folder = shutil.copytree(VERSION, tmp_path / "fruit_cnn" / "1")
    old = read_manifest(folder).digest
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["labels"].reverse()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ModelUnavailable, match="the files of fruit_cnn/1 have changed"):
        await explainer.run(mark, folder, "a", digest=old)
    new = read_manifest(folder).digest
    assert await explainer.run(mark, folder, "b", digest=new) is None
    (folder / "saved_model.pb").write_bytes(b"no graph at all")
    with pytest.raises(ModelUnavailable, match="the files of fruit_cnn/1 have changed"):
        await explainer.run(load_engine, folder, digest=new)


async def test_that_it_ends_is_said_unless_the_service_stops(explainer: Explainer) -> None:
    with capture_logs() as logs:
        await explainer.run(sleep, VERSION, 0.0)
        assert explainer.pid is not None
        os.kill(explainer.pid, signal.SIGKILL)
        await until(lambda: [line["status"] for line in logs if line["event"] == "explainer_ended"] == [-9])
        await explainer.run(sleep, VERSION, 0.0)
        await explainer.close()
        await until(lambda: explainer.pid is None)
    assert [line["event"] for line in logs] == ["explainer_started", "explainer_ended", "explainer_started"]


async def test_a_pipe_is_closed_by_who_may_still_send(explainer: Explainer, monkeypatch: pytest.MonkeyPatch) -> None:
    await explainer.run(environment, VERSION, [])
    child, gate = explainer._child, threading.Event()
    assert child
    monkeypatch.setattr(module, "_send", lambda *_: gate.wait(20))
    asked = asyncio.create_task(explainer.run(environment, VERSION, []))
    await asyncio.sleep(0)
    child.process.kill()
    with pytest.raises(ExplainerDied):
        await asked
    assert not child.pipe.closed
    gate.set()
    with anyio.fail_after(10):
        await asyncio.to_thread(child.sender.shutdown)
    assert child.pipe.closed


async def test_a_process_that_cannot_be_started_is_said(explainer: Explainer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COMMAND", ["/nowhere/python"])
    with structlog.testing.capture_logs() as logged, pytest.raises(ExplainerDied, match="could not be started"):
        await explainer.run(environment, VERSION, [])
    assert [line["event"] for line in logged] == ["explainer_not_started"]
    monkeypatch.undo()
    await explainer.run(environment, VERSION, [])
