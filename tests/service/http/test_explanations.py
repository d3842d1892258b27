from __future__ import annotations

import asyncio
import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import anyio
import httpx
import pytest
from fastapi import FastAPI
from PIL import Image
from structlog.testing import capture_logs

from service.app import create_app
from service.explain import jobs
from service.explain.records import Record
from service.settings import Settings
from tests.conftest import PATIENCE, ROOT, LiveServer, encode
from tests.service.http.explaining import QUICK, SLOW, ended, keep, metric, picture, until
from tests.service.http.test_native import problem

PICTURE = picture(100)


@pytest.fixture(scope="module")
def app(shapes_models: Path, tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    store = tmp_path_factory.mktemp("jobs") / "store"
    return create_app(
        Settings(
            models=shapes_models,
            engine="openvino",
            explain_wait=PATIENCE,
            store=str(store),
            max_explanations=3,
        )
    )


@pytest.fixture(scope="module")
def client(app: FastAPI) -> Iterator[httpx.Client]:
    with LiveServer(app) as server, httpx.Client(base_url=server.url, timeout=PATIENCE) as client:
        yield client


@pytest.fixture(scope="module")
def image_id(client: httpx.Client) -> str:
    return keep(client, PICTURE)


@pytest.fixture
def ask(client: httpx.Client, image_id: str) -> Iterator[Callable[..., str]]:
    """Start a job, cancelled at the end; gives its address."""
    places: list[str] = []

    def start(**params: object) -> str:
        answer = client.post("/explanations", params={"image_id": image_id, **params})
        assert answer.status_code == 202, answer.text
        places.append(answer.headers["location"])
        return places[-1]

    yield start
    for place in places:
        client.delete(place)


Ask = Callable[..., str]


def events(client: httpx.Client, place: str, **headers: str) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Each event's name, id and job."""
    with client.stream("GET", f"{place}/events", headers=headers) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        block: dict[str, str] = {}
        for line in stream.iter_lines():
            if line.startswith(":"):
                continue
            if line:
                name, _, value = line.partition(": ")
                block[name] = value
            elif block:
                yield block["event"], int(block["id"]), httpx.Response(200, text=block["data"]).json()
                block = {}


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(lambda image_id: {"params": {"image_id": image_id, **QUICK}}, id="query"),
        pytest.param(lambda image_id: {"json": {"image_id": image_id, **QUICK}}, id="json"),
        pytest.param(lambda image_id: {"params": QUICK, "files": {"file": PICTURE}}, id="picture"),
    ],
)
def test_each_way_to_ask_comes_to_what_explain_answers(
    client: httpx.Client, image_id: str, request_: Callable[[str], dict[str, Any]]
) -> None:
    asked = client.post("/explanations", **request_(image_id))
    assert asked.status_code == 202, asked.text
    place = asked.headers["location"]
    job = ended(client, place)
    assert (job["state"], job["method"], job["model"], job["version"]) == ("done", "lime", "shapes", 1)
    assert (job["image_id"], job["label"], job["error"]) == (image_id, None, None)
    assert job["created"] <= job["started"] <= job["finished"]
    result = client.get(job["links"]["result"])
    explained = client.get("/explain", params={"image_id": image_id, **QUICK})
    assert (result.content, result.headers["etag"]) == (explained.content, explained.headers["etag"])
    assert client.get(job["links"]["result"], headers={"if-none-match": result.headers["etag"]}).status_code == 304


def test_a_result_is_drawn_as_asked_and_otherwise_on_request(client: httpx.Client, ask: Ask) -> None:
    place = ask(**QUICK, size=80)
    ended(client, place)
    sizes = []
    for query in ({}, {"size": 100}):
        with Image.open(io.BytesIO(client.get(f"{place}/result", params=query).content)) as image:
            sizes.append(image.size)
    assert sizes == [(80, 64), (100, 80)]
    assert client.get(f"{place}/result", params={"format": "json"}).json()["label"] == "circle"
    problem(client.get(f"{place}/result", params={"samples": 64}), 422, "invalid_request")


def test_a_job_is_followed_by_polling(client: httpx.Client, ask: Ask) -> None:
    place = ask(**SLOW)
    seen = until(lambda: (job := client.get(place).json())["progress"] and job)
    assert seen["state"] == "running"
    assert 0 < seen["progress"]["done"] <= seen["progress"]["total"]
    assert seen["links"]["result"] is None
    later = client.get(f"{place}/result")
    assert (later.status_code, later.headers["location"]) == (202, place)


