"""A folder of class folders in, two splits of decoded pictures out."""

from __future__ import annotations

import hashlib
import os
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.decode import decode, fit
from service.errors import ImageError
from service.manifest import Input
from training.errors import DataError

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"}
TRAINING_NAMES, TEST_NAMES = ("training", "train"), ("test",)
MAX_PIXELS = 170_000_000
MAX_UNREADABLE = 0.01

# Fruits-360: `r_109_100.jpg` is frame 109 of film `r`, at 100 x 100 pixels.
FRAME_PATTERN = re.compile(r"^(?:(?P<film>r\d*)_)?(?P<frame>\d+)_\d+$")


class Picture(NamedTuple):
    """One file, and where in a film it stands: neighbouring frames of one film are nearly the same picture."""

    path: Path
    label: str
    film: str
    frame: int


@dataclass(frozen=True)
class Listing:
    """Which pictures train and which test, before any is opened."""

    folder: Path
    labels: list[str]
    training: list[Picture]
    test: list[Picture]
    split: str
    """How test pictures were chosen, in words."""
    has_test_folder: bool
    """Whether they lie apart; if not, they were chosen here."""
    empty: list[str] = field(default_factory=list)
    """Folders, relative to the folder, that would be classes if they held a picture."""

    @property
    def warnings(self) -> list[str]:
        """What a person may not have meant."""
        return [f"{name} holds no picture: it is no class" for name in self.empty]


@dataclass(frozen=True)
class Split:
    """Decoded pictures of one split."""

    images: NDArray[np.uint8]
    """[N, H, W, 3], RGB, at the model's input size."""
    classes: NDArray[np.int32]
    """[N], indices into the labels."""
    pictures: list[Picture]
    """[N], where they come from."""

    def take(self, rows: NDArray[np.int64]) -> Split:
        """Some of them."""
        return Split(self.images[rows], self.classes[rows], [self.pictures[row] for row in rows])


@dataclass(frozen=True)
class DataSet:
    """Both splits, decoded, and what was found on the way."""

    labels: list[str]
    training: Split
    test: Split
    unreadable: dict[str, str]
    """Reason by path, relative to the folder."""
    digest: str
    split: str


def list_pictures(folder: Path, *, test_fraction: float, seed: int) -> Listing:
    """Find the pictures of a data set.

    `folder` holds `Training` and `Test` with a folder a class in each, or a folder a class itself; then `test_fraction`
    of each class is held out.

    Raises:
        DataError: there is no such folder, it has no pictures, one class only, or a class is missing in one split.
    """
    _expect_folder(folder, "class folders")
    children = {child.name.lower(): child for child in subfolders(folder)}
    training_folder = next((children[name] for name in TRAINING_NAMES if name in children), None)
    test_folder = next((children[name] for name in TEST_NAMES if name in children), None)
    if (training_folder is None) != (test_folder is None):
        found = training_folder or test_folder
        raise DataError(f"{folder}: expected folders Training and Test or neither, found only {found and found.name}")
    if training_folder and test_folder:
        training, test = list(pictures_in(training_folder)), list(pictures_in(test_folder))
        split = f"the folders {training_folder.name} and {test_folder.name}"
    else:
        training, test = hold_out(list(pictures_in(folder)), test_fraction, seed)
        split = f"{test_fraction:g} of each class held out, at most one film a class cut, at one place"
    for picture in training + test:
        _name(folder, picture.path)
    labels = sorted({picture.label for picture in training + test})
    if not labels:
        raise DataError(f"{folder}: expected pictures ({', '.join(sorted(SUFFIXES))}) in class folders, found none")
    if len(labels) == 1:
        raise DataError(f"{folder}: expected at least two class folders with pictures, found one: {labels[0]}")
    counts = Counter(picture.label for picture in training + test)
    for name, pictures in (("training", training), ("test", test)):
        missing = sorted(set(labels) - {picture.label for picture in pictures})
        if missing:
            lacking = ", ".join(f"{label} ({counts[label]} in all)" for label in missing)
            raise DataError(f"{folder}: no {name} pictures of {lacking}; each class needs training and test pictures")
    empty = [
        child.relative_to(folder).as_posix()
        for parent in ([training_folder, test_folder] if training_folder and test_folder else [folder])
        for child in subfolders(parent)
        if child.name not in labels
    ]
    return Listing(folder, labels, training, test, split, has_test_folder=test_folder is not None, empty=empty)


