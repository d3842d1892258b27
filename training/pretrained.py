"""An ImageNet classifier of Keras' in, a published version like any other out: nothing is trained."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from pydantic import TypeAdapter, ValidationError

from service import __version__
from service.manifest import NAME_PATTERN, Input, Manifest, Metrics, Probe, hash_files, probe_images, sha256
from service.problems import first_problem
from training import export
from training.bars import Bars
from training.data import Picture, gather, list_classes
from training.errors import PublishError, WeightsError
from training.evaluate import Serve, answer, measure
from training.judge import UNRECOGNISED_SHARE
from training.networks.applications import (
    IMAGENET_CLASSES,
    Application,
    Weights,
    build_classifier,
    download,
    find,
)
from training.publish import numbered, publish, refuse_taken, staging_folder
from training.recipe import Card
from training.versions import load_graph

CLASS_INDEX = "imagenet_class_index.json"


class Publication(NamedTuple):
    """What was published, and where."""

    folder: Path
    manifest: Manifest


class Class(NamedTuple):
    """One of ImageNet's classes."""

    wordnet_id: str
    """Such as n02012849."""
    name: str
    """Such as crane, of which there are two."""


def publish_pretrained(
    architecture: str,
    models: Path,
    bars: Bars,
    *,
    weights: Weights = "imagenet",
    labels: Path | None = None,
    name: str | None = None,
    version: int | None = None,
    data: Path | None = None,
) -> Publication:
    """Export one of Keras' applications with its 1000 classes and publish it under `models`.

    `labels` is Keras' class index as JSON; unset, the one beside a file of weights, else Keras' download. `data` is a
    folder of class folders, named by label or index, to measure the export on.

    Raises:
        RecipeError: there is no such application.
        WeightsError: weights or labels cannot be downloaded, read, or do not fit.
        DataError: `data` is no folder of pictures of the classes.
        ExportError: the export does not answer as Keras.
        PublishError: the name is none, the version is there already, or `models` cannot be written.
    """
    application = find(architecture)
    name = architecture if name is None else name
    if not re.fullmatch(NAME_PATTERN, name):
        raise PublishError(f"name: expected {NAME_PATTERN}, found {name!r}")
    if version:
        refuse_taken(models, name, version)
    classes = _labels(labels, weights)
    target = Input(height=application.side, width=application.side, resize="crop", crop_share=application.crop_share)
    trial = _trial(data, classes) if data else None
    bars.begin("building the network", None)
    network = build_classifier(architecture, weights)
    with staging_folder(models, name) as staged:
        bars.begin("exporting", None)
        export.save(network, staged)
        bars.begin("verifying the export", None)
        probes = probe_images(target.height, target.width)
        export.verify(network, staged, np.concatenate([probes, probes[:, ::-1]]))
        serve = load_graph(staged).serve
        metrics, threshold = _measure(serve, trial, target, classes, bars) if trial else (None, None)
        card = _card(architecture, application, weights)
        with numbered(models, name, version) as number:
            manifest = Manifest(
                name=name,
                version=number,
                created=datetime.now(timezone.utc).replace(microsecond=0),
                description=card.description,
                licence=card.licence,
                attribution=card.attribution,
                limitations=card.limitations,
                labels=classes,
                input=target,
                layers=export.visible_layers(network),
                gradcam_layer=network.gradcam_layer,
                recognition_threshold=threshold,
                parameters=network.model.count_params(),
                recipe={"pretrained": architecture, "weights": _described(weights)},
                software={"sichtbar": __version__, "tensorflow": tf.__version__, "keras": keras.__version__},
                metrics=metrics,
                probe=Probe(probabilities=serve(probes)["probabilities"].tolist()),
                files=hash_files(staged),
            )
            return Publication(publish(staged, manifest, models), manifest)


