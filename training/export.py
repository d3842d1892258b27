"""A trained network in, a SavedModel with the contract's three signatures out, each weight stored once."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from service.manifest import Layer
from training.errors import ExportError
from training.networks import Network

# What they give at inference is what they got.
INVISIBLE = (keras.layers.InputLayer, keras.layers.Dropout, keras.layers.Flatten)

VERIFIED_BATCH_SIZES = (1, 3)
# Of float32 sums in another order: the exported graph is fused differently from the eager one.
RELATIVE_TOLERANCE, ABSOLUTE_TOLERANCE = 1e-4, 1e-5

Tensors = dict[str, tf.Tensor]


def save(network: Network, folder: Path, temperature: float = 1.0) -> None:
    """Write `saved_model.pb` and `variables/` into `folder`; probabilities are those of logits / `temperature`.

    Keras' own `ExportArchive` stores each weight twice; a module that tracks the variables themselves stores it once.
    """
    module = tf.Module(name=network.model.name)
    module.weights = [variable.value for variable in network.model.weights]
    tf.saved_model.save(module, str(folder), signatures=signatures(network, temperature))


def visible_layers(network: Network) -> list[Layer]:
    """The layers that the `activations` signature gives, from picture to logits."""
    visible = [layer for layer in network.model.layers if not isinstance(layer, INVISIBLE)]
    return [
        Layer(
            name=layer.name,
            type=type(layer).__name__,
            shape=list(layer.output.shape[1:]),
            parameters=layer.count_params(),
            inputs=list(dict.fromkeys(_sources(layer.output, set(visible)))),
        )
        for layer in visible
    ]


def _sources(output: keras.KerasTensor, visible: Collection[keras.layers.Layer]) -> Iterator[str]:
    """Names of the nearest layers before the operation that gave `output`, past whatever is not visible."""
    history = output._keras_history
    for tensor in history.operation._inbound_nodes[history.node_index].input_tensors:
        operation = tensor._keras_history.operation
        if operation in visible:
            yield operation.name
        else:
            yield from _sources(tensor, visible)


def verify(network: Network, folder: Path, images: NDArray[np.uint8], temperature: float = 1.0) -> None:
    """Load the export again and compare all three signatures with the Keras model, at two batch sizes.

    `images`: uint8 [N, H, W, 3], N >= 3.

    Raises:
        ExportError: an answer differs.
    """
    loaded = tf.saved_model.load(str(folder))
    for size in VERIFIED_BATCH_SIZES:
        batch = tf.constant(images[:size])
        for name, expected in _expected(network, batch, temperature).items():
            arguments = {"images": batch}
            if name == "gradcam":
                arguments["class_index"] = _verified_classes(network, size)
            _compare(f"{name} of {size}", loaded.signatures[name](**arguments), expected)


def signatures(network: Network, temperature: float = 1.0) -> dict[str, tf.types.experimental.GenericFunction]:
    """The contract's three, by name: functions of uint8 [N, H, W, 3], and of a class each for `gradcam`."""
    model = network.model
    layer_outputs = _layer_outputs(network)
    cam = keras.Model(model.inputs, [model.get_layer(network.gradcam_layer).output, model.output])
    images_spec = tf.TensorSpec([None, *model.input_shape[1:]], tf.uint8, name="images")
    class_spec = tf.TensorSpec([None], tf.int32, name="class_index")

    @tf.function(input_signature=[images_spec])
    def serving_default(images: tf.Tensor) -> Tensors:
        return _answers(network, model(images, training=False), temperature)

    @tf.function(input_signature=[images_spec])
    def activations(images: tf.Tensor) -> Tensors:
        return dict(layer_outputs(images, training=False))

    @tf.function(input_signature=[images_spec, class_spec])
    def gradcam(images: tf.Tensor, class_index: tf.Tensor) -> Tensors:
        """Selvaraju et al., "Grad-CAM", 2017, from the gradient of the class's logit: a saturated softmax has none."""
        feature_maps, logits = cam(images, training=False)
        score = tf.reduce_sum(tf.gather(logits, class_index, batch_dims=1))
        (gradients,) = tf.gradients(score, feature_maps)
        return {
            "heatmap": tf.cast(_weigh(feature_maps, gradients), tf.float32),
            "probabilities": _answers(network, logits, temperature)["probabilities"],
        }

    return {"serving_default": serving_default, "activations": activations, "gradcam": gradcam}


def _answers(network: Network, outputs: tf.Tensor, temperature: float) -> Tensors:
    """Recognition is the negative free energy of Liu et al., "Energy-based Out-of-distribution Detection", 2020.

    With a logit for none of the classes, it is the log odds that the picture is one of them.
    """
    outputs = tf.cast(outputs, tf.float32)
    logits = outputs[:, : network.classes]
    recognition = tf.reduce_logsumexp(logits, axis=-1)
    if network.none_logit:
        recognition -= outputs[:, -1]
    return {"probabilities": tf.nn.softmax(logits / temperature), "logits": logits, "recognition": recognition}


def _layer_outputs(network: Network) -> keras.Model:
    names = [layer.name for layer in visible_layers(network)]
    return keras.Model(network.model.inputs, {name: network.model.get_layer(name).output for name in names})


def _weigh(feature_maps: tf.Tensor, gradients: tf.Tensor) -> tf.Tensor:
    weights = tf.reduce_mean(gradients, axis=[1, 2], keepdims=True)
    return tf.nn.relu(tf.reduce_sum(weights * feature_maps, axis=-1))


def _verified_classes(network: Network, size: int) -> tf.Tensor:
    return tf.range(size, dtype=tf.int32) % network.classes


def _expected(network: Network, images: tf.Tensor, temperature: float) -> dict[str, Tensors]:
    """The three signatures' answers by Keras itself, eagerly; Grad-CAM by a tape between the network's two halves."""
    model = network.model
    cam_output = model.get_layer(network.gradcam_layer).output
    feature_maps = keras.Model(model.inputs, cam_output)(images, training=False)
    with tf.GradientTape() as tape:
        tape.watch(feature_maps)
        outputs = keras.Model(cam_output, model.output)(feature_maps, training=False)
        score = tf.reduce_sum(tf.gather(outputs, _verified_classes(network, len(images)), batch_dims=1))
    answers = _answers(network, outputs, temperature)
    return {
        "serving_default": answers,
        "activations": _layer_outputs(network)(images, training=False),
        "gradcam": {
            "heatmap": _weigh(feature_maps, tape.gradient(score, feature_maps)),
            "probabilities": answers["probabilities"],
        },
    }


def _compare(what: str, found: Tensors, expected: Tensors) -> None:
    if found.keys() != expected.keys():
        raise ExportError(f"{what}: expected outputs {sorted(expected)}, found {sorted(found)}")
    for name, tensor in expected.items():
        if not np.allclose(found[name], tensor, rtol=RELATIVE_TOLERANCE, atol=ABSOLUTE_TOLERANCE):
            worst = float(np.abs(found[name] - tensor).max())
            raise ExportError(f"{what}: {name} differs from the Keras model's by up to {worst:.3g}")
