"""A published graph in, pictures that its channels answer to most out: gradient ascent from noise.

Erhan et al., "Visualizing higher-layer features of a deep network", 2009; with what makes such pictures readable as in
Olah et al., "Feature visualization", Distill, 2017.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from service.manifest import Layer
from training.errors import VersionError

LAYERS, CHANNELS, STEPS = 5, 16, 64
# Where a run publishes them, nobody asked for more than a glance; of classes that many are shown at least.
GLANCE_CHANNELS, GLANCE_STEPS, SHOWN_CLASSES = 6, 32, 16
# Multiplications, all steps of all pictures together: two to three minutes on two cores.
GLANCE_BUDGET = 1.1e13

# Adam's (Kingma, Ba, 2015), whose step does not depend on how large the gradients are.
RATE, FIRST_MOMENT, SECOND_MOMENT, EPSILON = 0.05, 0.9, 0.999, 1e-8
NOISE = 0.01
# How a picture moves before each step: of its side, in degrees, of its size.
SHIFT, TURN, ZOOM = 1 / 8, 10.0, 0.15
# Columns: directions in which the colours of ImageNet's pixels vary, each as long as they vary along it (the root of
# their covariance), as measured by the authors of "Feature visualization".
COLOURS = np.array([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]], np.float32)
RECTIFIERS = {"Relu", "Relu6"}
# Of what is below zero: without any, a channel that is silent for the noise has no gradient.
LEAK = 0.1


@dataclass(frozen=True)
class Chosen:
    """C channels of a layer."""

    layer: str
    channels: list[int]
    """[C]"""
    labels: list[str] | None = None
    """[C], where the channels are classes."""


@dataclass(frozen=True)
class Maximised:
    """What channels look for."""

    chosen: Chosen
    width: int
    """Channels that the layer has."""
    pictures: NDArray[np.uint8]
    """[C, H, W, 3], RGB, at the graph's input size."""
    before: NDArray[np.float32]
    """[C], the channel's activation for the noise that each picture began as: of maps the mean of what is above 0."""
    after: NDArray[np.float32]
    """[C], for the picture."""


def choose(
    layers: Sequence[Layer], labels: Sequence[str], *, names: Sequence[str] | None = None, channels: int = CHANNELS
) -> list[Chosen]:
    """Channels spread evenly: of the layers named, else of a few convolutions from first to last, and the classes.

    The last layer's channels are classes, of which `SHOWN_CLASSES` are taken where `channels` is less.

    Raises:
        VersionError: there is no layer of that name.
    """
    known = {layer.name: layer for layer in layers}
    if unknown := [name for name in names or () if name not in known]:
        raise VersionError(f"layers: expected some of {', '.join(known)}, found {unknown[0]!r}")
    if names is None:
        maps = [layer.name for layer in layers if "Conv" in layer.type and len(layer.shape) == 3]
        names = [*(maps[place] for place in _spread(len(maps), LAYERS)), layers[-1].name]
    return [_choose(known[name], labels if name == layers[-1].name else None, channels) for name in names]


def _choose(layer: Layer, labels: Sequence[str] | None, channels: int) -> Chosen:
    width = layer.shape[-1]
    if labels is None:
        return Chosen(layer.name, _spread(width, channels))
    taken = _spread(len(labels), max(channels, SHOWN_CLASSES))
    return Chosen(layer.name, taken, [labels[number] for number in taken])


def glance(layers: Sequence[Layer], labels: Sequence[str]) -> list[Chosen]:
    """As `choose`, but no more channels than `GLANCE_STEPS` steps each may cost, one a layer at least."""
    chosen = choose(layers, labels, channels=GLANCE_CHANNELS)
    costs = _multiplications(layers)
    whole = GLANCE_STEPS * sum(costs[one.layer] * len(one.channels) for one in chosen)
    return [_fewer(one, min(1.0, GLANCE_BUDGET / max(whole, 1))) for one in chosen]


