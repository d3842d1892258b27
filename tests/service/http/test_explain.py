from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from PIL import Image

from service.app import create_app
from service.settings import Settings
from tests.conftest import PATIENCE, LiveServer, draw, encode
from tests.service.http.explaining import QUICK, SLOW, keep, metric, picture, until
from tests.service.http.test_native import problem

PICTURE = picture(1)


@pytest.fixture(scope="module")
def client(live: httpx.Client) -> Iterator[httpx.Client]:
    """A patient client of the live server."""
    with httpx.Client(base_url=live.base_url, timeout=PATIENCE) as client:
        yield client


@pytest.fixture(scope="module")
def image_id(client: httpx.Client) -> str:
    return keep(client, PICTURE)


@pytest.mark.parametrize("method", ["lime", "gradcam"])
def test_a_drawing_has_the_picture_s_own_aspect(client: httpx.Client, image_id: str, method: str) -> None:
    answer = client.get("/explain", params={"image_id": image_id, "method": method, "size": 100})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/png"
    with Image.open(io.BytesIO(answer.content)) as image:
        assert image.size == (100, 80)


def test_lime_as_numbers(client: httpx.Client, image_id: str) -> None:
    answer = client.get("/explain", params={"image_id": image_id, "format": "json", "samples": 64, "seed": 5}).json()
    about = ("image_id", "model", "version", "label", "class_index", "method", "seed", "fill")
    assert [answer[name] for name in about] == [image_id, "shapes", 1, "circle", 0, "lime", 5, "mean"]
    assert answer["samples"] == 64
    assert 0 < answer["probability"] <= 1
    assert {"intercept", "r2", "settled", "stability", "deletion", "box"} <= set(answer)
    pixels = answer["width"] * answer["height"]
    assert all(sum(superpixel["runs"]) == pixels for superpixel in answer["superpixels"])
    assert sum(superpixel["pixels"] for superpixel in answer["superpixels"]) == pixels


def test_gradcam_as_numbers(client: httpx.Client, image_id: str) -> None:
    query = {"image_id": image_id, "format": "json", "method": "gradcam", "label": "SQUARE"}
    answer = client.get("/explain", params=query).json()
    assert (answer["label"], answer["class_index"], answer["method"]) == ("square", 1, "gradcam")
    assert all(0 <= value <= 1 for row in answer["heatmap"] for value in row)


@pytest.mark.parametrize("method", ["lime", "gradcam"])
def test_a_large_photograph_is_explained_as_it_is_classified(client: httpx.Client, method: str) -> None:
    noise = Image.effect_noise((1600, 1200), 40).convert("RGB")
    data = encode(Image.blend(draw("circle", 1, noise.size), noise, 0.3), "JPEG")
    (said,) = client.post("/predict", content=data, headers={"content-type": "image/jpeg"}).json()["images"]
    query = {"image_id": said["image_id"], "method": method, "format": "json", "wait": PATIENCE}
    explained = client.get("/explain", params=query).json()
    assert explained["label"] == said["predictions"][0]["label"]
    assert explained["probability"] == pytest.approx(said["predictions"][0]["probability"], abs=1e-5)


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param({"files": {"file": ("a.png", PICTURE)}}, id="multipart"),
        pytest.param({"content": PICTURE, "headers": {"content-type": "image/png"}}, id="raw"),
        pytest.param({"json": {"image": base64.b64encode(PICTURE).decode()}}, id="json"),
    ],
)
def test_each_form_of_a_picture_is_explained_alike(
    client: httpx.Client, image_id: str, request_: dict[str, Any]
) -> None:
    posted = client.post("/explain", params=QUICK, **request_)
    assert posted.status_code == 200, posted.text
    got = client.get("/explain", params={"image_id": image_id, **QUICK})
    assert (got.content, got.headers["etag"]) == (posted.content, posted.headers["etag"])


@pytest.mark.parametrize("form", ["png", "json"])
def test_the_same_request_again_is_a_hit_and_computes_nothing(client: httpx.Client, image_id: str, form: str) -> None:
    query = {"image_id": image_id, "format": form, "samples": 40, "seed": len(form)}
    first = client.get("/explain", params=query)
    computed = metric(client, "sichtbar_explanations_total")
    second = client.get("/explain", params=query)
    assert (first.headers["x-cache"], second.headers["x-cache"]) == ("miss", "hit")
    assert (first.content, first.headers["etag"]) == (second.content, second.headers["etag"])
    assert metric(client, "sichtbar_explanations_total") == computed


def test_what_the_client_has_is_not_sent_again(client: httpx.Client, image_id: str) -> None:
    query = {"image_id": image_id, **QUICK}
    first = client.get("/explain", params=query)
    again = client.get("/explain", params=query, headers={"if-none-match": f'"x", {first.headers["etag"]}'})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
    assert again.headers["cache-control"] == "private, no-cache"
    assert client.get("/explain", params=query, headers={"if-none-match": '"x", *'}).status_code == 200
    head = client.head("/explain", params=query)
    assert (head.status_code, head.content, head.headers["etag"]) == (200, b"", first.headers["etag"])


