"""Two versions and the same pictures in, which is better, by how much and how surely out."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from math import sqrt
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy.stats import binomtest, chi2, norm

from training import figures
from training.bars import Bars
from training.data import list_classes
from training.errors import DataError
from training.evaluate import Serve, answer
from training.pages import make_folder, write_figure, write_page
from training.thumbnails import write_thumbnail
from training.trial import read, right_classes
from training.versions import Version

DOCUMENT, PAGE = "comparison.json", "index.html"
CONFIDENCE = 0.95
# With fewer discordant pictures the chi-square distribution is too coarse.
EXACT_BELOW = 25
SHOWN_EACH = 12
SHOWN_CHANGES = 30
TIMED_BATCHES = (1, 32)
# Rounds of a batch size: as many as the first, but no more once it took the second, in seconds; the last at least.
MOST_ROUNDS, ROUNDS_SECONDS, FEWEST_ROUNDS = 30, 15.0, 3


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Side(_Part):
    """One of the two versions."""

    name: str = Field(description="Such as fruit_cnn/1, or old/fruit_cnn/1 where both are version 1.")
    accuracy: float = Field(ge=0, le=1)
    right: int = Field(ge=0)
    parameters: int
    bytes: int = Field(description="Of all its files.")
    milliseconds: dict[int, float] = Field(description="Median by batch size, for one picture, with TensorFlow here.")


class Difference(_Part):
    """The second's accuracy less the first's, with what chance leaves open."""

    value: float = Field(ge=-1, le=1)
    low: float = Field(ge=-1, le=1)
    high: float = Field(ge=-1, le=1)


class McNemar(_Part):
    """Could as many pictures that only one gets right be chance? (McNemar, 1947)."""

    only_first: int
    only_second: int
    test: Literal["exact binomial", "chi-square with continuity correction"]
    p_value: float = Field(ge=0, le=1, description="How often two equally good versions would differ as much.")


class ClassChange(_Part):
    """The recall of one class by either version."""

    label: str
    pictures: int = Field(ge=1)
    first: float
    second: float


class Disagreement(_Part):
    """A picture that only one version gets right."""

    name: str
    label: str
    mistaken_for: str
    probability: float = Field(description="Of the right class, by the version that is right.")
    picture: str = Field(description="PNG beside the page.")


class Comparison(_Part):
    """All that the page shows."""

    first: Side
    second: Side
    pictures: int
    digest: str
    labels: list[str] = Field(description="The classes that both know; only their pictures were shown.")
    left_out: list[str] = Field(description="Classes that only one knows.")
    difference: Difference
    mcnemar: McNemar
    classes: list[ClassChange]
    only_first: list[Disagreement]
    only_second: list[Disagreement]


@dataclass(frozen=True)
class _Trial:
    """What one version said of the N pictures."""

    version: Version
    images: NDArray[np.uint8]
    names: list[str]
    digest: str
    probabilities: NDArray[np.float32]
    classes: NDArray[np.int32]
    """[N], the right ones, by this version's labels."""

    @property
    def right(self) -> NDArray[np.bool_]:
        return np.asarray(self.probabilities.argmax(axis=1) == self.classes)


def compare(first: Version, second: Version, data: Path, folder: Path, bars: Bars) -> Comparison:
    """Show both versions the same pictures and write a page and `comparison.json` into `folder`.

    A version may know classes that the other does not: only pictures of the shared ones are shown, but each version
    answers with all that it knows, as it does when it is served.

    Raises:
        DataError: `data` has no picture of a shared class, or is not what `training.data` expects of it.
        TrainingError: `folder` cannot be written.
    """
    make_folder(folder)
    names = _names(first, second)
    shared = [label for label in first.manifest.labels if label in second.manifest.labels]
    trials = [_try(version, data, shared, other, bars) for version, other in ((first, second), (second, first))]
    speeds = _time([(trial.version.serve, trial.images) for trial in trials], bars)
    bars.begin("writing the page", None)
    comparison = _compared(trials[0], trials[1], names, speeds, shared)
    _write(folder, comparison, trials)
    return comparison


