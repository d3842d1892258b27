"""Every call, described once for both clients: what is asked, and what the answer becomes.

Each raises `Refused` where the service answers with a problem, `NoAnswer` where it does not answer, and
`UnexpectedAnswer` where something else does; those that take a picture `NotSent` where it is none, and OSError where
its file cannot be read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict, Unpack

from service.choices import Method
from service.client.errors import NotSent, UnexpectedAnswer
from service.client.exchange import Answer, Call, Request, opened
from service.client.pictures import File, Picture, Pictures, file, files
from service.explain.question import Fill
from service.explain.style import Polarity, StyleName
from service.http.schemas import (
    ExplanationJob,
    FilterStatistics,
    HeatAnswer,
    LayerList,
    LayerStatistics,
    LimeAnswer,
    ModelList,
    ModelSummary,
    PredictAnswer,
    VersionCard,
    Walk,
)
from service.labels import Label

REPORT, PAGE = "report/", "index.html"

Numbers = LimeAnswer | HeatAnswer
NUMBERS: TypeAdapter[Numbers] = TypeAdapter(Annotated[Numbers, Field(discriminator="method")])


class VersionOptions(TypedDict, total=False):
    """Which model answers."""

    model: str | None
    """Its name; unset, the service's default model."""
    version: int | Label | None
    """A version's number, `stable` or `canary`; unset, the stable one, else the highest."""


class PredictOptions(VersionOptions, total=False):
    """Which model answers, and how much of its answer is wanted."""

    top_k: int
    """How many classes, 1 to 1000, the most probable first; unset, 5."""
    store: bool
    """Whether the service keeps the pictures for calls that name them by id; unset, it does."""


class DrawOptions(TypedDict, total=False):
    """How an explanation is drawn; unset, as it was when it was asked for."""

    style: StyleName | None
    """`overlay` (unset), `outline` or `heatmap`."""
    polarity: Polarity | None
    """Of LIME: `positive` (unset), what speaks for the class, `negative`, against it, or `both`."""
    top_superpixels: int | None
    """Of LIME: how many, 0 to 200; unset 5, 0 = all."""
    opacity: float | None
    """0 the picture alone, 1 the explanation alone; unset 0.7."""
    size: int | None
    """The longest side in pixels at the most, 64 to 2048; unset 1024."""


class ExplainOptions(VersionOptions, DrawOptions, total=False):
    """A question to a model about a picture, and how its answer is drawn."""

    image_id: str | None
    """A picture that the service keeps, instead of one that is sent."""
    label: str | None
    """The class to explain; unset, the one that the model predicts."""
    method: Method
    """`lime` (unset) or `gradcam`."""
    samples: int | None
    """Of LIME: perturbed pictures, 16 to 10,000; unset, until its ranking settles."""
    seed: int | None
    """Of LIME's chance, from 0; unset, from the picture: the same every time."""
    superpixels: int | None
    """Of LIME: about how many, 2 to 200; unset, by the picture."""
    fill: Fill | None
    """Of LIME: what stands where a superpixel is taken away, `mean` (unset), `grey` or `white`."""
    store: bool
    """Whether the service keeps a picture that is sent, and drawings of it; unset, it does."""


class LayerOptions(VersionOptions, total=False):
    """Which picture goes into which model, and what of a layer is wanted."""

    image_id: str | None
    """A picture that the service keeps, instead of one that is sent."""
    channel: int | None
    """One channel, from 0; unset, all."""


@dataclass(frozen=True)
class Explanation:
    """Why a model says what it says."""

    numbers: LimeAnswer | HeatAnswer
    """`numbers.method` tells which; LIME's have `weights()` and `segments()`."""
    png: bytes
    """The drawing's file."""

    @cached_property
    def overlay(self) -> Image.Image:
        """The drawing, RGB."""
        return opened(self.png)


def predict(pictures: Pictures, **options: Unpack[PredictOptions]) -> Call[PredictAnswer]:
    """Classify one or several pictures; `images` of the answer are in their order.

    A service takes so many in one request (32, `SICHTBAR_MAX_IMAGES`), and refuses all where one is no picture. See
    `PredictOptions`.
    """
    answer = yield Request("POST", "/predict", options, files(pictures))
    return answer.read(PredictAnswer)


def explain(picture: Picture | None = None, **options: Unpack[ExplainOptions]) -> Call[Explanation]:
    """Why a model says what it says of a picture, or of one that is kept: numbers, and a drawing.

    What takes the service longer goes on as a job, which is waited for. See `ExplainOptions`.
    """
    sent, asked = _subject(picture, options)
    numbers, job = yield from _numbers(sent, asked)
    if job is not None:
        return Explanation(numbers, _png((yield _result(job, "png", asked))))
    # A canary may get the next question.
    asked |= {"model": numbers.model, "version": numbers.version}
    if asked.get("store", True):
        drawn, _ = yield from _waited((), asked | {"image_id": numbers.image_id}, "png")
        if not sent or drawn.status < 300:
            return Explanation(numbers, _png(drawn))
    # The service does not keep it.
    drawn, _ = yield from _waited(sent, asked, "png")
    return Explanation(numbers, _png(drawn))


