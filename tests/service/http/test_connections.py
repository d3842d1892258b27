"""Slow and endless heads of requests, on a real socket."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service.app import create_app
from service.http import connections
from service.settings import Settings
from tests.conftest import LiveServer
from tests.service.http.explaining import until

HEAD = b"GET /health/live HTTP/1.1\r\nhost: x\r\n"


@pytest.fixture
def raw(live: httpx.Client) -> Iterator[socket.socket]:
    with socket.create_connection((live.base_url.host, live.base_url.port or 80), timeout=20) as connection:
        yield connection


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch, live: httpx.Client) -> Iterator[socket.socket]:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.3)
    with socket.create_connection((live.base_url.host, live.base_url.port or 80), timeout=20) as connection:
        yield connection


def all_of(connection: socket.socket) -> bytes:
    parts = []
    try:
        while part := connection.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def test_a_head_that_comes_byte_by_byte_is_given_up(impatient: socket.socket) -> None:
    started = time.monotonic()
    try:
        for byte in HEAD * 5:
            impatient.sendall(bytes([byte]))
            time.sleep(0.02)
    except OSError:
        pass
    assert all_of(impatient).startswith(b"HTTP/1.1 408 ")
    assert time.monotonic() - started < 3


def test_a_connection_on_which_nothing_comes_is_closed_without_a_word(impatient: socket.socket) -> None:
    assert all_of(impatient) == b""


def test_a_second_request_of_a_connection_has_the_same_time(impatient: socket.socket) -> None:
    impatient.sendall(HEAD + b"\r\n")
    assert impatient.recv(65536).startswith(b"HTTP/1.1 200 ")
    time.sleep(0.5)
    impatient.sendall(HEAD)
    assert all_of(impatient).startswith(b"HTTP/1.1 408 ")


def test_what_comes_behind_an_early_answer_is_not_taken_for_ever(impatient: socket.socket) -> None:
    impatient.sendall(b"POST /predict?model=cats HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
    received = impatient.recv(65_536)
    assert received.startswith(b"HTTP/1.1 404 ")

    def send_on() -> None:
        for _ in range(2000):
            impatient.sendall(b"1\r\nx\r\n")
            time.sleep(0.005)

    with pytest.raises(OSError, match=r"reset|Broken pipe"):
        send_on()


def test_behind_an_early_answer_the_connection_goes_on(raw: socket.socket) -> None:
    raw.sendall(b"POST /predict?model=cats HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nabc")
    assert raw.recv(65_536).startswith(b"HTTP/1.1 404 ")
    raw.sendall(b"defghi" + HEAD + b"\r\n")
    assert raw.recv(65_536).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("what", [b"x-a: ", b"x-a: b\r\n"], ids=["one-header", "many-headers"])
def test_a_head_without_end_is_refused(raw: socket.socket, what: bytes) -> None:
    raw.sendall(HEAD + what)
    try:
        for _ in range(4000):
            raw.sendall(b"a" * 1024 if what.endswith(b" ") else what * 128)
    except OSError:
        pass
    assert all_of(raw).startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize(
    "sent",
    [b"GET / HTP/1.1\r\n\r\n", b"POST /predict HTTP/1.1\r\nContent-Length: -5\r\n\r\n", b"\x16\x03\x01\x02\r\n\r\n"],
    ids=["protocol", "length", "tls"],
)
def test_what_is_no_http_is_a_problem_too(raw: socket.socket, sent: bytes) -> None:
    raw.sendall(sent)
    head, _, body = all_of(raw).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"application/problem+json" in head
    assert json.loads(body)["code"] == "malformed_request"


def test_large_but_reasonable_heads_are_read(live: httpx.Client) -> None:
    assert live.get("/health/live", headers={"x-a": "b" * 30_000}).status_code == 200


def test_many_requests_share_a_connection(raw: socket.socket) -> None:
    raw.sendall((HEAD + b"\r\n") * 20)
    answered = b""
    while answered.count(b"HTTP/1.1 200") < 20:
        answered += raw.recv(65536)
    assert answered.count(b'{"status":"live"}') == 20


@pytest.mark.parametrize("before", [0, 1], ids=["new", "used"])
def test_what_comes_while_the_server_stops_is_answered(
    shapes_models: Path, monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    monkeypatch.setattr(connections, "LINGER_SECONDS", 30.0)
    with (
        LiveServer(create_app(Settings(models=shapes_models, engine="openvino"))) as server,
        httpx.Client(base_url=server.url) as client,
    ):
        place = client.base_url.host, client.base_url.port or 80
        with socket.create_connection(place, timeout=20) as connection:
            for _ in range(before):
                connection.sendall(HEAD + b"\r\n")
                assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
            until(lambda: len(server.server_state.connections) == 1)
            server.should_exit = True
            until(lambda: not listens(place))
            connection.sendall(HEAD + b"\r\n")
            answer = all_of(connection)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close" in answer.lower()


def listens(place: tuple[str, int]) -> bool:
    try:
        socket.create_connection(place, timeout=20).close()
    except ConnectionRefusedError:
        return False
    # Whoever connects in the moment of closing.
    except ConnectionResetError:
        return True
    return True
