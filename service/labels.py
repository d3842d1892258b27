"""Names for versions: `models/<name>/labels.json`, which may be replaced while the service runs."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import Literal, get_args

from pydantic import ConfigDict, Field, ValidationError

from service.errors import LabelsNotWritten
from service.inputs import Known
from service.problems import first_problem

FILE = "labels.json"
# No version's folder starts with a dot.
NEW = ".labels-"

Label = Literal["stable", "canary"]
LABELS: tuple[Label, ...] = get_args(Label)


class InvalidLabels(ValueError):
    """The file is not what it shall be."""


class Labels(Known):
    """Which versions answer to a name, and what goes to the canary."""

    model_config = ConfigDict(
        frozen=True, strict=True, json_schema_extra={"example": {"stable": 1, "canary": 2, "canary_weight": 0.1}}
    )

    stable: int | None = Field(
        default=None,
        ge=1,
        description="The version that answers where a request names none; null: the highest but for the canary.",
    )
    canary: int | None = Field(default=None, ge=1, description="The version that is tried.")
    canary_weight: float = Field(
        default=0.0,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="Share of pictures that go to the canary where a request names no version.",
    )

    def number(self, label: Label) -> int | None:
        """The version that the label names."""
        return self.stable if label == "stable" else self.canary


def read_labels(model: Path) -> Labels:
    """Those of a model's folder; none where it has no file.

    Raises:
        InvalidLabels: the file is not what it shall be.
    """
    try:
        return Labels.model_validate_json((model / FILE).read_bytes())
    except FileNotFoundError:
        return Labels()
    except OSError as error:
        raise InvalidLabels(f"{FILE} cannot be read: {error.strerror}") from None
    except ValidationError as invalid:
        raise InvalidLabels(f"{FILE}: {first_problem(invalid)}") from None


def write_labels(model: Path, labels: Labels) -> None:
    """Replace a model's file in one step.

    Raises:
        LabelsNotWritten: nothing can be written there.
    """
    new = model / f"{NEW}{token_hex(8)}"
    try:
        new.write_text(labels.model_dump_json(exclude_none=True) + "\n", encoding="utf-8")
        new.replace(model / FILE)
    except OSError as error:
        raise LabelsNotWritten(f"{FILE} of {model.name} cannot be written: {error.strerror}") from None
    finally:
        with suppress(OSError):
            new.unlink(missing_ok=True)
