"""A TOML file in, a validated recipe out: all that makes one training run, but for the pictures."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from service.manifest import NAME_PATTERN, Input
from training.augment import Augmentation
from training.errors import RecipeError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

BUNDLED = Path(__file__).parent / "recipes"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Optimizer(_Part):
    """Keras' optimizer of that name, with its defaults but for the rate."""

    name: Literal["rmsprop", "adam", "sgd"]
    learning_rate: float = Field(gt=0, le=1)
    schedule: Literal["constant", "cosine"] = Field(
        default="constant", description="cosine: from that rate to none over the stage (Loshchilov, Hutter, 2017)."
    )


class Head(_Part):
    """The layers between a backbone's last feature maps and the logits."""

    pooling: Literal["flatten", "average", "root_average", "max", "average_max"] = Field(
        description="How feature maps become a vector: all of their values, each map's mean, its square root (which "
        "tames the few large ones), its maximum, or means and maxima."
    )
    units: int = Field(ge=1, le=65_536, description="Of the hidden layer, a Dense with ReLU.")
    dropout: float = Field(ge=0, lt=1)


class Backbone(_Part):
    """A Keras application without its top, and a head of our own."""

    name: str = Field(description="One of training/networks/applications.py.")
    weights: Literal["imagenet", "random"]
    head: Head


class Stage(_Part):
    """Some epochs with the same layers trainable and the same rate; the model is compiled anew for each."""

    epochs: int = Field(ge=1, le=10_000)
    base_layers: int | Literal["all"] = Field(
        default=0, ge=0, description="How many of the backbone's last layers train beside the head."
    )
    optimizer: Optimizer


class Fitting(_Part):
    """How the weights are found."""

    batch_size: int = Field(ge=1, le=65_536)
    seed: int = Field(ge=0, lt=2**32, description="Of first weights, order of pictures, dropout and hold-out.")
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    stages: list[Stage] = Field(min_length=1)


class Data(_Part):
    """How pictures are held out where the folder has no `Training` and `Test`."""

    test_fraction: float = Field(gt=0, lt=1, description="Share of each class that is held out, films kept together.")


class Card(_Part):
    """What the published version says about itself."""

    description: str
    licence: str
    attribution: str
    limitations: str = ""


class Recipe(_Part):
    """One way to train one model."""

    name: str = Field(pattern=NAME_PATTERN, description="The model's name: `models/<name>/<version>/`.")
    network: str | None = Field(
        default=None, description="A network of one's own: a builder of training/networks, or module:function."
    )
    backbone: Backbone | None = Field(default=None, description="Instead of a network of one's own.")
    input: Input
    augmentation: Augmentation | None = Field(
        default=None, description="Unset: training pictures are taken as they are."
    )
    fitting: Fitting
    data: Data
    card: Card

    @model_validator(mode="after")
    def _has_one_network(self) -> Recipe:
        if (self.network is None) == (self.backbone is None):
            raise ValueError("expected either network or backbone")
        if self.network and any(stage.base_layers for stage in self.fitting.stages):
            raise ValueError("expected base_layers only with a backbone")
        return self

    def with_fitting(self, *, epochs: int | None = None, seed: int | None = None) -> Recipe:
        """The same recipe with other epochs in each stage or another seed, where given."""
        changes: dict[str, object] = {} if seed is None else {"seed": seed}
        if epochs is not None:
            changes["stages"] = [stage.model_copy(update={"epochs": epochs}) for stage in self.fitting.stages]
        return self.model_copy(update={"fitting": self.fitting.model_copy(update=changes)})


def read_recipe(name_or_path: str) -> Recipe:
    """The recipe in a TOML file, or the bundled one of that name.

    Raises:
        RecipeError: there is none, or it is invalid; names file, key, what was expected and what was found.
    """
    path = Path(name_or_path)
    if not path.suffix and not path.is_file():
        path = BUNDLED / f"{name_or_path}.toml"
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecipeError(
            f"no recipe {name_or_path!r}: expected a TOML file or one of {', '.join(bundled_recipes())}"
        ) from None
    except (OSError, UnicodeDecodeError) as unreadable:
        raise RecipeError(f"{path}: cannot be read: {unreadable}") from None
    except tomllib.TOMLDecodeError as invalid:
        raise RecipeError(f"{path}: expected TOML, found: {invalid}") from None
    try:
        return Recipe.model_validate(values)
    except ValidationError as invalid:
        raise RecipeError("\n".join(_problem(path, problem) for problem in invalid.errors())) from None


def bundled_recipes() -> list[str]:
    """Names of the recipes in this package."""
    return sorted(path.stem for path in BUNDLED.glob("*.toml"))


def _problem(path: Path, problem: object) -> str:
    assert isinstance(problem, dict)
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "missing":
        return f"{path}: {key}: expected a value, found none"
    if problem["type"] == "extra_forbidden":
        return f"{path}: {key}: expected no such key, found {problem['input']!r}"
    if problem["type"] == "value_error":
        return f"{path}: {key + ': ' if key else ''}{problem['msg'].removeprefix('Value error, ')}"
    expected = problem["msg"].removeprefix("Input should be ").replace("String should match", "text to match")
    return f"{path}: {key}: expected {expected}, found {problem['input']!r}"
