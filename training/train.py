"""A network and examples in, its weights fitted stage by stage: resumable after any epoch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from training.cache import Cache
from training.checkpoint import Checkpoint
from training.devices import has_gpu
from training.errors import TrainingError
from training.events import Progress
from training.frozen import Cut, Features, last_cut, set_trainable
from training.history import Epoch
from training.networks import Network
from training.recipe import Fitting, Optimizer

OPTIMIZERS = {"rmsprop": keras.optimizers.RMSprop, "adam": keras.optimizers.Adam, "sgd": keras.optimizers.SGD}
EVALUATION_BATCH = 256

NONE_OF_THE_CLASSES = -1


@dataclass(frozen=True)
class Examples:
    """Pictures, what is on them, and which of them take part."""

    images: NDArray[np.uint8]
    """[N, H, W, 3]; may lie on disk."""
    classes: NDArray[np.int32]
    """[N], indices into the labels; NONE_OF_THE_CLASSES for a picture of something else."""
    rows: NDArray[np.int64]
    """[M], the indices of those that take part."""

    @classmethod
    def all_of(cls, images: NDArray[np.uint8], classes: NDArray[np.int32]) -> Examples:
        """Every picture takes part."""
        return cls(images, classes, np.arange(len(classes)))


def train(
    network: Network,
    training: Examples,
    held_out: Examples,
    fitting: Fitting,
    *,
    cache: Cache,
    checkpoint: Checkpoint,
    resume: bool = False,
    progress: Progress | None = None,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> list[Epoch]:
    """Fit the network's weights, in place, and give what each epoch measured.

    What is frozen in a stage is computed once a picture; only the rest runs in its epochs. An epoch depends on nothing
    but the weights, the optimizer's state, the seed and its number: a run that goes on from a checkpoint ends as the
    run that was never interrupted.

    Raises:
        TrainingError: the loss is not finite.
        CacheError: the cache or the checkpoint cannot be written.
    """
    progress = progress or Progress()
    history = checkpoint.history() if resume else []
    if history:
        progress.note(f"resuming after epoch {history[-1].epoch} of {_epochs(fitting)}")
    else:
        if resume:
            progress.note("nothing to resume: beginning with epoch 1")
        checkpoint.forget()
    cuts = _cuts(network, fitting)
    features = Features(network, cuts, cache, progress.stage, progress.advance)
    kept = _kept_layers(network, cuts)
    restored = False
    steps = -(-len(training.rows) // fitting.batch_size)
    first = 1
    for number, (stage, cut) in enumerate(zip(fitting.stages, cuts, strict=True), start=1):
        last = first + stage.epochs - 1
        if len(history) >= last:
            first = last + 1
            continue
        if history and not restored:
            checkpoint.restore(kept, None)
        set_trainable(network, stage.base_layers)
        rest = _rest(network, cut)
        rest.compile(
            optimizer=_optimizer(stage.optimizer, stage.epochs * steps),
            loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=fitting.label_smoothing),
            metrics=[_Accuracy(name="accuracy")],
            jit_compile=has_gpu(),
        )
        rest.optimizer.build(rest.trainable_variables)
        if len(history) >= first and not restored:
            checkpoint.restore(kept, rest.optimizer)
        restored = True
        inputs, held_out_inputs = features.of(training.images, cut), features.of(held_out.images, cut)
        validation = _batches(network, held_out_inputs, held_out, held_out.rows, EVALUATION_BATCH)
        callbacks = list(progress.callbacks(_epochs(fitting), steps))
        for epoch in range(max(first, len(history) + 1), last + 1):
            started = perf_counter()
            order = np.random.default_rng([fitting.seed, epoch]).permutation(training.rows)
            _seed_layers(rest, fitting.seed, epoch)
            logs = rest.fit(
                _batches(network, inputs, training, order, fitting.batch_size),
                validation_data=validation,
                initial_epoch=epoch - 1,
                epochs=epoch,
                callbacks=callbacks,
                shuffle=False,
                verbose=0,
            ).history
            figures = {name: float(values[-1]) for name, values in logs.items()}
            if not np.isfinite(figures["loss"]):
                raise TrainingError("training diverged: expected a finite loss, found none; try a lower learning_rate")
            history.append(Epoch(epoch=epoch, stage=number, seconds=perf_counter() - started, **figures))
            checkpoint.save(kept, rest.optimizer, history)
            on_epoch(history[-1])
        first = last + 1
    if history and not restored:
        checkpoint.restore(kept, None)
    return history


class _Accuracy(keras.metrics.Mean):
    """Share of pictures with a target of their own, a class or none of them, whose highest logit is that one's."""

    def update_state(self, targets: tf.Tensor, logits: tf.Tensor, sample_weight: tf.Tensor | None = None) -> None:
        right = tf.argmax(targets, -1) == tf.argmax(logits, -1)
        super().update_state(tf.cast(right, tf.float32), tf.cast(tf.reduce_max(targets, -1) > 0.5, tf.float32))


