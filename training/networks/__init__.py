"""Networks as a recipe asks for them: uint8 RGB pictures in, logits out, preprocessing inside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import keras

from service.manifest import Input
from training.errors import RecipeError
from training.networks import applications, foreign, fruit_cnn
from training.networks.network import Network
from training.recipe import Recipe

__all__ = ["BUILDERS", "Network", "build_network"]


@dataclass(frozen=True)
class _Builder:
    build: Callable[[Input, int], keras.Model]
    gradcam_layer: str
    smallest_side: int
    """Smaller pictures leave a layer nothing to work on; not every Keras says so."""


BUILDERS = {"fruit_cnn": _Builder(fruit_cnn.build, fruit_cnn.GRADCAM_LAYER, smallest_side=2)}


def build_network(recipe: Recipe, classes: int, weights: Path | None = None) -> Network:
    """A new network with first weights from Keras' global seed, or a backbone's from ImageNet.

    `weights`, a file, stands instead of the backbone's download. Where the recipe trains with pictures of none of the
    classes, they have a logit of their own.

    Raises:
        RecipeError: there is no such network, it cannot take such pictures, or it is none that can be exported.
        WeightsError: the download of a backbone's weights failed, or the file does not fit.
    """
    none_logit = recipe.augmentation is not None and recipe.augmentation.negatives > 0
    network = _build(recipe, classes + none_logit, weights)
    for number, stage in enumerate(recipe.fitting.stages, start=1):
        if stage.base_layers != "all" and stage.base_layers > len(network.base):
            raise RecipeError(
                f"fitting.stages: expected base_layers of at most {len(network.base)}, the layers of "
                f"{recipe.backbone.name if recipe.backbone else recipe.network}, found {stage.base_layers} "
                f"in stage {number}"
            )
    return replace(network, none_logit=none_logit)


def _build(recipe: Recipe, outputs: int, weights: Path | None) -> Network:
    if recipe.backbone:
        return applications.build(recipe.backbone, recipe.input, outputs, weights)
    name = recipe.network or ""
    if weights:
        raise RecipeError(f"network: expected a backbone where a file of weights is given, found {name!r}")
    if ":" in name:
        return foreign.build(name, recipe.input, outputs)
    if name not in BUILDERS:
        raise RecipeError(f"network: expected one of {', '.join(BUILDERS)}, or module:function, found {name!r}")
    builder = BUILDERS[name]
    side = min(recipe.input.height, recipe.input.width)
    if side < builder.smallest_side:
        raise RecipeError(f"input: expected at least {builder.smallest_side} pixels a side for {name}, found {side}")
    return Network(builder.build(recipe.input, outputs), builder.gradcam_layer)
