"""Models that come, change and go below a running service."""

from __future__ import annotations

import json
import shutil
import socket
from collections import Counter
from collections.abc import Callable

import httpx
import numpy as np
import pytest

from tests.conftest import SHAPES, draw, encode
from tests.reliability.conftest import KEY, SHOWN, TURNED, Models, sign
from tests.service.http.explaining import metric, until

PICTURE = encode(draw("circle", 1))
DATA = "variables/variables.data-00000-of-00001"


def admin(models: Models, method: str, path: str, key: str = KEY, **options: object) -> httpx.Response:
    return models.client.request(method, path, headers={"authorization": f"Bearer {key}"}, **options)


def test_a_version_copied_file_by_file_is_served_once_it_is_whole(models: Models) -> None:
    whole = models.stage("slow", 1)
    files = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file())
    folder = models.folder / "slow" / "1"
    for done, file in enumerate(files):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(whole / file, folder / file)
        if done < len(files) - 1:
            missing = "" if (folder / "manifest.json").exists() else "no manifest.json"
            models.wait("slow", 1, "incomplete", missing or "is missing")
            refused = models.client.post("/predict", params={"model": "slow"}, files={"file": PICTURE})
            assert (refused.status_code, refused.json()["code"]) == (503, "model_unavailable")
            assert "1 is incomplete" in refused.json()["detail"]
    assert models.wait("slow", 1, "available")["engine"] == "openvino"
    assert metric(models.client, "sichtbar_model_load_failures_total", model="slow") == 0