def test_a_star_stands_for_an_answer_that_there_is_and_for_no_other(client: httpx.Client, image_id: str) -> None:
    any_ = {"if-none-match": "*"}
    assert client.get("/explain", params={"image_id": image_id, **QUICK, "seed": 31}, headers=any_).status_code == 304
    later = client.get("/explain", params={"image_id": image_id, **SLOW, "wait": 0}, headers=any_)
    assert later.status_code == 202
    client.delete(later.headers["location"])
    problem(client.get("/explain", params={"image_id": "0" * 64}, headers=any_), 404, "unknown_image")


@pytest.mark.parametrize(
    "change",
    [{"style": "heatmap"}, {"size": 99}, {"samples": 33}, {"seed": 1}, {"label": "square"}, {"format": "json"}],
)
def test_every_parameter_that_changes_the_answer_changes_its_tag(
    client: httpx.Client, image_id: str, change: dict[str, Any]
) -> None:
    query = {"image_id": image_id, **QUICK, "size": 64}
    first, other = (client.get("/explain", params=each) for each in (query, {**query, **change}))
    assert first.headers["etag"] != other.headers["etag"]


@pytest.mark.parametrize(
    ("params", "status", "code", "detail"),
    [
        pytest.param({"imageid": "x"}, 422, "invalid_request", "imageid", id="typo"),
        pytest.param({"image_id": "../../etc/passwd"}, 422, "invalid_request", "image_id", id="no-id"),
        pytest.param({"image_id": "0" * 64}, 404, "unknown_image", "pictures expire", id="unknown-picture"),
        pytest.param({"method": "shap"}, 422, "invalid_request", "'lime' or 'gradcam'", id="method"),
        pytest.param({"method": "gradcam", "samples": 64}, 422, "invalid_request", "got samples", id="samples-gradcam"),
        pytest.param(
            {"method": "gradcam", "fill": "grey", "top_superpixels": 3},
            422,
            "invalid_request",
            "got fill, top_superpixels",
            id="several-gradcam",
        ),
        pytest.param({"samples": 15}, 422, "invalid_request", "samples", id="few-samples"),
        pytest.param({"samples": 10_001}, 422, "invalid_request", "samples", id="many-samples"),
        pytest.param({"opacity": "nan"}, 422, "invalid_request", "opacity", id="nan"),
        pytest.param({"wait": "inf"}, 422, "invalid_request", "wait", id="wait"),
        pytest.param({"model": "cats"}, 404, "unknown_model", "got 'cats'", id="model"),
        pytest.param({"version": 9}, 404, "unknown_version", "got 9", id="version"),
        pytest.param({"label": "circel"}, 404, "unknown_label", "such as circle or another of 3", id="label"),
        pytest.param({"label": ""}, 404, "unknown_label", "such as circle, square, stripes;", id="no-label"),
    ],
)
def test_wrong_parameters_are_refused_with_what_came(
    client: httpx.Client, image_id: str, params: dict[str, Any], status: int, code: str, detail: str
) -> None:
    answer = client.get("/explain", params={"image_id": image_id, **params})
    assert detail in str(problem(answer, status, code)["detail"])


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        pytest.param({"files": {"file": b"hello"}}, 415, "unsupported_image", id="text"),
        pytest.param({"files": {"file": PICTURE[:99]}}, 422, "broken_image", id="truncated"),
        pytest.param({"files": {"file": b""}}, 422, "empty_image", id="empty"),
        pytest.param({"files": [("file", PICTURE)] * 2}, 422, "too_many_images", id="two"),
        pytest.param({"content": PICTURE}, 415, "unsupported_media_type", id="no-type"),
        pytest.param({"files": {"file": encode(Image.new("1", (7200, 7200)))}}, 413, "image_too_large", id="51-mp"),
    ],
)
@pytest.mark.parametrize("path", ["/explain", "/explanations"])
def test_what_is_no_single_picture_is_refused(
    client: httpx.Client, path: str, body: dict[str, Any], status: int, code: str
) -> None:
    problem(client.post(path, **body), status, code)


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(Image.new("RGB", (1, 1), "red"), id="1x1"),
        pytest.param(Image.new("RGB", (64, 64), "red"), id="one-colour"),
        pytest.param(Image.new("RGB", (400, 2), "red"), id="long"),
        pytest.param(Image.new("L", (7000, 7000)), id="49-mp"),
    ],
)
@pytest.mark.parametrize("method", ["lime", "gradcam"])
def test_odd_pictures_are_explained(client: httpx.Client, image: Image.Image, method: str) -> None:
    query = {"method": method, "size": 64} | (QUICK if method == "lime" else {})
    answer = client.post("/explain", params=query, files={"file": encode(image)})
    assert answer.status_code == 200, answer.text


def test_those_who_ask_the_same_at_once_wait_for_one_computation(client: httpx.Client) -> None:
    image_id = keep(client, picture(2))
    computed = metric(client, "sichtbar_explanations_total", outcome="done")
    query = {"image_id": image_id, "samples": 400, "seed": 1, "format": "json"}
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda _: client.get("/explain", params=query), range(4)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert metric(client, "sichtbar_explanations_total", outcome="done") == computed + 1


