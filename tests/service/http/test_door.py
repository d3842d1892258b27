"""What comes faster than it can be begun is turned away, on a real socket."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from structlog.testing import capture_logs
from tritonclient.utils import InferenceServerException

from service.app import create_app
from service.crowd import CALM_SECONDS, FIRST_TRY, TRIES_APART
from service.http import connections, door
from service.metrics import Metrics
from service.settings import Settings
from tests.conftest import draw, encode
from tests.service.http.explaining import metric, until
from tests.service.http.test_connections import all_of
from tests.service.http.test_native import problem
from tests.service.http.test_openinference import connect, pictures, wanted

PICTURE = encode(draw("circle", 1))
LIVE = b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n"


def post(*headers: str, body: bytes = PICTURE, version: str = "1.1") -> bytes:
    lines = [f"POST /predict HTTP/{version}", "host: x", f"content-length: {len(body)}", *headers]
    return "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n" + body


@pytest.fixture
def crowded(
    shapes_models: Path, serve: Callable[[FastAPI], httpx.Client], monkeypatch: pytest.MonkeyPatch
) -> httpx.Client:
    """A service whose door is always crowded."""
    monkeypatch.setattr(door, "MOST", 0)
    return serve(create_app(Settings(models=shapes_models, engine="openvino")))


@pytest.fixture
def raw(crowded: httpx.Client) -> Iterator[socket.socket]:
    with socket.create_connection((crowded.base_url.host, crowded.base_url.port or 80), timeout=20) as connection:
        yield connection


def answers(connection: socket.socket, number: int) -> bytes:
    received = b""
    while received.count(b"HTTP/1.1 ") < number or not received.endswith(b"}"):
        received += connection.recv(65_536)
    return received


def test_a_request_too_many_is_a_problem_as_any_other_and_is_counted(crowded: httpx.Client) -> None:
    with capture_logs() as logs:
        for _ in range(3):
            refused = crowded.post("/predict", files={"file": PICTURE})
            assert "more requests come than can be begun" in str(problem(refused, 503, "overloaded")["detail"])
            assert refused.headers["retry-after"] == "1"
            assert refused.headers["x-content-type-options"] == "nosniff"
        until(lambda: logs)
    # One line, not one each.
    assert [(line["event"], line["requests"]) for line in logs if line["event"] != "request"] == [("turned_away", 3)]
    assert metric(crowded, "sichtbar_errors_total", code="overloaded") == 3
    assert metric(crowded, "sichtbar_http_requests_total", route="turned away", status="503") == 3


@pytest.mark.parametrize("path", ["/v1/models/shapes:predict", "/V2/models/shapes/infer"])
def test_other_protocols_are_refused_in_their_form(crowded: httpx.Client, path: str) -> None:
    refused = crowded.post(path, json={})
    assert refused.status_code == 429
    assert set(refused.json()) == {"error"}
    assert refused.headers["retry-after"] == "1"


def test_triton_s_client_is_told_and_is_answered_once_there_is_room(
    crowded: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    triton = connect(crowded)
    with pytest.raises(InferenceServerException, match="more requests come than can be begun") as refused:
        triton.infer("shapes", pictures(PICTURE))
    statuses = [refused.value.status()]
    monkeypatch.setattr(door, "MOST", 256)
    monkeypatch.setattr(door, "CALM_SECONDS", 0)

    def answered() -> bool:
        try:
            best = triton.infer("shapes", pictures(PICTURE), outputs=[wanted("probabilities", classes=1)])
        except InferenceServerException as refused:
            statuses.append(refused.status())
            return False
        return b"circle" in best.as_numpy("probabilities").ravel()[0]

    until(answered)
    assert set(statuses) == {"429"}
    triton.close()


def test_what_has_no_body_comes_in(crowded: httpx.Client) -> None:
    assert crowded.get("/health/ready").status_code == 200
    assert crowded.get("/models").status_code == 200


@pytest.mark.parametrize("cut", [0, 1, 40, 200])
def test_the_connection_goes_on_behind_a_body_that_nobody_read(raw: socket.socket, cut: int) -> None:
    request = post() + LIVE
    raw.sendall(request[: len(request) - cut])
    if cut:
        assert answers(raw, 1).startswith(b"HTTP/1.1 503 ")
        raw.sendall(request[len(request) - cut :])
        assert answers(raw, 1).endswith(b'{"status":"live"}')
    else:
        assert answers(raw, 2).endswith(b'{"status":"live"}')


@pytest.mark.parametrize("request_", [post("connection: close"), post(version="1.0")], ids=["close", "1.0"])
def test_a_connection_that_is_to_be_closed_is(raw: socket.socket, request_: bytes) -> None:
    raw.sendall(request_)
    head, _, body = all_of(raw).partition(b"\r\n\r\n")
    assert b"connection: close" in head
    assert json.loads(body)["code"] == "overloaded"


def test_a_body_that_never_ends_is_not_waited_for(raw: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.3)
    raw.sendall(post()[:-10])
    assert all_of(raw).count(b"HTTP/1.1 ") == 1


def test_an_answer_never_overtakes_that_to_an_earlier_request(raw: socket.socket) -> None:
    raw.sendall(LIVE + post("connection: close"))
    first, second = all_of(raw).split(b"HTTP/1.1 ")[1:]
    assert first.startswith(b"200 ")
    # The first had not been answered when the second came: that one came in.
    assert second.startswith(b"415 ")


@pytest.mark.anyio
async def test_after_too_many_in_a_turn_few_are_taken_until_it_is_tried_again_or_none_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop, at_the_door, now = asyncio.get_running_loop(), door.Door(Metrics()), 0.0
    monkeypatch.setattr(door, "monotonic", lambda: now)

    async def taken(came: int) -> int:
        number = sum([at_the_door.takes(loop) for _ in range(came)])
        await asyncio.sleep(0)
        return number

    assert await taken(door.MOST) == door.MOST
    assert await taken(door.MOST + 1) == door.MOST
    few = door.CROWDED
    assert [await taken(number) for number in (door.MOST + 1, 200, few + 1)] == [few] * 3

    async def refused_until(moment: float) -> None:
        nonlocal now
        while now < moment:
            assert await taken(100) == few
            now += CALM_SECONDS / 2

    await refused_until(FIRST_TRY)
    assert [await taken(100) for _ in range(3)] == [few, 2 * few, 4 * few]
    # Of a crowd more come the longer a turn lasts: the try has failed, and the next is made later.
    assert [await taken(160), await taken(100)] == [8 * few, few]
    await refused_until(now + TRIES_APART * FIRST_TRY)
    assert [await taken(100) for _ in range(7)] == [few, 2 * few, 4 * few, 8 * few, 16 * few, 32 * few, 100]
    # Another crowd, and then a while without a refusal.
    assert [await taken(door.MOST + 1), await taken(100)] == [door.MOST, few]
    now += CALM_SECONDS
    assert await taken(100) == 100


def test_they_come_in_again_once_fewer_do(
    shapes_models: Path, serve: Callable[[FastAPI], httpx.Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "MOST", 2)
    client = serve(create_app(Settings(models=shapes_models, engine="openvino")))
    together = [
        socket.create_connection((client.base_url.host, client.base_url.port or 80), timeout=20) for _ in range(64)
    ]
    try:
        for connection in together:
            connection.sendall(post("content-type: image/png", "connection: close"))
        received = [all_of(connection) for connection in together]
    finally:
        for connection in together:
            connection.close()
    assert {answer[9:12] for answer in received} <= {b"200", b"503"}
    until(lambda: client.post("/predict", files={"file": PICTURE}).status_code == 200)
