"""A recipe and a folder of pictures in, a published model version out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from service import __version__
from service.manifest import DataSet as DataSetCard
from service.manifest import Manifest, Metrics, Probe, hash_files, probe_images
from training import export
from training.clock import Clock
from training.compose import Scenery
from training.data import DataSet, list_pictures, load
from training.devices import Precision, devices
from training.evaluate import answer
from training.events import Progress
from training.judge import Judgement
from training.maximise import GLANCE_STEPS, Maximised, glance, maximise
from training.networks import Network, build_network
from training.publish import numbered, publish, refuse_taken, staging_folder
from training.recipe import Recipe
from training.report import CONFUSION
from training.run import Run
from training.versions import Graph, load_graph


@dataclass(frozen=True)
class Published:
    """What a training run left behind."""

    folder: Path
    manifest: Manifest
    metrics: Metrics
    """The manifest's."""
    seconds: Mapping[str, float]
    """By stage."""


def fit(
    recipe: Recipe,
    data_folder: Path,
    models: Path,
    *,
    runs: Path,
    weights: Path | None = None,
    backgrounds: Path | None = None,
    precision: Precision = "auto",
    resume: bool = False,
    version: int | None = None,
    report_pictures: bool = True,
    filters: bool = True,
    progress: Progress | None = None,
) -> Published:
    """Train as the recipe says and publish the result under `models`.

    The same recipe, seed, pictures, versions of the libraries and machine give the same weights. `runs` keeps what a
    killed run needs to go on with `resume`, what is costly to compute again, and TensorBoard's logs; `weights` is a
    file to take instead of downloading the backbone's; `backgrounds` holds photographs for the recipe's augmentation.
    `report_pictures` lets the report, which is published with the version, show pictures of the data set, and `filters`
    what the network's channels look for: seconds of work for a small network, minutes for a large one.

    Raises:
        RecipeError: the recipe's network cannot be built.
        WeightsError: the backbone's first weights cannot be had.
        DataError: the folder is no data set to train on, or a background is no picture.
        TrainingError: the loss is not finite.
        CacheError: `runs` cannot be written.
        ExportError: the export does not answer as the trained network.
        PublishError: `version` is there already, or `models` cannot be written.
    """
    progress = progress or Progress()
    clock = Clock()
    if version:
        refuse_taken(models, recipe.name, version)
    listing = list_pictures(data_folder, test_fraction=recipe.data.test_fraction, seed=recipe.fitting.seed)
    for warning in listing.warnings:
        progress.note(warning)
    scenery = Scenery.of(backgrounds)
    # Opened now: what cannot be written must not be found out after hours of training.
    with staging_folder(models, recipe.name) as staged:
        with devices(recipe.fitting.seed, precision):
            network = build_network(recipe, len(listing.labels), weights)
            with clock("reading"):
                progress.reading(len(listing.training) + len(listing.test))
                data = load(listing, recipe.input, progress.read_one)
                progress.loaded(data)
            run = Run(runs, recipe, data, scenery, weights=weights, precision=precision, resume=resume)
            with clock("composing"):
                training, held_out = run.examples(progress)
            with clock("fitting"):
                history = run.train(network, training, held_out, progress)
        network = _in_float32(network, recipe)
        with clock("measuring"):
            progress.stage("measuring", len(held_out.classes))
            export.save(network, staged)
            said = answer(load_graph(staged).serve, held_out.images, progress.advance)
            judgement = Judgement.of(data, held_out, said)
        with clock("exporting"):
            progress.stage("exporting")
            export.save(network, staged, judgement.temperature)
            progress.stage("verifying the export")
            samples = np.concatenate([data.test.images[:3], data.training.images[:3]])
            export.verify(network, staged, samples, judgement.temperature)
        with clock("maximising"):
            looked_for = _look(staged, network, data.labels, recipe.fitting.seed, progress) if filters else []
        progress.stage("writing the report")
        graph = load_graph(staged)
        with numbered(models, recipe.name, version) as number:
            report = staged / "report"
            metrics = judgement.report(
                report,
                f"{recipe.name}/{number}",
                recipe,
                graph.gradcam,
                history,
                clock.seconds,
                filters=looked_for,
                with_pictures=report_pictures,
            ).metrics
            run.board.figure("confusion matrix", report / CONFUSION, step=len(history))
            manifest = _manifest(network, graph, staged, recipe, data, judgement, metrics, number)
            folder = publish(staged, manifest, models)
    run.finish()
    return Published(folder, manifest, metrics, clock.seconds)


def _in_float32(network: Network, recipe: Recipe) -> Network:
    """The same weights in layers that compute in float32, as every engine does."""
    if network.model.dtype_policy.compute_dtype == network.model.layers[-1].compute_dtype == "float32":
        return network
    blank = recipe.model_copy(
        update={"backbone": recipe.backbone and recipe.backbone.model_copy(update={"weights": "random"})}
    )
    whole = build_network(blank, network.classes)
    whole.model.set_weights(network.model.get_weights())
    for trained, layer in zip(network.model.layers, whole.model.layers, strict=True):
        if isinstance(layer, keras.layers.Normalization):
            # It goes on with what it computed from the weights it was built with, unless they are loaded.
            weights: dict[str, object] = {}
            trained.save_own_variables(weights)
            layer.load_own_variables(weights)
    return whole


def _look(folder: Path, network: Network, labels: list[str], seed: int, progress: Progress) -> list[Maximised]:
    chosen = glance(export.visible_layers(network), labels)
    progress.stage("maximising channels", len(chosen) * GLANCE_STEPS)
    return maximise(folder, chosen, steps=GLANCE_STEPS, seed=seed, done=lambda: progress.advance(1))


def _manifest(
    network: Network,
    graph: Graph,
    folder: Path,
    recipe: Recipe,
    data: DataSet,
    judgement: Judgement,
    metrics: Metrics,
    version: int,
) -> Manifest:
    probe = graph.serve(probe_images(recipe.input.height, recipe.input.width))
    return Manifest(
        name=recipe.name,
        version=version,
        created=datetime.now(timezone.utc).replace(microsecond=0),
        description=recipe.card.description,
        licence=recipe.card.licence,
        attribution=recipe.card.attribution,
        limitations=recipe.card.limitations,
        labels=data.labels,
        input=recipe.input,
        layers=export.visible_layers(network),
        gradcam_layer=network.gradcam_layer,
        recognition_threshold=judgement.threshold,
        temperature=judgement.temperature,
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
        probe=Probe(probabilities=probe["probabilities"].tolist()),
        files=hash_files(folder),
    )
