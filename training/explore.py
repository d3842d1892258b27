"""A folder of pictures in, what a person should know of it before training out."""

from __future__ import annotations

import hashlib
import io
import os
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel

from service.decode import FORMATS, decode, fit
from service.errors import ImageError
from service.manifest import Input
from training.data import (
    MAX_PIXELS,
    MAX_UNREADABLE,
    SUFFIXES,
    TEST_NAMES,
    TRAINING_NAMES,
    Picture,
    list_pictures,
    pictures_in,
    subfolders,
)
from training.errors import DataError
from training.likeness import Fingerprints, fingerprint, gather, most_alike

TRAINING, TEST, ALL = "training", "test", "all"
MEAN = Input(height=64, width=64, resize="squash")
SAMPLES = 6
BINS = 20
# Largest class by smallest: the imbalance ratio of M. Buda, A. Maki, M. Mazurowski, "A systematic study of the class
# imbalance problem in convolutional neural networks", Neural Networks 106, 2018.
MAX_IMBALANCE = 3.0
# Pictures that are read at once, and whose thumbnails are held.
CHUNK = 256
# Names and pairs that are listed; all are counted.
LISTED = 100


class Spread(BaseModel):
    """How a number is distributed over the pictures."""

    least: float
    median: float
    greatest: float
    edges: list[float]
    counts: list[int]


class ClassFacts(BaseModel):
    """What was found of one class."""

    label: str
    pictures: dict[str, int]
    """By split."""
    unreadable: int
    films: int
    """How many films the pictures' names tell of."""
    alike: int
    """Pictures that have a near-duplicate, as `NearDuplicates` counts them."""
    samples: list[str]


class Films(BaseModel):
    """Pictures that are frames of films, by their names."""

    films: int
    frames: int
    test_frames: int
    test_frames_of_training_films: int
    test_frames_beside_training_frames: int
    """The frame before or after is a training picture."""


class ExactDuplicates(BaseModel):
    """Groups of files with the same bytes."""

    groups: int
    files: int
    """Files in those groups that could go: all but one of each."""
    across_splits: int
    across_classes: int
    listed: list[list[str]]


class Pair(BaseModel):
    """Two pictures that are nearly the same."""

    first: str
    second: str
    bits: int
    """Differing bits of 64, of the difference hashes."""
    colours: float
    """Root mean square difference of the colours at 9 x 8 pixels, in levels of 255."""


class NearDuplicates(BaseModel):
    """Pictures nearly the same as one on the other side: a test picture as a training picture, or across classes."""

    compared: str
    pictures: int
    alike: int
    of_another_class: int
    listed: list[Pair]


class Exploration(BaseModel):
    """What was found; names are relative to the folder."""

    folder: str
    splits: list[str]
    pictures: int
    seed: int
    classes: list[ClassFacts]
    empty_classes: list[str]
    widths: Spread | None
    heights: Spread | None
    aspects: Spread | None
    """Width by height."""
    file_bytes: Spread | None
    sizes: dict[str, int]
    """The most frequent sizes, upright."""
    formats: dict[str, int]
    modes: dict[str, int]
    """As stored, by Pillow's names."""
    unreadable: dict[str, str]
    """Reason by name."""
    ignored: dict[str, int]
    """How many other files, by why they are none of the pictures."""
    ignored_listed: list[str]
    imbalance: float | None
    """Largest class by smallest, of the first split."""
    films: Films | None
    exact_duplicates: ExactDuplicates
    near_duplicates: NearDuplicates | None
    refusals: list[str]
    """Why `fit` would not train on the folder as it is."""
    warnings: list[str]


@dataclass(frozen=True)
class Explored:
    """The findings, and the pictures that go with them."""

    facts: Exploration
    means: dict[str, NDArray[np.uint8]]
    """[64, 64, 3], RGB, the mean picture of each class that has a readable one."""


class _Found(NamedTuple):
    picture: Picture
    split: str
    name: str


@dataclass(frozen=True, slots=True)
class _Seen:
    found: _Found
    file_bytes: int
    sha256: str
    width: int
    height: int
    format: str
    mode: str
    print: Fingerprints


class _Read(NamedTuple):
    seen: _Seen | None
    thumbnail: NDArray[np.uint8] | None
    problem: str


