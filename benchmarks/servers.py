"""A models' folder in, running servers on free ports of 127.0.0.1 out, stopped when their context ends."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx

from benchmarks.errors import BenchmarkFailed

ROOT = Path(__file__).resolve().parent.parent
# Both say where they listen, once they do.
LISTENING = re.compile(r"http://127\.0\.0\.1:([1-9]\d*)")
START_SECONDS = 180
STOP_SECONDS = 30
LOG_TAIL = 30


@dataclass(frozen=True)
class Kind:
    """How to start a server, and where its answer holds the most probable class."""

    name: str
    command: list[str]
    environment: Mapping[str, str]
    label_of: Callable[[Any], str]


@dataclass(frozen=True)
class Running:
    """A server that answers."""

    kind: Kind
    url: str
    process: subprocess.Popen[bytes]

    def classify(self, picture: bytes) -> str:
        """The most probable class of one picture.

        Raises:
            BenchmarkFailed: the answer is none.
        """
        answer = httpx.post(self.url, files={"file": ("picture.jpg", picture, "image/jpeg")}, timeout=60)
        if answer.status_code != HTTPStatus.OK:
            raise BenchmarkFailed(f"{self.kind.name}: expected 200, got {answer.status_code}: {answer.text}")
        return self.kind.label_of(answer.json())

    def resident_bytes(self) -> int | None:
        """The process's resident memory, where the system tells it as Linux does."""
        try:
            status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        except OSError:
            return None
        found = re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
        return int(found[1]) * 1024 if found else None

    def cpu_seconds(self) -> float | None:
        """What the process has computed so far, on all cores, where the system tells it as Linux does."""
        try:
            stat = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="utf-8")
        except OSError:
            return None
        # proc(5): the name in brackets may hold spaces; utime and stime are the 14th and 15th field.
        user, system = stat.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def ours(models: Path, model: str) -> Kind:
    """`python -m service`; other settings come from the environment."""
    return Kind(
        name="sichtbar",
        command=[sys.executable, "-m", "service"],
        environment={
            "SICHTBAR_HOST": "127.0.0.1",
            "SICHTBAR_PORT": "0",
            "SICHTBAR_MODELS": str(models.absolute()),
            "SICHTBAR_DEFAULT_MODEL": model,
            # Its log must say where it listens; and the tutorial's logs each request too.
            "SICHTBAR_LOG_LEVEL": "info",
        },
        label_of=lambda answer: str(answer["images"][0]["predictions"][0]["label"]),
    )


def tutorial(models: Path, model: str) -> Kind:
    """`benchmarks.tutorial_app` in one uvicorn process, with the version that ours answers with."""
    return Kind(
        name="tutorial",
        command=[sys.executable, "-m", "uvicorn", "benchmarks.tutorial_app:app", "--host=127.0.0.1", "--port=0"],
        environment={"TUTORIAL_MODEL": str(_highest_version(models, model).absolute())},
        label_of=lambda answer: str(answer["predictions"][0]["label"]),
    )


@contextmanager
def start(kind: Kind, log: Path) -> Iterator[Running]:
    """Run the server until the context ends.

    Raises:
        BenchmarkFailed: it does not start; the log's tail says why.
    """
    with log.open("wb") as sink:
        process = subprocess.Popen(
            kind.command,
            cwd=ROOT,
            env={**os.environ, **kind.environment},
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            # Ctrl-C is for the benchmark, which then stops the servers.
            start_new_session=True,
        )
    try:
        yield Running(kind, f"http://127.0.0.1:{_port(kind, process, log)}/predict", process)
    finally:
        _stop(process)


def _port(kind: Kind, process: subprocess.Popen[bytes], log: Path) -> int:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        ended = process.poll() is not None
        text = log.read_text(encoding="utf-8", errors="replace")
        if ended:
            raise BenchmarkFailed(f"{kind.name} ended with status {process.returncode}{_tail(text)}")
        if found := LISTENING.search(text):
            return int(found[1])
        time.sleep(0.1)
    raise BenchmarkFailed(f"{kind.name} did not listen within {START_SECONDS} s{_tail(text)}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _tail(text: str) -> str:
    return "; the end of its log:\n" + "\n".join(text.splitlines()[-LOG_TAIL:])


def _highest_version(models: Path, model: str) -> Path:
    versions = [folder for folder in (models / model).glob("*") if folder.is_dir() and folder.name.isdecimal()]
    if not versions:
        raise BenchmarkFailed(f"expected {models / model}/<version>/, found none; choose with --models and --model")
    return max(versions, key=lambda folder: int(folder.name))
