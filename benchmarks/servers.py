"""A models' folder in, running servers on free ports of 127.0.0.1 out, stopped when their context ends."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx

from benchmarks.environments import ROOT
from benchmarks.errors import BenchmarkFailed
from benchmarks.processes import Tree
from benchmarks.uploads import Upload, form, inference_request

START_SECONDS = 180
ANSWER_SECONDS = 60
STOP_SECONDS = 20
# Less of a core than this, for so long, is a server that has done what it does at first.
SETTLED_SHARE, SETTLED_SECONDS, MOST_SECONDS_TO_SETTLE = 0.3, 1.0, 30
LOG_TAIL = 30


@dataclass(frozen=True)
class Kind:
    """How to start a server and ask it, and where its answer holds the most probable class."""

    name: str
    command: list[str]
    environment: Mapping[str, str]
    port: int
    label_of: Callable[[Any], str]
    path: str = "/predict"
    upload: Callable[[bytes], Upload] = form
    python: Path = field(default=Path(sys.executable))
    """Whose packages it runs on."""


@dataclass(frozen=True)
class Running:
    """A server that answers."""

    kind: Kind
    process: subprocess.Popen[bytes]
    tree: Tree

    @property
    def base(self) -> str:
        """Its address, without a path."""
        return f"http://127.0.0.1:{self.kind.port}"

    @property
    def url(self) -> str:
        """Where pictures are posted."""
        return self.base + self.kind.path

    def ask(self, picture: bytes) -> bytes:
        """The answer for one picture, as it came.

        Raises:
            BenchmarkFailed: there is none with status 200.
        """
        upload = self.kind.upload(picture)
        try:
            answer = httpx.post(
                self.url,
                content=upload.body,
                headers={"Content-Type": upload.content_type},
                timeout=ANSWER_SECONDS,
            )
        except httpx.HTTPError as error:
            raise BenchmarkFailed(f"{self.kind.name}: expected an answer, got {error!r}") from None
        if answer.status_code != HTTPStatus.OK:
            raise BenchmarkFailed(f"{self.kind.name}: expected 200, got {answer.status_code}: {answer.text[:500]}")
        return answer.content

    def classify(self, picture: bytes) -> str:
        """The most probable class of one picture.

        Raises:
            BenchmarkFailed: the answer is none.
        """
        answer = self.ask(picture)
        try:
            return self.kind.label_of(json.loads(answer))
        except (ValueError, LookupError, TypeError):
            raise BenchmarkFailed(f"{self.kind.name}: expected a class, got {answer[:500]!r}") from None

    def settle(self) -> None:
        """Wait until it has loaded what it loads after it answers already."""
        deadline = time.monotonic() + MOST_SECONDS_TO_SETTLE
        before = self.tree.cpu_seconds()
        while before is not None and time.monotonic() < deadline:
            time.sleep(SETTLED_SECONDS)
            after = self.tree.cpu_seconds()
            if after is None or after - before < SETTLED_SHARE * SETTLED_SECONDS:
                return
            before = after


def ours(models: Path, model: str) -> Kind:
    """`python -m service`; other settings come from the environment."""
    port = _free_port()
    return Kind(
        name="sichtbar",
        command=[sys.executable, "-m", "service"],
        environment={
            "SICHTBAR_HOST": "127.0.0.1",
            "SICHTBAR_PORT": str(port),
            "SICHTBAR_MODELS": str(models.absolute()),
            "SICHTBAR_DEFAULT_MODEL": model,
            # As most peers do, it logs each request.
            "SICHTBAR_LOG_LEVEL": "info",
        },
        port=port,
        label_of=_our_label,
    )


def empty(answer: bytes) -> Kind:
    """An empty handler that answers what ours did."""
    port = _free_port()
    return Kind(
        name="empty",
        command=_uvicorn("benchmarks.peers.empty_app:app", port),
        environment={"PEER_ANSWER": answer.decode()},
        port=port,
        label_of=_our_label,
    )


def tutorial(python: Path, version: Path) -> Kind:
    """FastAPI and TensorFlow in one uvicorn process."""
    port = _free_port()
    command = _uvicorn("benchmarks.peers.tutorial_app:app", port)
    return _peer("tutorial", python, version, port, command)


def litserve(python: Path, version: Path) -> Kind:
    """LitServe's API server and one process with the model."""
    port = _free_port()
    return _peer("litserve", python, version, port, [str(python), "-m", "benchmarks.peers.litserve_app"])


def bentoml(python: Path, version: Path) -> Kind:
    """BentoML's supervisor and one worker."""
    port = _free_port()
    command = [str(python), "-m", "bentoml", "serve", "benchmarks.peers.bentoml_app:Classifier"]
    return _peer(
        "bentoml",
        python,
        version,
        port,
        [*command, "--host=127.0.0.1", f"--port={port}"],
        environment={"BENTOML_DO_NOT_TRACK": "true"},
        label_of=lambda answer: str(answer[0][0]["label"]),
        upload=partial(form, field="images"),
    )


