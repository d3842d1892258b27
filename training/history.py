"""What each epoch of a run reached."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Epoch:
    """One pass over the training pictures, and what was measured in it."""

    epoch: int
    """From 1, through all stages."""
    stage: int
    """From 1."""
    loss: float
    accuracy: float
    val_loss: float
    """On held-out pictures, as the accuracy below."""
    val_accuracy: float
    seconds: float