def explore(
    folder: Path,
    *,
    seed: int = 0,
    on_listed: Callable[[int], None] = lambda count: None,
    on_picture: Callable[[], None] = lambda: None,
) -> Explored:
    """Look at every picture once; any folder will do, also one that `fit` refuses.

    `on_listed` is called with how many pictures there are, `on_picture` after each. `seed` chooses the samples. Of a
    picture its fingerprint is kept, never its pixels.

    Raises:
        DataError: there is no such folder, or it cannot be listed.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: expected a folder of pictures, found {'a file' if folder.exists() else 'none'}")
    try:
        splits, listing, empty = _listing(folder)
        ignored = _ignored(folder, {found.picture.path for found in listing})
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be listed: {error.strerror}") from error
    on_listed(len(listing))

    seen: list[_Seen] = []
    unreadable: dict[str, str] = {}
    sums: dict[str, NDArray[np.uint32]] = defaultdict(lambda: np.zeros((MEAN.height, MEAN.width, 3), np.uint32))
    for found, read in _read_all(listing):
        if read.seen is None or read.thumbnail is None:
            unreadable[found.name] = read.problem
        else:
            seen.append(read.seen)
            sums[found.picture.label] += read.thumbnail
        on_picture()

    readable = Counter(one.found.picture.label for one in seen)
    near, alike = _near_duplicates(seen, splits)
    facts = Exploration(
        folder=_shown(folder.resolve().name),
        splits=splits,
        pictures=len(listing),
        seed=seed,
        classes=_classes(listing, seen, splits, unreadable, alike, seed),
        empty_classes=empty,
        widths=_spread([one.width for one in seen]),
        heights=_spread([one.height for one in seen]),
        aspects=_spread([round(one.width / one.height, 3) for one in seen]),
        file_bytes=_spread([one.file_bytes for one in seen]),
        sizes=dict(Counter(f"{one.width} x {one.height}" for one in seen).most_common(5)),
        formats=dict(Counter(one.format for one in seen).most_common()),
        modes=dict(Counter(one.mode for one in seen).most_common()),
        unreadable=unreadable,
        ignored=dict(Counter(reason for _, reason in ignored).most_common()),
        ignored_listed=[name for name, _ in ignored[:LISTED]],
        imbalance=_imbalance(listing, splits),
        films=_films(listing),
        exact_duplicates=_exact_duplicates(seen),
        near_duplicates=near,
        refusals=_refusals(folder, listing, seen, splits, unreadable),
        warnings=[],
    )
    means = {label: np.rint(total / readable[label]).astype(np.uint8) for label, total in sums.items()}
    return Explored(facts.model_copy(update={"warnings": list(_warnings(facts))}), means)


def _listing(folder: Path) -> tuple[list[str], list[_Found], list[str]]:
    """The splits that are there, the pictures in each, and the class folders without any."""
    children = {child.name.lower(): child for child in subfolders(folder)}
    parts: dict[str, Path] = {}
    for split, names in ((TRAINING, TRAINING_NAMES), (TEST, TEST_NAMES)):
        for name in names:
            if name in children:
                parts.setdefault(split, children[name])
    parts = parts or {ALL: folder}
    listing = [
        _Found(picture, split, _shown(picture.path.relative_to(folder).as_posix()))
        for split, part in parts.items()
        for picture in pictures_in(part)
    ]
    labels = {child.name for part in parts.values() for child in subfolders(part)}
    empty = labels - {found.picture.label for found in listing}
    return list(parts), listing, [_shown(label) for label in sorted(empty)]


def _ignored(folder: Path, pictures: set[Path]) -> list[tuple[str, str]]:
    """Name and reason of each file that is none of the pictures."""
    ignored = []
    for place, _, names in os.walk(folder):
        for path in (Path(place, name) for name in names):
            if path in pictures:
                continue
            relative = path.relative_to(folder)
            if any(part.startswith(".") for part in relative.parts):
                reason = "hidden"
            elif path.suffix.lower() in SUFFIXES:
                reason = "a picture outside the class folders"
            else:
                reason = path.suffix.lower() or "no suffix"
            ignored.append((_shown(relative.as_posix()), _shown(reason)))
    return sorted(ignored)


def _read_all(listing: Sequence[_Found]) -> Iterator[tuple[_Found, _Read]]:
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for start in range(0, len(listing), CHUNK):
            chunk = listing[start : start + CHUNK]
            yield from zip(chunk, threads.map(_read, chunk), strict=True)


def _read(found: _Found) -> _Read:
    try:
        data = found.picture.path.read_bytes()
        image = decode(data, max_pixels=MAX_PIXELS)
    except OSError as error:
        return _Read(None, None, error.strerror or "cannot be opened")
    except ImageError as error:
        return _Read(None, None, str(error))
    with Image.open(io.BytesIO(data), formats=FORMATS) as stored:
        kind, mode = stored.format or "", stored.mode
    sha256 = hashlib.sha256(data).hexdigest()
    seen = _Seen(found, len(data), sha256, image.width, image.height, kind, mode, fingerprint(image))
    return _Read(seen, fit(image, MEAN), "")


def _classes(
    listing: Sequence[_Found],
    seen: Sequence[_Seen],
    splits: Sequence[str],
    unreadable: dict[str, str],
    alike: Counter[str],
    seed: int,
) -> list[ClassFacts]:
    by_label: dict[str, list[_Found]] = defaultdict(list)
    for found in listing:
        by_label[found.picture.label].append(found)
    readable: dict[str, list[str]] = defaultdict(list)
    for one in seen:
        readable[one.found.picture.label].append(one.found.name)
    chance = random.Random(seed)
    facts = []
    for label, members in sorted(by_label.items()):
        counts = Counter(found.split for found in members)
        names = readable[label]
        facts.append(
            ClassFacts(
                label=_shown(label),
                pictures={split: counts[split] for split in splits},
                unreadable=sum(found.name in unreadable for found in members),
                films=len({found.picture.film for found in members if _is_frame(found.picture)}),
                alike=alike[label],
                samples=sorted(chance.sample(names, min(SAMPLES, len(names)))),
            )
        )
    return facts


def _spread(values: Sequence[float]) -> Spread | None:
    if not values:
        return None
    counts, edges = np.histogram(values, bins=BINS)
    return Spread(
        least=min(values),
        median=float(np.median(values)),
        greatest=max(values),
        edges=edges.tolist(),
        counts=counts.tolist(),
    )


def _imbalance(listing: Sequence[_Found], splits: Sequence[str]) -> float | None:
    counts = Counter(found.picture.label for found in listing if found.split == splits[0])
    return max(counts.values()) / min(counts.values()) if counts else None


def _is_frame(picture: Picture) -> bool:
    return picture.film != picture.path.name


def _films(listing: Sequence[_Found]) -> Films | None:
    frames = [found for found in listing if _is_frame(found.picture)]
    if not frames:
        return None
    training: dict[tuple[str, str], set[int]] = defaultdict(set)
    for found in frames:
        if found.split != TEST:
            training[found.picture.label, found.picture.film].add(found.picture.frame)
    test = [found.picture for found in frames if found.split == TEST]
    beside = [{picture.frame - 1, picture.frame + 1} & training[picture.label, picture.film] for picture in test]
    return Films(
        films=len({(found.picture.label, found.picture.film) for found in frames}),
        frames=len(frames),
        test_frames=len(test),
        test_frames_of_training_films=sum(bool(training[picture.label, picture.film]) for picture in test),
        test_frames_beside_training_frames=sum(map(bool, beside)),
    )


def _exact_duplicates(seen: Sequence[_Seen]) -> ExactDuplicates:
    by_bytes: dict[str, list[_Found]] = defaultdict(list)
    for one in seen:
        by_bytes[one.sha256].append(one.found)
    groups = [group for group in by_bytes.values() if len(group) > 1]
    return ExactDuplicates(
        groups=len(groups),
        files=sum(len(group) - 1 for group in groups),
        across_splits=sum(len({found.split for found in group}) > 1 for group in groups),
        across_classes=sum(len({found.picture.label for found in group}) > 1 for group in groups),
        listed=[[found.name for found in group] for group in groups[:LISTED]],
    )


def _near_duplicates(seen: Sequence[_Seen], splits: Sequence[str]) -> tuple[NearDuplicates | None, Counter[str]]:
    """Near-duplicates across splits, or across classes where there is one split; and how many by class."""
    by_class: dict[str, list[_Seen]] = defaultdict(list)
    for one in seen:
        by_class[one.found.picture.label].append(one)
    if len(splits) > 1:
        compared = "test pictures with training pictures"
        test, training = ([one for one in seen if one.found.split == split] for split in (TEST, TRAINING))
        comparisons = [(test, training)]
    else:
        compared = "pictures of each class with those of the others"
        comparisons = [
            (members, [one for other, others in by_class.items() if other != label for one in others])
            for label, members in by_class.items()
        ]
    comparisons = [(pictures, others) for pictures, others in comparisons if pictures and others]
    if not comparisons:
        return None, Counter()
    # Those that deny each other's label first, then the most alike.
    pairs: dict[frozenset[str], tuple[bool, float, str, Pair]] = {}
    alike: Counter[str] = Counter()
    of_another_class = 0
    for pictures, others in comparisons:
        found = most_alike(gather([one.print for one in pictures]), gather([one.print for one in others]))
        for row in np.flatnonzero(found.nearest >= 0):
            first, second = pictures[row].found, others[found.nearest[row]].found
            same_class = first.picture.label == second.picture.label
            alike[first.picture.label] += 1
            of_another_class += not same_class
            colours = round(float(found.colours[row]), 3)
            pair = Pair(first=first.name, second=second.name, bits=int(found.bits[row]), colours=colours)
            pairs[frozenset((first.name, second.name))] = (same_class, colours, first.name, pair)
    near = NearDuplicates(
        compared=compared,
        pictures=sum(len(pictures) for pictures, _ in comparisons),
        alike=alike.total(),
        of_another_class=of_another_class,
        listed=[pair for *_, pair in sorted(pairs.values(), key=lambda entry: entry[:3])][:LISTED],
    )
    return near, alike


def _refusals(
    folder: Path,
    listing: Sequence[_Found],
    seen: Sequence[_Seen],
    splits: Sequence[str],
    unreadable: dict[str, str],
) -> list[str]:
    refusals = []
    try:
        list_pictures(folder, test_fraction=0.2, seed=0)
    except DataError as error:
        refusals.append(str(error).removeprefix(f"{folder}: ").removeprefix(f"{str(folder)!a}: "))
    if len(unreadable) > MAX_UNREADABLE * len(listing):
        refusals.append(
            f"{len(unreadable)} of {len(listing)} pictures cannot be read, expected at most {MAX_UNREADABLE:.0%}"
        )
    readable = {(one.found.split, one.found.picture.label) for one in seen}
    for split, label in sorted({(found.split, found.picture.label) for found in listing} - readable):
        refusals.append(f"no readable {'' if split == ALL else split + ' '}picture of {_shown(label)}")
    return refusals


def _warnings(facts: Exploration) -> Iterator[str]:
    if facts.empty_classes:
        yield f"class folders without pictures: {', '.join(facts.empty_classes)}"
    if facts.unreadable:
        yield f"{len(facts.unreadable)} pictures cannot be read"
    if facts.imbalance and facts.imbalance >= MAX_IMBALANCE:
        yield (
            f"the largest class has {facts.imbalance:.1f} times the pictures of the smallest: look at each class's "
            "figures, not at the accuracy"
        )
    exact, near, films = facts.exact_duplicates, facts.near_duplicates, facts.films
    if exact.across_splits:
        yield f"{exact.across_splits} pictures are in training and test: the test measures memory"
    if exact.across_classes:
        yield f"{exact.across_classes} pictures are in several classes: one of the labels is wrong"
    if exact.files:
        yield f"{exact.files} files are copies of others, byte for byte"
    if near and near.alike and TEST in facts.splits:
        yield (
            f"{near.alike} of {near.pictures} test pictures ({near.alike / near.pictures:.0%}) are nearly the same as "
            "a training picture: the test accuracy will say little about other photographs"
        )
    if near and near.of_another_class:
        yield f"{near.of_another_class} pictures are nearly the same as one of another class: look at their labels"
    if films and films.test_frames_of_training_films:
        yield (
            f"{films.test_frames_of_training_films} of {films.test_frames} test frames are of films that training "
            f"sees too, {films.test_frames_beside_training_frames} right beside a training frame: the test accuracy "
            "will say little about other photographs"
        )


def _shown(name: str) -> str:
    """A name that can be written as UTF-8, whatever bytes it is made of."""
    return name.encode("utf-8", "backslashreplace").decode()