def mcnemar(only_first: int, only_second: int) -> McNemar:
    """Test whether two versions that disagree on so many pictures are equally good.

    McNemar, "Note on the sampling error of the difference between correlated proportions or percentages", 1947; the
    continuity correction is Edwards', 1948. Exact where fewer than 25 pictures are right by one alone.
    """
    discordant = only_first + only_second
    if discordant < EXACT_BELOW:
        p_value = binomtest(only_first, discordant).pvalue if discordant else 1.0
        return McNemar(only_first=only_first, only_second=only_second, test="exact binomial", p_value=p_value)
    statistic = max(abs(only_first - only_second) - 1, 0) ** 2 / discordant
    return McNemar(
        only_first=only_first,
        only_second=only_second,
        test="chi-square with continuity correction",
        p_value=float(chi2.sf(statistic, df=1)),
    )


def paired_difference(only_first: int, only_second: int, pictures: int) -> Difference:
    """The difference of two accuracies on the same pictures, with its 95 % interval.

    The interval adds half a picture to each of the four outcomes, which keeps its promise with few pictures too:
    Agresti and Min, "Simple improved confidence intervals for comparing matched proportions", 2005.
    """
    difference, more = only_second - only_first, pictures + 2
    centre = difference / more
    error = sqrt(only_first + only_second + 1 - difference**2 / more) / more
    reach = float(norm.ppf((1 + CONFIDENCE) / 2)) * error
    return Difference(value=difference / pictures, low=max(centre - reach, -1), high=min(centre + reach, 1))


def _try(version: Version, data: Path, shared: Sequence[str], other: Version, bars: Bars) -> _Trial:
    known = [*version.manifest.labels, *other.manifest.labels]
    listed = [picture for picture in list_classes(data, list(dict.fromkeys(known))) if picture.label in shared]
    if not listed:
        raise DataError(
            f"{data}: expected pictures of a class that both {version.name} and {other.name} know, "
            f"found none of the {len(shared)} that they share"
        )
    pictures = read(version, data, listed, bars)
    bars.begin(f"asking {version.name}", len(pictures.names))
    said = answer(version.serve, pictures.images, bars.advance)
    return _Trial(
        version=version,
        images=pictures.images,
        names=pictures.names,
        digest=pictures.digest,
        probabilities=said.probabilities,
        classes=right_classes(pictures, version.manifest.labels),
    )


def _time(sides: Sequence[tuple[Serve, NDArray[np.uint8]]], bars: Bars) -> list[dict[int, float]]:
    """Median milliseconds for one picture by batch size, one dictionary a side.

    The sides take turns, so that whatever else the machine does slows both.
    """
    speeds: list[dict[int, float]] = [{} for _ in sides]
    for size in TIMED_BATCHES:
        batches = [np.resize(images, (size, *images.shape[1:])) for _, images in sides]
        for (serve, _), batch in zip(sides, batches, strict=True):
            serve(batch)
        bars.begin(f"timing batches of {size}", MOST_ROUNDS)
        seconds: list[list[float]] = [[] for _ in sides]
        while len(seconds[0]) < FEWEST_ROUNDS or (
            len(seconds[0]) < MOST_ROUNDS and sum(map(sum, seconds)) < ROUNDS_SECONDS
        ):
            for (serve, _), batch, taken in zip(sides, batches, seconds, strict=True):
                started = perf_counter()
                serve(batch)
                taken.append(perf_counter() - started)
            bars.advance()
        for speed, taken in zip(speeds, seconds, strict=True):
            speed[size] = median(taken) * 1000 / size
    return speeds


