"""A version's report over HTTP: the files that its manifest lists, and nothing else of the folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from service.app import create_app
from service.manifest import hash_files, sha256
from service.settings import Settings
from tests.conftest import ROOT, LiveServer, draw, encode

REPORT = {
    "index.html": b"<!doctype html><title>fruit_cnn</title><img src=confusion.png>",
    "confusion.png": encode(draw("stripes", 1)),
    "report.json": b'{"accuracy": 1.0}',
    "filters-1.jpg": encode(draw("stripes", 2), "JPEG"),
    "table.csv": b"class,recall\n",
}
BASE = "/models/fruit_cnn/versions/1/report"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three versions of the bundled model: with a report, without one, and one that fails."""
    models = tmp_path_factory.mktemp("models")
    bundled = ROOT / "models" / "fruit_cnn" / "1"
    for version in (1, 2, 3):
        folder = shutil.copytree(bundled, models / "fruit_cnn" / str(version), ignore=shutil.ignore_patterns("report"))
        if version == 1:
            (folder / "report").mkdir()
            for name, content in REPORT.items():
                (folder / "report" / name).write_bytes(content)
        manifest = json.loads((folder / "manifest.json").read_bytes())
        manifest |= {"version": version, "files": hash_files(folder)}
        (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "saved_model.pb").unlink()
    return models


@pytest.fixture(scope="module")
def client(models: Path) -> Iterator[httpx.Client]:
    with (
        LiveServer(create_app(Settings(models=models, engine="openvino"))) as server,
        httpx.Client(base_url=server.url) as client,
    ):
        yield client


def refused(answer: httpx.Response, code: str) -> str:
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == code
    return str(answer.json()["detail"])


def test_a_report_leads_to_its_page_under_any_prefix(client: httpx.Client) -> None:
    answer = client.get(BASE)
    assert answer.status_code == 307
    assert answer.headers["location"] == "report/"
    page = client.get(BASE, follow_redirects=True)
    assert page.url.path == f"{BASE}/"
    assert page.content == REPORT["index.html"]


@pytest.mark.parametrize("path", ["report", "report/", "report/confusion.png"])
def test_the_head_is_the_file_s_without_its_body(client: httpx.Client, path: str) -> None:
    address = BASE.removesuffix("report") + path
    head, whole = client.head(address), client.get(address)
    assert head.status_code == whole.status_code
    assert head.content == b""
    assert {name: head.headers.get(name) for name in ("content-length", "etag", "content-type", "location")} == {
        name: whole.headers.get(name) for name in ("content-length", "etag", "content-type", "location")
    }


def test_each_file_has_its_type_and_may_run_and_fetch_nothing(client: httpx.Client) -> None:
    types = {
        "": "text/html; charset=utf-8",
        "index.html": "text/html; charset=utf-8",
        "confusion.png": "image/png",
        "filters-1.jpg": "image/jpeg",
        "report.json": "application/json",
        "table.csv": "application/octet-stream",
    }
    for name, kind in types.items():
        answer = client.get(f"{BASE}/{name}")
        assert answer.status_code == 200
        assert answer.content == REPORT[name or "index.html"]
        assert answer.headers["content-type"] == kind
        assert answer.headers["x-content-type-options"] == "nosniff"
        policy = "default-src 'none'; img-src 'self'; style-src 'unsafe-inline'"
        assert answer.headers["content-security-policy"] == policy


def test_a_file_that_the_client_has_is_not_sent_again(client: httpx.Client, models: Path) -> None:
    etag = client.get(f"{BASE}/confusion.png").headers["etag"]
    assert etag == f'"{sha256(models / "fruit_cnn" / "1" / "report" / "confusion.png")}"'
    for held in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        answer = client.get(f"{BASE}/confusion.png", headers={"if-none-match": held})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag)
    assert client.get(f"{BASE}/confusion.png", headers={"if-none-match": '"other"'}).status_code == 200
    assert client.get(f"{BASE}/", headers={"if-none-match": etag}).status_code == 200


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("roc.png", id="no-such-file"),
        pytest.param("saved_model.pb", id="a-file-of-the-version"),
        pytest.param("%2e%2e", id="up"),
        pytest.param("..%5Cmanifest.json", id="backslash"),
        pytest.param("%00", id="nul"),
    ],
)
def test_a_file_that_is_none_of_the_report_is_not_there(client: httpx.Client, name: str) -> None:
    answer = client.get(f"{BASE}/{name}")
    assert "expected one of confusion.png, filters-1.jpg, index.html, report.json, table.csv of fruit_cnn/1" in refused(
        answer, "unknown_report"
    )


@pytest.mark.parametrize("path", ["%2e%2e/manifest.json", "..%2fmanifest.json", "%2fetc%2fpasswd", "a/b"])
def test_no_path_leads_out_of_the_report(client: httpx.Client, path: str) -> None:
    refused(client.get(f"{BASE}/{path}"), "not_found")


@pytest.mark.parametrize("path", ["report", "report/", "report/index.html"])
def test_a_version_without_a_report_says_so(client: httpx.Client, path: str) -> None:
    detail = refused(client.get(f"/models/fruit_cnn/versions/2/{path}"), "unknown_report")
    assert detail == "fruit_cnn/2 has no report"


@pytest.mark.parametrize("path", ["report", "report/", "report/index.html"])
def test_versions_that_are_not_loaded_are_refused_as_their_cards_are(client: httpx.Client, path: str) -> None:
    for version in ("fruit_cnn/versions/3", "fruit_cnn/versions/9", "cats/versions/1"):
        card = client.get(f"/models/{version}")
        answer = client.get(f"/models/{version}/{path}")
        assert refused(answer, card.json()["code"]) == card.json()["detail"]


def test_an_unknown_parameter_is_refused(client: httpx.Client) -> None:
    for path in (BASE, f"{BASE}/", f"{BASE}/report.json"):
        assert client.get(path, params={"download": "1"}).json()["code"] == "invalid_request"


def test_a_file_that_changed_or_went_since_is_not_served(
    models: Path, tmp_path: Path, serve: Callable[[FastAPI], httpx.Client]
) -> None:
    folder = shutil.copytree(models / "fruit_cnn" / "1", tmp_path / "fruit_cnn" / "1") / "report"
    client = serve(create_app(Settings(models=tmp_path, engine="openvino")))
    (folder / "report.json").write_bytes(b"{}")
    (folder / "table.csv").unlink()
    assert refused(client.get(f"{BASE}/report.json"), "unknown_report") == (
        "report.json has changed since the version was loaded"
    )
    assert refused(client.get(f"{BASE}/table.csv"), "unknown_report") == (
        "table.csv is gone since the version was loaded"
    )
