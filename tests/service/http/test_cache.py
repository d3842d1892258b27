from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from service.app import create_app
from service.settings import Settings
from tests.conftest import SHAPES, draw, encode
from tests.service.http.explaining import metric, until

PICTURE = encode(draw("circle", 1))
LARGE = encode(draw("square", 1, (300, 300)), "BMP")
TURNED = [*SHAPES[1:], SHAPES[0]]
SPENT = {"decode", "queue", "inference"}
Serve = Callable[[FastAPI], httpx.Client]


@pytest.fixture
def client(shapes_models: Path, serve: Serve) -> httpx.Client:
    return serve(create_app(Settings(models=shapes_models, engine="openvino", cache_bytes=2**20)))


def ask(client: httpx.Client, *pictures: bytes, **query: object) -> tuple[str | None, dict[str, Any]]:
    answer = client.post("/predict", params=query, files=[("file", (f"{len(p)}.png", p)) for p in pictures])
    assert answer.status_code == 200, answer.text
    return answer.headers.get("x-cache"), answer.json()


@pytest.mark.parametrize("picture", [PICTURE, LARGE], ids=["small", "large"])
def test_the_same_picture_again_costs_neither_decoding_nor_inference(client: httpx.Client, picture: bytes) -> None:
    first, told = ask(client, picture)
    stages = {stage: metric(client, "sichtbar_stage_seconds_count", stage=stage) for stage in SPENT}
    second, again = ask(client, picture)
    assert (first, second) == ("miss", "hit")
    assert again["images"][0].pop("seconds").items() >= dict.fromkeys(SPENT, 0).items()
    assert set(told["images"][0].pop("seconds")) == SPENT
    assert again == told
    assert {stage: metric(client, "sichtbar_stage_seconds_count", stage=stage) for stage in SPENT} == stages
    assert metric(client, "sichtbar_batch_size_count") == 1
    shapes = {"model": "shapes", "version": "1"}
    assert metric(client, "sichtbar_stage_seconds_count", stage="cache") == 1
    assert metric(client, "sichtbar_cache_total", **shapes, result="hit") == 1
    assert metric(client, "sichtbar_cache_total", **shapes, result="miss") == 1
    assert metric(client, "sichtbar_predictions_total", **shapes) == 2
    assert 0 < metric(client, "sichtbar_cache_bytes") < 2**20


def test_one_kept_answer_serves_any_number_of_classes(client: httpx.Client) -> None:
    ask(client, PICTURE, top_k=1)
    cache, answer = ask(client, PICTURE, top_k=3)
    assert cache == "hit"
    assert len(answer["images"][0]["predictions"]) == 3


def test_of_several_pictures_each_says_whether_it_was_kept(client: httpx.Client) -> None:
    known, new = PICTURE, encode(draw("stripes", 2))
    ask(client, known)
    cache, answer = ask(client, new, known)
    assert cache == "miss"
    assert ["cache" in image["seconds"] for image in answer["images"]] == [False, True]
    assert [image["predictions"][0]["label"] for image in answer["images"]] == ["stripes", "circle"]
    assert [image["name"] for image in answer["images"]] == [f"{len(new)}.png", f"{len(known)}.png"]
    assert ask(client, known, new, known)[0] == "hit"


def test_what_was_answered_before_is_answered_also_where_no_other_may_wait(shapes_models: Path, serve: Serve) -> None:
    app = create_app(Settings(models=shapes_models, engine="openvino", cache_bytes=2**20))
    client = serve(app)
    known, other = (encode(draw("circle", seed)) for seed in (71, 72))
    ask(client, known)
    with pytest.MonkeyPatch.context() as full:
        full.setattr(app.state.classifier.repository.find("shapes").batcher._crowd, "takes", lambda waiting: False)
        cached, answer = ask(client, known)
        assert cached == "hit"
        assert answer["images"][0]["predictions"][0]["label"] == "circle"
        refused = client.post("/predict", files={"file": other})
        assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
    assert client.post("/predict", files={"file": other}).status_code == 200


