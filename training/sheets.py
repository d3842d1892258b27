"""Pictures that channels answer to in, a sheet a layer and what it shows out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median

from pydantic import BaseModel, ConfigDict, Field

from training import figures
from training.maximise import Maximised
from training.pages import write_figure


class Sheet(BaseModel):
    """What channels of one layer look for, in reading order."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    layer: str
    width: int = Field(ge=1, description="Channels that the layer has.")
    channels: list[int] = Field(description="Those that are shown.")
    labels: list[str] | None = Field(description="Of the channels that are classes; null for other layers.")
    before: list[float] = Field(description="By channel, its mean activation for the noise that the picture began as.")
    after: list[float] = Field(description="By channel, its mean activation for the picture.")
    picture: str = Field(description="JPEG beside the page.")

    @property
    def caption(self) -> str:
        """What is shown, in words."""
        if self.labels is None:
            return f"{len(self.channels)} of {self.width} channels: {', '.join(map(str, self.channels))}"
        return f"{len(self.channels)} of the classes: {', '.join(self.labels)}"

    @property
    def medians(self) -> tuple[float, float]:
        """Of the channels' activations, before and after."""
        return median(self.before), median(self.after)


def write_sheets(folder: Path, maximised: Sequence[Maximised]) -> list[Sheet]:
    """Write a picture a layer into `folder`, instead of those of before."""
    for old in folder.glob("filters-*.jpg"):
        old.unlink()
    return [_write(folder / f"filters-{place}.jpg", one) for place, one in enumerate(maximised, start=1)]


def _write(path: Path, one: Maximised) -> Sheet:
    chosen = one.chosen
    write_figure(path, figures.sheet(one.pictures, chosen.labels or [str(channel) for channel in chosen.channels]))
    return Sheet(
        layer=chosen.layer,
        width=one.width,
        channels=chosen.channels,
        labels=chosen.labels,
        before=one.before.tolist(),
        after=one.after.tolist(),
        picture=path.name,
    )
