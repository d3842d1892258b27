"""The wire types of the native calls."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from service.manifest import EXAMPLE as MANIFEST_EXAMPLE
from service.manifest import Manifest

MODEL_EXAMPLE: dict[str, JsonValue] = {
    "name": "fruit_cnn",
    "versions": [
        {"version": 1, "state": "available", "engine": "openvino"},
        {"version": 2, "state": "failed", "reason": "saved_model.pb is missing"},
    ],
}


def _example(value: dict[str, JsonValue]) -> ConfigDict:
    return ConfigDict(json_schema_extra={"example": value})


class _Query(BaseModel):
    # A typo must not be ignored silently.
    model_config = ConfigDict(extra="forbid")


class NoQuery(_Query):
    """A call without parameters."""


class PredictQuery(_Query):
    """Which model answers, and how much of its answer is wanted."""

    model: str | None = Field(default=None, description="A loaded model's name; unset, the default model.")
    version: int | None = Field(default=None, ge=1, description="A loaded version's number; unset, the highest.")
    top_k: int = Field(default=5, ge=1, le=1000, description="How many classes, the most probable first.")


class PredictBody(BaseModel):
    """A picture inside JSON."""

    model_config = ConfigDict(extra="forbid")

    image: str = Field(description="The picture file's bytes in base64 (RFC 4648, section 4).")


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


class ImageAnswer(BaseModel):
    """What the model says of one picture."""

    image_id: str = Field(description="sha256 of the picture file's bytes.")
    name: str | None = Field(default=None, description="The file's name, where the request gave one.")
    predictions: list[Prediction] = Field(description="The most probable first.")
    recognised: bool | None = Field(
        description="Whether it looks like any of the classes at all; null where the version has no threshold."
    )
    seconds: Seconds


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

    version: int
    state: Literal["available", "failed"]
    engine: str | None = Field(default=None, description="What runs it, where it is available.")
    reason: str | None = Field(default=None, description="Why it is not served, where it failed.")


class ModelSummary(BaseModel):
    """A model and its versions."""

    model_config = _example(MODEL_EXAMPLE)

    name: str
    versions: list[VersionSummary]


class ModelList(BaseModel):
    """Every model on disk."""

    model_config = _example({"models": [MODEL_EXAMPLE]})

    models: list[ModelSummary]


class VersionCard(BaseModel):
    """A loaded version: what runs it, and what its manifest promises."""

    model_config = _example({"state": "available", "engine": "openvino", "manifest": MANIFEST_EXAMPLE})

    state: Literal["available"]
    engine: str
    manifest: Manifest


class Health(BaseModel):
    """Whether the service lives, or is ready for pictures."""

    model_config = _example({"status": "ready"})

    status: Literal["live", "ready", "not ready"]


class Problem(BaseModel):
    """RFC 9457."""

    type: Literal["about:blank"] = "about:blank"
    title: str = Field(description="The kind of problem, in words.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="This problem: what was expected and what came.")
    code: str = Field(description="The kind of problem, stable: programs may switch on it.")
