from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from time import time

import anyio
import pytest
import structlog

from service.explain import records as module
from service.explain.question import Question
from service.explain.records import Record, Records
from service.explain.style import Style
from service.images.disk import secure
from service.states import JobState
from tests.conftest import ROOT

pytestmark = pytest.mark.anyio

Open = Callable[[], Awaitable[Records]]
HOLD = """
import anyio, sys, pathlib
from service.explain.records import Records
async def hold():
    records = Records(pathlib.Path(sys.argv[1]), max_seconds=60)
    await records.open()
    print(records.owner, flush=True)
    sys.stdin.read()
anyio.run(hold)
"""


def record(owner: str, state: JobState = "running", name: str = "0" * 32) -> Record:
    now = datetime.now(timezone.utc)
    return Record(
        id=name,
        owner=owner,
        state=state,
        image_id="1" * 64,
        model="shapes",
        version=1,
        question=Question(samples=100),
        style=Style(),
        format="png",
        label=None,
        result="name",
        created=now,
        finished=None if state in ("queued", "running") else now,
    )


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Open]:
    """Open the records of one more process."""
    found: list[Records] = []

    async def open_one() -> Records:
        found.append(Records(tmp_path, max_seconds=60))
        await found[-1].open()
        return found[-1]

    yield open_one
    for records in found:
        await records.close()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that holds records, and its name there."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        yield process, process.stdout.readline().strip()
        process.kill()


async def test_another_process_reads_what_one_has_written(opened: Open) -> None:
    ours, theirs = await opened(), await opened()
    written = record(ours.owner)
    await ours.write(written)
    assert await theirs.read(written.id) == written
    assert await theirs.read("f" * 32) is None


async def test_a_job_whose_process_was_killed_has_failed(
    opened: Open, other: tuple[subprocess.Popen[str], str]
) -> None:
    holder, owner = other
    records = await opened()
    written = record(owner, "queued").model_copy(update={"ahead": 2})
    await records.write(written)
    assert await records.read(written.id) == written
    holder.kill()
    holder.wait()
    found = await records.read(written.id)
    assert found
    assert (found.state, found.failure and found.failure.code) == ("failed", "explanation_interrupted")
    assert found.finished
    assert found.ahead is None
    done = record(owner, "done", "2" * 32)
    await records.write(done)
    assert await records.read(done.id) == done


async def test_a_wish_to_cancel_reaches_the_other_process(opened: Open) -> None:
    ours, theirs = await opened(), await opened()
    written = record(ours.owner)
    await ours.write(written)
    assert not await ours.is_cancelled(written.id)
    await theirs.cancel(written.id)
    assert await ours.is_cancelled(written.id)


async def test_sweeping_removes_old_records_that_nothing_will_become_of(opened: Open, tmp_path: Path) -> None:
    records = await opened()
    kept = [record(records.owner, name="1" * 32), record(records.owner, "done", "2" * 32)]
    gone = [record("f" * 32, name="3" * 32), record(records.owner, "done", "4" * 32)]
    for each in kept + gone:
        await records.write(each)
        await records.cancel(each.id)
    for each in [kept[0], *gone]:
        os.utime(tmp_path / f"{each.id}.job", (time() - 61, time() - 61))
    await records.sweep()
    assert {path.stem for path in tmp_path.iterdir()} - {"owners"} == {each.id for each in kept}


async def test_of_too_many_records_the_oldest_go(opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_RECORDS", 1)
    records = await opened()
    for place in range(3):
        await records.write(record(records.owner, "done", str(place) * 32))
        os.utime(tmp_path / f"{str(place) * 32}.job", (time() - 10 + place,) * 2)
    await records.sweep()
    assert [path.stem for path in tmp_path.glob("*.job")] == ["2" * 32]


async def test_sweeping_removes_the_locks_of_the_dead_alone(opened: Open, tmp_path: Path) -> None:
    records = await opened()
    (tmp_path / "owners" / "dead").touch()
    for path in (tmp_path / "owners").iterdir():
        os.utime(path, (0, 0))
    await records.sweep()
    assert [path.name for path in (tmp_path / "owners").iterdir()] == [records.owner]


async def test_a_folder_that_was_removed_is_made_again_and_its_process_still_lives(tmp_path: Path) -> None:
    store = tmp_path / "store"
    ours, theirs = (Records(store / "jobs", above=[store], max_seconds=60) for _ in range(2))
    await ours.open()
    shutil.rmtree(store)
    written = record(ours.owner)
    await ours.write(written)
    assert await theirs.read(written.id) == written
    secure(store)
    secure(store / "jobs")
    await ours.close()
    assert not list((store / "jobs" / "owners").iterdir())


async def test_a_full_disk_leaves_no_parts_and_is_logged_once(
    opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_half(path: Path, data: bytes) -> None:
        path.write_text(data.decode()[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    records = await opened()
    monkeypatch.setattr(Path, "write_bytes", write_half)
    with structlog.testing.capture_logs() as logged:
        for _ in range(3):
            await records.write(record(records.owner))
    assert [path.name for path in tmp_path.iterdir()] == ["owners"]
    assert [line["event"] for line in logged] == ["job_not_recorded"]


async def test_a_damaged_record_is_none(opened: Open, tmp_path: Path) -> None:
    records = await opened()
    (tmp_path / f"{'0' * 32}.job").write_text("{")
    assert await records.read("0" * 32) is None
    await records.sweep()


async def test_a_record_that_another_process_removes_meanwhile_is_none(
    opened: Open, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    records = await opened()
    written = record("f" * 32)
    await records.write(written)

    def lives(owner: str) -> bool:
        (tmp_path / f"{written.id}.job").unlink(missing_ok=True)
        return False

    monkeypatch.setattr(records, "_lives", lives)
    assert await records.read(written.id) is None
    await records.sweep()


async def test_a_process_whose_lock_cannot_be_looked_at_is_not_taken_for_dead(opened: Open, tmp_path: Path) -> None:
    records = await opened()
    written = record("f" * 32)
    await records.write(written)
    # Nor can a link to itself be opened.
    (tmp_path / "owners" / written.owner).symlink_to(written.owner)
    assert await records.read(written.id) == written


async def test_a_disk_that_hangs_is_waited_for_once_and_then_left_alone(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    records = await opened()
    monkeypatch.setattr("service.explain.disk.SECONDS", 0.1)
    monkeypatch.setattr(records, "_write", lambda *_: gate.wait(20))
    with structlog.testing.capture_logs() as logged, anyio.fail_after(5):
        for _ in range(50):
            await records.write(record(records.owner))
            assert await records.read("0" * 32) is None
            assert not await records.is_cancelled("0" * 32)
            await records.cancel("0" * 32)
        await records.close()
    gate.set()
    assert [line["event"] for line in logged] == ["job_not_recorded"]
