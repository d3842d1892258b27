"""What is told of a layer's channels."""

from __future__ import annotations

from pydantic import BaseModel, Field


class ChannelStatistics(BaseModel):
    """One channel of a layer: a feature map, or a kernel."""

    channel: int = Field(ge=0)
    mean: float
    max: float
    min: float
    sparsity: float = Field(ge=0, le=1, description="Share of zeros.")
    dead: bool = Field(description="Whether all are zero.")


class GridPlace(BaseModel):
    """Where channels are on the picture of all of them: row by row, each after a gap, in pixels."""

    columns: int = Field(ge=1)
    rows: int = Field(ge=1)
    cell_width: int = Field(ge=1)
    cell_height: int = Field(ge=1)
    gap: int = Field(ge=0)
    channels: int = Field(ge=1, description="How many are on it, from the first.")