def _fewer(one: Chosen, share: float) -> Chosen:
    places = _spread(len(one.channels), max(1, int(len(one.channels) * share)))
    labels = None if one.labels is None else [one.labels[place] for place in places]
    return Chosen(one.layer, [one.channels[place] for place in places], labels)


def maximise(
    folder: Path,
    chosen: Sequence[Chosen],
    *,
    steps: int = STEPS,
    seed: int = 0,
    begin: Callable[[str, int], None] = lambda layer, steps: None,
    done: Callable[[], None] = lambda: None,
) -> list[Maximised]:
    """Pictures for channels of the SavedModel in `folder`; `begin` hears of each layer, `done` of each step.

    The same seed gives the same pictures, and a channel's does not depend on which others are asked for. A picture is
    made of waves, as strong at first as in photographs, in colours as independent as in photographs, and is moved a
    little before each step: without that, ascent ends in patterns that no camera sees. What is raised is the mean of a
    channel's map above zero, and where the layer ends in a rectifier, of what goes into that.

    Raises:
        VersionError: there is no such layer, or no way back from it to the picture.
    """
    graph = _Graph(folder)
    found = []
    for one in chosen:
        begin(one.layer, steps)
        found.append(_maximise(graph, one, steps, seed, done))
    return found


class _Graph:
    """The `activations` signature as a graph of floats, its weights constants in it."""

    def __init__(self, folder: Path) -> None:
        loaded = tf.saved_model.load(str(folder))
        signature = loaded.signatures["activations"]
        self._outputs = {
            name: output.name
            for name, output in zip(sorted(signature.structured_outputs), signature.outputs, strict=True)
        }
        (images,) = signature.structured_input_signature[1].values()
        self.height, self.width = (int(side) for side in images.shape[1:3])
        # No gradient flows through bytes. Once the function is one flat graph, what is said to be bytes, from the input
        # to the cast, is said to be floats.
        definition = convert_variables_to_constants_v2(signature).graph.as_graph_def()
        for node in definition.node:
            for attribute in node.attr.values():
                if attribute.type == tf.uint8.as_datatype_enum:
                    attribute.type = tf.float32.as_datatype_enum
        self._whole = tf.compat.v1.wrap_function(lambda: tf.compat.v1.import_graph_def(definition, name=""), [])

    def layer(self, name: str) -> tf.types.experimental.ConcreteFunction:
        """Pictures float32 [N, H, W, 3], 0 to 255, to what the layer gives and what its rectifier gets, if it has one.

        Raises:
            VersionError: there is no such layer.
        """
        if name not in self._outputs:
            raise VersionError(f"layers: expected some of {', '.join(self._outputs)}, found {name!r}")
        graph = self._whole.graph
        output = raw = graph.get_tensor_by_name(self._outputs[name])
        while raw.op.type == "Identity":
            raw = raw.op.inputs[0]
        if raw.op.type in RECTIFIERS:
            raw = raw.op.inputs[0]
        return self._whole.prune(graph.get_tensor_by_name("images:0"), [output, raw])