def _names(first: Version, second: Version) -> tuple[str, str]:
    """Their names; where these are the same, their folders, from where their paths part."""
    if first.name != second.name or first.folder == second.folder:
        return first.name, second.name
    above = os.path.commonpath([first.folder, second.folder])
    return first.folder.relative_to(above).as_posix(), second.folder.relative_to(above).as_posix()


def _compared(
    first: _Trial, second: _Trial, names: tuple[str, str], speeds: Sequence[dict[int, float]], shared: list[str]
) -> Comparison:
    only_first, only_second = first.right & ~second.right, second.right & ~first.right
    counts = int(only_first.sum()), int(only_second.sum())
    known = (first.version.manifest.labels, second.version.manifest.labels)
    labels = np.array([first.version.manifest.labels[number] for number in first.classes])
    return Comparison(
        first=_side(first, names[0], speeds[0]),
        second=_side(second, names[1], speeds[1]),
        pictures=len(first.names),
        digest=first.digest,
        labels=shared,
        left_out=[label for labels in known for label in labels if label not in shared],
        difference=paired_difference(*counts, len(first.names)),
        mcnemar=mcnemar(*counts),
        classes=[
            ClassChange(
                label=label,
                pictures=int(of_class.sum()),
                first=float(first.right[of_class].mean()),
                second=float(second.right[of_class].mean()),
            )
            for label in shared
            for of_class in [labels == label]
            if of_class.any()
        ],
        only_first=_disagreements("first", only_first, right=first, wrong=second),
        only_second=_disagreements("second", only_second, right=second, wrong=first),
    )


def _side(trial: _Trial, name: str, milliseconds: dict[int, float]) -> Side:
    files = (path for path in trial.version.folder.rglob("*") if path.is_file())
    return Side(
        name=name,
        accuracy=float(trial.right.mean()),
        right=int(trial.right.sum()),
        parameters=trial.version.manifest.parameters,
        bytes=sum(path.stat().st_size for path in files),
        milliseconds=milliseconds,
    )


def _disagreements(side: str, only: NDArray[np.bool_], right: _Trial, wrong: _Trial) -> list[Disagreement]:
    """The surest answer of each class, then the second of each, and so on."""
    by_class: dict[int, list[int]] = defaultdict(list)
    for i in sorted(np.flatnonzero(only).tolist(), key=lambda i: -right.probabilities[i, right.classes[i]]):
        by_class[int(right.classes[i])].append(i)
    varied = [i for places in zip_longest(*by_class.values()) for i in places if i is not None]
    return [
        Disagreement(
            name=right.names[i],
            label=right.version.manifest.labels[right.classes[i]],
            mistaken_for=wrong.version.manifest.labels[wrong.probabilities[i].argmax()],
            probability=float(right.probabilities[i, right.classes[i]]),
            picture=f"only-{side}-{place:02}.png",
        )
        for place, i in enumerate(varied[:SHOWN_EACH], start=1)
    ]


def _write(folder: Path, comparison: Comparison, trials: Sequence[_Trial]) -> None:
    # The one with more pixels shows a person more.
    shown = max(trials, key=lambda trial: trial.images[0].size)
    for one in comparison.only_first + comparison.only_second:
        write_thumbnail(folder / one.picture, shown.images[shown.names.index(one.name)])
    most = sorted(comparison.classes, key=lambda change: -abs(change.second - change.first))[:SHOWN_CHANGES]
    changed = [change for change in comparison.classes if change in most and change.first != change.second]
    if changed:
        figure = figures.class_changes(
            [change.label for change in changed],
            [change.first for change in changed],
            [change.second for change in changed],
            [comparison.first.name, comparison.second.name],
        )
        write_figure(folder / "classes.png", figure)
    (folder / DOCUMENT).write_text(comparison.model_dump_json(indent=2) + "\n", encoding="utf-8")
    write_page(
        folder / PAGE,
        "comparison.html",
        comparison=comparison,
        changed=bool(changed),
        small=max(shown.images.shape[1:3]) <= 64,
    )