def test_a_file_that_is_still_written_is_waited_for(serve_models: Callable[..., Models]) -> None:
    models = serve_models(SICHTBAR_SETTLE_SECONDS="2")
    whole = models.stage("growing", 1)
    content = (whole / DATA).read_bytes()
    (whole / DATA).write_bytes(b"")
    folder = whole.rename(models.folder / "growing" / "1")
    said: set[tuple[str, str]] = set()

    def write_on() -> bool:
        with (folder / DATA).open("ab") as file:
            file.write(content[file.tell() : file.tell() + len(content) // 20])
        version = models.version("growing", 1)
        if version is not None:
            said.add((version["state"], version["reason"]))
        return (folder / DATA).stat().st_size == len(content)

    until(write_on)
    assert said == {("incomplete", "its files are still changing")}
    models.wait("growing", 1, "available")


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        pytest.param("truncated", f"{DATA} differs from the manifest", id="truncated"),
        pytest.param("sha256", "saved_model.pb differs from the manifest", id="wrong-sha256"),
        pytest.param("nan", "are not all finite", id="nan"),
    ],
)
def test_a_bad_version_is_never_served_and_named_and_tried_again_when_it_changes(
    models: Models, harm: str, reason: str
) -> None:
    models.publish(harm, 1)
    bad = models.stage(harm, 2, TURNED)
    if harm == "truncated":
        with (bad / DATA).open("r+b") as file:
            file.truncate(1000)
    elif harm == "sha256":
        with (bad / "saved_model.pb").open("ab") as file:
            file.write(b"\n")
    else:
        weights = np.full((bad / DATA).stat().st_size // 4, np.nan, np.float32)
        with (bad / DATA).open("r+b") as file:
            file.write(weights.tobytes())
        sign(bad, DATA)
    folder = bad.rename(models.folder / harm / "2")
    assert reason in models.wait(harm, 2, "failed")["reason"]
    assert models.answering(harm, PICTURE) == 1
    refused = models.client.post("/predict", params={"model": harm, "version": 2}, files={"file": PICTURE})
    assert refused.status_code == 404
    assert "expected version 1" in refused.json()["detail"]
    assert reason in refused.json()["detail"]
    assert metric(models.client, "sichtbar_model_load_failures_total", model=harm) == 1
    assert metric(models.client, "sichtbar_model_version_state", model=harm, version="2", state="failed") == 1
    for name in (DATA, "saved_model.pb"):
        shutil.copy(models.source / name, folder / name)
        sign(folder, name)
    models.wait(harm, 2, "available")
    assert models.answering(harm, PICTURE) == 2


def test_a_version_published_again_with_other_content_takes_its_own_place(models: Models) -> None:
    folder = models.publish("again", 1)
    query = {"model": "again", "version": 1, "format": "json", "samples": 16}
    first = models.client.post("/explain", params=query, files={"file": PICTURE})
    image_id = first.json()["image_id"]
    assert first.json()["label"] == "circle"
    models.stage("again", 1, TURNED).joinpath("manifest.json").replace(folder / "manifest.json")

    def asked() -> httpx.Response | None:
        answer = models.client.get(
            "/explain", params={**query, "image_id": image_id}, headers={"if-none-match": first.headers["etag"]}
        )
        # In between the old one's files are gone, while its answers are still there.
        return answer if answer.status_code == 200 else None

    second = until(asked)
    assert second.headers["etag"] != first.headers["etag"]
    assert second.json()["label"] == TURNED[SHAPES.index("circle")]
    answer = models.client.post("/predict", params={"model": "again"}, files={"file": PICTURE}).json()
    assert answer["images"][0]["predictions"][0]["label"] == TURNED[SHAPES.index("circle")]


def test_what_answers_goes_on_where_its_files_go_bad(models: Models) -> None:
    folder = models.publish("kept", 1)

    def said() -> object:
        answer = models.client.post("/predict", params={"model": "kept"}, files={"file": PICTURE}).json()
        return answer["images"][0]["predictions"]

    before = said()
    for name in (DATA, "saved_model.pb"):
        (folder / name).write_bytes(b"")
        models.wait("kept", 1, "available", f"as it was before its files changed: {name} differs")
        assert said() == before
        sign(folder, name)
    models.wait("kept", 1, "available", "as it was before its files changed: the engine cannot load it")
    (folder / DATA).unlink()
    models.wait("kept", 1, "available", f"as it was before its files changed: {DATA} is missing")
    assert said() == before


def test_a_request_that_began_before_a_swap_is_answered_by_the_old_version(models: Models) -> None:
    models.publish("newest", 1)
    url = models.client.base_url
    head = (
        f"POST /predict?model=newest HTTP/1.1\r\nHost: x\r\nAuthorization: {SHOWN['authorization']}\r\n"
        f"Content-Type: image/png\r\nContent-Length: {len(PICTURE)}"
    )
    with socket.create_connection((url.host, url.port), timeout=20) as connection:
        connection.sendall(f"{head}\r\nConnection: close\r\n\r\n".encode() + PICTURE[:10])
        models.client.get("/health/live")
        models.publish("newest", 2, TURNED)
        models.wait("newest", 1, "unloading", "SICHTBAR_VERSIONS=latest:1 leaves it out")
        assert models.answering("newest", PICTURE) == 2
        connection.sendall(PICTURE[10:])
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert b'"version":1' in answer
    assert b'"label":"circle"' in answer
    models.wait("newest", 1, "unloaded", "SICHTBAR_VERSIONS=latest:1 leaves it out")
    gone = models.client.post("/predict", params={"model": "newest", "version": 1}, files={"file": PICTURE})
    assert "which is unloaded: SICHTBAR_VERSIONS=latest:1" in gone.json()["detail"]


def test_where_the_newest_is_deleted_the_one_before_is_loaded_again(models: Models) -> None:
    models.publish("newest", 11)
    newer = models.publish("newest", 12)
    models.wait("newest", 11, "unloaded")
    shutil.rmtree(newer)
    models.wait("newest", 11, "available")
    until(lambda: models.version("newest", 12) is None)
    assert models.answering("newest", PICTURE) == 11


def test_without_any_version_the_service_is_not_ready_until_one_comes(serve_models: Callable[..., Models]) -> None:
    models = serve_models(SICHTBAR_WATCH="poll", SICHTBAR_WATCH_SECONDS="0.1")
    assert models.client.get("/health/ready").status_code == 200
    shutil.rmtree(models.folder / "shapes")
    until(lambda: models.client.get("/health/ready").status_code == 503)
    # Until it is closed and forgotten, the answer says what became of it.
    until(lambda: models.client.get("/models").json()["models"] == [])
    refused = models.client.post("/predict", files={"file": PICTURE})
    assert (refused.status_code, refused.json()["code"]) == (503, "model_unavailable")
    assert refused.json()["detail"] == "no version of shapes is loaded"
    assert refused.headers["retry-after"]
    models.publish("shapes", 3)
    assert models.client.get("/health/ready").status_code == 200
    assert models.answering("shapes", PICTURE) == 3


def test_a_folder_of_models_that_is_away_leaves_what_answers(serve_models: Callable[..., Models]) -> None:
    models = serve_models(SICHTBAR_WATCH_SECONDS="0.1")
    away = models.folder.rename(models.folder.with_name("away"))
    models.program.wait_for("models_not_read")
    assert models.answering("shapes", PICTURE) == 1
    away.rename(models.folder)
    models.publish("shapes", 2)


def test_labels_name_versions_and_move_while_the_service_runs(models: Models) -> None:
    models.publish("labelled", 1)
    models.publish("labelled", 2, TURNED)
    assert models.answering("labelled", PICTURE) == 2
    models.label("labelled", stable=1, canary=2)
    until(lambda: models.labels("labelled")["stable"] == 1)
    assert models.answering("labelled", PICTURE) == 1
    assert models.answering("labelled", PICTURE, version="stable") == 1
    assert models.answering("labelled", PICTURE, version="canary") == 2
    (models.folder / "labelled" / "labels.json").write_text('{"stable": "2"}')
    wrong = 'labels.json: stable: Input should be a valid integer, got "2"'
    until(lambda: models.labels("labelled")["problem"] == wrong)
    assert models.answering("labelled", PICTURE) == 1
    models.label("labelled", stable=7)
    until(
        lambda: models.labels("labelled")["problem"] == "stable is to be version 7, which is not loaded; it is still 1"
    )
    assert models.answering("labelled", PICTURE) == 1
    refused = models.client.post("/predict", params={"model": "labelled", "version": "canary"}, files={"file": PICTURE})
    assert refused.json()["code"] == "unknown_version"
    assert "expected version 1, 2 of labelled, got canary" in refused.json()["detail"]
    models.publish("labelled", 7)
    until(lambda: models.labels("labelled") == {"stable": 7, "canary": None, "canary_weight": 0.0, "problem": None})
    (models.folder / "labelled" / "labels.json").unlink()
    until(lambda: models.labels("labelled")["stable"] is None)


def test_what_is_gone_but_named_by_a_label_is_said_and_not_replaced_in_silence(models: Models) -> None:
    models.publish("bereft", 1)
    folder = models.publish("bereft", 2, TURNED)
    models.label("bereft", stable=2)
    until(lambda: models.labels("bereft")["stable"] == 2)
    problem = "stable is to be version 2, which is not loaded; what names no version goes to 1"
    for lose, restore in (
        (lambda: admin(models, "POST", "/models/bereft/versions/2:unload"), lambda: None),
        (lambda: folder.rename(folder.with_name(".away")), lambda: folder.with_name(".away").rename(folder)),
    ):
        lose()
        until(lambda: models.labels("bereft")["problem"] == problem)
        until(lambda: models.program.wait_for("labels")["problem"] == problem)
        assert 'sichtbar_label_problem{model="bereft"} 1.0' in models.client.get("/metrics").text
        for path in ("/predict?model=bereft&version=stable", "/v1/models/bereft/labels/stable:predict"):
            refused = models.client.post(path, files={"file": PICTURE})
            assert refused.status_code == 503
            assert problem in refused.text
        assert models.answering("bereft", PICTURE) == 1
        restore()
        admin(models, "POST", "/models/bereft/versions/2:load")
        until(lambda: models.labels("bereft")["stable"] == 2)
        assert models.answering("bereft", PICTURE, version="stable") == 2
        assert 'sichtbar_label_problem{model="bereft"}' not in models.client.get("/metrics").text


def test_a_labelled_version_is_loaded_whatever_the_policy_says(models: Models) -> None:
    models.publish("newest", 21)
    models.label("newest", stable=21)
    until(lambda: models.labels("newest")["stable"] == 21)
    models.publish("newest", 22)
    assert models.answering("newest", PICTURE) == 21
    models.label("newest", stable=22)
    models.wait("newest", 21, "unloaded")
    assert models.answering("newest", PICTURE) == 22
    (models.folder / "newest" / "labels.json").unlink()


def test_the_canary_gets_its_share_and_the_same_picture_always_the_same_version(models: Models) -> None:
    models.publish("canary", 1)
    models.publish("canary", 2, TURNED)
    models.label("canary", stable=1, canary=2, canary_weight=0.3)
    until(lambda: models.labels("canary")["canary_weight"] == 0.3)
    pictures = [encode(draw("square", seed)) for seed in range(120)]
    answered = [models.answering("canary", picture) for picture in pictures]
    assert 20 <= Counter(answered)[2] <= 52
    assert [models.answering("canary", picture) for picture in pictures[:20]] == answered[:20]
    tried = pictures[answered.index(2)]
    explained = models.client.post("/explain", params={"model": "canary", "format": "json"}, files={"file": tried})
    assert explained.json()["version"] == 2
    query = {"model": "canary", "format": "json", "image_id": explained.json()["image_id"]}
    assert models.client.get("/explain", params=query).json()["version"] == 2
    assert models.answering("canary", tried, version="stable") == 1
    models.label("canary", canary=2)
    until(lambda: models.labels("canary")["stable"] is None)
    assert models.answering("canary", tried) == 1
    models.label("canary", stable=1, canary=2, canary_weight=1)
    until(lambda: models.labels("canary")["canary_weight"] == 1)
    assert {models.answering("canary", picture) for picture in pictures[:20]} == {2}
    models.label("canary", stable=1, canary=2, canary_weight=0.3)
    until(lambda: models.labels("canary")["canary_weight"] == 0.3)
    several = [("file", picture) for picture in (tried, pictures[answered.index(1)])]
    assert models.client.post("/predict", params={"model": "canary"}, files=several).json()["version"] == 2


@pytest.mark.parametrize("key", ["wrong", KEY[:-1]], ids=["wrong", "short"])
def test_admin_calls_want_the_key(models: Models, key: str) -> None:
    for method, path in (
        ("POST", "/models/shapes/versions/1:unload"),
        ("POST", "/models/shapes/versions/1:load"),
        ("PUT", "/models/shapes/labels"),
    ):
        refused = admin(models, method, path, key, json={})
        assert (refused.status_code, refused.json()["code"]) == (401, "unauthenticated")
    assert models.answering("shapes", PICTURE) == 1


def test_an_admin_unloads_and_loads_versions(models: Models) -> None:
    folder = models.publish("ordered", 1)
    models.publish("ordered", 2)
    assert admin(models, "POST", "/models/ordered/versions/2:unload").json()["state"] in ("unloading", "unloaded")
    models.wait("ordered", 2, "unloaded", "an admin unloaded it")
    assert models.answering("ordered", PICTURE) == 1
    loaded = admin(models, "POST", "/models/ordered/versions/2:load").json()
    assert (loaded["version"], loaded["state"]) == (2, "available")
    assert models.answering("ordered", PICTURE) == 2
    admin(models, "POST", "/models/ordered/versions/1:unload")
    models.wait("ordered", 1, "unloaded")
    models.stage("ordered", 1, TURNED).joinpath("manifest.json").replace(folder / "manifest.json")
    models.wait("ordered", 1, "available")
    for path in ("ordered/versions/9", "nothing/versions/1"):
        assert admin(models, "POST", f"/models/{path}:load").status_code == 404


def test_an_admin_loads_what_the_policy_leaves_out(models: Models) -> None:
    models.publish("newest", 31)
    models.publish("newest", 32)
    models.wait("newest", 31, "unloaded")
    assert admin(models, "POST", "/models/newest/versions/31:load").json()["state"] == "available"
    assert models.answering("newest", PICTURE, version=31) == 31
    assert models.answering("newest", PICTURE) == 32


def test_an_admin_points_labels_and_the_file_keeps_them(models: Models) -> None:
    models.publish("pointed", 1)
    models.publish("pointed", 2)
    answer = admin(models, "PUT", "/models/pointed/labels", json={"stable": 1, "canary": 2})
    assert answer.json() == {"stable": 1, "canary": 2, "canary_weight": 0.0, "problem": None}
    assert models.answering("pointed", PICTURE) == 1
    assert json.loads((models.folder / "pointed" / "labels.json").read_text())["stable"] == 1
    assert [path.name for path in (models.folder / "pointed").glob(".labels*")] == []
    for wrong in ({"stable": 9}, {"stbale": 1}, {"canary_weight": 2}):
        assert admin(models, "PUT", "/models/pointed/labels", json=wrong).status_code in (404, 422)
    kind = {**SHOWN, "content-type": "application/json"}
    no_text = models.client.put("/models/pointed/labels", headers=kind, content=b'{"stable": "\xff"}')
    assert (no_text.status_code, no_text.json()["code"]) == (422, "invalid_request")
    assert no_text.json()["detail"] == "body: expected JSON in UTF-8"
    assert models.labels("pointed")["stable"] == 1
