"""The wire types of the native calls."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue
from pydantic_core import PydanticCustomError

from service.channels import ChannelStatistics, GridPlace
from service.choices import Method
from service.explain.question import (
    MAX_SAMPLES,
    MAX_SUPERPIXELS,
    MIN_SAMPLES,
    MIN_SUPERPIXELS,
    Fill,
    HeatExplanation,
    LimeExplanation,
)
from service.explain.style import MAX_SIDE, MIN_SIDE, Polarity, StyleName
from service.inputs import NUMBER, WHOLE, Known
from service.labels import LABELS, Label, Labels
from service.manifest import EXAMPLE as MANIFEST_EXAMPLE
from service.manifest import VERSION_NAME, Input, Manifest
from service.states import JobState, State

MODEL_EXAMPLE: dict[str, JsonValue] = {
    "name": "fruit_cnn",
    "versions": [
        {"version": 1, "state": "available", "engine": "openvino"},
        {"version": 2, "state": "incomplete", "reason": "saved_model.pb is missing"},
    ],
    "labels": {"stable": 1, "canary_weight": 0.0},
}


ImageId = Annotated[
    str, Field(pattern=r"^[0-9a-f]{64}$", description="A picture's `image_id`, as `POST /predict` answered it.")
]


def _example(value: dict[str, JsonValue]) -> ConfigDict:
    return ConfigDict(json_schema_extra={"example": value})


def _is_version(given: object) -> object:
    if given in LABELS or VERSION_NAME.fullmatch(str(given)):
        return given
    raise PydanticCustomError("version", "expected a version's number, from 1 on, `stable` or `canary`")


VersionNumber = Annotated[int, Field(ge=1), WHOLE]
TopK = Annotated[int, Field(ge=1, le=1000), WHOLE]
Channel = Annotated[int, Field(ge=0), WHOLE]
VersionName = Annotated[Annotated[int, Field(ge=1)] | Label, BeforeValidator(_is_version)]
VERSION = Field(
    default=None,
    description="A loaded version's number, `stable` or `canary`; unset, the stable one, else the highest.",
)


class NoQuery(Known):
    """A call without parameters."""


class PredictQuery(Known):
    """Which model answers, and how much of its answer is wanted."""

    model: str | None = Field(default=None, description="A loaded model's name; unset, the default model.")
    version: VersionName | None = VERSION
    top_k: TopK = Field(default=5, description="How many classes, the most probable first.")
    store: bool = Field(
        default=True, description="Whether the pictures are kept for calls that name them by id; false keeps nothing."
    )


class _VersionQuery(Known):
    model: str | None = Field(default=None, description="A loaded model's name; unset, the default model.")
    version: VersionName | None = VERSION


class ActivationsBodyQuery(_VersionQuery):
    """What is wanted of one layer, for a picture in the body."""

    layer: str = Field(max_length=200, description="A layer's name, or `input`: the picture as the model sees it.")
    channel: Channel | None = Field(default=None, description="One channel, from 0; unset, all.")
    over: bool = Field(
        default=False,
        description="As PNG: the picture, which shows where the one channel is strong and fades elsewhere.",
    )
    format: Literal["png", "json", "npy"] = Field(
        default="png", description="A picture, statistics a channel, or NumPy's file of the numbers, float32."
    )


class ActivationsQuery(ActivationsBodyQuery):
    """What is wanted of one layer, for a picture that was sent before."""

    image_id: ImageId


class WalkQuery(_VersionQuery):
    """Which picture goes through which model."""

    image_id: ImageId
    top_k: TopK = Field(default=10, description="How many classes, the most probable first.")


class FiltersQuery(Known):
    """Which layer's kernels, and how."""

    layer: str = Field(max_length=200, description="The name of a layer that has filters.")
    version: VersionName | None = VERSION
    channel: Channel | None = Field(default=None, description="One output channel, all its inputs; unset, all.")
    format: Literal["png", "json", "npy"] = Field(
        default="png", description="A picture, statistics a channel, or NumPy's file of the numbers, float32."
    )