def test_what_the_samples_so_far_say_is_drawn(app: FastAPI, client: httpx.Client, ask: Ask) -> None:
    # Samples that are counted from the start are fitted once, at the end.
    place = ask(superpixels=200, seed=11)
    until(lambda: client.get(place).json()["links"]["preview"])
    preview = client.get(f"{place}/preview", params={"size": 80})
    with Image.open(io.BytesIO(preview.content)) as image:
        assert image.size == (80, 64)
    assert preview.headers["content-type"] == "image/png"
    # The disk alone keeps it once the job is over.
    assert client.delete(place).json()["links"]["preview"]
    until(lambda: app.state.classifier.explaining.jobs._jobs[place.rpartition("/")[2]].preview is None)
    assert client.get(f"{place}/preview").headers["content-type"] == "image/png"


def test_a_preview_is_a_picture_also_where_numbers_are_wanted(client: httpx.Client, image_id: str, ask: Ask) -> None:
    place = ask(**QUICK, seed=12, format="json")
    ended(client, place)
    waited = client.get("/explain", params={"image_id": image_id, **QUICK, "seed": 13, "format": "json", "wait": 0})
    for each in (place, waited.headers["location"]):
        ended(client, each)
        assert client.get(f"{each}/preview").headers["content-type"] == "image/png"
        assert client.get(f"{each}/result").headers["content-type"] == "application/json"
        problem(client.get(f"{each}/preview", params={"format": "json"}), 422, "invalid_request")


def test_a_job_is_followed_by_events_from_its_state_to_its_end(client: httpx.Client, ask: Ask) -> None:
    place = ask(samples=600, seed=1)
    seen = list(events(client, place))
    assert [name for name, _, _ in seen] == ["progress"] * (len(seen) - 1) + ["done"]
    numbers = [number for _, number, _ in seen]
    assert numbers == sorted(set(numbers))
    assert seen[-1][2]["links"]["result"] == f"{place}/result"
    late = list(events(client, place, **{"last-event-id": str(numbers[-1])}))
    assert late == seen[-1:]


def test_events_of_a_job_that_waits_are_kept_alive(
    client: httpx.Client, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "KEEP_ALIVE_SECONDS", 0.05)
    ask(**SLOW)
    queued = ask(**SLOW, seed=2)
    with client.stream("GET", f"{queued}/events") as stream:
        lines = stream.iter_lines()
        assert next(line for line in lines if line.startswith(":"))


def test_a_job_that_waits_says_how_many_are_before_it(client: httpx.Client, ask: Ask) -> None:
    running, before, last = (ask(**SLOW, seed=seed) for seed in (41, 42, 43))
    until(lambda: client.get(running).json()["progress"])

    def ahead() -> list[int | None]:
        return [client.get(place).json()["ahead"] for place in (running, before, last)]

    assert ahead() == [None, 1, 2]
    stream = events(client, last)
    assert next(stream)[2]["ahead"] == 2
    client.delete(before)
    assert next(stream)[2]["ahead"] == 1
    client.delete(running)
    until(lambda: client.get(last).json()["state"] == "running")
    assert ahead() == [None, None, None]


def test_cancelling_ends_the_computation_and_the_stream_and_is_idempotent(client: httpx.Client, ask: Ask) -> None:
    place = ask(**SLOW)
    until(lambda: client.get(place).json()["progress"])
    cancelled = metric(client, "sichtbar_explanations_total", outcome="cancelled")
    stream = events(client, place)
    assert next(stream)[0] == "progress"
    for _ in range(2):
        assert client.delete(place).json()["state"] == "cancelled"
    assert [name for name, _, _ in stream][-1] == "cancelled"
    problem(client.get(f"{place}/result"), 410, "explanation_cancelled")
    until(lambda: metric(client, "sichtbar_explanations_total", outcome="cancelled") == cancelled + 1)
    # The process is free for the next.
    assert ended(client, ask(samples=50))["state"] == "done"


