"""The smallest network with a backbone, and a few drawn pictures for it."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers

from tests.conftest import SHAPES, draw
from training.networks import Network
from training.recipe import Fitting, Optimizer, Stage
from training.train import Examples

SIDE = 12


def network(seed: int = 1) -> Network:
    """Two convolutions as a base, each with batch normalisation, and a head with dropout."""
    keras.utils.set_random_seed(seed)
    images = keras.Input((SIDE, SIDE, 3), dtype="uint8", name="images")
    x = layers.Rescaling(1 / 127.5, offset=-1, name="preprocessing")(images)
    x = layers.Conv2D(4, 3, activation="relu", name="conv_1")(x)
    x = layers.BatchNormalization(name="norm_1")(x)
    x = layers.Conv2D(8, 3, strides=2, activation="relu", name="conv_2")(x)
    x = layers.BatchNormalization(name="norm_2")(x)
    x = layers.GlobalAveragePooling2D(name="average")(x)
    x = layers.Dense(8, activation="relu", name="hidden")(x)
    x = layers.Dropout(0.3, name="dropout")(x)
    logits = layers.Dense(len(SHAPES), name="logits")(x)
    return Network(keras.Model(images, logits), "norm_2", ("conv_1", "norm_1", "conv_2", "norm_2"))


def examples(first: int, each: int) -> Examples:
    """So many pictures of each of the shapes, from that seed on."""
    drawn = [draw(shape, seed, (SIDE, SIDE)) for shape in SHAPES for seed in range(first, first + each)]
    return Examples.all_of(
        np.stack([np.asarray(image) for image in drawn]), np.repeat(np.arange(3, dtype=np.int32), each)
    )


def stage(epochs: int, base_layers: int, rate: float = 0.01) -> Stage:
    return Stage(epochs=epochs, base_layers=base_layers, optimizer=Optimizer(name="adam", learning_rate=rate))


def fitting(*stages: Stage, label_smoothing: float = 0.0) -> Fitting:
    return Fitting(batch_size=8, seed=5, label_smoothing=label_smoothing, stages=list(stages))