def rayserve(python: Path, version: Path) -> Kind:
    """Ray, its proxy and one replica."""
    return _peer(
        "rayserve",
        python,
        version,
        _free_port(),
        [str(python), "-m", "benchmarks.peers.rayserve_app"],
        environment={"RAY_USAGE_STATS_ENABLED": "0"},
    )


def mlserver(python: Path, version: Path) -> Kind:
    """MLServer and one worker of its inference pool."""
    port = _free_port()
    settings = {
        "HOST": "127.0.0.1",
        "HTTP_PORT": port,
        "GRPC_PORT": _free_port(),
        "METRICS_PORT": _free_port(),
        # Else a folder where it is started.
        "METRICS_DIR": python.parent.parent / "metrics",
        "MODEL_NAME": "classifier",
        "MODEL_IMPLEMENTATION": "benchmarks.peers.mlserver_app.Classifier",
        "MODEL_URI": version.absolute(),
        "MODEL_MAX_BATCH_SIZE": 32,
        # A batch is what comes within so many seconds of its first picture.
        "MODEL_MAX_BATCH_TIME": 0.005,
    }
    return _peer(
        "mlserver",
        python,
        version,
        port,
        [str(python.with_name("mlserver")), "start", str(ROOT / "benchmarks" / "peers")],
        environment={f"MLSERVER_{name}": str(value) for name, value in settings.items()},
        label_of=lambda answer: str(json.loads(answer["outputs"][0]["data"][0])[0]["label"]),
        path="/v2/models/classifier/infer",
        upload=inference_request,
    )


# Besides `empty`, which must know an answer of ours.
PEERS: dict[str, Callable[[Path, Path], Kind]] = {
    "tutorial": tutorial,
    "litserve": litserve,
    "bentoml": bentoml,
    "rayserve": rayserve,
    "mlserver": mlserver,
}


@contextmanager
def start(kind: Kind, log: Path, picture: bytes) -> Iterator[Running]:
    """Run the server until the context ends, from when it answers for the picture.

    Raises:
        BenchmarkFailed: it does not start; the log's tail says why.
    """
    with log.open("wb") as sink:
        try:
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
        except OSError as error:
            raise BenchmarkFailed(f"{kind.name} cannot be started: {error}") from None
    server = Running(kind, process, Tree(process.pid))
    try:
        _await_answer(server, log, picture)
        yield server
    finally:
        _stop(server)


def highest_version(models: Path, model: str) -> Path:
    """The version that ours answers with.

    Raises:
        BenchmarkFailed: there is none.
    """
    versions = [folder for folder in (models / model).glob("*") if folder.is_dir() and folder.name.isdecimal()]
    if not versions:
        raise BenchmarkFailed(f"expected {models / model}/<version>/, found none; choose with --models and --model")
    return max(versions, key=lambda folder: int(folder.name))


def _peer(
    name: str,
    python: Path,
    version: Path,
    port: int,
    command: list[str],
    *,
    environment: Mapping[str, str] | None = None,
    label_of: Callable[[Any], str] = lambda answer: str(answer["predictions"][0]["label"]),
    path: str = "/predict",
    upload: Callable[[bytes], Upload] = form,
) -> Kind:
    common = {"PEER_MODEL": str(version.absolute()), "PEER_PORT": str(port), "PYTHONPATH": str(ROOT)}
    return Kind(name, command, {**common, **(environment or {})}, port, label_of, path, upload, python)


def _uvicorn(app: str, port: int) -> list[str]:
    return [sys.executable, "-m", "uvicorn", app, "--host=127.0.0.1", f"--port={port}"]


def _our_label(answer: Any) -> str:  # noqa: ANN401 - JSON.
    return str(answer["images"][0]["predictions"][0]["label"])


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _await_answer(server: Running, log: Path, picture: bytes) -> None:
    name, process = server.kind.name, server.process
    deadline = time.monotonic() + START_SECONDS
    while True:
        ended = process.poll() is not None
        try:
            server.ask(picture)
        except BenchmarkFailed as failure:
            if ended:
                raise BenchmarkFailed(f"{name} ended with status {process.returncode}{_tail(log)}") from None
            if time.monotonic() > deadline:
                raise BenchmarkFailed(f"no answer within {START_SECONDS} s: {failure}{_tail(log)}") from None
            time.sleep(0.2)
        else:
            return


def _stop(server: Running) -> None:
    rest = server.tree.rest()
    server.tree.resume()
    server.process.terminate()
    try:
        server.process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.process.kill()
        server.process.wait()
    # Some leave their workers behind.
    rest.kill()


def _tail(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return "; the end of its log:\n" + "\n".join(lines[-LOG_TAIL:])
