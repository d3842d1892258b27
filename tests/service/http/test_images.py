"""Pictures by id over HTTP."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from service.app import create_app
from service.settings import Settings
from tests.conftest import draw, encode
from tests.service.http.explaining import until
from tests.service.http.test_health import samples
from tests.service.http.test_native import problem


def classified(client: httpx.Client, data: bytes, **params: str) -> str | None:
    answer = client.post("/predict", params=params, files={"file": data})
    assert answer.status_code == 200, answer.text
    image_id: str | None = answer.json()["images"][0]["image_id"]
    return image_id


@pytest.mark.parametrize(
    ("kind", "media_type"),
    [
        ("PNG", "image/png"),
        ("JPEG", "image/jpeg"),
        ("WEBP", "image/webp"),
        ("GIF", "image/gif"),
        ("BMP", "image/bmp"),
        ("TIFF", "image/tiff"),
    ],
)
def test_a_picture_comes_back_as_sent_with_its_own_type(live: httpx.Client, kind: str, media_type: str) -> None:
    data = encode(draw("circle", 4711), kind)
    sent = live.post("/predict", content=data, headers={"content-type": "image/lies"})
    image_id = sent.json()["images"][0]["image_id"]
    answer = live.get(f"/images/{image_id}")
    assert answer.status_code == 200
    assert answer.content == data
    assert hashlib.sha256(answer.content).hexdigest() == image_id
    assert answer.headers["content-type"] == media_type
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert answer.headers["content-disposition"] == "inline"
    assert answer.headers["cache-control"] == "private, max-age=86400, immutable"
    assert answer.headers["etag"] == f'"{image_id}"'


def test_a_page_inside_a_picture_is_a_picture(live: httpx.Client) -> None:
    data = encode(draw("circle", 1), "GIF") + b"<script>alert(1)</script>"
    answer = live.get(f"/images/{classified(live, data)}")
    assert answer.headers["content-type"] == "image/gif"


def test_a_picture_that_the_client_has_is_not_sent_again(live: httpx.Client) -> None:
    url = f"/images/{classified(live, encode(draw('square', 1)))}"
    etag = live.get(url).headers["etag"]
    answer = live.get(url, headers={"if-none-match": etag})
    assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag)
    assert live.get(url, headers={"if-none-match": '"other"'}).status_code == 200


def test_head_says_what_get_would_send(live: httpx.Client) -> None:
    data = encode(draw("square", 2))
    answer = live.head(f"/images/{classified(live, data)}")
    assert (answer.status_code, answer.content, answer.headers["content-length"]) == (200, b"", str(len(data)))


def test_each_of_several_pictures_has_its_id(live: httpx.Client) -> None:
    files = [encode(draw("circle", seed)) for seed in (8, 9, 8)]
    images = live.post("/predict", files=[("file", data) for data in files]).json()["images"]
    assert [live.get(f"/images/{image['image_id']}").content for image in images] == files


def test_an_unknown_picture_is_a_404_that_says_pictures_expire(live: httpx.Client) -> None:
    for headers in ({}, {"if-none-match": "*"}):
        answer = live.get(f"/images/{'0' * 64}", headers=headers)
        detail = str(problem(answer, 404, "unknown_image")["detail"])
        assert "pictures expire" in detail
        assert "POST /predict" in detail


@pytest.mark.parametrize("name", ["x", "0" * 63, "0" * 65, "A" * 64, f"{'0' * 64}%0A", "..%2e", "%00"])
def test_what_is_no_id_is_refused(live: httpx.Client, name: str) -> None:
    problem(live.get(f"/images/{name}"), 422, "invalid_request")


def test_an_unknown_parameter_is_refused(live: httpx.Client) -> None:
    problem(live.get(f"/images/{'0' * 64}?size=1"), 422, "invalid_request")


def test_a_request_may_ask_that_nothing_is_kept(live: httpx.Client) -> None:
    data = encode(draw("circle", 12345))
    assert classified(live, data, store="false") is None
    problem(live.get(f"/images/{hashlib.sha256(data).hexdigest()}"), 404, "unknown_image")
    assert classified(live, data, store="true") == hashlib.sha256(data).hexdigest()
    problem(live.post("/predict?store=perhaps", files={"file": data}), 422, "invalid_request")


def test_only_pictures_that_decode_are_kept(live: httpx.Client) -> None:
    good, bad = encode(draw("circle", 777)), b"no picture at all"
    live.post("/predict", files=[("file", good), ("file", bad)])
    for data in (good, bad):
        problem(live.get(f"/images/{hashlib.sha256(data).hexdigest()}"), 404, "unknown_image")


def test_a_service_that_must_not_keep_pictures_keeps_none(
    shapes_models: Path, serve: Callable[[FastAPI], httpx.Client], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    client = serve(create_app(Settings(models=shapes_models, engine="openvino", store="none")))
    data = encode(draw("circle", 1))
    assert classified(client, data) is None
    answer = client.get(f"/images/{hashlib.sha256(data).hexdigest()}")
    assert "keeps no pictures" in str(problem(answer, 404, "unknown_image")["detail"])
    assert not list(tmp_path.iterdir())
    assert not any(value for (name, _), value in samples(client).items() if name == "sichtbar_images_not_stored_total")


def test_by_default_pictures_are_in_the_temporary_folder_and_survive_a_restart(
    shapes_models: Path, serve: Callable[[FastAPI], httpx.Client], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SICHTBAR_STORE")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    data = encode(draw("circle", 1))
    image_id = classified(serve(create_app(Settings(models=shapes_models, engine="openvino"))), data)
    assert [path.name.partition("-")[0] for path in tmp_path.iterdir() if path.name != "models"] == ["sichtbar"]
    again = serve(create_app(Settings(models=shapes_models, engine="openvino")))
    assert again.get(f"/images/{image_id}").content == data


def test_a_store_that_cannot_keep_costs_the_id_and_not_the_answer(
    shapes_models: Path, serve: Callable[[FastAPI], httpx.Client]
) -> None:
    client = serve(create_app(Settings(models=shapes_models, engine="openvino", store_max_bytes=1)))
    answer = client.post("/predict", files={"file": encode(draw("circle", 31))}).json()["images"][0]
    assert answer["image_id"] is None
    assert answer["predictions"][0]["label"] == "circle"
    assert samples(client)["sichtbar_images_not_stored_total", (("reason", "too_large"),)] == 1


def test_kept_pictures_in_hand_hold_so_many_bytes_and_no_more(
    live: httpx.Client, shapes_models: Path, serve: Callable[[FastAPI], httpx.Client]
) -> None:
    data = encode(draw("circle", 32))
    image_id = classified(live, data)
    for room, status in ((len(data), 200), (len(data) - 1, 503)):
        client = serve(create_app(Settings(models=shapes_models, engine="openvino", max_total_bytes=room)))
        answers = [client.get(f"/images/{image_id}") for _ in range(2)]
        assert [answer.status_code for answer in answers] == [status] * 2
    assert "bytes of kept pictures" in str(problem(answers[0], 503, "overloaded")["detail"])


def test_a_picture_is_in_hand_until_it_is_sent(
    serve: Callable[[FastAPI], httpx.Client], shapes_models: Path, tmp_path: Path
) -> None:
    # More than the system takes in for a client that does not read.
    data = encode(draw("circle", 8), "GIF") + bytes(24 * 2**20)
    store = str(tmp_path / "store")
    settings = Settings(models=shapes_models, engine="openvino", store=store, max_total_bytes=30 * 2**20, timeout=2)
    client = serve(create_app(settings))
    place = f"/images/{classified(client, data)}"
    with socket.create_connection((client.base_url.host, client.base_url.port or 0)) as idle:
        idle.sendall(f"GET {place} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        idle.recv(1)
        problem(client.get(place), 503, "overloaded")
        # It is not waited for without end.
        answer = until(lambda: (answer := client.get(place)).status_code == 200 and answer)
    assert answer.content == data
    assert client.head(place).headers["content-length"] == str(len(data))
    assert client.get(place, headers={"if-none-match": "*"}).status_code == 304
    assert client.get(place).status_code == 200
