from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI, Request
from structlog.testing import capture_logs

from service.app import create_app
from service.settings import Settings
from tests.conftest import draw, encode
from tests.service.http.test_native import problem

PICTURE = encode(draw("circle", 1))


@pytest.fixture
def small(shapes_models: Path, serve: Callable[[FastAPI], httpx.Client]) -> httpx.Client:
    """Takes 2,000 bytes and 2,400 pixels."""
    settings = Settings(
        models=shapes_models, engine="openvino", max_body_bytes=2000, max_total_bytes=3000, max_pixels=2400, timeout=0.5
    )
    return serve(create_app(settings))


def test_an_announced_body_that_is_too_large_is_refused_before_it_is_read(small: httpx.Client) -> None:
    host, port = small.base_url.host, small.base_url.port
    with socket.create_connection((host, port)) as connection:
        connection.sendall(
            b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 2001\r\n\r\n"
        )
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in answer.lower()
    assert b"expected at most 2000 bytes, got 2001" in answer


def test_an_announced_body_that_is_too_large_is_refused_where_none_is_expected(small: httpx.Client) -> None:
    # 2,304 pixels, and 2,000 bytes.
    image_id = small.post("/predict", files={"file": PICTURE}).json()["images"][0]["image_id"]
    query = f"image_id={image_id}&samples=10000&superpixels=200"
    with socket.create_connection((small.base_url.host, small.base_url.port), timeout=10) as connection:
        connection.sendall(f"GET /explain?{query} HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"body_too_large" in answer


def test_a_body_of_parameters_that_does_not_arrive_is_given_up(small: httpx.Client) -> None:
    head = b"POST /explanations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
    with socket.create_connection((small.base_url.host, small.base_url.port), timeout=10) as connection:
        connection.sendall(head)
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"body_too_slow" in answer


@pytest.mark.parametrize("kind", ["image/png", "multipart/form-data; boundary=x", "application/json"])
def test_a_body_of_unknown_length_is_counted_while_it_streams(small: httpx.Client, kind: str) -> None:
    def body() -> Iterator[bytes]:
        yield b'--x\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n'
        yield from [b"x" * 500] * 4

    answer = small.post("/predict", content=body(), headers={"content-type": kind})
    assert answer.status_code == 413
    assert answer.json()["code"] == "body_too_large"
    assert "expected at most 2000 bytes, got more" in answer.json()["detail"]


def test_a_body_of_just_the_limit_is_read(small: httpx.Client) -> None:
    answer = small.post("/predict", content=b"x" * 2000, headers={"content-type": "image/png"})
    assert answer.json()["code"] == "unsupported_image"


def begin_body(client: httpx.Client, size: int, announced: int) -> socket.socket:
    """Send so many bytes of a body that announced more, and leave it at that."""
    connection = socket.create_connection((client.base_url.host, client.base_url.port), timeout=10)
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {announced}\r\n\r\n"
    connection.sendall(head.encode() + b"x" * size)
    return connection


def test_a_body_that_does_not_arrive_is_refused_in_time(small: httpx.Client) -> None:
    with begin_body(small, 3, 900) as connection:
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"expected the whole body within 0.5 s" in answer


def test_bodies_under_way_hold_a_bounded_number_of_bytes_together(small: httpx.Client) -> None:
    raw = {"content": b"x" * 1500, "headers": {"content-type": "image/png"}}
    with begin_body(small, 1900, 2000) as first:
        # The first body's bytes are counted once the server has read them.
        answers = [small.post("/predict", **raw) for _ in range(50)]
        assert {answer.json()["code"] for answer in answers} <= {"overloaded", "unsupported_image"}
        refused = [answer for answer in answers if answer.status_code == 503]
        assert refused
        assert refused[0].headers["retry-after"] == "1"
        assert b"408" in first.recv(4096)
    assert small.post("/predict", **raw).json()["code"] == "unsupported_image"


@pytest.mark.parametrize("given", ["", "0", "-1", "nan", "inf", "1e3", "3601", "soon", "1,5", "\u0661"], ids=repr)
def test_a_deadline_that_is_none_is_refused(live: httpx.Client, given: str) -> None:
    answer = live.get("/models", headers={"x-request-timeout": given.encode()})
    assert "expected X-Request-Timeout in seconds" in str(problem(answer, 422, "invalid_request")["detail"])


def test_an_answer_within_the_client_s_deadline_is_given(live: httpx.Client) -> None:
    answer = live.post("/predict", files={"file": PICTURE}, headers={"x-request-timeout": "9.5"})
    assert answer.status_code == 200


@pytest.mark.parametrize("path", ["/explain", "/v2/models/shapes/infer"])
def test_what_the_client_would_not_wait_for_is_given_up(live: httpx.Client, path: str) -> None:
    def slow() -> Iterator[bytes]:
        yield b"{"
        time.sleep(0.5)
        yield b"}"

    headers = {"x-request-timeout": "0.2", "content-type": "image/png"}
    answer = live.post(path, content=slow(), headers=headers)
    assert answer.status_code == 504
    assert "no answer within 0.2 s, as X-Request-Timeout asks" in answer.text
    assert live.get("/health/ready").status_code == 200


def test_too_many_pixels_are_refused(small: httpx.Client) -> None:
    answer = small.post("/predict", files={"file": encode(draw("circle", 1, (60, 60)).quantize(2))})
    assert answer.status_code == 413
    assert answer.json()["code"] == "image_too_large"
    assert "at most 2400 pixels, got 60 x 60" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("given", "kept"),
    [("abc-123", True), ("x" * 128, True), ("x" * 129, False), ("with space", False), ("", False)],
)
def test_a_sound_request_id_is_kept_and_another_replaced(live: httpx.Client, given: str, kept: bool) -> None:
    returned = live.get("/health/live", headers={"x-request-id": given}).headers["x-request-id"]
    assert (returned == given) is kept
    assert len(returned) >= 32 or kept