def label_classes(classes: Sequence[Class]) -> list[str]:
    """A label for each class: its name in words, with its WordNet id where two have the same."""
    names = Counter(entry.name for entry in classes)
    return [
        entry.name.replace("_", " ") + (f" ({entry.wordnet_id})" if names[entry.name] > 1 else "") for entry in classes
    ]


def read_class_index(path: Path) -> list[Class]:
    """ImageNet's classes, in the order of the outputs, from Keras' JSON: `{"0": ["n01440764", "tench"], ...}`.

    Raises:
        WeightsError: the file is no such index of 1000 classes.
    """
    try:
        index = TypeAdapter(dict[int, Class]).validate_json(path.read_bytes())
    except OSError as error:
        raise WeightsError(f"{path}: expected a class index as JSON: {error.strerror}") from None
    except ValidationError as invalid:
        raise WeightsError(
            f"{path}: expected a class index as JSON, found at {first_problem(invalid, 'its start')}"
        ) from None
    if sorted(index) != list(range(IMAGENET_CLASSES)):
        raise WeightsError(f"{path}: expected the classes 0 to {IMAGENET_CLASSES - 1}, found {len(index)} classes")
    return [index[number] for number in range(IMAGENET_CLASSES)]


def _labels(path: Path | None, weights: Weights) -> list[str]:
    if path is None and isinstance(weights, Path) and weights.with_name(CLASS_INDEX).is_file():
        path = weights.with_name(CLASS_INDEX)
    if path is None and weights == "random":
        # They mean nothing, and need no download.
        return [f"class {number}" for number in range(IMAGENET_CLASSES)]
    return label_classes(read_class_index(path) if path else _download_class_index())


def _download_class_index() -> list[Class]:
    """By asking Keras for the name of each class's most certain answer: it has no other call for its index."""
    with download(
        "ImageNet's class index", "--labels PATH takes a file instead, as --weights PATH does for the weights"
    ):
        named = keras.applications.imagenet_utils.decode_predictions(np.eye(IMAGENET_CLASSES), top=1)
    return [Class(wordnet_id, name) for ((wordnet_id, name, _),) in named]


def _card(name: str, application: Application, weights: Weights) -> Card:
    if weights == "random":
        return Card(
            description=f"{name} with random weights: it knows nothing.",
            licence="Apache-2.0",
            attribution=f"Architecture: {application.paper}.",
            limitations="Every answer is meaningless.",
        )
    return Card(
        description=f"{name} as trained on ImageNet, for its {IMAGENET_CLASSES} classes.",
        licence=application.licence,
        attribution=f"{application.paper}. Weights as Keras distributes them, trained on ImageNet: Olga Russakovsky "
        'et al., "ImageNet large scale visual recognition challenge", 2015.',
        limitations="Answers with some of its 1000 classes whatever the picture shows; people are none of them.",
    )


def _described(weights: Weights) -> str:
    return f"sha256:{sha256(weights)}" if isinstance(weights, Path) else weights


@dataclass(frozen=True)
class _Trial:
    """Pictures to measure on."""

    folder: Path
    pictures: list[Picture]
    index: dict[str, int]
    """By the name of a class folder: a label, or a class's number."""


def _trial(folder: Path, labels: Sequence[str]) -> _Trial:
    index = {str(number): number for number in range(len(labels))} | {label: n for n, label in enumerate(labels)}
    return _Trial(folder, list_classes(folder, list(index)), index)


def _measure(serve: Serve, trial: _Trial, target: Input, labels: Sequence[str], bars: Bars) -> tuple[Metrics, float]:
    """Figures of the pictures, and the recognition that all but a few of them reach."""
    bars.begin("reading pictures", len(trial.pictures))
    pictures = gather(trial.folder, trial.pictures, target, bars.advance)
    bars.tell_skipped(pictures.unreadable)
    classes = pictures.classes(trial.index)
    bars.begin("measuring the export", len(classes))
    said = answer(serve, pictures.images, bars.advance)
    threshold = float(np.quantile(said.recognition, UNRECOGNISED_SHARE))
    return measure(said.probabilities, classes, labels), threshold