def test_cancelling_a_job_leaves_that_of_another_who_asked_the_same(client: httpx.Client, ask: Ask) -> None:
    query = {"samples": 500, "seed": 3}
    done = metric(client, "sichtbar_explanations_total", outcome="done")
    first, second = ask(**query), ask(**query)
    assert first != second
    assert client.delete(first).json()["state"] == "cancelled"
    assert ended(client, second)["state"] == "done"
    assert client.get(first).json()["state"] == "cancelled"
    assert metric(client, "sichtbar_explanations_total", outcome="done") == done + 1


def test_a_job_that_is_over_stays_as_it_is(client: httpx.Client, ask: Ask) -> None:
    place = ask(**QUICK)
    ended(client, place)
    assert client.delete(place).json()["state"] == "done"
    assert client.get(f"{place}/preview").headers["content-type"] == "image/png"


def test_one_job_too_many_is_refused(client: httpx.Client, image_id: str, ask: Ask) -> None:
    for seed in range(3):
        ask(**SLOW, seed=seed)
    query = {"image_id": image_id, **SLOW, "seed": 4}
    for answer in (client.post("/explanations", params=query), client.get("/explain", params=query)):
        problem(answer, 503, "overloaded")
        assert int(answer.headers["retry-after"]) >= 1
    states = {state: metric(client, "sichtbar_explanation_jobs", state=state) for state in ("queued", "running")}
    assert states == {"queued": 2, "running": 1}
    assert client.post("/predict", files={"file": PICTURE}).status_code == 200


def test_pictures_that_wait_for_their_turn_are_bounded_in_bytes(
    client: httpx.Client, app: FastAPI, ask: Ask, image_id: str
) -> None:
    explanations = app.state.classifier.explaining.explanations
    with pytest.MonkeyPatch.context() as small:
        small.setattr(explanations, "_max_bytes", len(PICTURE))
        place = ask(**SLOW, seed=51)
        for query in ({"image_id": image_id, **SLOW}, SLOW):
            files = {} if "image_id" in query else {"files": {"file": PICTURE}}
            problem(client.post("/explanations", params={**query, "seed": 52}, **files), 503, "overloaded")
        # Who joins holds no more.
        assert ask(**SLOW, seed=51)
        client.delete(place)
    for job in app.state.classifier.explaining.jobs._jobs:
        client.delete(f"/explanations/{job}")
    until(lambda: explanations._bytes == 0)


@pytest.mark.parametrize(
    ("params", "status", "code"),
    [
        pytest.param({"wait": 1}, 422, "invalid_request", id="wait"),
        pytest.param({"method": "gradcam", "seed": 1}, 422, "invalid_request", id="seed-gradcam"),
        pytest.param({"label": "cat"}, 404, "unknown_label", id="label"),
        pytest.param({"image_id": "0" * 64}, 404, "unknown_image", id="picture"),
    ],
)
@pytest.mark.parametrize("where", ["params", "json"])
def test_wrong_parameters_are_refused_at_once(
    client: httpx.Client, image_id: str, params: dict[str, Any], status: int, code: str, where: str
) -> None:
    problem(client.post("/explanations", **{where: {"image_id": image_id, **params}}), status, code)


def test_parameters_are_taken_from_one_place(client: httpx.Client, image_id: str) -> None:
    answer = client.post("/explanations", params={"samples": 50}, json={"image_id": image_id})
    assert "got both" in str(problem(answer, 422, "invalid_request")["detail"])


def test_a_picture_is_named_or_sent_and_not_both(client: httpx.Client, image_id: str) -> None:
    for sent in ({"files": {"file": PICTURE}}, {"content": iter([PICTURE]), "headers": {"content-type": "image/png"}}):
        answer = client.post("/explanations", params={"image_id": image_id, **QUICK}, **sent)
        assert "got both" in str(problem(answer, 422, "invalid_request")["detail"])


def test_json_is_a_picture_by_its_key_and_not_by_a_value(client: httpx.Client, image_id: str) -> None:
    answer = client.post("/explanations", json={"image_id": image_id, "label": "image"})
    problem(answer, 404, "unknown_label")


