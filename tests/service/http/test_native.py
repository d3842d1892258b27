from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from service.app import create_app
from service.settings import Settings
from tests.conftest import SHAPES, draw, encode

PICTURE = encode(draw("circle", 1000))


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, object]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, object] = answer.json()
    assert body["code"] == code
    assert body["status"] == status
    assert set(body) == {"type", "title", "status", "detail", "code"}
    return body


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param({"files": {"file": ("a.png", PICTURE)}}, id="multipart"),
        pytest.param({"content": PICTURE, "headers": {"content-type": "image/png"}}, id="raw"),
        pytest.param({"content": PICTURE, "headers": {"content-type": "image/whatever; x=1"}}, id="raw-other-type"),
        pytest.param({"content": PICTURE, "headers": {"content-type": "application/octet-stream"}}, id="octets"),
        pytest.param({"json": {"image": base64.b64encode(PICTURE).decode()}}, id="json"),
        pytest.param(
            {"json": {"image": f"data:image/png;base64,{base64.b64encode(PICTURE).decode()}"}}, id="json-data-url"
        ),
    ],
)
def test_each_form_of_a_picture_gets_the_same_answer(live: httpx.Client, request_: dict[str, object]) -> None:
    answer = live.post("/predict", **request_)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["model"], body["version"]) == ("shapes", 1)
    (image,) = body["images"]
    assert image["image_id"] == hashlib.sha256(PICTURE).hexdigest()
    assert image["predictions"][0]["label"] == "circle"
    probabilities = [prediction["probability"] for prediction in image["predictions"]]
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(probabilities) == pytest.approx(1, abs=1e-5)
    assert sorted(prediction["index"] for prediction in image["predictions"]) == [0, 1, 2]
    assert image["recognised"] is True
    assert set(image["seconds"]) == {"decode", "queue", "inference"}
    assert all(value >= 0 for value in image["seconds"].values())


def test_several_files_are_answered_in_their_order(live: httpx.Client) -> None:
    files = [("file", (f"{shape}.jpg", encode(draw(shape, 2000), "JPEG"))) for shape in (*SHAPES, *reversed(SHAPES))]
    images = live.post("/predict", files=files).json()["images"]
    assert [image["name"] for image in images] == [name for _, (name, _) in files]
    assert [image["predictions"][0]["label"] for image in images] == [*SHAPES, *reversed(SHAPES)]


@pytest.mark.parametrize(("top_k", "expected"), [(1, 1), (2, 2), (3, 3), (1000, 3)])
def test_top_k_limits_the_classes(live: httpx.Client, top_k: int, expected: int) -> None:
    answer = live.post("/predict", params={"top_k": top_k}, files={"file": PICTURE})
    assert len(answer.json()["images"][0]["predictions"]) == expected


def test_a_picture_unlike_all_classes_is_not_recognised(live: httpx.Client) -> None:
    grey = encode(draw("circle", 1).convert("L").point(lambda _: 128))
    assert live.post("/predict", files={"file": grey}).json()["images"][0]["recognised"] is False


@pytest.mark.parametrize(
    ("params", "code", "status", "detail"),
    [
        pytest.param(
            {"modle": "shapes"},
            "invalid_request",
            422,
            "query: expected nothing but model, version, top_k, store, got modle",
            id="typo",
        ),
        pytest.param(
            {"top_k": "5_0"}, "invalid_request", 422, 'a whole number in digits, such as 5, got "5_0"', id="_"
        ),
        pytest.param(
            {"top_k": "+5"}, "invalid_request", 422, 'a whole number in digits, such as 5, got "+5"', id="plus"
        ),
        pytest.param(
            {"top_k": " 5"}, "invalid_request", 422, 'a whole number in digits, such as 5, got " 5"', id="space"
        ),
        pytest.param({"top_k": "\u0665"}, "invalid_request", 422, "a whole number in digits", id="arabic"),
        pytest.param({"top_k": "0"}, "invalid_request", 422, "top_k", id="top-k-too-small"),
        pytest.param({"top_k": "many"}, "invalid_request", 422, '"many"', id="top-k-no-number"),
        pytest.param({"version": "newest"}, "invalid_request", 422, '"newest"', id="version-no-number"),
        pytest.param({"model": "cats"}, "unknown_model", 404, "expected one of shapes, got 'cats'", id="model"),
        pytest.param({"version": "9"}, "unknown_version", 404, "expected version 1 of shapes, got 9", id="version"),
    ],
)
def test_wrong_parameters_are_refused_with_what_came(
    live: httpx.Client, params: dict[str, str], code: str, status: int, detail: str
) -> None:
    answer = live.post("/predict", params=params, files={"file": PICTURE})
    assert detail in str(problem(answer, status, code)["detail"])


