"""The system's Chromium in front of a live service."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.app import create_app
from service.settings import Settings
from tests.conftest import ROOT, LiveServer

playwright = pytest.importorskip("playwright.sync_api")
from playwright.sync_api import Browser, Page, expect, sync_playwright  # noqa: E402

from benchmarks.page import BROWSERS  # noqa: E402

# The machine's own; and a camera that shows a test picture.
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
]
SCREENSHOTS = Path(os.environ.get("SCREENSHOTS", ROOT / "build" / "screenshots"))
# Of a busy machine: nothing is awaited for its length.
PATIENCE = 90_000


# Not for the whole session: its event loop counts as running, and other tests have loops of their own.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser: expected one of {', '.join(BROWSERS)}; on Debian: apt-get install chromium")
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `served` keeps pictures."""
    return tmp_path_factory.mktemp("browser") / "images"


@pytest.fixture(scope="package")
def served(store: Path) -> Iterator[str]:
    """The bundled models."""
    settings = Settings(models=ROOT / "models", default_model="fruit_cnn", engine="openvino", store=str(store))
    with LiveServer(create_app(settings)) as server:
        yield server.url


@pytest.fixture(scope="package")
def lemon(served: str) -> str:
    """The id under which the page's own example is kept."""
    picture = httpx.get(f"{served}/web/examples/lemon.jpg").content
    answer = httpx.post(f"{served}/predict", content=picture, headers={"content-type": "image/jpeg"}).json()
    return str(answer["images"][0]["image_id"])


@pytest.fixture
def serve() -> Iterator[Callable[[Settings], str]]:
    """Serves with other settings, until the test is over."""
    with ExitStack() as stack:
        yield lambda settings: stack.enter_context(LiveServer(create_app(settings))).url


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """New pages, each a visitor of its own. What one of them complains of fails the test."""
    complaints: list[str] = []
    with ExitStack() as stack:

        def opened(url: str, *, expected: str = "", **options: Any) -> Page:
            context = stack.enter_context(browser.new_context(**({"locale": "en-GB"} | options)))
            context.set_default_timeout(PATIENCE)
            page = context.new_page()

            def complain(kind: str, text: str) -> None:
                if kind in ("error", "warning") and not (expected and expected in text):
                    complaints.append(text)

            page.on("console", lambda message: complain(message.type, message.text))
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.goto(url)
            return page

        yield opened
    assert not complaints