@pytest.mark.parametrize(
    ("content", "code", "detail"),
    [
        pytest.param(b"", "invalid_request", "Invalid JSON: EOF", id="empty"),
        pytest.param(b"samples=3", "invalid_request", 'got "samples=3"', id="form"),
        pytest.param(b"\xff\xfe", "invalid_request", 'got "\ufffd\ufffd"', id="no-text"),
        pytest.param(b'{"image_id": "\\ud800"}', "invalid_request", "Invalid JSON", id="half-a-letter"),
        pytest.param(b'{"image', "invalid_request", "Invalid JSON: EOF", id="cut"),
        pytest.param(b"[" * 4000, "invalid_request", "Invalid JSON: recursion limit", id="deep"),
        pytest.param(b'["image"]', "invalid_request", 'should be an object, got ["image"]', id="array"),
        pytest.param(b"null", "invalid_request", "should be an object, got null", id="null"),
        pytest.param(b'{"samples": "many"}', "invalid_request", "a whole number", id="type"),
        pytest.param(
            b'{"samples": true}',
            "invalid_request",
            "samples: expected a whole number in digits, such as 5, got true",
            id="true",
        ),
        pytest.param(
            b'{"seed": false}',
            "invalid_request",
            "seed: expected a whole number in digits, such as 5, got false",
            id="false",
        ),
        pytest.param(
            b'{"samples": 500.0}',
            "invalid_request",
            "samples: expected a whole number in digits, such as 5, got 500.0",
            id="fraction",
        ),
        pytest.param(
            b'{"size": 5e2}',
            "invalid_request",
            "size: expected a whole number in digits, such as 5, got 500.0",
            id="exponent",
        ),
        pytest.param(
            b'{"opacity": true}', "invalid_request", "opacity: expected a number, such as 0.5, got true", id="no-share"
        ),
        pytest.param(
            b'{"version": true}',
            "invalid_request",
            "version: expected a version's number, from 1 on, `stable` or `canary`, got true",
            id="no-version",
        ),
        pytest.param(b'{"smaples": 50}', "invalid_request", "image_id, store, got smaples", id="typo"),
        pytest.param(b'{"image_id": "x"}', "invalid_request", "pattern", id="id"),
        pytest.param(b'{"image": 3}', "invalid_request", "image: Input should be a valid string", id="image-type"),
        pytest.param(b'{"image": "x"}', "invalid_request", "expected `image` in base64", id="base64"),
        pytest.param(
            b'{"image": "x", "image_id": "y", "seed": 1}', "invalid_request", "with image_id, seed", id="both"
        ),
        pytest.param(
            b'{"samples": 50' + b" " * 5000 + b"}",
            "invalid_request",
            "expected nothing but image, got samples",
            id="long",
        ),
        pytest.param(b'{"samples": 50}', "no_image", "`image_id` or `image`, got neither", id="neither"),
    ],
)
@pytest.mark.parametrize("chunked", [False, True], ids=["whole", "chunked"])
def test_json_that_is_no_question_is_refused_with_what_was_expected_and_what_came(
    client: httpx.Client, content: bytes, code: str, detail: str, chunked: bool
) -> None:
    answer = client.post(
        "/explanations", content=iter([content]) if chunked else content, headers={"content-type": "application/json"}
    )
    assert detail in str(problem(answer, 422, code)["detail"])


def test_a_question_without_any_picture_is_refused(client: httpx.Client) -> None:
    detail = str(problem(client.post("/explanations", params=QUICK), 422, "no_image")["detail"])
    assert detail == "expected `image_id` or a picture in the body, got neither"