class GraphQuery(Known):
    """Which version's diagram."""

    version: VersionName | None = VERSION


class Problem(BaseModel):
    """RFC 9457."""

    type: Literal["about:blank"] = "about:blank"
    title: str = Field(description="The kind of problem, in words.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="This problem: what was expected and what came.")
    code: str = Field(description="The kind of problem, stable: programs may switch on it.")


class PredictBody(Known):
    """A picture inside JSON."""

    image: str = Field(
        description="The picture file's bytes in base64 (RFC 4648, section 4), or a `data:` URL of them."
    )


Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False), NUMBER]


class ResultQuery(Known):
    """How a result is wanted; unset, as it was when the explanation was asked for."""

    format: Literal["png", "json"] | None = Field(default=None, description="A drawing (unset), or its numbers.")
    style: StyleName | None = Field(default=None, description="Of a drawing: overlay (unset), outline or heatmap.")
    polarity: Polarity | None = Field(
        default=None, description="Of LIME's drawing: what speaks for the class (unset), against it, or both."
    )
    top_superpixels: Annotated[int, Field(ge=0, le=MAX_SUPERPIXELS), WHOLE] | None = Field(
        default=None, description="Of LIME's drawing: how many; unset 5, 0 = all."
    )
    opacity: Share | None = Field(
        default=None, description="Of a drawing: 0 the picture alone, 1 the explanation alone; unset 0.7."
    )
    size: Annotated[int, Field(ge=MIN_SIDE, le=MAX_SIDE), WHOLE] | None = Field(
        default=None,
        description="A drawing's longest side at the most; unset 1024. Smaller pictures are enlarged to 384; "
        "those longer than 16 times their other side are drawn as 16 to 1.",
    )


STORE = Field(
    default=True, description="Whether a picture in the body, and drawings of it, are kept; false keeps numbers alone."
)


class ExplanationQuery(ResultQuery, _VersionQuery):
    """A question to a model about a picture, and how its answer is wanted."""

    label: str | None = Field(
        default=None, max_length=200, description="The class to explain; unset, the one that the model predicts."
    )
    method: Method = Field(default="lime", description="LIME, or Grad-CAM.")
    samples: Annotated[int, Field(ge=MIN_SAMPLES, le=MAX_SAMPLES), WHOLE] | None = Field(
        default=None,
        description="Of LIME: perturbed pictures; unset, until it settles.",
    )
    seed: Annotated[int, Field(ge=0, lt=2**63), WHOLE] | None = Field(
        default=None, description="Of LIME's chance; unset, from the picture: the same every time."
    )
    superpixels: Annotated[int, Field(ge=MIN_SUPERPIXELS, le=MAX_SUPERPIXELS), WHOLE] | None = Field(
        default=None,
        description="Of LIME: about how many; unset, by the picture.",
    )
    fill: Fill | None = Field(
        default=None, description="Of LIME: what stands where a superpixel is taken away; unset, its mean colour."
    )


class JobQuery(ExplanationQuery):
    """An explanation that comes later, of a kept picture or of the body's."""

    image_id: ImageId | None = None
    store: bool = STORE


class _WaitQuery(ExplanationQuery):
    wait: Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False), NUMBER] | None = Field(
        default=None,
        description="Seconds to wait for it before the answer is 202; unset, `SICHTBAR_EXPLAIN_WAIT`.",
    )


class ExplainBodyQuery(_WaitQuery):
    """An explanation of the body's picture."""

    store: bool = STORE


class ExplainQuery(_WaitQuery):
    """An explanation of a kept picture."""

    image_id: ImageId


EXPLANATION_EXAMPLE: dict[str, JsonValue] = {
    "image_id": "e55d901371482da3e7b130029d19bd89fab155dfed8ac5bf4d95d8f9463f5a7d",
    "model": "fruit_cnn",
    "version": 1,
    "label": "Banana",
    "class_index": 2,
    "probability": 0.98,
    "box": {"left": 0, "top": 0, "right": 1, "bottom": 1},
}


class _About(BaseModel):
    image_id: str = Field(description="sha256 of the picture file's bytes.")
    model: str
    version: int
    label: str = Field(description="The class that is explained.")


