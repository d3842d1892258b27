"""Both clients against a real service."""

from __future__ import annotations

import inspect
import io
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from PIL import Image, ImageOps

import service.client
from service.app import create_app
from service.client import (
    AsyncClient,
    Client,
    Forbidden,
    Gone,
    Invalid,
    NotFound,
    NotSent,
    Unauthenticated,
    Unsupported,
    calls,
)
from service.security import add_key
from service.settings import Settings
from tests.conftest import ROOT, LiveServer, draw, encode
from tests.service.client.conftest import Connect
from tests.service.http.explaining import QUICK, SLOW, until

DRAWN = draw("circle", 7, (60, 48))
PICTURE = encode(DRAWN)


def turned() -> bytes:
    """A JPEG that a camera has stored lying."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encode(draw("square", 3), "JPEG", exif=exif)


def test_it_is_imported_without_what_the_service_needs() -> None:
    foreign = ("fastapi", "starlette", "uvicorn", "tensorflow", "openvino", "structlog", "skimage", "scipy", "lime")
    program = f"import sys, service.client; print([name for name in {foreign} if name in sys.modules])"
    finished = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "[]"


def test_both_clients_offer_every_call_with_its_parameters_and_what_it_is_for() -> None:
    def offered(kind: type) -> dict[str, str]:
        return {
            name: str(inspect.signature(method))
            for name, method in inspect.getmembers(kind, inspect.isfunction)
            if not name.startswith("_") and name not in ("close", "follow")
        }

    described = {
        name for name, made in inspect.getmembers(calls, inspect.isgeneratorfunction) if not name.startswith("_")
    }
    assert set(offered(Client)) == described
    assert offered(Client) == offered(AsyncClient)
    assert str(inspect.signature(Client.card)) == "(self, /, model: 'str', version: 'int') -> 'VersionCard'"
    assert list(inspect.signature(Client("http://127.0.0.1").card).parameters) == ["model", "version"]
    for kind in (Client, AsyncClient):
        assert all(inspect.getdoc(getattr(kind, name)) for name in described | {"follow", "close"})


def test_what_is_public_is_listed() -> None:
    visible = {
        name for name, value in vars(service.client).items() if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert list(service.client.__all__) == sorted(visible)


@pytest.mark.parametrize(
    "picture",
    [
        pytest.param(lambda path: path, id="path"),
        pytest.param(str, id="text"),
        pytest.param(lambda path: path.read_bytes(), id="bytes"),
        pytest.param(Image.open, id="pillow"),
        pytest.param(lambda path: np.asarray(Image.open(path)), id="numpy"),
    ],
)
def test_a_picture_in_any_form_gets_the_same_answer(
    client: Any, live: httpx.Client, tmp_path: Path, picture: Callable[[Path], Any]
) -> None:
    path = tmp_path / "circle.png"
    path.write_bytes(PICTURE)
    given = picture(path)
    answer = client.predict(given, top_k=2)
    said = live.post("/predict", params={"top_k": 2}, files={"file": PICTURE}).json()["images"][0]
    (image,) = answer.images
    assert [prediction.model_dump() for prediction in image.predictions] == said["predictions"]
    assert (answer.model, answer.version, image.best.label) == ("shapes", 1, "circle")
    assert image.name == ("circle.png" if isinstance(given, (str, Path)) else None)


@pytest.mark.parametrize(
    ("image", "mode"),
    [
        pytest.param(DRAWN.convert("L"), "L", id="grey"),
        pytest.param(DRAWN.convert("CMYK"), "CMYK", id="cmyk"),
        pytest.param(DRAWN.convert("P"), "P", id="palette"),
        pytest.param(DRAWN.convert("RGBA"), "RGBA", id="transparent"),
        pytest.param(Image.fromarray(np.asarray(DRAWN.convert("L")).astype(np.uint16) * 257), "I;16", id="16-bit"),
    ],
)
def test_pillow_s_modes_are_brought_to_what_a_file_can_hold(client: Any, image: Image.Image, mode: str) -> None:
    assert image.mode == mode
    assert client.predict(image).images[0].best.label == "circle"


def test_what_a_camera_stored_lying_is_turned_as_the_service_turns_its_file(client: Any, live: httpx.Client) -> None:
    lying = Image.open(io.BytesIO(turned()))
    kept = client.image(client.predict(lying).images[0].image_id)
    assert np.array_equal(kept, ImageOps.exif_transpose(lying))


def test_several_pictures_are_answered_in_their_order(client: Any, tmp_path: Path) -> None:
    path = tmp_path / "caf\N{LATIN SMALL LETTER E WITH ACUTE}.png"
    path.write_bytes(encode(draw("square", 2)))
    answer = client.predict([PICTURE, path, np.asarray(draw("stripes", 1))])
    assert [image.best.label for image in answer.images] == ["circle", "square", "stripes"]
    assert [image.name for image in answer.images] == ["picture 1", path.name, "picture 3"]
    batch = np.stack([np.asarray(draw(shape, 1)) for shape in ("square", "circle")])
    assert [image.best.label for image in client.predict(batch).images] == ["square", "circle"]


@pytest.mark.parametrize(
    ("picture", "got"),
    [
        pytest.param(np.zeros((4, 4, 3)), "float64 [4, 4, 3]", id="not-uint8"),
        pytest.param(np.zeros((4, 4, 2), np.uint8), "uint8 [4, 4, 2]", id="channels"),
        pytest.param(np.zeros((0, 4, 3), np.uint8), "none: [0, 4, 3]", id="no-pixels"),
        pytest.param(Image.new("F", (4, 4)), "32-bit floating point", id="mode-f"),
        pytest.param(7, "got int", id="int"),
        pytest.param([], "got none", id="none"),
        pytest.param([PICTURE, None], "got NoneType", id="one-of-several"),
    ],
)
def test_what_is_no_picture_is_not_sent(client: Any, picture: Any, got: str) -> None:
    with pytest.raises(NotSent, match="expected") as told:
        client.predict(picture)
    assert got in str(told.value)


def test_a_file_that_is_not_there_is_python_s_own_error(client: Any, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        client.predict(tmp_path / "nowhere.png")


def test_a_refusal_says_all_that_the_service_said(connect: Connect, live: httpx.Client) -> None:
    client = connect(str(live.base_url), request_id=lambda: "order-17")
    with pytest.raises(Unsupported) as told:
        client.predict(b"no picture")
    refusal = told.value
    assert (refusal.status, refusal.code, refusal.request_id) == (415, "unsupported_image", "order-17")
    assert refusal.title == "The bytes are no picture of a format that the service reads"
    assert str(refusal) == f"unsupported_image: {refusal.detail}"
    with pytest.raises(NotFound, match="unknown_model"):
        client.card("shape", 1)
    with pytest.raises(Invalid, match=r"expected nothing but .*top_k.*, got topk"):
        client.predict(PICTURE, topk=3)


@pytest.fixture(scope="module")
def busy(shapes_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service that lets nobody wait for an explanation: each goes on as a job."""
    store = str(tmp_path_factory.mktemp("busy") / "store")
    with LiveServer(
        create_app(Settings(models=shapes_models, engine="openvino", explain_wait=0.0, store=store))
    ) as server:
        yield server.url


