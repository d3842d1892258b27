"""A recipe and a folder of pictures in, a published model version out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from time import perf_counter

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from service import __version__
from service.manifest import DataSet as DataSetCard
from service.manifest import Manifest, Metrics, Probe, hash_files, probe_images
from training import export
from training.data import DataSet, Split, list_pictures, load
from training.errors import TrainingError
from training.evaluate import measure
from training.networks import Network, build_network
from training.publish import next_version, publish, refuse_taken, staging_folder
from training.recipe import Optimizer, Recipe

OPTIMIZERS = {"rmsprop": keras.optimizers.RMSprop, "adam": keras.optimizers.Adam, "sgd": keras.optimizers.SGD}
# A picture that scores lower than all but this share of the held-out ones is not recognised.
UNRECOGNISED_SHARE = 0.01
EVALUATION_BATCH = 256


@dataclass(frozen=True)
class Published:
    """What a training run left behind."""

    folder: Path
    manifest: Manifest
    fit_seconds: float


class Progress:
    """What a run tells while it goes on; this one keeps quiet."""

    def reading(self, pictures: int) -> None:
        """That many pictures are about to be decoded."""

    def read_one(self) -> None:
        """One more was."""

    def loaded(self, data: DataSet) -> None:
        """All were."""

    def callbacks(self, epochs: int, steps: int) -> Sequence[keras.callbacks.Callback]:
        """Whom Keras shall tell of epochs and steps."""
        return ()

    def stage(self, what: str) -> None:
        """The run goes on to something that takes seconds."""


def fit(
    recipe: Recipe, data_folder: Path, models: Path, *, version: int | None = None, progress: Progress | None = None
) -> Published:
    """Train as the recipe says and publish the result under `models`.

    The same recipe, seed, pictures, versions of the libraries and machine give the same weights.

    Raises:
        RecipeError: no network has the recipe's name for it.
        DataError: the folder is no data set to train on.
        TrainingError: the loss is not finite.
        ExportError: the export does not answer as the trained network.
        PublishError: `version` is there already, or `models` cannot be written.
    """
    progress = progress or Progress()
    seed = recipe.fitting.seed
    if version:
        refuse_taken(models, recipe.name, version)
    listing = list_pictures(data_folder, test_fraction=recipe.data.test_fraction, seed=seed)
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
    network = build_network(recipe.network, recipe.input, len(listing.labels))
    # Opened now: what cannot be written must not be found out after hours of training.
    with staging_folder(models, recipe.name) as staged:
        progress.reading(len(listing.training) + len(listing.test))
        data = load(listing, recipe.input, progress.read_one)
        progress.loaded(data)
        started = perf_counter()
        _fit(network, data, recipe, progress)
        fit_seconds = perf_counter() - started
        progress.stage("exporting")
        export.save(network, staged)
        progress.stage("verifying the export")
        export.verify(network, staged, np.concatenate([data.test.images[:3], data.training.images[:3]]))
        progress.stage("measuring the export")
        manifest = _manifest(network, staged, recipe, data, version or next_version(models, recipe.name))
        folder = publish(staged, manifest, models)
    return Published(folder, manifest, fit_seconds)


def _fit(network: Network, data: DataSet, recipe: Recipe, progress: Progress) -> None:
    model, fitting = network.model, recipe.fitting
    training = _batches(data.training, fitting.batch_size, shuffle_seed=fitting.seed)
    model.compile(
        optimizer=_optimizer(fitting.optimizer),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    history = model.fit(
        training,
        epochs=fitting.epochs,
        validation_data=_batches(data.test, EVALUATION_BATCH),
        callbacks=list(progress.callbacks(fitting.epochs, len(training))),
        # The data set shuffles itself.
        shuffle=False,
        verbose=0,
    )
    if not np.isfinite(history.history["loss"]).all():
        raise TrainingError("training diverged: expected a finite loss, found none; try a lower learning_rate")


def _optimizer(optimizer: Optimizer) -> keras.optimizers.Optimizer:
    return OPTIMIZERS[optimizer.name](optimizer.learning_rate)


def _batches(split: Split, batch_size: int, shuffle_seed: int | None = None) -> tf.data.Dataset:
    pictures = tf.data.Dataset.from_tensor_slices((split.images, split.classes)).cache()
    if shuffle_seed is not None:
        pictures = pictures.shuffle(len(split.classes), seed=shuffle_seed)
    return pictures.batch(batch_size).prefetch(tf.data.AUTOTUNE)


def _manifest(network: Network, folder: Path, recipe: Recipe, data: DataSet, version: int) -> Manifest:
    loaded = tf.saved_model.load(str(folder))

    def serve(images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        return {name: t.numpy() for name, t in loaded.signatures["serving_default"](images=tf.constant(images)).items()}

    metrics, threshold = _measure(serve, data)
    return Manifest(
        name=recipe.name,
        version=version,
        created=datetime.now(timezone.utc).replace(microsecond=0),
        description=recipe.card.description,
        licence=recipe.card.licence,
        attribution=recipe.card.attribution,
        labels=data.labels,
        input=recipe.input,
        layers=export.visible_layers(network),
        gradcam_layer=network.gradcam_layer,
        recognition_threshold=threshold,
        parameters=network.model.count_params(),
        recipe=recipe.model_dump(mode="json"),
        software={"sichtbar": __version__, "tensorflow": tf.__version__, "keras": keras.__version__},
        data=DataSetCard(
            digest=data.digest,
            training_images=len(data.training.classes),
            test_images=len(data.test.classes),
            skipped_images=len(data.unreadable),
            split=data.split,
        ),
        metrics=metrics,
        probe=Probe(
            probabilities=serve(probe_images(recipe.input.height, recipe.input.width))["probabilities"].tolist()
        ),
        files=hash_files(folder),
    )


def _measure(
    serve: Callable[[NDArray[np.uint8]], dict[str, NDArray[np.float32]]], data: DataSet
) -> tuple[Metrics, float]:
    images = data.test.images
    answers = [serve(images[i : i + EVALUATION_BATCH]) for i in range(0, len(images), EVALUATION_BATCH)]
    probabilities = np.concatenate([answer["probabilities"] for answer in answers])
    recognition = np.concatenate([answer["recognition"] for answer in answers])
    return (
        measure(probabilities, data.test.classes, data.labels),
        float(np.quantile(recognition, UNRECOGNISED_SHARE)),
    )
