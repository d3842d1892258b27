"""A tiny real model, trained on pictures that are drawn here, and a live server in front of it."""

from __future__ import annotations

import asyncio
import io
import os
import random
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from PIL import Image, ImageDraw

from service.app import create_app
from service.http.connections import GuardedProtocol
from service.settings import PREFIX, Settings

ROOT = Path(__file__).parent.parent
KEPT = {"SICHTBAR_DATA", "SICHTBAR_WEIGHTS", "SICHTBAR_STORE", "SICHTBAR_EXPLAIN_PRELOAD"}
SHAPES = ("circle", "square", "stripes")
# Seconds for which what must come is waited for, however slow the machine.
PATIENCE = 90.0


def draw(shape: str, seed: int, size: tuple[int, int] = (48, 48)) -> Image.Image:
    """One of `SHAPES` in a random dark colour on a random light ground."""
    chance = random.Random(f"{shape}-{seed}")
    ground = tuple(chance.randint(200, 255) for _ in range(3))
    colour = tuple(chance.randint(0, 90) for _ in range(3))
    image = Image.new("RGB", size, ground)
    pen = ImageDraw.Draw(image)
    width, height = size
    box = (width * 0.2, height * 0.2, width * 0.8, height * 0.8)
    if shape == "circle":
        pen.ellipse(box, fill=colour)
    elif shape == "square":
        pen.rectangle((0, 0, width * 0.5, height), fill=colour)
    else:
        for x in range(0, width, max(width // 6, 2)):
            pen.line((x, 0, x, height), fill=colour, width=max(width // 12, 1))
    return image


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """The file's bytes."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


async def until(condition: Callable[[], object]) -> None:
    # The event loop is given its turn until it has done what it must.
    with anyio.fail_after(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--times", type=int, default=1, help="how many times as much is made up: requests, pictures, stops"
    )


@pytest.fixture(scope="session")
def times(request: pytest.FixtureRequest) -> int:
    """How many times as much as usual a test makes up."""
    return int(request.config.getoption("--times"))


@pytest.fixture(autouse=True)
def _clean_environ(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(PREFIX) and name not in KEPT:
            monkeypatch.delenv(name)


@pytest.fixture(scope="session", autouse=True)
def _own_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Where a test's own pictures are kept, also by the programs that it starts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SICHTBAR_STORE", str(tmp_path_factory.mktemp("store") / "images"))
        # Most tests explain nothing.
        patch.setenv("SICHTBAR_EXPLAIN_PRELOAD", "false")
        yield


@pytest.fixture(scope="session")
def drawn_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three class folders with 40 pictures each."""
    folder = tmp_path_factory.mktemp("drawn")
    for shape in SHAPES:
        (folder / shape).mkdir()
        for seed in range(40):
            draw(shape, seed).save(folder / shape / f"{shape}{seed}.png")
    return folder


RECIPE = """
name = "shapes"
network = "fruit_cnn"
[input]
height = 16
width = 12
resize = "crop"
[fitting]
batch_size = 8
seed = 3
[[fitting.stages]]
epochs = 8
optimizer = { name = "adam", learning_rate = 0.002 }
[data]
test_fraction = 0.25
[card]
description = "Shapes."
licence = "Apache-2.0"
attribution = "Drawn by the tests."
"""


@pytest.fixture(scope="session")
def recipe_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "shapes.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="session")
def shapes_models(tmp_path_factory: pytest.TempPathFactory, drawn_folder: Path, recipe_file: Path) -> Path:
    """A models folder with `shapes/1`, trained for real. Do not write there: copy it."""
    from training.fit import fit
    from training.recipe import read_recipe

    models = tmp_path_factory.mktemp("models")
    fit(read_recipe(str(recipe_file)), drawn_folder, models, runs=tmp_path_factory.mktemp("runs"))
    return models


@pytest.fixture
def own_models(shapes_models: Path, tmp_path: Path) -> Path:
    """A copy of `shapes_models` that the test may change."""
    return shutil.copytree(shapes_models, tmp_path / "models")


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The real pictures; tests that use them are marked `realdata`."""
    return _shared("SICHTBAR_DATA", "data", "pictures")


@pytest.fixture(scope="session")
def weights_folder() -> Path:
    """The real ImageNet weights; tests that use them are marked `realdata`."""
    return _shared("SICHTBAR_WEIGHTS", "weights", "weights")


def _shared(variable: str, name: str, what: str) -> Path:
    folder = Path(os.environ.get(variable, ROOT.parent / "shared" / name))
    if not folder.is_dir():
        pytest.skip(f"no real {what}: set {variable}")
    return folder


class LiveServer(uvicorn.Server):
    """A real server on a free port, in a thread."""

    def __init__(self, app: FastAPI) -> None:
        super().__init__(
            uvicorn.Config(app, port=0, log_config=None, access_log=False, http=GuardedProtocol, ws="none")
        )
        self._up = threading.Event()
        self._thread = threading.Thread(target=self.run)

    async def startup(self, sockets: object = None) -> None:
        try:
            await super().startup()
        finally:
            self._up.set()

    def __enter__(self) -> LiveServer:
        self._thread.start()
        self._up.wait()
        assert self.started, "the server did not start"
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.should_exit = True
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.servers[0].sockets[0].getsockname()[1]}"


@pytest.fixture(scope="session")
def live(shapes_models: Path) -> Iterator[httpx.Client]:
    """A client of a live server that serves `shapes`."""
    with (
        LiveServer(create_app(Settings(models=shapes_models, engine="openvino", explain_wait=PATIENCE))) as server,
        httpx.Client(base_url=server.url) as client,
    ):
        yield client


@pytest.fixture
def serve() -> Iterator[Callable[[FastAPI], httpx.Client]]:
    """Serve an app of the test's own; call with the app, get a client."""
    opened: list[tuple[LiveServer, httpx.Client]] = []

    def start(app: FastAPI) -> httpx.Client:
        server = LiveServer(app).__enter__()
        client = httpx.Client(base_url=server.url)
        opened.append((server, client))
        return client

    yield start
    for server, client in opened:
        client.close()
        server.__exit__()