def explained(live: httpx.Client, **params: object) -> tuple[dict[str, Any], bytes]:
    """What the service says itself."""
    numbers, drawn = (
        live.post("/explain", params={**params, "format": form, "wait": 60}, files={"file": PICTURE}, timeout=90)
        for form in ("json", "png")
    )
    return numbers.json(), drawn.content


@pytest.mark.parametrize("store", [True, False])
@pytest.mark.parametrize("options", [{"method": "gradcam"}, {**QUICK, "polarity": "both", "size": 100}])
def test_an_explanation_is_the_service_s_numbers_and_its_drawing(
    client: Any, live: httpx.Client, options: dict[str, Any], store: bool
) -> None:
    numbers, drawn = explained(live, **options)
    explanation = client.explain(PICTURE, **options, store=store)
    assert explanation.numbers.model_dump(mode="json") == numbers
    assert explanation.png == drawn
    assert explanation.overlay.mode == "RGB"
    again = client.explain(image_id=explanation.numbers.image_id, **options)
    assert (again.numbers, again.png) == (explanation.numbers, explanation.png)
    assert client.explain_numbers(PICTURE, **options) == explanation.numbers


@pytest.mark.parametrize("store", [True, False])
def test_an_explanation_that_takes_longer_is_waited_for(
    connect: Connect, live: httpx.Client, busy: str, store: bool
) -> None:
    # Another one each time: what is kept is answered at once.
    options = {**QUICK, "seed": 1 + store}
    numbers, drawn = explained(live, **options)
    explanation = connect(busy, timeout=120).explain(PICTURE, **options, store=store)
    assert (explanation.numbers.model_dump(mode="json"), explanation.png) == (numbers, drawn)
    with pytest.raises(NotSent, match="got neither"):
        connect(busy).explain()
    with pytest.raises(NotSent, match="got both"):
        connect(busy).explain(PICTURE, image_id="0" * 64)