def _maximise(graph: _Graph, chosen: Chosen, steps: int, seed: int, done: Callable[[], None]) -> Maximised:
    answer = graph.layer(chosen.layer)
    height, width = graph.height, graph.width
    strengths = _strengths(height, width)
    colours = COLOURS / np.linalg.norm(COLOURS, axis=0).max()
    numbers = tf.constant(chosen.channels, tf.int32)

    def draw(waves: tf.Tensor) -> tf.Tensor:
        planes = tf.signal.irfft2d(tf.complex(waves[:, 0], waves[:, 1]) * strengths, [height, width])
        return 255 * tf.sigmoid(tf.einsum("nahw,ca->nhwc", planes, colours))

    def of_channels(maps: tf.Tensor, leak: float) -> tf.Tensor:
        if len(maps.shape) > 2:
            # An edge and its opposite cancel each other, unless only what is above zero counts.
            maps = tf.reduce_mean(tf.nn.leaky_relu(maps, leak), axis=range(1, len(maps.shape) - 1))
        return tf.gather(maps, numbers, batch_dims=1)

    @tf.function(autograph=False)
    def step(number: tf.Tensor, waves: tf.Tensor, first: tf.Tensor, second: tf.Tensor) -> tuple[tf.Tensor, ...]:
        with tf.GradientTape() as tape:
            tape.watch(waves)
            _, raw = answer(_move(draw(waves), number, seed))
            score = tf.reduce_sum(of_channels(raw, LEAK))
        gradient = tape.gradient(score, waves)
        if gradient is None:
            raise VersionError(f"layers: expected one that has a gradient, found {chosen.layer!r}")
        first = FIRST_MOMENT * first + (1 - FIRST_MOMENT) * gradient
        second = SECOND_MOMENT * second + (1 - SECOND_MOMENT) * gradient**2
        age = tf.cast(number, tf.float32) + 1
        up = first / (1 - FIRST_MOMENT**age) / (tf.sqrt(second / (1 - SECOND_MOMENT**age)) + EPSILON)
        return waves + RATE * up, first, second

    def seen(waves: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # As bytes, which is what a picture is made of.
        pictures = tf.round(draw(waves))
        return tf.cast(pictures, tf.uint8), of_channels(answer(pictures)[0], 0.0)

    waves = tf.constant(_noise(chosen.channels, seed, strengths.shape))
    _, before = seen(waves)
    first = second = tf.zeros_like(waves)
    # Traced here: to trace the same function for each layer at its call would look like a mistake to TensorFlow.
    climb = step.get_concrete_function(tf.TensorSpec([], tf.int64), *[tf.TensorSpec(waves.shape)] * 3)
    for number in range(steps):
        waves, first, second = climb(tf.constant(number, tf.int64), waves, first, second)
        done()
    pictures, after = seen(waves)
    return Maximised(chosen, int(answer.outputs[0].shape[-1]), pictures.numpy(), before.numpy(), after.numpy())


def _noise(channels: Sequence[int], seed: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Waves [C, real and imaginary, 3, *shape], the same for a channel whichever others there are."""
    waves = [np.random.default_rng([seed, channel]).normal(0, NOISE, (2, 3, *shape)) for channel in channels]
    return np.stack(waves).astype(np.float32)


def _strengths(height: int, width: int) -> NDArray[np.float32]:
    """How strong each wave is in photographs, [H, W // 2 + 1]: the longer, the stronger."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    strengths = np.sqrt(height * width) / 4 / np.maximum(frequency, 1 / max(height, width))
    return np.asarray(strengths, np.float32)


def _move(pictures: tf.Tensor, number: tf.Tensor, seed: int) -> tf.Tensor:
    """Shift, turn and zoom all pictures by the step's dice, about their centre; what comes in is mirrored."""
    _, height, width, _ = pictures.shape
    dice = tf.unstack(tf.random.stateless_uniform([4], tf.stack([tf.constant(seed, tf.int64), number]), -1, 1))
    angle, size = dice[0] * np.deg2rad(TURN), 1 + dice[1] * ZOOM
    cosine, sine = tf.cos(angle) / size, tf.sin(angle) / size
    x, y = (width - 1) / 2, (height - 1) / 2
    right, down = dice[2] * SHIFT * width, dice[3] * SHIFT * height
    rows = [cosine, -sine, x - cosine * x + sine * y + right, sine, cosine, y - sine * x - cosine * y + down, 0.0, 0.0]
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=pictures,
        transforms=tf.stack(rows)[None],
        output_shape=[height, width],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="REFLECT",
    )


def _spread(length: int, most: int) -> list[int]:
    """At most so many of the numbers below `length`, from the first to the last."""
    return [int(number) for number in np.linspace(0, length - 1, min(most, length)).round()]


def _multiplications(layers: Sequence[Layer]) -> dict[str, float]:
    """Of one step of one picture, by layer: each weight once for each pixel of its output, there and back again."""
    there = np.cumsum([layer.parameters * prod(layer.shape[:-1]) for layer in layers])
    return {layer.name: 2 * float(count) for layer, count in zip(layers, there, strict=True)}
