"""TensorFlow runs the SavedModel: on a GPU where there is one."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

# Read by TensorFlow's C++ half when it loads: warnings stay, start-up chatter goes.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")

import numpy as np
import structlog
import tensorflow as tf
from numpy.typing import NDArray

from service.engines.base import Outputs, Wishes, batch_sizes

log = structlog.get_logger()


def sees_gpu() -> bool:
    """Whether this build of TensorFlow can use a GPU of this machine."""
    return bool(tf.config.list_physical_devices("GPU"))


class TensorFlowEngine:
    """One SavedModel's `serving_default`, compiled by XLA where `compiles`, unless XLA cannot.

    Compiled, a batch is filled up to one of `batch_sizes`, since XLA compiles for each size anew.
    """

    name = "tensorflow"

    def __init__(self, folder: Path, *, threads: int, compiles: bool) -> None:
        _configure(threads)
        # A signature lives as long as the object that was loaded.
        self._loaded = tf.saved_model.load(str(folder))
        signature = self._loaded.signatures["serving_default"]
        compiled = _compiled(signature) if compiles else None
        self.compiles = compiled is not None
        self._serve = compiled or signature

    def predict(self, images: NDArray[np.uint8]) -> Outputs:
        """See `Engine.predict`."""
        count = len(images)
        if self.compiles:
            images = np.resize(images, (batch_sizes(count)[-1], *images.shape[1:]))
        outputs = self._serve(images=tf.constant(images))
        return Outputs(*(outputs[name].numpy()[:count] for name in Outputs._fields))


def open_engine(folder: Path, wishes: Wishes) -> TensorFlowEngine:
    """See `service.engines.open_engine`; it is always exact, and shares nothing."""
    return TensorFlowEngine(folder, threads=wishes.threads, compiles=sees_gpu())


class TensorFlowInspector:
    """One SavedModel's other signatures and its weights: what the engines for answers do not show."""

    def __init__(self, folder: Path, *, threads: int) -> None:
        _configure(threads)
        self._loaded = tf.saved_model.load(str(folder))
        self._compute: dict[tuple[str, ...], Callable[[tf.Tensor], dict[str, tf.Tensor]]] = {}

    def gradcam(
        self, images: NDArray[np.uint8], class_index: NDArray[np.int32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Heat maps float32 [N, h, w], >= 0, and probabilities float32 [N, C].

        `images`: uint8 [N, H, W, 3]; `class_index`: int32 [N].
        """
        outputs = self._loaded.signatures["gradcam"](images=tf.constant(images), class_index=tf.constant(class_index))
        return outputs["heatmap"].numpy(), outputs["probabilities"].numpy()

    def activations(self, images: NDArray[np.uint8], layers: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """What the layers give for uint8 [N, H, W, 3], by name; only what they need is computed."""
        compute = self._compute.get(tuple(layers))
        if compute is None:
            signature = self._loaded.signatures["activations"]
            compute = tf.function(lambda images: _chosen(signature(images=images), layers))
            self._compute[tuple(layers)] = compute
        return {name: tensor.numpy() for name, tensor in compute(tf.constant(images)).items()}

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """Every weight, by its name such as `block1_conv1/kernel`."""
        return {variable.name.split(":")[0]: variable.numpy() for variable in self._loaded.weights}


def _compiled(signature: tf.types.experimental.ConcreteFunction) -> Callable[..., dict[str, tf.Tensor]] | None:
    compiled: Callable[..., dict[str, tf.Tensor]] = tf.function(
        lambda images: signature(images=images), jit_compile=True, autograph=False
    )
    images = signature.structured_input_signature[1]["images"]
    try:
        compiled(images=tf.zeros((1, *images.shape[1:]), images.dtype))
    except tf.errors.OpError as problem:
        log.warning("not_compiled", reason=str(problem.message).partition("\n")[0])
        return None
    return compiled


def _chosen(outputs: dict[str, tf.Tensor], names: Sequence[str]) -> dict[str, tf.Tensor]:
    return {name: outputs[name] for name in names}


def _configure(threads: int) -> None:
    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)
    if threads and tf.config.threading.get_intra_op_parallelism_threads() != threads:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