def test_a_job_is_followed_to_its_result(client: Any, live: httpx.Client) -> None:
    job = client.explain_later(PICTURE, samples=600, seed=1)
    states = list(client.follow(job))
    assert [known.state for known in states][-1] == "done"
    done = [known.progress.done for known in states if known.progress]
    assert done == sorted(done)
    assert client.job(job.id) == states[-1]
    numbers, drawn = explained(live, samples=600, seed=1)
    result = client.result(job)
    assert (result.numbers.model_dump(mode="json"), result.png) == (numbers, drawn)
    assert client.result(job.id, size=80).overlay.size == (80, 64)
    assert client.preview(job, size=100).size == (100, 80)


def test_a_result_that_is_not_there_yet_is_waited_for(client: Any) -> None:
    job = client.explain_later(PICTURE, samples=700, seed=2)
    assert client.result(job).numbers.samples == 700


def test_a_job_is_cancelled_and_has_no_result(client: Any) -> None:
    job = client.explain_later(PICTURE, **SLOW)
    follower = client.follow(job)
    assert next(follower).state in ("queued", "running")
    assert client.cancel(job).state == "cancelled"
    assert [known.state for known in follower][-1] == "cancelled"
    with pytest.raises(Gone, match="explanation_cancelled"):
        client.result(job)
    with pytest.raises(NotFound, match="unknown_explanation"):
        list(client.follow("0" * 32))


def test_a_layer_is_numbers_a_picture_or_statistics(client: Any, live: httpx.Client) -> None:
    listed = client.layers("shapes")
    assert listed == client.layers("shapes", 1)
    layer = next(layer for layer in listed.layers if layer.filters)
    image_id = client.predict(PICTURE).images[0].image_id
    maps = client.activations(layer.name, PICTURE)
    assert (maps.dtype, list(maps.shape)) == (np.float32, layer.shape)
    one = client.activations(layer.name, image_id=image_id, channel=1)
    assert np.array_equal(one, maps[..., 1])
    statistics = client.activations_statistics(layer.name, PICTURE)
    assert statistics.channels[1].mean == pytest.approx(one.mean(), abs=1e-4)
    for asked in ({}, {"channel": 1}, {"channel": 1, "over": True}):
        assert client.activations_image(layer.name, PICTURE, **asked).mode == "RGB"
    kernels = client.filters("shapes", layer.name)
    assert list(kernels.shape) == client.filters_statistics("shapes", layer.name).shape
    assert np.array_equal(client.filters("shapes", layer.name, version=1, channel=2), kernels[..., 2])
    assert client.filters_image("shapes", layer.name).mode == "RGB"
    walk = client.walk(image_id, top_k=2)
    assert (walk.predictions[0].label, len(walk.predictions)) == ("circle", 2)
    assert client.graph("shapes").startswith("<svg")


def test_models_their_cards_and_reports(client: Any, tmp_path: Path, shapes_models: Path) -> None:
    listed = client.models()
    assert listed.default == "shapes"
    assert listed.models == [client.model("shapes")]
    card = client.card("shapes", 1)
    assert card.manifest.labels == ["circle", "square", "stripes"]
    page = client.download_report("shapes", 1, tmp_path / "report")
    there = shapes_models / "shapes" / "1" / "report"
    assert page == tmp_path / "report" / "index.html"
    assert {path.name: path.read_bytes() for path in page.parent.iterdir()} == {
        path.name: path.read_bytes() for path in there.iterdir()
    }
    assert client.report("shapes", 1) == (there / "report.json").read_bytes()


def test_a_kept_picture_comes_back(client: Any) -> None:
    image_id = client.predict(PICTURE).images[0].image_id
    assert client.image_file(image_id) == PICTURE
    assert np.array_equal(client.image(image_id), DRAWN)
    assert client.predict(PICTURE, store=False).images[0].image_id is None


def test_whether_it_is_ready_is_an_answer_and_no_error(
    connect: Connect, shapes_models: Path, serve: Callable[[FastAPI], httpx.Client]
) -> None:
    app = create_app(Settings(models=shapes_models, engine="openvino"))
    client = connect(str(serve(app).base_url))
    assert client.live()
    assert client.ready()
    app.state.classifier.drain(after=0.0)
    until(lambda: not client.ready())
    assert client.live()


def test_a_key_is_shown(
    connect: Connect, shapes_models: Path, serve: Callable[[FastAPI], httpx.Client], tmp_path: Path
) -> None:
    keys = tmp_path / "keys.json"
    shown = add_key(keys, "shop", frozenset({"predict"}), None)
    url = str(serve(create_app(Settings(models=shapes_models, engine="openvino", keys=keys))).base_url)
    with pytest.raises(Unauthenticated):
        connect(url).predict(PICTURE)
    client = connect(url, key=shown)
    assert client.predict(PICTURE).images[0].best.label == "circle"
    with pytest.raises(Forbidden):
        client.explain(PICTURE)
