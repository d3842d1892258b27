"""How an explanation can be drawn."""

from __future__ import annotations

from typing import Literal, NamedTuple

StyleName = Literal["overlay", "outline", "heatmap"]
Polarity = Literal["positive", "negative", "both"]

MIN_SIDE, MAX_SIDE = 64, 2048


class Style(NamedTuple):
    """How an explanation is drawn."""

    style: StyleName = "overlay"
    polarity: Polarity = "positive"
    """Of LIME's superpixels: those that speak for the class, against it, or both."""
    top_superpixels: int | None = 5
    """How many of them, the weightiest first; None: all."""
    opacity: float = 0.7
    """0: the picture alone, 1: the explanation alone."""
    size: int = 1024
    """The longest side of the PNG at the most, in pixels."""