def test_a_drawing_that_outlasts_the_wait_comes_later(
    client: httpx.Client, app: FastAPI, image_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = {"image_id": image_id, "samples": 64, "seed": 77}
    assert client.get("/explain", params={**query, "format": "json"}).status_code == 200

    async def draw(*arguments: object, **options: object) -> bytes:
        await anyio.sleep(20)
        return b""

    with monkeypatch.context() as slow:
        slow.setattr(app.state.classifier.explaining.explanations, "draw", draw)
        started = monotonic()
        answer = client.get("/explain", params={**query, "wait": 0})
    assert (answer.status_code, answer.json()["state"]) == (202, "done")
    # Drawings get a second.
    assert monotonic() - started >= 1
    drawn = client.get(answer.json()["links"]["result"])
    assert drawn.headers["content-type"] == "image/png"


@pytest.mark.parametrize("job", ["0" * 32, "nonsense", "..%2F..%2Fetc"])
@pytest.mark.parametrize("rest", ["", "/result", "/preview", "/events"])
def test_an_unknown_job_is_a_404(client: httpx.Client, job: str, rest: str) -> None:
    answer = client.get(f"/explanations/{job}{rest}")
    assert answer.status_code == 404
    if "%" not in job:
        problem(answer, 404, "unknown_explanation")
        problem(client.delete(f"/explanations/{job}"), 404, "unknown_explanation")


def test_a_job_without_samples_has_no_preview(client: httpx.Client, ask: Ask) -> None:
    ask(**SLOW)
    problem(client.get(f"{ask(**SLOW, seed=9)}/preview"), 404, "no_preview")


def test_what_could_not_be_explained_is_a_failed_job_and_its_problem(
    client: httpx.Client, app: FastAPI, ask: Ask
) -> None:
    place = ask(**SLOW)
    until(lambda: client.get(place).json()["progress"])
    restarts = metric(client, "sichtbar_explainer_restarts_total")
    os.kill(app.state.classifier.explainer.pid, signal.SIGKILL)
    job = ended(client, place)
    assert (job["state"], job["error"]["code"], job["error"]["status"]) == ("failed", "explainer_died", 410)
    result = client.get(f"{place}/result")
    problem(result, 410, "explainer_died")
    assert "retry-after" not in result.headers
    assert [name for name, _, _ in events(client, place)] == ["failed"]
    assert ended(client, ask(samples=51))["state"] == "done"
    assert metric(client, "sichtbar_explainer_restarts_total") == restarts + 1


def test_another_process_knows_follows_draws_and_cancels_a_job(
    client: httpx.Client, app: FastAPI, image_id: str, ask: Ask, serve: Callable[[FastAPI], httpx.Client]
) -> None:
    other_app = create_app(app.state.classifier.settings)
    # As where the store of pictures is shared.
    other_app.state.classifier.images = app.state.classifier.images
    other = serve(other_app)
    other.timeout = PATIENCE
    place = ask(**SLOW)
    assert other.get(place).json()["id"] == client.get(place).json()["id"]
    stream = events(other, place)
    assert next(stream)[0] == "progress"
    until(lambda: other.get(place).json()["progress"])
    assert other.delete(place).json()["state"] == "cancelled"
    assert client.get(place).json()["state"] == "cancelled"
    assert [name for name, _, _ in stream][-1] == "cancelled"
    done = ask(**QUICK)
    ended(client, done)
    assert other.get(f"{done}/result").content == client.get(f"{done}/result").content


@pytest.mark.parametrize("written", [pytest.param(False, id="before-it-is-written"), pytest.param(True, id="after")])
def test_how_a_job_ended_is_told_by_its_process_and_by_others_alike(
    app: FastAPI, ask: Ask, client: httpx.Client, written: bool
) -> None:
    found = app.state.classifier.explaining.jobs
    write, held = found._records.write, anyio.Event()
    may_end: list[Any] = []

    async def wait(record: Record, preview: Any = None) -> None:
        if written:
            await write(record, preview)
        if not record.active:
            may_end.append(asyncio.get_running_loop())
            await held.wait()
        if not written:
            await write(record, preview)

    with pytest.MonkeyPatch.context() as slow:
        slow.setattr(found._records, "write", wait)
        place = ask(**QUICK, seed=33 if written else 31)
        loop = until(lambda: may_end)[0]
        asked = asyncio.run_coroutine_threadsafe(found.find(place.rpartition("/")[2]), loop)
        # Until it is written other processes say "running", and from then on "done".
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result()
        early = asked.done()
        loop.call_soon_threadsafe(held.set)
        assert not early
        assert asked.result(PATIENCE).state == "done"
        assert client.get(place).json()["state"] == "done"


def test_the_stream_of_a_job_that_is_forgotten_ends(
    serve: Callable[[FastAPI], httpx.Client], client: httpx.Client, app: FastAPI, ask: Ask
) -> None:
    other_app = create_app(app.state.classifier.settings)
    place = ask(**SLOW, seed=32)
    with capture_logs() as logged:
        stream = events(serve(other_app), place)
        assert next(stream)[0] == "progress"
        with pytest.MonkeyPatch.context() as gone:
            gone.setattr(other_app.state.classifier.explaining.jobs._records, "_read", lambda job: None)
            assert {name for name, _, _ in stream} <= {"progress"}
    assert "bug" not in [line["event"] for line in logged]


def test_what_is_over_long_enough_is_forgotten(
    serve: Callable[[FastAPI], httpx.Client], shapes_models: Path, tmp_path: Path
) -> None:
    app = create_app(
        Settings(models=shapes_models, engine="openvino", store=str(tmp_path / "store"), explain_keep_seconds=1)
    )
    client = serve(app)
    client.timeout = PATIENCE
    place = client.post("/explanations", params=QUICK, files={"file": PICTURE}).headers["location"]
    assert ended(client, place)["state"] == "done"

    def gone() -> bool:
        # Each new job forgets the old.
        client.post("/explanations", params=QUICK, files={"file": PICTURE})
        return not app.state.classifier.explaining.jobs._jobs.get(place.rpartition("/")[2])

    until(gone)


def test_a_job_is_known_no_longer_than_its_result(
    serve: Callable[[FastAPI], httpx.Client], shapes_models: Path, tmp_path: Path
) -> None:
    settings = Settings(models=shapes_models, engine="openvino", store=str(tmp_path / "store"), explain_keep_seconds=1)
    client = serve(create_app(settings))
    client.timeout = PATIENCE
    place = client.post("/explanations", params=QUICK, files={"file": PICTURE}).headers["location"]
    assert ended(client, place)["state"] == "done"
    until(lambda: client.get(place).status_code == 404)
    problem(client.get(place), 404, "unknown_explanation")


BYTES = """
import hashlib, sys, httpx, pathlib, tempfile
from service.app import create_app
from service.settings import Settings
from tests.conftest import LiveServer
settings = Settings(models=pathlib.Path(sys.argv[1]), engine="openvino", store=tempfile.mkdtemp(), log_level="error")
with LiveServer(create_app(settings)) as server, httpx.Client(base_url=server.url, timeout=60) as client:
    files = {"file": pathlib.Path(sys.argv[2]).read_bytes()}
    for form in ("json", "png"):
        answer = client.post("/explain?samples=128&format=" + form, files=files)
        said = [answer.headers["x-cache"], answer.headers["etag"], hashlib.sha256(answer.content).hexdigest()]
        print(*said, file=open(sys.argv[3], "a"))
"""


def test_the_same_request_in_two_processes_of_other_threads_gives_the_same_bytes(
    shapes_models: Path, tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(encode(Image.open(io.BytesIO(PICTURE))))
    said = []
    for seed, threads in (("1", "1"), ("2", "2")):
        # The log has the standard streams.
        answers = tmp_path / f"{threads}.txt"
        subprocess.run(
            [sys.executable, "-c", BYTES, str(shapes_models), str(tmp_path / "a.png"), str(answers)],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed, "SICHTBAR_THREADS": threads},
            timeout=120,
            check=True,
        )
        said.append(answers.read_text().splitlines())
    assert said[0] == said[1]
    assert len(said[0]) == 2


def test_a_kept_explanation_that_cannot_be_read_is_computed_anew(
    client: httpx.Client, app: FastAPI, image_id: str
) -> None:
    query = {"image_id": image_id, **QUICK, "seed": 91, "format": "json"}
    first = client.get("/explain", params=query)
    results = app.state.classifier.explaining._results
    (name,) = [name for name, (_, data) in results._memory.items() if b'"seed":91' in data]
    results._remember(name, b'{"method": "lime"}')
    second = client.get("/explain", params=query)
    assert (second.content, second.headers["x-cache"]) == (first.content, "miss")


def test_settings_bound_how_long_one_takes_and_how_many_bytes_are_kept(
    serve: Callable[[FastAPI], httpx.Client], shapes_models: Path, tmp_path: Path
) -> None:
    settings = Settings(models=shapes_models, engine="openvino", explain_wait=PATIENCE, store=str(tmp_path / "store"))
    late = serve(create_app(settings.model_copy(update={"explain_timeout": 0.2})))
    problem(late.post("/explain", params=SLOW, files={"file": PICTURE}, timeout=PATIENCE), 504, "deadline_exceeded")
    small = serve(create_app(settings.model_copy(update={"explain_max_bytes": 1})))
    for _ in range(2):
        answer = small.post("/explain", params=QUICK, files={"file": PICTURE}, timeout=PATIENCE)
        assert (answer.status_code, answer.headers["x-cache"]) == (200, "miss")
    assert not list((tmp_path / "store" / "explanations" / "results").iterdir())