def test_each_request_gets_an_id_of_its_own(live: httpx.Client) -> None:
    assert live.get("/health/live").headers["x-request-id"] != live.get("/health/live").headers["x-request-id"]


def test_a_bug_is_a_500_without_its_text_and_one_logged_traceback(
    shapes_models: Path, serve: Callable[[FastAPI], httpx.Client]
) -> None:
    app = create_app(Settings(models=shapes_models, engine="openvino"))

    @app.get("/bug")
    async def bug(request: Request) -> None:
        raise ZeroDivisionError("secret")

    client = serve(app)
    with capture_logs() as logs:
        answer = client.get("/bug", headers={"x-request-id": "me"})
    assert answer.status_code == 500
    assert answer.json()["code"] == "internal_error"
    assert answer.headers["x-request-id"] == "me"
    assert "secret" not in answer.text
    assert [entry["event"] for entry in logs] == ["bug", "request"]
    assert logs[0]["exc_info"]
    assert logs[1]["status"] == 500


def test_a_request_is_one_log_line(live: httpx.Client) -> None:
    with capture_logs() as logs:
        live.post("/predict", files={"file": PICTURE})
    (line,) = logs
    assert {key: line[key] for key in ("event", "method", "path", "status")} == {
        "event": "request",
        "method": "POST",
        "path": "/predict",
        "status": 200,
    }


def test_a_client_that_leaves_in_the_middle_is_logged_as_gone_and_is_no_bug(live: httpx.Client) -> None:
    with capture_logs() as logs:
        with socket.create_connection((live.base_url.host, live.base_url.port)) as connection:
            connection.sendall(
                b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 900\r\n\r\nabc"
            )
        for _ in range(1000):
            live.get("/health/live")
            logs[:] = [entry for entry in logs if entry["path"] == "/predict"]
            if logs:
                break
    assert logs[0]["status"] == 499
