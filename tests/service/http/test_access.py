"""Keys, over HTTP."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from fastapi import FastAPI
from starlette.routing import Route

from service.app import create_app
from service.http.access import COMPILED, WATCHED, needed
from service.security import add_key
from service.settings import Settings
from tests.conftest import PATIENCE, LiveServer, draw, encode
from tests.service.http.test_native import problem

PICTURE = encode(draw("circle", 1))
Serve = Callable[[FastAPI], httpx.Client]


class Guarded(NamedTuple):
    client: httpx.Client
    predict: str
    explain: str
    admin: str
    file: Path


@pytest.fixture(scope="module")
def guarded(shapes_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    file = tmp_path_factory.mktemp("keys") / "keys.json"
    shown = [add_key(file, scope, frozenset({scope}), None) for scope in ("predict", "explain", "admin")]
    app = create_app(Settings(models=shapes_models, engine="openvino", keys=file, explain_wait=PATIENCE))
    with LiveServer(app) as server, httpx.Client(base_url=server.url, timeout=40) as client:
        yield Guarded(client, *shown, file)


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def all_calls(app: FastAPI) -> Iterator[tuple[str, str]]:
    paths = [(path, [method.upper() for method in calls]) for path, calls in app.openapi()["paths"].items()]
    undocumented = [(route.path, route.methods or {"GET"}) for route in app.router.routes if isinstance(route, Route)]
    for path, methods in [*paths, *undocumented]:
        for method in methods:
            yield method, re.sub(r"/?\{[^}]*\}", "/x", path)


def test_each_route_is_in_the_table(shapes_models: Path) -> None:
    asked = set(all_calls(create_app(Settings(models=shapes_models))))
    assert asked >= {("POST", "/predict"), ("GET", "/explain"), ("POST", "/v2/models/x/infer")}
    for method, path in asked:
        rows = [scopes for methods, paths, scopes in COMPILED if methods.fullmatch(method) and paths.fullmatch(path)]
        assert rows or WATCHED.fullmatch(path), f"{method} {path}: say in service/http/access.py who may"


@pytest.mark.parametrize(
    ("method", "path", "scopes"),
    [
        ("POST", "/predict", {"predict"}),
        ("POST", "/v1/models/x:predict", {"predict"}),
        ("POST", "/V2/models/x/infer", {"predict"}),
        ("GET", "/explain", {"explain"}),
        ("DELETE", "/explanations/x", {"explain"}),
        ("GET", "/images/x", {"predict", "explain"}),
        ("GET", "/models/x/layers", {"predict", "explain", "admin"}),
        ("POST", "/models/x/versions/1:unload", {"admin"}),
        ("PUT", "/models/x/labels", {"admin"}),
        ("GET", "/nowhere", {"predict", "explain", "admin"}),
        ("GET", "//predict", {"predict", "explain", "admin"}),
        ("GET", "/docs", set()),
        ("GET", "/metrics", set()),
        ("GET", "/health/ready", set()),
    ],
)
def test_who_may_ask_for_what(method: str, path: str, scopes: set[str]) -> None:
    assert needed(method, path, watched_open=True) == scopes


def test_a_line_feed_in_a_path_opens_nothing(shapes_models: Path) -> None:
    for method, path in all_calls(create_app(Settings(models=shapes_models))):
        wanted = needed(method, path, watched_open=True)
        assert needed(method, f"{path}\n", watched_open=True) == wanted, path
        assert needed(method, path.replace("/x", "/x\ny"), watched_open=True) == wanted, path


@pytest.mark.parametrize("path", ["/predict", "/v1/models/shapes:predict", "/models", "/explain", "/nowhere"])
@pytest.mark.parametrize(
    "headers",
    [{}, bearer("wrong"), {"authorization": "Basic abc"}, {"authorization": "Bearer"}, {"x-api-key": ""}],
    ids=["none", "unknown", "basic", "empty", "empty-header"],
)
def test_without_a_key_there_is_no_answer(guarded: Guarded, path: str, headers: dict[str, str]) -> None:
    answer = guarded.client.post(path, files={"file": PICTURE}, headers=headers)
    assert answer.headers["www-authenticate"] == "Bearer"
    if path.startswith("/v1"):
        assert answer.status_code == 401
        assert set(answer.json()) == {"error"}
    else:
        problem(answer, 401, "unauthenticated")


@pytest.mark.parametrize("header", ["authorization", "x-api-key"])
def test_a_key_opens_what_it_is_for(guarded: Guarded, header: str) -> None:
    headers = {header: f"bearer {guarded.predict}" if header == "authorization" else guarded.predict}
    answer = guarded.client.post("/predict", files={"file": PICTURE}, headers=headers)
    assert answer.json()["images"][0]["predictions"][0]["label"] == "circle"
    image_id = answer.json()["images"][0]["image_id"]
    refused = guarded.client.get("/explain", params={"image_id": image_id, "method": "gradcam"}, headers=headers)
    assert problem(refused, 403, "forbidden")["detail"] == "expected a key for explain, got one for predict"
    drawn = guarded.client.get(
        "/explain", params={"image_id": image_id, "method": "gradcam"}, headers=bearer(guarded.explain)
    )
    assert drawn.status_code == 200
    problem(guarded.client.post("/predict", files={"file": PICTURE}, headers=bearer(guarded.explain)), 403, "forbidden")


def test_health_and_metrics_are_open_unless_they_are_closed(
    guarded: Guarded, serve: Serve, shapes_models: Path
) -> None:
    for path in ("/health/live", "/health/ready", "/metrics"):
        assert guarded.client.get(path).status_code == 200
    closed = serve(create_app(Settings(models=shapes_models, engine="openvino", keys=guarded.file, open_metrics=False)))
    for path in ("/health/live", "/health/ready", "/metrics"):
        problem(closed.get(path), 401, "unauthenticated")
        assert closed.get(path, headers=bearer(guarded.admin)).status_code == 200


def test_a_refusal_is_counted(guarded: Guarded) -> None:
    guarded.client.get("/models")
    counted = re.search(r'sichtbar_errors_total\{code="unauthenticated"\} (\d+)', guarded.client.get("/metrics").text)
    assert counted is not None
    assert int(counted[1]) >= 1


def test_who_asks_too_often_is_told_when_to_come_back(serve: Serve, shapes_models: Path, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    shown = add_key(file, "eager", frozenset({"predict"}), 2.0)
    client = serve(create_app(Settings(models=shapes_models, engine="openvino", keys=file)))
    answers = [client.get("/models", headers=bearer(shown)) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    problem(answers[-1], 429, "rate_limited")
    assert 25 <= int(answers[-1].headers["retry-after"]) <= 30


def test_a_page_of_an_allowed_origin_may_ask_and_of_another_not(
    serve: Serve, shapes_models: Path, guarded: Guarded
) -> None:
    settings = Settings(models=shapes_models, engine="openvino", keys=guarded.file, cors_origins=("https://shop.test",))
    client = serve(create_app(settings))
    ask = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    allowed = client.options("/predict", headers={"origin": "https://shop.test", **ask})
    assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, "https://shop.test")
    other = client.options("/predict", headers={"origin": "https://evil.test", **ask})
    assert "access-control-allow-origin" not in other.headers
    # A page must be able to read why it was refused.
    refused = client.post("/predict", files={"file": PICTURE}, headers={"origin": "https://shop.test"})
    problem(refused, 401, "unauthenticated")
    assert refused.headers["access-control-allow-origin"] == "https://shop.test"


@pytest.mark.parametrize("path", ["/models", "/nowhere", "/v2", "/docs", "/metrics"])
def test_each_answer_tells_browsers_to_be_careful(live: httpx.Client, path: str) -> None:
    headers = live.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"


def test_without_keys_nobody_is_an_admin(live: httpx.Client) -> None:
    for method, path in (("POST", "/models/shapes/versions/1:unload"), ("PUT", "/models/shapes/labels")):
        refused = problem(live.request(method, path, json={}), 403, "forbidden")
        assert refused["detail"] == "admin calls are switched off; SICHTBAR_KEYS switches them on"
    assert live.get("/models/shapes/versions/1").status_code == 200