def test_a_client_that_goes_ends_the_computation_when_it_was_the_only_one(client: httpx.Client) -> None:
    image_id = keep(client, picture(3))
    cancelled = metric(client, "sichtbar_explanations_total", outcome="cancelled")
    with httpx.Client(base_url=client.base_url) as hasty, pytest.raises(httpx.ReadTimeout):
        hasty.get("/explain", params={"image_id": image_id, **SLOW}, timeout=0.3)
    until(lambda: metric(client, "sichtbar_explanations_total", outcome="cancelled") == cancelled + 1)
    assert metric(client, "sichtbar_explanation_jobs") == 0
    assert client.get("/explain", params={"image_id": image_id, "samples": 48}).status_code == 200


def test_what_outlasts_its_wait_goes_on_as_a_job(client: httpx.Client) -> None:
    image_id = keep(client, picture(4))
    answer = client.get("/explain", params={"image_id": image_id, **SLOW, "wait": 0, "style": "heatmap"})
    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["location"] == job["links"]["self"] == f"/explanations/{job['id']}"
    assert answer.headers["retry-after"] == "1"
    assert job["state"] in ("queued", "running")
    assert client.get(job["links"]["self"]).json()["id"] == job["id"]
    assert client.delete(job["links"]["self"]).json()["state"] == "cancelled"


def test_what_is_kept_needs_no_wait(client: httpx.Client, image_id: str) -> None:
    query = {"image_id": image_id, **QUICK, "format": "json"}
    client.get("/explain", params=query)
    assert client.get("/explain", params={**query, "wait": 0}).status_code == 200


def test_what_is_computed_is_counted(client: httpx.Client) -> None:
    before = metric(client, "sichtbar_explanation_samples_sum", model="shapes")
    labels = {"method": "lime", "model": "shapes", "version": "1"}
    count = metric(client, "sichtbar_explanation_seconds_count", **labels)
    answer = client.post("/explain", params={**QUICK, "format": "json"}, files={"file": picture(5)})
    assert metric(client, "sichtbar_explanation_samples_sum", model="shapes") == before + answer.json()["samples"]
    assert metric(client, "sichtbar_explanation_seconds_count", **labels) == count + 1
    assert metric(client, "sichtbar_explanation_cache_total", kind="explanation", result="miss") > 0


def test_a_result_is_still_there_for_the_next_process(shapes_models: Path, tmp_path: Path) -> None:
    settings = Settings(models=shapes_models, engine="openvino", explain_wait=PATIENCE, store=str(tmp_path / "store"))
    answers = []
    for _ in range(2):
        with (
            LiveServer(create_app(settings)) as server,
            httpx.Client(base_url=server.url, timeout=PATIENCE) as client,
        ):
            answers.append(client.post("/explain", params=QUICK, files={"file": PICTURE}))
    assert [answer.headers["x-cache"] for answer in answers] == ["miss", "hit"]
    assert answers[0].content == answers[1].content


def test_a_service_that_keeps_nothing_explains_what_is_sent_and_leaves_no_file(
    serve: Callable[[FastAPI], httpx.Client], shapes_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    client = serve(create_app(Settings(models=shapes_models, engine="openvino", explain_wait=PATIENCE, store="none")))
    client.timeout = PATIENCE
    answers = [client.post("/explain", params=QUICK, files={"file": PICTURE}) for _ in range(2)]
    assert [answer.headers["x-cache"] for answer in answers] == ["miss", "miss"]
    numbers = client.post("/explain", params={**QUICK, "format": "json"}, files={"file": PICTURE})
    assert numbers.headers["x-cache"] == "hit"
    problem(client.get("/explain", params={"image_id": numbers.json()["image_id"]}), 404, "unknown_image")
    place = client.post("/explanations", params=QUICK, files={"file": PICTURE}).headers["location"]
    assert client.get(f"{place}/result").content == answers[0].content
    assert not list(tmp_path.iterdir())


def test_a_picture_that_is_not_to_be_kept_leaves_neither_itself_nor_a_drawing(
    shapes_models: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    settings = Settings(models=shapes_models, engine="openvino", explain_wait=PATIENCE, store=str(store))
    unkept = picture(77)
    with (
        LiveServer(create_app(settings)) as server,
        httpx.Client(base_url=server.url, timeout=PATIENCE) as client,
    ):
        params = {**QUICK, "store": "false"}
        drawn = client.post("/explain", params=params, files={"file": unkept})
        again = client.post("/explain", params=params, files={"file": unkept})
        numbers = client.post("/explain", params={**params, "format": "json"}, files={"file": unkept}).json()
        problem(client.get(f"/images/{numbers['image_id']}"), 404, "unknown_image")
        job = client.post("/explanations", params=params, files={"file": unkept}).headers["location"]
        assert client.get(f"{job}/result").content == drawn.content == again.content
    kept = [path.read_bytes() for path in store.rglob("*") if path.is_file()]
    assert not [data for data in kept if unkept in data or b"\x89PNG" in data]
