"""Devices, arithmetic and seed of a run: the processors, one GPU, or several that share each batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Literal

import keras
import tensorflow as tf

Precision = Literal["auto", "float32", "mixed_float16", "mixed_bfloat16"]
"""What layers compute in; weights are float32 always. auto: mixed_float16 on a GPU, else float32."""


def has_gpu() -> bool:
    """Whether TensorFlow sees a GPU."""
    return bool(tf.config.list_physical_devices("GPU"))


@contextmanager
def devices(seed: int, precision: Precision = "auto") -> Iterator[None]:
    """Build and train inside: repeatable, in the given precision, on all GPUs there are.

    Several GPUs each take their part of a batch and add up their gradients (tf.distribute.MirroredStrategy).
    mixed_bfloat16 pays on processors that have instructions for it (AVX512_BF16, AMX), the frozen layers most.
    """
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(("mixed_float16" if has_gpu() else "float32") if precision == "auto" else precision)
    try:
        with strategy([device.name for device in tf.config.list_logical_devices("GPU")]).scope():
            yield
    finally:
        keras.config.set_dtype_policy(before)


# One for all runs of a process: TensorFlow takes another's sums of gradients for the first one's, of other shapes.
@cache
def _mirrored(names: tuple[str, ...]) -> tf.distribute.Strategy:
    return tf.distribute.MirroredStrategy(list(names))


def strategy(names: Sequence[str]) -> tf.distribute.Strategy:
    """How these devices train together: several share each batch, one takes it whole."""
    return _mirrored(tuple(names)) if len(names) > 1 else tf.distribute.get_strategy()
