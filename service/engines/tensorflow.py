"""TensorFlow runs the SavedModel: on a GPU where there is one."""

from __future__ import annotations

import os
from pathlib import Path

# Read by TensorFlow's C++ half when it loads: warnings stay, start-up chatter goes.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from service.engines.base import Outputs


def sees_gpu() -> bool:
    """Whether this build of TensorFlow can use a GPU of this machine."""
    return bool(tf.config.list_physical_devices("GPU"))


class TensorFlowEngine:
    """One SavedModel's `serving_default`."""

    name = "tensorflow"

    def __init__(self, folder: Path, *, threads: int) -> None:
        for gpu in tf.config.list_physical_devices("GPU"):
            tf.config.experimental.set_memory_growth(gpu, True)
        if threads and tf.config.threading.get_intra_op_parallelism_threads() != threads:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
        # A signature lives as long as the object that was loaded.
        self._loaded = tf.saved_model.load(str(folder))
        self._serve = self._loaded.signatures["serving_default"]

    def predict(self, images: NDArray[np.uint8]) -> Outputs:
        """See `Engine.predict`."""
        outputs = self._serve(images=tf.constant(images))
        return Outputs(*(outputs[name].numpy() for name in Outputs._fields))