@pytest.mark.parametrize(
    ("request_", "status", "code", "detail"),
    [
        pytest.param({"files": {"image": PICTURE}}, 422, "invalid_request", "got image", id="other-field"),
        pytest.param({"files": {"file": b""}}, 422, "empty_image", "0 bytes", id="empty-file"),
        pytest.param({"files": {"file": ("b.txt", b"hello")}}, 415, "unsupported_image", "b.txt: ", id="text-file"),
        pytest.param({"files": {"file": ("c.png", PICTURE[:99])}}, 422, "broken_image", "c.png: ", id="truncated"),
        pytest.param(
            {"data": {"file": "text"}, "files": {"file": PICTURE}}, 422, "invalid_request", "got text", id="text-field"
        ),
        pytest.param(
            {"content": b"nonsense", "headers": {"content-type": "multipart/form-data; boundary=x"}},
            422,
            "invalid_request",
            "multipart",
            id="no-multipart-at-all",
        ),
        pytest.param(
            {"content": PICTURE, "headers": {"content-type": "multipart/form-data"}},
            422,
            "invalid_request",
            "multipart",
            id="no-boundary",
        ),
        pytest.param(
            {"content": b"--x--\r\n", "headers": {"content-type": "multipart/form-data; boundary=x"}},
            422,
            "no_image",
            "got none",
            id="empty-form",
        ),
        pytest.param(
            {"content": b"", "headers": {"content-type": "image/png"}}, 422, "empty_image", "0 bytes", id="empty-raw"
        ),
        pytest.param(
            {"content": b"{", "headers": {"content-type": "application/json"}},
            422,
            "invalid_request",
            "image",
            id="json",
        ),
        pytest.param(
            {"json": {"picture": "x"}}, 422, "invalid_request", "nothing but image, got picture", id="json-other-key"
        ),
        pytest.param(
            {"json": {"image": "", "x": 1}}, 422, "invalid_request", "parameters go in the query", id="json-more-keys"
        ),
        pytest.param({"json": {"image": [1, 2, 3]}}, 422, "invalid_request", "nothing beside", id="json-list"),
        pytest.param({"json": {"image": 7}}, 422, "invalid_request", "image", id="json-number"),
        pytest.param({"json": {"image": "a%%"}}, 422, "invalid_request", "got '%' as character 2", id="no-base64"),
        pytest.param({"json": {"image": "abcde"}}, 422, "invalid_request", "multiple of 4", id="cut-base64"),
        pytest.param(
            {"json": {"image": "data:,a"}},
            422,
            "invalid_request",
            "as `data:image/png;base64,...`",
            id="other-data-url",
        ),
        pytest.param({"json": {"image": "päng"}}, 422, "invalid_request", "base64", id="no-ascii"),
        pytest.param({"json": {"image": ""}}, 422, "empty_image", "0 bytes", id="json-empty"),
        pytest.param(
            {"content": PICTURE, "headers": {"content-type": "text/plain"}},
            415,
            "unsupported_media_type",
            "got text/plain",
            id="other-type",
        ),
        pytest.param({"content": PICTURE}, 415, "unsupported_media_type", "got no type", id="no-type"),
    ],
)
def test_a_wrong_body_is_refused_with_what_was_expected(
    live: httpx.Client, request_: dict[str, object], status: int, code: str, detail: str
) -> None:
    assert detail in str(problem(live.post("/predict", **request_), status, code)["detail"])


