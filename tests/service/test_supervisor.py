"""A supervisor of workers that are a line of Python each."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from service import supervisor as module
from service.errors import StartupFailed
from service.supervisor import Helper, Supervisor

pytestmark = pytest.mark.anyio

# What a worker is given, and how it says that it serves.
BEGIN = "import os, pathlib, signal, socket, sys, time; number, descriptors, folder, *again = sys.argv[1:]; "
SERVE = "channel = socket.socket(fileno=int(descriptors.split(',')[0])); channel.send(b's'); "
WAIT = "channel.recv(1)"
END_ALL = "os.kill(os.getppid(), signal.SIGTERM)"
RING = "ring = socket.socket(socket.AF_UNIX); ring.connect(folder + '/bell'); ring.recv(1); "
# The first rings once the second has been told, and has said so through the supervisor.
RING_IN_TURN = (
    SERVE + f"number == '0' and {WAIT}; " + RING + f"channel.send(b'c') if number == '1' else {END_ALL}; " + WAIT
)


@pytest.fixture
def supervise(tmp_path: Path) -> Callable[..., Supervisor]:
    def make(code: str, size: int = 2, **options: object) -> Supervisor:
        chosen: dict[str, object] = {
            "command": [sys.executable, "-c", BEGIN + code],
            "folder": tmp_path,
            "patience": 30.0,
            "hang": 60.0,
            "on_serving": lambda: None,
            "on_ended": lambda number: None,
            "helper": Helper([sys.executable, "-c", "pass"], {}),
            **options,
        }
        return Supervisor(chosen.pop("command"), [], chosen.pop("folder"), size=size, **chosen)  # type: ignore[arg-type]

    return make


Supervise = Callable[..., Supervisor]


async def test_a_signal_ends_all_and_the_first_that_serves_is_told_once(supervise: Supervise) -> None:
    served: list[None] = []
    ended: list[int] = []
    # The last one ends all.
    code = SERVE + f"{END_ALL} if number == '2' else None; {WAIT}"
    supervisor = supervise(code, size=3, on_serving=lambda: served.append(None), on_ended=ended.append)
    assert await supervisor.run() == 0
    assert len(served) == 1
    assert sorted(ended) == [0, 1, 2]


@pytest.mark.parametrize(
    ("end", "status"), [("sys.exit(3)", 3), ("os.kill(os.getpid(), 9)", 137)], ids=["exit", "kill"]
)
async def test_where_the_first_cannot_start_no_other_is_tried(supervise: Supervise, end: str, status: int) -> None:
    with capture_logs() as logs:
        assert await supervise(end).run() == status
    assert [line["event"] for line in logs] == ["worker_started"]


async def test_one_that_dies_again_and_again_is_given_ever_longer_pauses(
    supervise: Supervise, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(module, "LONGEST_PAUSE", 0.03)
    # The second leaves a mark each time; at its fifth start it ends all.
    mark = (
        "marks = pathlib.Path(folder, 'marks'); before = len(marks.read_bytes()) if marks.exists() else 0; "
        "marks.open('ab').write(b'x'); assert bool(before) == (again == ['--again']); "
    )
    code = SERVE + f"number == '0' and {WAIT}; " + mark + f"{END_ALL} if before == 4 else None"
    with capture_logs() as logs:
        assert await supervise(code).run() == 0
    died = [line for line in logs if line["event"] == "worker_died"]
    assert [line["pause"] for line in died][:4] == [0.01, 0.02, 0.03, 0.03]
    assert {line["worker"] for line in died} == {1}


async def test_one_that_does_not_end_in_time_is_killed(supervise: Supervise) -> None:
    deaf = "signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    with capture_logs() as logs:
        assert await supervise(deaf + SERVE + END_ALL + "; time.sleep(600)", size=1, patience=0.1).run() == 0
    assert [line["event"] for line in logs if line["log_level"] == "error"] == ["worker_killed"]


async def test_one_that_hangs_says_where_and_is_replaced_and_one_that_beats_is_not(
    supervise: Supervise, capfd: pytest.CaptureFixture[str]
) -> None:
    hang = "\nif number == '1': time.sleep(600)"
    code = SERVE + f"{END_ALL} if again else None" + hang + "\nwhile True: channel.send(b't'); time.sleep(0.02)"
    with capture_logs() as logs:
        assert await supervise(code, hang=3.0).run() == 0
    assert [line["worker"] for line in logs if line["event"] == "worker_hangs"] == [1]
    died = [line for line in logs if line["event"] == "worker_died"]
    assert [(line["worker"], line["status"]) for line in died] == [(1, -signal.SIGABRT)]
    assert 'File "<string>", line 2 in <module>' in capfd.readouterr().err


async def test_one_that_still_starts_or_ends_does_not_hang(supervise: Supervise) -> None:
    late = "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.5), os._exit(0))); time.sleep(0.5); "
    code = late + SERVE + END_ALL + "; time.sleep(600)"
    with capture_logs() as logs:
        assert await supervise(code, size=1, hang=0.2).run() == 0
    assert [line["event"] for line in logs] == ["worker_started"]


async def test_who_rings_for_a_helper_that_dies_is_told(supervise: Supervise, tmp_path: Path) -> None:
    helper = Helper(
        [sys.executable, "-c", "import os, pathlib; pathlib.Path(os.environ['AT']).open('a').write('x')"], {}
    )
    helper = helper._replace(environ={"AT": str(tmp_path / "helped")})
    assert await supervise(RING_IN_TURN, helper=helper).run() == 0
    assert (tmp_path / "helped").read_text() == "xx"


async def test_one_that_cannot_be_started_is_tried_again_and_the_others_serve_on(
    supervise: Supervise, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.01)
    # Once the first serves, the program is gone, until the second has not been started twice.
    program, away, failed = tmp_path / "program", tmp_path / "away", []
    program.write_text(f"#!{sys.executable}\n{BEGIN}{SERVE}{END_ALL} if number == '1' else None; {WAIT}\n")
    program.chmod(0o700)

    def note(logger: object, method: str, event: EventDict) -> EventDict:
        if event["event"] == "worker_not_started":
            failed.append((event["worker"], event["pause"]))
            if len(failed) == 2:
                away.rename(program)
        return event

    with capture_logs(processors=[note]) as logs:
        assert await supervise("", command=[str(program)], on_serving=lambda: program.rename(away)).run() == 0
    assert failed == [(1, 0.01), (1, 0.02)]
    assert [line["worker"] for line in logs if line["event"] == "worker_started"] == [0, 1]


async def test_who_rings_for_a_helper_that_cannot_be_started_is_told_and_may_ring_again(
    supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.01)
    with capture_logs() as logs:
        helper = Helper(["/nowhere/helper"], {})
        assert await supervise(RING_IN_TURN, helper=helper).run() == 0
    assert [line["pause"] for line in logs if line["event"] == "explainer_not_started"] == [0.01, 0.02]


async def test_a_folder_whose_path_is_too_long_for_a_socket_is_said(supervise: Supervise, tmp_path: Path) -> None:
    folder = tmp_path / ("a" * 100)
    folder.mkdir()
    with pytest.raises(StartupFailed, match=r"TMPDIR: expected a shorter path, got .*aaa: AF_UNIX path too long"):
        await supervise("", folder=folder).run()