def explain_numbers(picture: Picture | None = None, **options: Unpack[ExplainOptions]) -> Call[Numbers]:
    """As `explain`, without the drawing."""
    numbers, _ = yield from _numbers(*_subject(picture, options))
    return numbers


def explain_later(picture: Picture | None = None, **options: Unpack[ExplainOptions]) -> Call[ExplanationJob]:
    """As `explain`, as a job that is under way once this returns: for `follow`, `preview`, `cancel` and `result`."""
    sent, asked = _subject(picture, options)
    answer = yield Request("POST", "/explanations", asked, sent)
    return answer.read(ExplanationJob)


def job(job: ExplanationJob | str) -> Call[ExplanationJob]:
    """How far an explanation is; `job` or its id."""
    answer = yield Request("GET", place(job))
    return answer.read(ExplanationJob)


def cancel(job: ExplanationJob | str) -> Call[ExplanationJob]:
    """Cancel an explanation; one that is over stays as it is."""
    answer = yield Request("DELETE", place(job))
    return answer.read(ExplanationJob)


def preview(job: ExplanationJob | str, **options: Unpack[DrawOptions]) -> Call[Image.Image]:
    """A drawing of what an explanation's samples so far say, RGB; NotFound, `no_preview`, while there are none."""
    answer = yield Request("GET", f"{place(job)}/preview", options)
    return answer.image()


def result(job: ExplanationJob | str, **options: Unpack[DrawOptions]) -> Call[Explanation]:
    """What an explanation came to, drawn as it was asked for or as `DrawOptions` say. Waits until it is over.

    Raises Gone where it was cancelled or cut short, and otherwise what it failed with.
    """
    name = identity(job)
    answer = yield _result(name, "json", options, wait=True)
    numbers = answer.read(NUMBERS)
    return Explanation(numbers, _png((yield _result(name, "png", options))))


def activations(
    layer: str, picture: Picture | None = None, **options: Unpack[LayerOptions]
) -> Call[NDArray[np.float32]]:
    """What a layer gives for a picture, float32: [rows, columns, channels], [values] of a layer without places; with
    `channel` without the last axis. `layer`: see `layers`; or `input`, the picture as the model sees it.
    """
    answer = yield _maps(layer, picture, options, "npy")
    return answer.array()


def activations_image(
    layer: str, picture: Picture | None = None, *, over: bool = False, **options: Unpack[LayerOptions]
) -> Call[Image.Image]:
    """A layer's feature maps side by side, or one large; `over`: the picture, which shows where that one is strong."""
    answer = yield _maps(layer, picture, {**options, "over": over}, "png")
    return answer.image()


def activations_statistics(
    layer: str, picture: Picture | None = None, **options: Unpack[LayerOptions]
) -> Call[LayerStatistics]:
    """Mean, maximum, minimum and share of zeros of a layer's channels for a picture."""
    answer = yield _maps(layer, picture, options, "json")
    return answer.read(LayerStatistics)


def filters(
    model: str, layer: str, *, version: int | Label | None = None, channel: int | None = None
) -> Call[NDArray[np.float32]]:
    """The kernels of a convolution, float32 [rows, columns, inputs, channels]; with `channel` without the last axis."""
    answer = yield _kernels(model, layer, version, channel, "npy")
    return answer.array()


def filters_image(
    model: str, layer: str, *, version: int | Label | None = None, channel: int | None = None
) -> Call[Image.Image]:
    """The kernels of a convolution side by side; with `channel`, that one's, a cell for each input."""
    answer = yield _kernels(model, layer, version, channel, "png")
    return answer.image()


def filters_statistics(
    model: str, layer: str, *, version: int | Label | None = None, channel: int | None = None
) -> Call[FilterStatistics]:
    """Mean, maximum, minimum and share of zeros of a convolution's kernels."""
    answer = yield _kernels(model, layer, version, channel, "json")
    return answer.read(FilterStatistics)


def layers(model: str, version: int | None = None) -> Call[LayerList]:
    """A version's layers, from picture to answer; of the stable one, else the highest."""
    answer = yield Request("GET", f"{_model(model, version)}/layers")
    return answer.read(LayerList)


def graph(model: str, version: int | Label | None = None) -> Call[str]:
    """The network as a diagram: SVG."""
    answer = yield Request("GET", f"{_model(model)}/graph", {"version": version})
    return answer.checked().body.decode()


def walk(image_id: str, *, top_k: int | None = None, **options: Unpack[VersionOptions]) -> Call[Walk]:
    """A kept picture's way through every layer to the answer: logits, and the `top_k` most probable classes (10)."""
    answer = yield Request("GET", "/walk", {"image_id": image_id, "top_k": top_k, **options})
    return answer.read(Walk)


def models() -> Call[ModelList]:
    """Every model that the service has on disk, what became of its versions, and which is the default."""
    answer = yield Request("GET", "/models")
    return answer.read(ModelList)


