"""A TOML file in, a validated recipe out: all that makes one training run, but for the pictures."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.manifest import NAME_PATTERN, Input
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


class Fitting(_Part):
    """How the weights are found."""

    epochs: int = Field(ge=1, le=10_000)
    batch_size: int = Field(ge=1, le=65_536)
    seed: int = Field(ge=0, lt=2**32, description="Of first weights, order of pictures, dropout and hold-out.")
    optimizer: Optimizer


class Data(_Part):
    """How pictures are held out where the folder has no `Training` and `Test`."""

    test_fraction: float = Field(gt=0, lt=1, description="Share of each class that is held out, films kept together.")


class Card(_Part):
    """What the published version says about itself."""

    description: str
    licence: str
    attribution: str


class Recipe(_Part):
    """One way to train one model."""

    name: str = Field(pattern=NAME_PATTERN, description="The model's name: `models/<name>/<version>/`.")
    network: str = Field(description="A builder of training/networks.")
    input: Input
    fitting: Fitting
    data: Data
    card: Card

    def with_fitting(self, *, epochs: int | None = None, seed: int | None = None) -> Recipe:
        """The same recipe with other epochs or another seed, where given."""
        changes = {key: value for key, value in (("epochs", epochs), ("seed", seed)) if value is not None}
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
    expected = problem["msg"].removeprefix("Input should be ").replace("String should match", "text to match")
    return f"{path}: {key}: expected {expected}, found {problem['input']!r}"