class LimeAnswer(_About, LimeExplanation):
    """LIME's explanation."""

    model_config = _example(
        EXPLANATION_EXAMPLE
        | {
            "method": "lime",
            "width": 3,
            "height": 2,
            "superpixels": [
                {"weight": 0.8, "pixels": 4, "runs": [0, 2, 1, 2, 1]},
                {"weight": -0.1, "pixels": 2, "runs": [2, 1, 2, 1]},
            ],
            "intercept": 0.27,
            "r2": 0.91,
            "samples": 256,
            "settled": True,
            "stability": 0.97,
            "error": 0.01,
            "seed": 3848115219,
            "fill": "mean",
            "deletion": {
                "removed": [0, 1, 2],
                "most_first": [0.98, 0.31, 0.27],
                "least_first": [0.98, 0.99, 0.27],
                "score": 0.23,
            },
        }
    )


class HeatAnswer(_About, HeatExplanation):
    """An explanation by a heat map: Grad-CAM's."""

    model_config = _example(
        EXPLANATION_EXAMPLE | {"method": "gradcam", "layer": "conv2d_3", "heatmap": [[0.1, 0.9], [0.4, 1]]}
    )


class JobProgress(BaseModel):
    """How far LIME is."""

    done: int = Field(description="Perturbed pictures that the model was asked about.")
    total: int = Field(description="As many as it may take; it ends earlier where its ranking settles.")
    r2: float | None = Field(description="How well the local linear model fits so far; null before it is first fitted.")


class JobLinks(BaseModel):
    """Where to go on; null where there is nothing yet."""

    self: str
    events: str
    preview: str | None = Field(default=None, description="A drawing of what the samples so far say.")
    result: str | None = Field(default=None, description="What `GET /explain` would have answered.")


class ExplanationJob(BaseModel):
    """An explanation that comes later."""

    model_config = _example(
        {
            "id": "2f1c8f9d0b7a4c0f8f3c2f5a0d9e7b61",
            "state": "running",
            "method": "lime",
            "image_id": "e55d901371482da3e7b130029d19bd89fab155dfed8ac5bf4d95d8f9463f5a7d",
            "model": "fruit_vgg16",
            "version": 1,
            "created": "2026-01-02T03:04:05.678901Z",
            "started": "2026-01-02T03:04:05.789012Z",
            "progress": {"done": 128, "total": 1000, "r2": 0.71},
            "links": {
                "self": "/explanations/2f1c8f9d0b7a4c0f8f3c2f5a0d9e7b61",
                "events": "/explanations/2f1c8f9d0b7a4c0f8f3c2f5a0d9e7b61/events",
                "preview": "/explanations/2f1c8f9d0b7a4c0f8f3c2f5a0d9e7b61/preview",
            },
        }
    )

    id: str
    state: JobState
    method: Method
    image_id: str
    model: str
    version: int
    label: str | None = Field(default=None, description="The class asked for; null: the one that the model predicts.")
    created: datetime
    ahead: int | None = Field(
        default=None, description="While it is queued: how many explanations wait or run before it."
    )
    started: datetime | None = None
    finished: datetime | None = None
    progress: JobProgress | None = None
    error: Problem | None = Field(default=None, description="Why it failed.")
    links: JobLinks


class Prediction(BaseModel):
    """One class, and how probable it is."""

    label: str
    index: int = Field(description="The class's place in the model's labels.")
    probability: float = Field(ge=0, le=1)


class Seconds(BaseModel):
    """How long each stage took for this picture."""

    decode: float = Field(ge=0, description="Waiting for a decoder and decoding.")
    queue: float = Field(ge=0, description="Waiting for the model.")
    inference: float = Field(ge=0, description="The batch that held the picture.")
    cache: float | None = Field(
        default=None,
        ge=0,
        exclude_if=lambda seconds: seconds is None,
        description="Finding the answer among those kept, where it was: then the others are 0.",
    )


