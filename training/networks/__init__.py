"""Networks by the name that a recipe gives: uint8 RGB pictures in, logits out, preprocessing inside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import keras

from service.manifest import Input
from training.errors import RecipeError
from training.networks import fruit_cnn


@dataclass(frozen=True)
class Network:
    """A flat functional model and the layer that explains it."""

    model: keras.Model
    """uint8 [N, H, W, 3] to float32 logits [N, C]."""
    gradcam_layer: str
    """A layer with feature maps [N, h, w, c]."""


@dataclass(frozen=True)
class _Builder:
    build: Callable[[Input, int], keras.Model]
    gradcam_layer: str
    smallest_side: int
    """Smaller pictures leave a layer nothing to work on; not every Keras says so."""


BUILDERS = {"fruit_cnn": _Builder(fruit_cnn.build, fruit_cnn.GRADCAM_LAYER, smallest_side=2)}


def build_network(name: str, target: Input, classes: int) -> Network:
    """A new network with first weights from Keras' global seed.

    Raises:
        RecipeError: no network has that name, or it cannot take pictures that small.
    """
    if name not in BUILDERS:
        raise RecipeError(f"network: expected one of {', '.join(BUILDERS)}, found {name!r}")
    builder = BUILDERS[name]
    side = min(target.height, target.width)
    if side < builder.smallest_side:
        raise RecipeError(f"input: expected at least {builder.smallest_side} pixels a side for {name}, found {side}")
    return Network(builder.build(target, classes), builder.gradcam_layer)
