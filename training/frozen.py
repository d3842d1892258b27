"""A network and its trainable layers in, the frozen front's outputs out: computed once a picture, kept on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from training.cache import Cache, digest
from training.errors import TrainingError
from training.networks import Network

FEATURE_BATCH, FEATURE_CHUNK = 64, 1024


@dataclass(frozen=True)
class Cut:
    """A place where one tensor alone leads from the front of a network to the rest."""

    position: int
    """Of the operation before it, in the model's order."""
    tensor: keras.KerasTensor


def set_trainable(network: Network, base_layers: int | str) -> None:
    """Let the last so many layers of the base train, and all of the head; without a base, leave all as it is.

    Batch normalisation in the base stays as it is: its statistics are those of the pictures it was trained on, and few
    pictures of one's own spoil them (Keras' guide to transfer learning).
    """
    if not network.base:
        return
    count = len(network.base) if base_layers == "all" else int(base_layers)
    moving = set(network.base[max(len(network.base) - count, 0) :])
    for layer in network.model.layers:
        frozen = layer.name in network.base and (
            layer.name not in moving or isinstance(layer, keras.layers.BatchNormalization)
        )
        layer.trainable = not frozen


def last_cut(network: Network) -> Cut | None:
    """The deepest cut with no trainable weight before it; none where nothing with weights of the base is frozen."""
    operations = network.model.operations
    position = {id(tensor): i for i, op in enumerate(operations) for tensor in keras.tree.flatten(op.output)}
    # The last operation that reads what each gives, and the first of which any before it is read later.
    read_by = [0] * len(operations)
    for reader, operation in enumerate(operations):
        if not isinstance(operation, keras.layers.InputLayer):
            for tensor in keras.tree.flatten(operation.input):
                read_by[position[id(tensor)]] = max(read_by[position[id(tensor)]], reader)
    first_trained = next(
        (i for i, op in enumerate(operations) if getattr(op, "trainable_weights", None)), len(operations) - 1
    )
    farthest, found = 0, None
    for i in range(first_trained):
        if farthest <= i:
            found = i
        farthest = max(farthest, read_by[i])
    base = set(network.base)
    if found is None or not any(op.name in base and op.weights for op in operations[: found + 1] if _is_layer(op)):
        return None
    return Cut(found, operations[found].output)


def _is_layer(operation: object) -> bool:
    return isinstance(operation, keras.layers.Layer)


class Features:
    """Outputs of the frozen front for pictures, float16 on disk."""

    def __init__(
        self,
        network: Network,
        cuts: Sequence[Cut | None],
        cache: Cache,
        tell: Callable[[str, int], None],
        done: Callable[[int], None],
    ) -> None:
        self._network = network
        self._cache = cache
        self._tell = tell
        self._done = done
        real = [cut for cut in cuts if cut]
        # Frozen in every stage: computed from pictures once, and what lies between it and a later cut from there.
        self._shared = min(real, key=lambda cut: cut.position) if len(real) == len(cuts) else None

    def of(self, images: NDArray[np.uint8], cut: Cut | None) -> NDArray[np.generic]:
        """`images` uint8 [N, H, W, 3] as the network behind `cut` takes them: [N, ...]; the pictures where it is none.

        Raises:
            TrainingError: a feature is beyond float16.
            CacheError: the cache cannot be written.
        """
        if cut is None:
            return images
        if self._shared is None:
            return self._computed(images, digest(images), self._network.model.input, cut)
        key = digest(images)
        shared = self._computed(images, key, self._network.model.input, self._shared)
        if cut.position == self._shared.position:
            return shared
        return self._computed(shared, key, self._shared.tensor, cut)

    def _computed(
        self, source: NDArray[np.generic], key: str, start: keras.KerasTensor, cut: Cut
    ) -> NDArray[np.generic]:
        front = keras.Model(start, cut.tensor)
        # Traced once for any number of pictures.
        batch = tf.TensorSpec((None, *source.shape[1:]), source.dtype)
        run = tf.function(lambda batch: front(batch, training=False)).get_concrete_function(batch)

        def rows(begin: int, end: int) -> NDArray[np.generic]:
            batches = range(begin, end, FEATURE_BATCH)
            found: NDArray[np.float32] = np.concatenate(
                [tf.cast(run(source[i : min(i + FEATURE_BATCH, end)]), tf.float32).numpy() for i in batches]
            )
            if not np.abs(found).max() <= np.finfo(np.float16).max:
                raise TrainingError(f"{cut.tensor.name}: expected features within float16, found {np.abs(found).max()}")
            return found.astype(np.float16)

        whole = self._network.model.operations[: cut.position + 1]
        named = [(op.name, type(op).__name__) for op in whole]
        weights = [weight.numpy() for op in whole if _is_layer(op) for weight in op.weights]
        self._tell(f"frozen layers up to {whole[-1].name}", len(source))
        return self._cache.array(
            digest(key, keras.config.dtype_policy().name, named, *weights),
            (len(source), *cut.tensor.shape[1:]),
            np.float16,
            rows,
            chunk=FEATURE_CHUNK,
            done=self._done,
        )