def model(name: str) -> Call[ModelSummary]:
    """What became of each of a model's versions, and what its labels name."""
    answer = yield Request("GET", _model(name))
    return answer.read(ModelSummary)


def card(model: str, version: int) -> Call[VersionCard]:
    """A loaded version: its engine, and its manifest, with labels, input, layers, accuracy and licence."""
    answer = yield Request("GET", _model(model, version))
    return answer.read(VersionCard)


def report(model: str, version: int, name: str = "report.json") -> Call[bytes]:
    """A file of a version's report, as training wrote it: `report.json`, `index.html` or one of its pictures."""
    answer = yield Request("GET", f"{_model(model, version)}/report/{quote(name, safe='')}")
    return answer.checked().body


def download_report(model: str, version: int, folder: Path | str) -> Call[Path]:
    """Write a version's whole report into a folder, made where it is missing; returns its page.

    Raises NotFound, `unknown_report`, where there is none, and OSError where the folder cannot be written.
    """
    page = yield from report(model, version, PAGE)
    manifest = (yield from card(model, version)).manifest
    names = [path.removeprefix(REPORT) for path in manifest.files if path.startswith(REPORT)]
    # The service is believed what it says of pictures, but not where files are written.
    if foreign := [name for name in names if Path(name).name != name]:
        raise UnexpectedAnswer(f"expected names of files, got {foreign[0]!r}")
    there = Path(folder)
    there.mkdir(parents=True, exist_ok=True)
    for name in names:
        content = page if name == PAGE else (yield from report(model, version, name))
        (there / name).write_bytes(content)
    return there / PAGE


def image(image_id: str) -> Call[Image.Image]:
    """A picture that the service keeps, as its sender's file has it: neither turned nor brought to RGB."""
    answer = yield Request("GET", f"/images/{quote(image_id, safe='')}")
    return answer.image()


def image_file(image_id: str) -> Call[bytes]:
    """The file of a picture that the service keeps, as it was sent."""
    answer = yield Request("GET", f"/images/{quote(image_id, safe='')}")
    return answer.checked().body


def live() -> Call[bool]:
    """Whether the process answers at all; NoAnswer where it does not."""
    answer = yield Request("GET", "/health/live", once=True)
    return answer.status == 200


def ready() -> Call[bool]:
    """Whether the service takes pictures: false while it loads, or stops; NoAnswer where nothing answers."""
    answer = yield Request("GET", "/health/ready", once=True)
    return answer.status == 200


def identity(job: ExplanationJob | str) -> str:
    """The id of a job."""
    return job if isinstance(job, str) else job.id


def place(job: ExplanationJob | str) -> str:
    """The path of a job."""
    return f"/explanations/{quote(identity(job), safe='')}"


def _subject(picture: Picture | None, options: Mapping[str, Any]) -> tuple[list[File], dict[str, Any]]:
    """What is sent, and the parameters."""
    if (picture is None) == (options.get("image_id") is None):
        raise NotSent(f"expected a picture or `image_id`, got {'neither' if picture is None else 'both'}")
    return [] if picture is None else [file(picture)], dict(options)


def _numbers(sent: list[File], asked: dict[str, Any]) -> Call[tuple[Numbers, str | None]]:
    answer, job = yield from _waited(sent, asked, "json")
    return answer.read(NUMBERS), job


def _waited(sent: list[File] | tuple[()], asked: dict[str, Any], form: str) -> Call[tuple[Answer, str | None]]:
    """What `/explain` answers, also where it takes longer: then the job that it went on as, too."""
    if sent:
        answer = yield Request("POST", "/explain", asked | {"format": form, "image_id": None}, sent, lasting=True)
    else:
        # Of a picture that is kept already.
        answer = yield Request("GET", "/explain", asked | {"format": form, "store": None}, lasting=True)
    if answer.status != 202:
        return answer, None
    job = answer.read(ExplanationJob).id
    return (yield _result(job, form, asked, wait=True)), job


def _result(job: str, form: str, asked: Mapping[str, Any], *, wait: bool = False) -> Request:
    drawn = {name: value for name, value in asked.items() if name in DrawOptions.__annotations__}
    return Request("GET", f"{place(job)}/result", drawn | {"format": form}, after=job if wait else None)


def _maps(layer: str, picture: Picture | None, options: Mapping[str, Any], form: str) -> Request:
    sent, asked = _subject(picture, options)
    return Request("POST" if sent else "GET", "/activations", asked | {"layer": layer, "format": form}, sent)


def _kernels(model: str, layer: str, version: int | Label | None, channel: int | None, form: str) -> Request:
    asked = {"layer": layer, "version": version, "channel": channel, "format": form}
    return Request("GET", f"{_model(model)}/filters", asked)


def _model(name: str, version: int | None = None) -> str:
    path = f"/models/{quote(name, safe='')}"
    return path if version is None else f"{path}/versions/{version}"


def _png(answer: Answer) -> bytes:
    return answer.checked().body
