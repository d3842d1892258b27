"""Slow and endless heads of requests, on a real socket."""

from __future__ import annotations

import json
import re
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service.app import create_app
from service.http import connections
from service.settings import Settings
from tests.conftest import LiveServer, draw, encode
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


def metric(client: httpx.Client, sample: str) -> float:
    found = re.search(rf"^{re.escape(sample)} (\S+)$", client.get("/metrics").text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def next_of(connection: socket.socket) -> bytes:
    """An answer in JSON, whose head and body may come one after the other."""
    received = b""
    while not received.endswith(b"}"):
        part = connection.recv(65_536)
        assert part, received
        received += part
    return received


def all_of(connection: socket.socket) -> bytes:
    parts = []
    try:
        while part := connection.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def malformed(connection: socket.socket) -> str:
    """What an answer says that must be a 400, after which the connection is closed."""
    head, _, body = all_of(connection).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"application/problem+json" in head
    assert b"connection: close" in head
    problem = json.loads(body)
    assert problem["code"] == "malformed_request"
    return str(problem["detail"])


def test_a_head_that_comes_byte_by_byte_is_given_up(impatient: socket.socket) -> None:
    for byte in HEAD + b"a: b\r\n" * 300:
        if select.select([impatient], [], [], 0.02)[0]:
            break
        impatient.sendall(bytes([byte]))
    else:
        raise AssertionError("it was read to its end")
    assert all_of(impatient).startswith(b"HTTP/1.1 408 ")


def test_a_connection_on_which_nothing_comes_is_closed_without_a_word(impatient: socket.socket) -> None:
    assert all_of(impatient) == b""


def test_a_second_request_of_a_connection_has_the_same_time(impatient: socket.socket) -> None:
    impatient.sendall(HEAD + b"\r\n")
    assert next_of(impatient).startswith(b"HTTP/1.1 200 ")
    time.sleep(0.5)
    impatient.sendall(HEAD)
    assert all_of(impatient).startswith(b"HTTP/1.1 408 ")


def test_what_comes_behind_an_early_answer_is_not_taken_for_ever(impatient: socket.socket) -> None:
    impatient.sendall(b"POST /predict?model=cats HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
    received = next_of(impatient)
    assert received.startswith(b"HTTP/1.1 404 ")

    def send_on() -> None:
        for _ in range(2000):
            impatient.sendall(b"1\r\nx\r\n")
            time.sleep(0.005)

    with pytest.raises(OSError, match=r"reset|Broken pipe"):
        send_on()


def test_behind_an_early_answer_the_connection_goes_on(raw: socket.socket) -> None:
    raw.sendall(b"POST /predict?model=cats HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nabc")
    assert next_of(raw).startswith(b"HTTP/1.1 404 ")
    raw.sendall(b"defghi" + HEAD + b"\r\n")
    assert next_of(raw).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("what", [b"x-a: ", b"x-a: b\r\n"], ids=["one-header", "many-headers"])
def test_a_head_without_end_is_refused(raw: socket.socket, what: bytes) -> None:
    raw.sendall(HEAD + what)
    try:
        for _ in range(4000):
            raw.sendall(b"a" * 1024 if what.endswith(b" ") else what * 128)
    except OSError:
        pass
    assert all_of(raw).startswith(b"HTTP/1.1 431 ")


POST = b"POST /predict HTTP/1.1\r\nhost: x\r\n"
NO_HTTP = {
    "protocol": (b"GET / HTP/1.1\r\n\r\n", "Expected HTTP/"),
    "method": (b"BREW / HTTP/1.1\r\nhost: x\r\n\r\n", "Invalid method"),
    "tls": (b"\x16\x03\x01\x02\r\n\r\n", "Invalid method"),
    "length": (POST + b"content-length: -5\r\n\r\n", "Invalid character in Content-Length"),
    "two-lengths": (POST + b"content-length: 1\r\ncontent-length: 2\r\n\r\nx", "Duplicate Content-Length"),
    "header": (POST + b"x : y\r\n\r\n", "Invalid header token"),
    "tunnel": (b"CONNECT 127.0.0.1:22 HTTP/1.1\r\nhost: x\r\n\r\n", "CONNECT is for proxies"),
    "address": (b"GET http://x:99999/ HTTP/1.1\r\nhost: x\r\n\r\n", "no address: http://x:99999/"),
}


@pytest.mark.parametrize(("sent", "wrong"), NO_HTTP.values(), ids=NO_HTTP)
def test_what_is_no_http_is_a_problem_that_says_why(
    raw: socket.socket, live: httpx.Client, sent: bytes, wrong: str
) -> None:
    counted = 'sichtbar_errors_total{code="malformed_request"}'
    before = metric(live, counted)
    raw.sendall(sent)
    assert wrong in malformed(raw)
    assert metric(live, counted) == before + 1


DAMAGED = {
    "size": (b"zz\r\nabc\r\n0\r\n\r\n", "Invalid character in chunk size"),
    "great-size": (b"f" * 20 + b"\r\nabc\r\n0\r\n\r\n", "Chunk size overflow"),
    "longer-than-it-says": (b"1\r\nabcdef\r\n0\r\n\r\n", "Expected LF after chunk data"),
    "trailer": (b"1\r\na\r\n0\r\nno trailer\r\n\r\n", "Invalid header token"),
}


@pytest.mark.parametrize(("chunks", "wrong"), DAMAGED.values(), ids=DAMAGED)
@pytest.mark.parametrize("at_once", [True, False], ids=["at-once", "later"])
def test_a_damaged_body_is_a_problem_that_says_why(
    raw: socket.socket, chunks: bytes, wrong: str, *, at_once: bool
) -> None:
    head = POST + b"content-type: image/png\r\ntransfer-encoding: chunked\r\n\r\n"
    if at_once:
        raw.sendall(head + chunks)
    else:
        raw.sendall(head + b"3\r\nabc\r\n")
        raw.sendall(chunks)
    assert wrong in malformed(raw)


ENDLESS = {
    "trailers": (b"0\r\n", b"x: " + b"y" * 1019 + b"\r\n"),
    "one-trailer": (b"0\r\nx: ", b"y" * 1024),
    "extension": (b"1;", b"y" * 1024),
    "size": (b"", b"0" * 1024),
}


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch, live: httpx.Client) -> Iterator[socket.socket]:
    """Of a server that never ends a connection because it took too long."""
    monkeypatch.setattr(connections, "HEAD_SECONDS", 600.0)
    with socket.create_connection((live.base_url.host, live.base_url.port or 80), timeout=20) as connection:
        yield connection


def send_mebibyte(connection: socket.socket, begin: bytes, more: bytes) -> None:
    try:
        connection.sendall(begin)
        for _ in range(1024):
            connection.sendall(more)
    except OSError:
        pass


@pytest.mark.parametrize(("begin", "more"), ENDLESS.values(), ids=ENDLESS)
def test_no_more_is_taken_beside_a_body_than_as_a_head(patient: socket.socket, begin: bytes, more: bytes) -> None:
    head = POST + b"content-type: image/png\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n"
    send_mebibyte(patient, head + begin, more)
    assert "more than 65536 bytes of chunks' sizes or trailers" in malformed(patient)


@pytest.mark.parametrize(("begin", "more"), ENDLESS.values(), ids=ENDLESS)
def test_no_more_is_taken_beside_a_body_that_nobody_wants(patient: socket.socket, begin: bytes, more: bytes) -> None:
    send_mebibyte(patient, HEAD + b"transfer-encoding: chunked\r\n\r\n1\r\na\r\n" + begin, more)
    answers = all_of(patient)
    assert answers.count(b"HTTP/1.1 ") == 1
    assert answers.startswith(b"HTTP/1.1 200 ")


def test_what_comes_at_once_behind_a_body_may_be_more_than_may_come_beside_it(raw: socket.socket) -> None:
    picture = encode(draw("circle", 1))
    head = POST + b"content-type: image/png\r\ntransfer-encoding: chunked\r\n"
    chunk = b"%x\r\n%b\r\n" % (len(picture), picture)
    raw.sendall(head + b"\r\n" + chunk)
    raw.sendall(
        b"0\r\n\r\n" + (HEAD + b"x-a: " + b"b" * 30_000 + b"\r\n\r\n") * 4 + head + b"connection: close\r\n\r\n"
    )
    answers = b""
    while answers.count(b'{"status":"live"}') < 4:
        part = raw.recv(65_536)
        assert part, answers
        answers += part
    raw.sendall(chunk + b"0\r\n\r\n")
    statuses = re.findall(rb"HTTP/1\.1 (\d+) ", answers + all_of(raw))
    assert statuses == [b"200"] * 6


def test_a_trailer_is_no_header_of_the_request(raw: socket.socket) -> None:
    picture = encode(draw("circle", 1))
    head = POST + b"content-type: image/png\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    raw.sendall(head + b"%x\r\n%b\r\n0\r\nx-request-timeout: soon\r\n\r\n" % (len(picture), picture))
    assert all_of(raw).startswith(b"HTTP/1.1 200 ")


def test_a_damaged_body_is_told_in_the_form_of_its_protocol(raw: socket.socket) -> None:
    raw.sendall(b"POST /v1/models/shapes:predict HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n")
    head, _, body = all_of(raw).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert "Invalid character in chunk size" in json.loads(body)["error"]


def test_a_damaged_body_that_nobody_wants_costs_no_answer(raw: socket.socket) -> None:
    raw.sendall(HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\n" + HEAD + b"\r\n")
    answers = all_of(raw)
    assert answers.count(b"HTTP/1.1 ") == 1
    assert answers.startswith(b"HTTP/1.1 200 ")


def test_what_is_no_http_does_not_cost_the_request_before_it_its_answer(raw: socket.socket) -> None:
    picture = encode(draw("circle", 1))
    raw.sendall(
        POST + b"content-type: image/png\r\ncontent-length: %d\r\n\r\n" % len(picture) + picture + b"junk\r\n\r\n"
    )
    first, _, second = all_of(raw).partition(b"HTTP/1.1 400 ")
    assert first.startswith(b"HTTP/1.1 200 ")
    assert b'"predictions"' in first
    assert b"Invalid method" in second


@pytest.mark.parametrize("protocol", [b"websocket", b"h2c"])
def test_who_asks_for_another_protocol_is_answered_in_this_one(raw: socket.socket, protocol: bytes) -> None:
    asked = b"connection: upgrade\r\nupgrade: " + protocol + b"\r\nsec-websocket-version: 13\r\n"
    picture = encode(draw("circle", 1))
    body = b"content-type: image/png\r\ncontent-length: %d\r\n\r\n" % len(picture) + picture
    raw.sendall(HEAD + asked + b"\r\n" + POST + asked + body + HEAD + b"connection: close\r\n\r\n")
    live, predicted, again = all_of(raw).split(b"HTTP/1.1 ")[1:]
    assert live.startswith(b"200 ")
    # As Java's client sends its first picture.
    assert b'"label":"circle"' in predicted
    assert again.startswith(b"200 ")


@pytest.mark.parametrize("protocol", [b"websocket", b"h2c"])
@pytest.mark.parametrize(
    ("version", "connection"), [(b"1.1", b"close, upgrade"), (b"1.0", b"upgrade")], ids=["to-be-closed", "http-1.0"]
)
def test_who_asks_for_another_protocol_and_no_second_answer_gets_the_first(
    raw: socket.socket, protocol: bytes, version: bytes, connection: bytes
) -> None:
    asked = b"connection: " + connection + b"\r\nupgrade: " + protocol + b"\r\n\r\n"
    raw.sendall(HEAD.replace(b"1.1", version) + asked)
    answers = all_of(raw)
    assert answers.startswith(b"HTTP/1.1 200 ")
    assert answers.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize(
    ("path", "answer"), [("", "/"), ("?a=b", "/?a=b"), ("/?a=b", "/?a=b"), ("/health/live", "/health/live")]
)
def test_an_address_as_proxies_are_asked_for_it_is_answered_as_its_path(
    raw: socket.socket, live: httpx.Client, path: str, answer: str
) -> None:
    raw.sendall(f"GET http://x{path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
    head, _, body = all_of(raw).partition(b"\r\n\r\n")
    expected = live.get(answer, headers={"accept-encoding": "identity"})
    assert head.startswith(b"HTTP/1.1 %d " % expected.status_code)
    assert body == expected.content
    assert expected.status_code == 200


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
                assert next_of(connection).startswith(b"HTTP/1.1 200 ")
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
