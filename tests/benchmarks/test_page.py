"""Visits of the page by a real browser, and what is made of a page that is not whole."""

from __future__ import annotations

import shutil
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

pytest.importorskip("playwright.sync_api")
from benchmarks.errors import BenchmarkFailed
from benchmarks.page import BROWSERS, visit
from service.app import create_app
from service.http.pages import FOLDER, router
from service.settings import Settings
from tests.conftest import LiveServer, draw, encode

pytestmark = pytest.mark.skipif(not any(map(shutil.which, BROWSERS)), reason="no browser")
PICTURE = encode(draw("circle", 1))


def test_visits_say_what_was_fetched_and_how_long_it_took(shapes_models: Path) -> None:
    with LiveServer(create_app(Settings(models=shapes_models, engine="openvino", store="none"))) as server:
        listed = len(httpx.get(f"{server.url}/models").content)
        found = visit(server.url, PICTURE, 2)
    parts = [FOLDER / "index.html", FOLDER / "words" / "en.json"]
    parts += [path for pattern in ("*.js", "*.css", "*.svg", "examples/*.jpg") for path in FOLDER.glob(pattern)]
    assert [one.requests for one in found] == [len(parts) + 1] * 2
    assert [one.bytes for one in found] == [sum(path.stat().st_size for path in parts) + listed] * 2
    assert all(one.painted_ms > 0 and one.answered_ms > 0 for one in found)


def test_a_page_that_is_not_whole_is_not_measured() -> None:
    app = FastAPI()
    app.include_router(router)
    with LiveServer(app) as server, pytest.raises(BenchmarkFailed, match=r"404 http://127\.0\.0\.1:\d+/models"):
        visit(server.url, PICTURE, 1)
