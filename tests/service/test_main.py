"""The program as its users start it: a process, its output, its signals."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any
from urllib.parse import urljoin

import httpx
import pytest
import trustme

from service.server import ACCEPTED
from service.settings import table
from tests.conftest import ROOT, draw, encode

PICTURE = encode(draw("circle", 1))
Start = Callable[..., "Program"]


class Program:
    """`python -m service` with settings; its log lines can be awaited."""

    def __init__(self, cwd: Path = ROOT, **settings: str) -> None:
        self.settings = settings
        self.process = subprocess.Popen(
            [sys.executable, "-m", "service"],
            cwd=cwd,
            env={**os.environ, "SICHTBAR_PORT": "0", **settings},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._lines: Queue[str] = Queue()
        self.log: list[dict[str, object]] = []
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self._lines.put(line)

    def wait_for(self, event: str) -> dict[str, object]:
        while True:
            self.log.append(json.loads(self._lines.get(timeout=60)))
            if self.log[-1]["event"] == event:
                return self.log[-1]

    def rest(self) -> list[dict[str, object]]:
        """All lines of a program that has ended."""
        self._reader.join(10)
        while not self._lines.empty():
            self.log.append(json.loads(self._lines.get()))
        return self.log

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        # Until its workers have ended as well.
        self._reader.join(60)
        assert self.process.stdout
        self.process.stdout.close()


@pytest.fixture
def start(shapes_models: Path) -> Iterator[Start]:
    programs: list[Program] = []

    def run(**settings: str) -> Program:
        programs.append(Program(**{"SICHTBAR_MODELS": str(shapes_models), **settings}))
        return programs[-1]

    yield run
    for program in programs:
        program.kill()


def run(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "service", *arguments],
        cwd=ROOT,
        env={**os.environ, "SICHTBAR_PORT": "0", **settings},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_below_a_path_that_a_proxy_removes_links_lead_back(start: Start) -> None:
    program = start(SICHTBAR_ROOT_PATH="/see/through")
    url = str(program.wait_for("serving")["url"])

    def proxied(method: str, place: str, **options: Any) -> httpx.Response:
        assert place.startswith("/see/through/"), place
        return httpx.request(method, url + place.removeprefix("/see/through"), timeout=60, **options)

    predicted = proxied("POST", "/see/through/predict", files={"file": PICTURE}).json()
    image_id = predicted["images"][0]["image_id"]
    asked = proxied("POST", "/see/through/explanations", params={"image_id": image_id, "samples": 32})
    job = proxied("GET", asked.headers["location"]).json()
    assert job["links"]["self"] == asked.headers["location"]
    walk = proxied("GET", "/see/through/walk", params={"image_id": image_id}).json()
    links = re.findall(r'"(/[^"]*(?:activations|filters)[^"]*)"', json.dumps(walk))
    assert links
    assert proxied("GET", links[0]).status_code == 200
    report = "/see/through/models/shapes/versions/1/report"
    moved = proxied("GET", report)
    assert proxied("GET", urljoin(report, moved.headers["location"])).status_code == 200
    parts = re.findall(r'(?:href|src)="([^"#:]+)"', proxied("GET", "/see/through/").text)
    assert len(parts) > 3
    for part in parts:
        assert proxied("GET", urljoin("/see/through/", part)).status_code == 200
    assert "/see/through/openapi.json" in proxied("GET", "/see/through/docs").text
    assert httpx.get(f"{url}/v2/health/ready").status_code == 200
    assert set(httpx.get(f"{url}/v2/models/cats").json()) == {"error"}


@pytest.mark.parametrize("workers", ["1", "2"])
def test_it_speaks_https_with_a_certificate(start: Start, tmp_path: Path, workers: str) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    for part in certificate.cert_chain_pems:
        part.write_to_path(chain, append=True)
    certificate.private_key_pem.write_to_path(key)
    program = start(SICHTBAR_TLS_CERTIFICATE=str(chain), SICHTBAR_TLS_KEY=str(key), SICHTBAR_WORKERS=workers)
    url = str(program.wait_for("serving")["url"])
    assert url.startswith("https://")
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    answer = httpx.post(f"{url}/predict", files={"file": PICTURE}, verify=trusting)
    assert answer.json()["images"][0]["predictions"][0]["label"] == "circle"
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/health/live")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"SICHTBAR_TLS_KEY": "key.pem"}, "expected SICHTBAR_TLS_CERTIFICATE and SICHTBAR_TLS_KEY together"),
        (
            {"SICHTBAR_TLS_KEY": "/nowhere", "SICHTBAR_TLS_CERTIFICATE": "/nowhere"},
            "expected a certificate and its key",
        ),
        (
            {"SICHTBAR_TLS_KEY": "README.md", "SICHTBAR_TLS_CERTIFICATE": "README.md"},
            "expected a certificate and its key",
        ),
        ({"SICHTBAR_KEYS": "README.md"}, "README.md: expected keys as JSON: Invalid JSON"),
        ({"SICHTBAR_KEYS": "/nowhere"}, "/nowhere: expected keys as JSON: "),
    ],
    ids=["half-of-tls", "no-certificate", "no-pem", "no-keys", "no-key-file"],
)
def test_what_would_leave_it_open_or_mute_stops_the_start(settings: dict[str, str], told: str) -> None:
    finished = run(**settings)
    assert finished.returncode == 1
    assert finished.stderr.startswith("startup_failed: ")
    assert told in finished.stderr
    assert "Traceback" not in finished.stderr + finished.stdout


def test_a_key_is_made_and_opens_a_running_service(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    first = run("key", "first", "--explain", f"--file={file}")
    assert first.returncode == 0
    url = start(SICHTBAR_KEYS=str(file)).wait_for("serving")["url"]
    second = run("key", "second", "--predict", SICHTBAR_KEYS=str(file)).stdout.strip()
    statuses = [
        httpx.post(f"{url}/predict", files={"file": PICTURE}, headers={"x-api-key": key}).status_code
        for key in (first.stdout.strip(), second, "no key")
    ]
    assert statuses == [403, 200, 401]
    again = run("key", "second", "--predict", f"--file={file}")
    assert (again.returncode, again.stdout) == (1, "")
    assert "expected each name once, found again: second" in again.stderr
    nothing = run("key", "third", f"--file={file}")
    assert (nothing.returncode, nothing.stderr) == (1, "expected at least one of --predict, --explain and --admin\n")


def test_help_shows_examples_and_every_setting_with_its_default() -> None:
    finished = run("--help")
    assert finished.returncode == 0
    assert "python -m service" in finished.stdout
    for name, default, description in table():
        assert f"{name}={default}" in finished.stdout
        assert description in finished.stdout


def test_an_unknown_setting_stops_the_start_with_one_clear_line() -> None:
    finished = run(SICHTBAR_PROT="1")
    assert finished.returncode == 1
    assert finished.stderr.startswith("startup_failed: unknown settings: SICHTBAR_PROT; expected any of ")
    assert len(finished.stderr.splitlines()) == 1


def test_a_start_without_a_valid_model_exits_non_zero_and_says_why(tmp_path: Path) -> None:
    finished = run(SICHTBAR_MODELS=str(tmp_path))
    assert finished.returncode != 0
    lines = [json.loads(line) for line in finished.stdout.splitlines()]
    failure = lines[-1]
    assert failure["event"] == "startup_failed"
    assert "expected <model>/<version>/manifest.json, found none" in failure["reason"]
    assert "Traceback" not in finished.stdout + finished.stderr


def test_a_start_without_tensorflow_says_which_extra_to_install(shapes_models: Path) -> None:
    hide = (
        "import runpy, sys; sys.modules['tensorflow'] = None; sys.argv[1:] = []; "
        "runpy.run_module('service', run_name='__main__')"
    )
    finished = subprocess.run(
        [sys.executable, "-c", hide],
        cwd=ROOT,
        env={**os.environ, "SICHTBAR_PORT": "0", "SICHTBAR_MODELS": str(shapes_models)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert finished.returncode != 0
    assert "pip install -c constraints.txt -e '.[cpu]'" in finished.stdout


def test_a_taken_port_stops_the_start_before_a_model_is_loaded(start: Start, shapes_models: Path) -> None:
    url = str(start().wait_for("serving")["url"])
    second = run(SICHTBAR_PORT=url.rsplit(":", 1)[1], SICHTBAR_MODELS=str(shapes_models))
    assert (second.returncode, second.stdout) == (1, "")
    place = url.removeprefix("http://")
    assert second.stderr == (
        f"startup_failed: SICHTBAR_HOST, SICHTBAR_PORT: cannot listen on {place}: Address already in use\n"
    )


def test_a_port_that_is_taken_while_a_model_loads_stops_the_start_too(
    start: Start, shapes_models: Path, tmp_path: Path
) -> None:
    models = shutil.copytree(shapes_models, tmp_path / "models")
    (models / "slow" / "1").mkdir(parents=True)
    # Whoever reads this file waits until somebody writes.
    os.mkfifo(models / "slow" / "1" / "manifest.json")
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", 0))
        program = start(SICHTBAR_MODELS=str(models), SICHTBAR_PORT=str(other.getsockname()[1]))
        with (models / "slow" / "1" / "manifest.json").open("wb"):
            other.listen()
        assert program.process.wait(60) == 1
    last = program.rest()[-1]
    assert last["event"] == "startup_failed"
    assert "Address already in use" in str(last["reason"])


def test_connections_are_accepted_by_the_handful(start: Start) -> None:
    program = start()
    port = httpx.URL(str(program.wait_for("serving")["url"])).port
    listening = [
        inode
        for address, state, inode in (
            (line.split()[1], line.split()[3], line.split()[9])
            for line in Path(f"/proc/{program.process.pid}/net/tcp").read_text().splitlines()[1:]
        )
        if state == "0A" and address.endswith(f":{port:04X}")
    ]
    assert len(listening) == 1
    open_files = [str(file.readlink()) for file in Path(f"/proc/{program.process.pid}/fd").iterdir()]
    # The event loop takes one from each in a turn.
    assert open_files.count(f"socket:[{listening[0]}]") == ACCEPTED
    assert program.stop() == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/health/live")


def test_every_line_is_json_and_a_request_s_line_has_its_id(start: Start) -> None:
    program = start()
    url = str(program.wait_for("serving")["url"])
    answer = httpx.post(f"{url}/predict", files={"file": PICTURE}, headers={"x-request-id": "mine"})
    assert answer.json()["images"][0]["predictions"][0]["label"] == "circle"
    line = program.wait_for("request")
    assert (line["request_id"], line["path"], line["status"], line["level"]) == ("mine", "/predict", 200, "info")
    assert program.stop() == 0


def test_no_engine_leaves_traces_in_the_home_folder_or_reports_its_use(start: Start, tmp_path: Path) -> None:
    start(HOME=str(tmp_path), CI="").wait_for("serving")
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_ends_in_status_zero(start: Start) -> None:
    program = start()
    program.wait_for("serving")
    program.process.send_signal(signal.SIGINT)
    assert program.process.wait(30) == 0


def test_a_signal_while_a_model_loads_ends_the_program(start: Start, tmp_path: Path) -> None:
    folder = tmp_path / "slow" / "1"
    folder.mkdir(parents=True)
    # Whoever reads this file waits for ever.
    os.mkfifo(folder / "manifest.json")
    program = start(SICHTBAR_MODELS=str(tmp_path))
    with (folder / "manifest.json").open("wb"):
        assert program.stop() == 0


def test_after_sigterm_it_is_not_ready_but_serves_until_the_delay_is_over(start: Start) -> None:
    program = start(SICHTBAR_SHUTDOWN_DELAY="2")
    url = str(program.wait_for("serving")["url"])
    assert httpx.get(f"{url}/health/ready").status_code == 200
    program.process.send_signal(signal.SIGTERM)
    program.wait_for("draining")
    assert httpx.get(f"{url}/health/ready").status_code == 503
    assert httpx.post(f"{url}/predict", files={"file": PICTURE}).status_code == 200
    assert program.process.wait(30) == 0


def test_a_request_that_outlasts_the_drain_is_answered_as_one_and_the_exit_is_in_time(start: Start) -> None:
    program = start(SICHTBAR_DRAIN_SECONDS="1", SICHTBAR_TIMEOUT="60")
    url = httpx.URL(str(program.wait_for("serving")["url"]))
    with socket.create_connection((url.host, url.port), timeout=20) as connection:
        connection.sendall(
            b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 900\r\n\r\nabc"
        )
        httpx.get(url.join("/health/live"))
        assert program.stop() == 0
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b'"code":"draining"' in answer
    assert [line["status"] for line in program.rest() if line["event"] == "request"] == [200, 503]
    assert not [line for line in program.log if line["level"] == "error" and "exception" in line]