def _epochs(fitting: Fitting) -> int:
    return sum(stage.epochs for stage in fitting.stages)


def _cuts(network: Network, fitting: Fitting) -> list[Cut | None]:
    cuts = []
    for stage in fitting.stages:
        set_trainable(network, stage.base_layers)
        cuts.append(last_cut(network))
    return cuts


def _kept_layers(network: Network, cuts: Sequence[Cut | None]) -> list[keras.layers.Layer]:
    """Layers that any stage may change."""
    behind = min(cut.position if cut else -1 for cut in cuts)
    return [op for op in network.model.operations[behind + 1 :] if isinstance(op, keras.layers.Layer)]


def _rest(network: Network, cut: Cut | None) -> keras.Model:
    start = cut.tensor if cut else network.model.input
    # Whatever the network computes in: a loss needs float32.
    logits = keras.layers.Activation("linear", dtype="float32")(network.model.output)
    return keras.Model(start, logits)


def _seed_layers(model: keras.Model, seed: int, epoch: int) -> None:
    """Dropout and Keras' augmentation draw from the seed and the epoch's number, not from what they drew before."""
    states = [variable for variable in model.variables if variable.name == "seed_generator_state"]
    for number, state in enumerate(states):
        state.assign(np.random.default_rng([seed, epoch, number]).integers(2**31, size=2).astype(np.uint32))


def _optimizer(optimizer: Optimizer, steps: int) -> keras.optimizers.Optimizer:
    rate = optimizer.learning_rate
    if optimizer.schedule == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(rate, steps)
    return OPTIMIZERS[optimizer.name](rate)


def _batches(
    network: Network, inputs: NDArray[Any], examples: Examples, order: NDArray[np.int64], batch_size: int
) -> tf.data.Dataset:
    """Inputs and target distributions [N, outputs].

    A picture of none of the classes has a logit of its own, or where there is none shall look like all of them
    (Hendrycks et al., "Deep Anomaly Detection with Outlier Exposure", 2019).
    """
    # Several devices must get the same share of each batch, or Keras fails: a few of the last pictures sit this out.
    devices = tf.distribute.get_strategy().num_replicas_in_sync
    order = order[: len(order) // devices * devices]
    batch_size = -(-batch_size // devices) * devices
    outputs = network.classes + network.none_logit
    classes = examples.classes[order]
    # NONE_OF_THE_CLASSES takes the last row.
    targets = np.eye(outputs, dtype=np.float32)[classes]
    if not network.none_logit:
        targets[classes == NONE_OF_THE_CLASSES] = 1 / outputs
    kind = tf.as_dtype(inputs.dtype)

    def gather(rows: tf.Tensor, target: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        batch = tf.numpy_function(lambda which: inputs[which], [rows], kind, stateful=False)
        batch.set_shape([None, *inputs.shape[1:]])
        return batch, target

    rows = tf.data.Dataset.from_tensor_slices((order, targets)).batch(batch_size)
    return rows.map(gather, num_parallel_calls=1).prefetch(tf.data.AUTOTUNE)
