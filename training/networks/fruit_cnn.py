"""The workshop's CNN: two convolutions and two dense layers, 833,504 parameters for 20 x 20 pixels and 16 classes."""

from __future__ import annotations

import keras
from keras import layers

from service.manifest import Input

GRADCAM_LAYER = "batch_norm_2"


def build(target: Input, classes: int) -> keras.Model:
    """uint8 [N, H, W, 3] to logits [N, classes]; the export adds the softmax."""
    images = keras.Input((target.height, target.width, 3), dtype="uint8", name="images")
    # To [-1, 1]: from [0, 1] three epochs more often end with some peaches still taken for pomegranates.
    x = layers.Rescaling(1 / 127.5, offset=-1, name="rescaling")(images)
    x = layers.Conv2D(32, 3, padding="same", name="conv_1")(x)
    x = layers.ReLU(name="relu_1")(x)
    x = layers.Conv2D(16, 3, padding="same", name="conv_2")(x)
    x = layers.LeakyReLU(0.5, name="leaky_relu_2")(x)
    x = layers.BatchNormalization(name=GRADCAM_LAYER)(x)
    x = layers.MaxPooling2D(2, name="max_pool")(x)
    x = layers.Dropout(0.25, name="dropout_1")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(512, name="dense")(x)
    x = layers.ReLU(name="relu_dense")(x)
    x = layers.Dropout(0.5, name="dropout_2")(x)
    logits = layers.Dense(classes, name="logits")(x)
    return keras.Model(images, logits, name="fruit_cnn")