class ImageAnswer(BaseModel):
    """What the model says of one picture."""

    image_id: str | None = Field(
        description="Names the picture in other calls while it is kept: the sha256 of its bytes. Null where it is not."
    )
    name: str | None = Field(default=None, description="The file's name, where the request gave one.")
    predictions: list[Prediction] = Field(description="The most probable first.")
    recognised: bool | None = Field(
        description="Whether it looks like any of the classes at all; null where the version has no threshold."
    )
    seconds: Seconds

    @property
    def best(self) -> Prediction:
        """The most probable class."""
        return self.predictions[0]


class PredictAnswer(BaseModel):
    """One answer a picture, in the request's order."""

    model_config = _example(
        {
            "model": "fruit_cnn",
            "version": 1,
            "images": [
                {
                    "image_id": "e55d901371482da3e7b130029d19bd89fab155dfed8ac5bf4d95d8f9463f5a7d",
                    "name": "banana.png",
                    "predictions": [
                        {"label": "Banana", "index": 2, "probability": 0.98},
                        {"label": "Lemon", "index": 6, "probability": 0.02},
                    ],
                    "recognised": True,
                    "seconds": {"decode": 0.0011, "queue": 0.0001, "inference": 0.0004},
                }
            ],
        }
    )

    model: str
    version: int
    images: list[ImageAnswer]


class VersionSummary(BaseModel):
    """What became of one version on disk."""

    model_config = _example({"version": 1, "state": "available", "engine": "openvino"})

    version: int
    state: State = Field(
        description="Whether it answers (available); it will (loading), or may once its files are all there "
        "(incomplete); it finishes what it was asked (unloading); it shall not answer (unloaded), or cannot (failed)."
    )
    engine: str | None = Field(default=None, description="What runs it, where it is available.")
    reason: str | None = Field(
        default=None, description="Why it does not answer; or why it still does as it was before its files changed."
    )


class LabelSummary(Labels):
    """What a model's labels name, of what can answer."""

    model_config = _example({"stable": 1, "canary": 2, "canary_weight": 0.1})

    problem: str | None = Field(default=None, description="Why that is not what `labels.json` says.")


class ModelSummary(BaseModel):
    """A model and its versions."""

    model_config = _example(MODEL_EXAMPLE)

    name: str
    versions: list[VersionSummary]
    labels: LabelSummary


class ModelList(BaseModel):
    """Every model on disk."""

    model_config = _example({"models": [MODEL_EXAMPLE], "default": "fruit_cnn"})

    models: list[ModelSummary]
    default: str | None = Field(
        default=None, description="The model that answers where a request names none; null: none does."
    )


class VersionCard(BaseModel):
    """A loaded version: what runs it, and what its manifest promises."""

    model_config = _example({"state": "available", "engine": "openvino", "manifest": MANIFEST_EXAMPLE})

    state: Literal["available"]
    engine: str
    manifest: Manifest


class LayerCard(BaseModel):
    """One layer."""

    name: str
    type: str = Field(description="Keras' class name, such as Conv2D.")
    shape: list[int] = Field(description="The output's shape without the batch axis.")
    parameters: int = Field(ge=0)
    inputs: list[str] = Field(description="Names of the layers that it takes; none: the picture.")
    filters: bool = Field(description="Whether its kernels can be shown.")
    none_channel: int | None = Field(
        default=None,
        description="Of the last layer, which has a channel for each label: the one after them that stands for none of "
        "the classes, where there is one.",
    )


class LayerList(BaseModel):
    """A version's layers, from picture to answer."""

    model_config = _example(
        {
            "model": "fruit_cnn",
            "version": 1,
            "input": {"height": 20, "width": 20, "resize": "crop", "crop_share": 1.0, "oversampling": 2.0},
            "layers": [
                {
                    "name": "conv_1",
                    "type": "Conv2D",
                    "shape": [20, 20, 32],
                    "parameters": 896,
                    "inputs": ["rescaling"],
                    "filters": True,
                }
            ],
        }
    )

    model: str
    version: int
    input: Input
    layers: list[LayerCard]