def hold_out(pictures: Sequence[Picture], fraction: float, seed: int) -> tuple[list[Picture], list[Picture]]:
    """Split each class into training and test pictures so that frames of one film stay together.

    Whole films are held out, in random order, while they fit into the fraction; then at most one film a class is cut,
    at one place, so that at most two neighbouring frames part. A picture that is no frame is a film of its own.
    """
    chance = random.Random(seed)
    training: list[Picture] = []
    test: list[Picture] = []
    for _, members in sorted(_grouped(pictures, lambda picture: picture.label).items()):
        # One at least on either side, where there are two.
        wanted = max(1, min(round(fraction * len(members)), len(members) - 1))
        films = sorted(_grouped(members, lambda picture: picture.film).items())
        chance.shuffle(films)
        cut: list[Picture] = []
        for _, frames in films:
            if len(frames) <= wanted:
                test += frames
                wanted -= len(frames)
            elif not cut:
                cut = sorted(frames, key=lambda picture: picture.frame)
            else:
                training += frames
        split_at = len(cut) - wanted
        training += cut[:split_at]
        test += cut[split_at:]
    return training, test


def load(listing: Listing, target: Input, on_picture: Callable[[], None] = lambda: None) -> DataSet:
    """Decode every picture as the service does, on all processors; `on_picture` is called after each.

    Raises:
        DataError: more than 1 % cannot be read, or none of a class and split can.
    """
    gathered = gather(listing.folder, listing.training + listing.test, target, on_picture)
    trained_on = set(listing.training)
    return DataSet(
        labels=listing.labels,
        training=_split(listing, "training", gathered, lambda picture: picture in trained_on),
        test=_split(listing, "test", gathered, lambda picture: picture not in trained_on),
        unreadable=gathered.unreadable,
        digest=gathered.digest,
        split=listing.split,
    )


class _Read(NamedTuple):
    digest: str
    pixels: NDArray[np.uint8] | None
    problem: str | None


def _read(path: Path, target: Input) -> _Read:
    try:
        data = path.read_bytes()
    except OSError as error:
        return _Read("", None, error.strerror or "cannot be opened")
    digest = hashlib.sha256(data).hexdigest()
    try:
        return _Read(digest, fit(decode(data, max_pixels=MAX_PIXELS, target=target), target), None)
    except ImageError as error:
        return _Read(digest, None, str(error))


def _split(listing: Listing, name: str, gathered: Gathered, belongs: Callable[[Picture], bool]) -> Split:
    split = gathered.split(listing.labels, np.flatnonzero([belongs(picture) for picture in gathered.pictures]))
    if missing := set(range(len(listing.labels))) - set(split.classes.tolist()):
        names = ", ".join(listing.labels[number] for number in sorted(missing))
        raise DataError(f"{listing.folder}: no readable {name} picture of {names}")
    return split


def digest_of_files(hashes: dict[str, str]) -> str:
    """Of a whole data set: sha256 of its files' paths and sha256s, in the paths' order."""
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(hashes.items()))
    return f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"


def pictures_in(folder: Path) -> Iterator[Picture]:
    """Every file in a class folder of `folder` that is a picture by its suffix."""
    for class_folder in subfolders(folder):
        for path in sorted(class_folder.iterdir()):
            if path.suffix.lower() in SUFFIXES and not path.name.startswith("."):
                match = FRAME_PATTERN.match(path.stem)
                film, frame = (match["film"] or "", int(match["frame"])) if match else (path.name, 0)
                yield Picture(path, class_folder.name, film, frame)


def subfolders(folder: Path) -> list[Path]:
    """By name; hidden ones do not count."""
    return sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))


def _grouped(pictures: Iterable[Picture], key: Callable[[Picture], str]) -> dict[str, list[Picture]]:
    groups: dict[str, list[Picture]] = defaultdict(list)
    for picture in pictures:
        groups[key(picture)].append(picture)
    return groups


def count_by_label(classes: NDArray[np.int32], labels: Sequence[str]) -> dict[str, int]:
    """Pictures a class, in the labels' order."""
    counts = Counter(classes.tolist())
    return {label: counts[number] for number, label in enumerate(labels)}