def test_a_kept_answer_does_not_say_that_the_picture_is(client: httpx.Client) -> None:
    picture = encode(draw("circle", 815))
    assert ask(client, picture, store=False)[1]["images"][0]["image_id"] is None
    cache, answer = ask(client, picture)
    image_id = answer["images"][0]["image_id"]
    assert cache == "hit"
    assert client.get(f"/images/{image_id}").content == picture
    assert ask(client, picture, store=False)[1]["images"][0]["image_id"] is None


def test_out_of_the_box_every_picture_is_looked_at(live: httpx.Client) -> None:
    for _ in range(2):
        cache, answer = ask(live, PICTURE)
        assert cache is None
        assert answer["images"][0]["seconds"]["inference"] > 0


def test_a_picture_that_cannot_be_read_is_refused_every_time(client: httpx.Client) -> None:
    for _ in range(2):
        assert client.post("/predict", files={"file": PICTURE[:-100]}).status_code == 422
    assert metric(client, "sichtbar_cache_bytes") == 0


def test_other_protocols_find_the_same_answers_and_count_them(client: httpx.Client) -> None:
    _, answer = ask(client, PICTURE)
    tensor = {"name": "images", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(PICTURE) + 4}}
    head = json.dumps({"inputs": [tensor]}).encode()
    inferred = client.post(
        "/v2/models/shapes/infer",
        content=head + len(PICTURE).to_bytes(4, "little") + PICTURE,
        headers={"inference-header-content-length": str(len(head)), "content-type": "application/octet-stream"},
    ).json()
    outputs = {output["name"]: output["data"] for output in inferred["outputs"]}
    best = answer["images"][0]["predictions"][0]
    assert outputs["probabilities"][best["index"]] == pytest.approx(best["probability"], abs=0)
    (stats,) = client.get("/v2/models/shapes/stats").json()["model_stats"]
    counted = stats["inference_stats"]
    assert [counted[name]["count"] for name in ("success", "cache_hit", "cache_miss", "compute_infer")] == [2, 1, 1, 1]


def test_a_version_that_takes_another_s_place_is_asked_anew(own_models: Path, serve: Serve) -> None:
    settings = Settings(
        models=own_models, engine="openvino", cache_bytes=2**20, settle_seconds=0.1, watch_seconds=0.1, watch="poll"
    )
    client = serve(create_app(settings))
    assert ask(client, PICTURE)[1]["images"][0]["predictions"][0]["label"] == "circle"
    assert ask(client, PICTURE)[0] == "hit"
    place = own_models / "shapes" / "1" / "manifest.json"
    manifest = json.loads(place.read_text())
    (place.parent / "new").write_text(json.dumps(manifest | {"labels": TURNED}))
    (place.parent / "new").replace(place)
    until(lambda: client.get("/models/shapes/versions/1").json()["manifest"]["labels"] == TURNED)
    cache, answer = ask(client, PICTURE)
    assert cache == "miss"
    assert answer["images"][0]["predictions"][0]["label"] == TURNED[SHAPES.index("circle")]


def test_the_canary_s_pictures_stay_the_canary_s(own_models: Path, serve: Serve) -> None:
    canary = shutil.copytree(own_models / "shapes" / "1", own_models / "shapes" / "2")
    manifest = json.loads((canary / "manifest.json").read_text())
    (canary / "manifest.json").write_text(json.dumps(manifest | {"version": 2, "labels": TURNED}))
    labels = {"stable": 1, "canary": 2, "canary_weight": 0.5}
    (own_models / "shapes" / "labels.json").write_text(json.dumps(labels))
    client = serve(create_app(Settings(models=own_models, engine="openvino", cache_bytes=2**20)))
    pictures = [encode(draw("circle", seed)) for seed in range(20)]
    told = [ask(client, picture)[1] for picture in pictures]
    again = [ask(client, picture) for picture in pictures]
    assert {answer["version"] for answer in told} == {1, 2}
    for before, (cache, after) in zip(told, again, strict=True):
        assert cache == "hit"
        assert after["version"] == before["version"]
        assert after["images"][0]["predictions"] == before["images"][0]["predictions"]
    # Who asks for a version gets that one's answer.
    for number, names in ((1, list(SHAPES)), (2, TURNED)):
        label = ask(client, pictures[0], version=number)[1]["images"][0]["predictions"][0]["label"]
        assert label == names[SHAPES.index("circle")]
