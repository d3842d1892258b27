"""Epochs, graph, sample pictures and the confusion matrix in, TensorBoard's event files out."""

from __future__ import annotations

import shutil
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from training.errors import CacheError
from training.history import Epoch

SAMPLES = 16


class Board:
    """One run's logs: `tensorboard --logdir` of the folder above shows runs side by side."""

    def __init__(self, folder: Path, *, resume: bool) -> None:
        """What is there stays with `resume`; otherwise it was another run's, and goes.

        Raises:
            CacheError: the folder cannot be written.
        """
        if not resume:
            shutil.rmtree(folder, ignore_errors=True)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._training = tf.summary.create_file_writer(str(folder / "training"))
            self._held_out = tf.summary.create_file_writer(str(folder / "held-out"))
        except (OSError, tf.errors.OpError) as error:
            reason = getattr(error, "strerror", None) or error
            raise CacheError(f"{folder}: expected a folder to write to: {reason}") from error

    def samples(self, images: NDArray[np.uint8], seed: int) -> None:
        """Some of the training pictures, uint8 [N, H, W, 3], as the network gets them."""
        chosen = np.sort(np.random.default_rng(seed).choice(len(images), min(SAMPLES, len(images)), replace=False))
        with self._training.as_default(step=0):
            tf.summary.image("training pictures", images[chosen], max_outputs=SAMPLES)

    def graph(self, model: keras.Model) -> None:
        """The network's graph, from uint8 pictures to logits."""
        call = tf.function(lambda images: model(images, training=False))
        spec = tf.TensorSpec(model.input_shape, model.input.dtype)
        with self._training.as_default(step=0):
            tf.summary.graph(call.get_concrete_function(spec).graph)

    def epoch(self, epoch: Epoch) -> None:
        """What it measured; a resumed run goes on with the numbers of the killed one."""
        with self._training.as_default(step=epoch.epoch):
            tf.summary.scalar("loss", epoch.loss)
            tf.summary.scalar("accuracy", epoch.accuracy)
            tf.summary.scalar("seconds", epoch.seconds)
        with self._held_out.as_default(step=epoch.epoch):
            tf.summary.scalar("loss", epoch.val_loss)
            tf.summary.scalar("accuracy", epoch.val_accuracy)
        self._training.flush()
        self._held_out.flush()

    def figure(self, name: str, path: Path, step: int) -> None:
        """A PNG of the held-out pictures' figures, such as their confusion matrix."""
        with self._held_out.as_default(step=step):
            tf.summary.image(name, tf.io.decode_png(path.read_bytes(), channels=3)[None])

    def close(self) -> None:
        """Write what is not yet written."""
        self._training.close()
        self._held_out.close()