def test_one_bad_picture_of_several_is_named(live: httpx.Client) -> None:
    files = [("file", ("good.png", PICTURE)), ("file", ("bad.png", PICTURE[:80]))]
    assert "bad.png: " in str(problem(live.post("/predict", files=files), 422, "broken_image")["detail"])


def test_too_many_pictures_are_refused(live: httpx.Client) -> None:
    files = [("file", PICTURE)] * 33
    assert "at most 32 pictures, got 33" in str(
        problem(live.post("/predict", files=files), 422, "too_many_images")["detail"]
    )


def test_models_and_versions_are_listed_with_their_cards(live: httpx.Client) -> None:
    summary = {
        "name": "shapes",
        "versions": [{"version": 1, "state": "available", "engine": "openvino", "reason": None}],
        "labels": {"stable": None, "canary": None, "canary_weight": 0.0, "problem": None},
    }
    assert live.get("/models").json() == {"models": [summary], "default": "shapes"}
    assert live.get("/models/shapes").json() == summary
    card = live.get("/models/shapes/versions/1").json()
    assert card["engine"] == "openvino"
    assert card["manifest"]["labels"] == list(SHAPES)
    assert card["manifest"]["metrics"]["accuracy"] >= 0.9


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/models/cats", 404, "unknown_model"),
        ("/models/cats/versions/1", 404, "unknown_model"),
        ("/models/shapes/versions/2", 404, "unknown_version"),
        ("/models/shapes/versions/x", 422, "invalid_request"),
        ("/models?verbose=1", 422, "invalid_request"),
        ("/nowhere", 404, "not_found"),
        ("/models/", 404, "not_found"),
        ("/predict", 405, "method_not_allowed"),
    ],
)
def test_what_is_not_there_is_a_problem_too(live: httpx.Client, path: str, status: int, code: str) -> None:
    problem(live.get(path), status, code)


def test_with_two_models_one_must_be_named_unless_one_is_the_default(
    own_models: Path, serve: Callable[[FastAPI], httpx.Client]
) -> None:
    second = own_models / "other" / "4"
    second.parent.mkdir()
    (own_models / "shapes" / "1").rename(second)
    manifest = second / "manifest.json"
    manifest.write_text(
        manifest.read_text().replace('"shapes"', '"other"', 1).replace('"version": 1', '"version": 4', 1)
    )
    import shutil

    shutil.copytree(second, own_models / "shapes" / "1")
    copy = own_models / "shapes" / "1" / "manifest.json"
    copy.write_text(copy.read_text().replace('"other"', '"shapes"', 1).replace('"version": 4', '"version": 1', 1))

    client = serve(create_app(Settings(models=own_models, engine="openvino")))
    detail = problem(client.post("/predict", files={"file": PICTURE}), 422, "model_required")["detail"]
    assert "one of other, shapes" in str(detail)
    answer = client.post("/predict?model=other", files={"file": PICTURE}).json()
    assert (answer["model"], answer["version"]) == ("other", 4)
    with_default = serve(create_app(Settings(models=own_models, engine="openvino", default_model="shapes")))
    assert with_default.post("/predict", files={"file": PICTURE}).json()["model"] == "shapes"


def test_tensorflow_serves_the_same_answer(shapes_models: Path, serve: Callable[[FastAPI], httpx.Client]) -> None:
    client = serve(create_app(Settings(models=shapes_models, engine="tensorflow")))
    image = client.post("/predict", files={"file": PICTURE}).json()["images"][0]
    assert image["predictions"][0]["label"] == "circle"
    assert client.get("/models/shapes").json()["versions"][0]["engine"] == "tensorflow"