class LayerStatistics(BaseModel):
    """What a layer gives for one picture, a channel at a time."""

    model_config = _example(
        {
            "model": "fruit_cnn",
            "version": 1,
            "image_id": "e55d901371482da3e7b130029d19bd89fab155dfed8ac5bf4d95d8f9463f5a7d",
            "layer": "relu_1",
            "type": "ReLU",
            "shape": [20, 20, 32],
            "grid": {"columns": 6, "rows": 6, "cell_width": 160, "cell_height": 160, "gap": 2, "channels": 32},
            "channels": [{"channel": 0, "mean": 0.31, "max": 1.4, "min": 0.0, "sparsity": 0.62, "dead": False}],
        }
    )

    model: str
    version: int
    image_id: str = Field(description="sha256 of the picture file's bytes.")
    layer: str
    type: str
    shape: list[int]
    grid: GridPlace
    channels: list[ChannelStatistics]


class FilterStatistics(BaseModel):
    """A layer's kernels, a channel at a time."""

    model_config = _example(
        {
            "model": "fruit_cnn",
            "version": 1,
            "layer": "conv_1",
            "type": "Conv2D",
            "shape": [3, 3, 3, 32],
            "grid": {"columns": 6, "rows": 6, "cell_width": 159, "cell_height": 159, "gap": 2, "channels": 32},
            "channels": [{"channel": 0, "mean": 0.01, "max": 0.2, "min": -0.3, "sparsity": 0.0, "dead": False}],
        }
    )

    model: str
    version: int
    layer: str
    type: str
    shape: list[int] = Field(description="Rows, columns, inputs, channels.")
    grid: GridPlace
    channels: list[ChannelStatistics]


class WalkInput(BaseModel):
    """What the model sees."""

    height: int
    width: int
    resize: str
    picture: str = Field(description="Where it is as PNG.")


class WalkLayer(LayerCard):
    """One layer, and what it gives for the picture."""

    mean: float
    max: float
    min: float
    sparsity: float = Field(ge=0, le=1, description="Share of zeros.")
    dead_channels: int = Field(ge=0, description="Channels that are all zero for this picture.")
    picture: str = Field(description="Where its channels are as PNG.")
    filter_picture: str | None = Field(description="Where its kernels are as PNG, if it has some to show.")


class WalkClass(Prediction):
    """One class at the end of the walk."""

    logit: float = Field(description="What the network gives before it is turned into a probability.")


class Walk(BaseModel):
    """A picture on its way through every layer to the answer."""

    model_config = _example(
        {
            "model": "fruit_cnn",
            "version": 1,
            "image_id": "e55d901371482da3e7b130029d19bd89fab155dfed8ac5bf4d95d8f9463f5a7d",
            "input": {
                "height": 20,
                "width": 20,
                "resize": "crop",
                "picture": "/activations?image_id=e55d…&model=fruit_cnn&version=1&layer=input",
            },
            "layers": [
                {
                    "name": "conv_1",
                    "type": "Conv2D",
                    "shape": [20, 20, 32],
                    "parameters": 896,
                    "inputs": ["rescaling"],
                    "filters": True,
                    "mean": 0.02,
                    "max": 2.4,
                    "min": -2.1,
                    "sparsity": 0.0,
                    "dead_channels": 0,
                    "picture": "/activations?image_id=e55d…&model=fruit_cnn&version=1&layer=conv_1",
                    "filter_picture": "/models/fruit_cnn/filters?version=1&layer=conv_1",
                }
            ],
            "logits": [1.5, -0.3],
            "predictions": [{"label": "Banana", "index": 2, "probability": 0.98, "logit": 8.2}],
            "recognised": True,
        }
    )

    model: str
    version: int
    image_id: str
    input: WalkInput
    layers: list[WalkLayer] = Field(description="From picture to answer.")
    logits: list[float] = Field(description="One a class, in the order of the labels.")
    predictions: list[WalkClass] = Field(description="The most probable first.")
    recognised: bool | None = Field(
        description="Whether it looks like any of the classes at all; null where the version has no threshold."
    )


class Health(BaseModel):
    """Whether the service lives, or is ready for pictures."""

    model_config = _example({"status": "ready"})

    status: Literal["live", "ready", "not ready"]