@dataclass(frozen=True)
class Gathered:
    """Decoded pictures of one folder that is not split."""

    images: NDArray[np.uint8]
    """[N, H, W, 3], RGB, at the model's input size."""
    pictures: list[Picture]
    """[N], where they come from."""
    names: list[str]
    """[N], paths relative to the folder."""
    unreadable: dict[str, str]
    """Reason by path, relative to the folder."""
    digest: str

    def split(self, labels: Sequence[str], rows: NDArray[np.int64]) -> Split:
        """Some of them, with classes as indices into `labels`."""
        index = {label: number for number, label in enumerate(labels)}
        return Split(self.images[rows], self.classes(index)[rows], [self.pictures[row] for row in rows])

    def classes(self, index: Mapping[str, int]) -> NDArray[np.int32]:
        """[N], by the names of their class folders."""
        return np.array([index[picture.label] for picture in self.pictures], np.int32)


def list_classes(folder: Path, labels: Sequence[str]) -> list[Picture]:
    """The pictures of a folder's class folders, or of those in its `Test` where it has one that is no class.

    Classes may be missing.

    Raises:
        DataError: there is no such folder, it has no picture, or a class folder has a name that is none of `labels`.
    """
    _expect_folder(folder)
    tests = [child for child in subfolders(folder) if child.name.lower() in TEST_NAMES and child.name not in labels]
    pictures = list(pictures_in(tests[0] if tests else folder))
    if strangers := sorted({picture.label for picture in pictures} - set(labels)):
        raise DataError(
            f"{folder}: expected class folders named as the version's {len(labels)} labels "
            f"({', '.join(labels[:5])}{', ...' if len(labels) > 5 else ''}), found {', '.join(strangers)}"
        )
    if not pictures:
        raise DataError(f"{folder}: expected pictures ({', '.join(sorted(SUFFIXES))}) in class folders, found none")
    return pictures


def list_strangers(folder: Path) -> list[Picture]:
    """All pictures at any depth of a folder, of no class.

    Raises:
        DataError: there is no such folder, or no picture in it.
    """
    _expect_folder(folder)
    paths = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES and path.is_file()]
    pictures = [
        Picture(path, "", path.name, 0)
        for path in paths
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    if not pictures:
        raise DataError(f"{folder}: expected pictures ({', '.join(sorted(SUFFIXES))}) at any depth, found none")
    return pictures


def gather(
    folder: Path, pictures: Sequence[Picture], target: Input, on_picture: Callable[[], None] = lambda: None
) -> Gathered:
    """Decode pictures of one folder as the service does, on all processors; `on_picture` is called after each.

    Raises:
        DataError: more than 1 % cannot be read, or a name is not in UTF-8.
    """
    names = [_name(folder, picture.path) for picture in pictures]
    images: list[NDArray[np.uint8]] = []
    kept: list[int] = []
    hashes: dict[str, str] = {}
    unreadable: dict[str, str] = {}
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        results = threads.map(lambda picture: _read(picture.path, target), pictures)
        for row, (name, result) in enumerate(zip(names, results, strict=True)):
            hashes[name] = result.digest
            if result.pixels is None:
                unreadable[name] = result.problem or ""
            else:
                images.append(result.pixels)
                kept.append(row)
            on_picture()
    if len(unreadable) > MAX_UNREADABLE * len(pictures):
        problems = "\n".join(f"  {name}: {problem}" for name, problem in list(unreadable.items())[:10])
        raise DataError(
            f"{folder}: {len(unreadable)} of {len(pictures)} pictures cannot be read, "
            f"expected at most {MAX_UNREADABLE:.0%}:\n{problems}"
        )
    return Gathered(
        images=np.stack(images),
        pictures=[pictures[row] for row in kept],
        names=[names[row] for row in kept],
        unreadable=unreadable,
        digest=digest_of_files(hashes),
    )


def _expect_folder(folder: Path, of: str = "pictures") -> None:
    if not folder.is_dir():
        raise DataError(f"{folder}: expected a folder of {of}, found {'a file' if folder.exists() else 'none'}")


def _name(folder: Path, path: Path) -> str:
    name = path.relative_to(folder).as_posix()
    # As Python reads bytes that are no UTF-8.
    if any("\ud800" <= character <= "\udfff" for character in name):
        raise DataError(f"{str(folder)!a}: expected names in UTF-8, found {name!a}")
    return name
