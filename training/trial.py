"""A published version and a folder of pictures in, findings out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.bars import Bars
from training.clock import Clock
from training.data import Gathered, Picture, gather, list_classes, list_strangers
from training.evaluate import answer
from training.report import Findings
from training.versions import Version


def evaluate(version: Version, data: Path, bars: Bars, negatives: Path | None = None) -> Findings:
    """What `version` says of the pictures in `data`, and of those of no class in `negatives`.

    Raises:
        DataError: a folder is not what `training.data` expects of it.
    """
    listed = list_classes(data, version.manifest.labels)
    others = [] if negatives is None else list_strangers(negatives)
    clock = Clock()
    with clock("reading pictures"):
        pictures = read(version, data, listed, bars)
        strangers = None if negatives is None else read(version, negatives, others, bars)
    with clock("asking the version"):
        bars.begin(f"asking {version.name}", len(pictures.names))
        said = answer(version.serve, pictures.images, bars.advance)
        recognition_of_strangers = None if strangers is None else answer(version.serve, strangers.images).recognition
    return Findings(
        title=version.name,
        labels=version.manifest.labels,
        classes=right_classes(pictures, version.manifest.labels),
        logits=said.logits,
        probabilities=said.probabilities,
        recognition=said.recognition,
        images=pictures.images,
        names=pictures.names,
        gradcam=version.gradcam,
        strangers=recognition_of_strangers,
        threshold=version.manifest.recognition_threshold,
        temperature=version.manifest.temperature,
        timings=clock.seconds,
        data={
            "pictures": len(pictures.names),
            "skipped, unreadable": len(pictures.unreadable),
            "digest": pictures.digest,
            "split": _origin(pictures),
            **({} if strangers is None else {"pictures of no class": len(strangers.names)}),
        },
        recipe=version.manifest.recipe,
        limitations=version.manifest.limitations,
    )


def read(version: Version, folder: Path, listed: list[Picture], bars: Bars) -> Gathered:
    """Decode pictures to a version's input size."""
    bars.begin("reading pictures", len(listed))
    pictures = gather(folder, listed, version.manifest.input, bars.advance)
    bars.tell_skipped(pictures.unreadable)
    return pictures


def right_classes(pictures: Gathered, labels: list[str]) -> NDArray[np.int32]:
    """[N], indices into `labels`, of pictures that lie in class folders."""
    return pictures.classes({label: number for number, label in enumerate(labels)})


def _origin(pictures: Gathered) -> str:
    *above, _, _ = Path(pictures.names[0]).parts
    return f"the folder {above[0]}" if above else "all class folders"
