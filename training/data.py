"""A folder of class folders in, two splits of decoded pictures out."""

from __future__ import annotations

import hashlib
import os
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Split:
    """Decoded pictures of one split."""

    images: NDArray[np.uint8]
    """[N, H, W, 3], RGB, at the model's input size."""
    classes: NDArray[np.int32]
    """[N], indices into the labels."""


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
    if not folder.is_dir():
        raise DataError(
            f"{folder}: expected a folder of class folders, found {'a file' if folder.exists() else 'none'}"
        )
    children = {child.name.lower(): child for child in _folders(folder)}
    training_folder = next((children[name] for name in TRAINING_NAMES if name in children), None)
    test_folder = next((children[name] for name in TEST_NAMES if name in children), None)
    if (training_folder is None) != (test_folder is None):
        found = training_folder or test_folder
        raise DataError(f"{folder}: expected folders Training and Test or neither, found only {found and found.name}")
    if training_folder and test_folder:
        training, test = list(_pictures(training_folder)), list(_pictures(test_folder))
        split = f"the folders {training_folder.name} and {test_folder.name}"
    else:
        training, test = hold_out(list(_pictures(folder)), test_fraction, seed)
        split = f"{test_fraction:g} of each class held out, frames of one film together"
    for picture in training + test:
        name = picture.path.relative_to(folder).as_posix()
        # As Python reads bytes that are no UTF-8.
        if any("\ud800" <= character <= "\udfff" for character in name):
            raise DataError(f"{str(folder)!a}: expected names in UTF-8, found {name!a}")
    labels = sorted({picture.label for picture in training + test})
    if not labels:
        raise DataError(f"{folder}: expected pictures ({', '.join(sorted(SUFFIXES))}) in class folders, found none")
    if len(labels) == 1:
        raise DataError(f"{folder}: expected at least two class folders with pictures, found one: {labels[0]}")
    for name, pictures in (("training", training), ("test", test)):
        missing = set(labels) - {picture.label for picture in pictures}
        if missing:
            raise DataError(f"{folder}: no {name} pictures of {', '.join(sorted(missing))}; each class needs both")
    return Listing(folder, labels, training, test, split)


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
    pictures = listing.training + listing.test
    hashes: dict[str, str] = {}
    unreadable: dict[str, str] = {}
    decoded: list[NDArray[np.uint8] | None] = []
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        results = threads.map(lambda picture: _read(picture.path, target), pictures)
        for picture, result in zip(pictures, results, strict=True):
            name = picture.path.relative_to(listing.folder).as_posix()
            hashes[name] = result.digest
            if result.problem:
                unreadable[name] = result.problem
            decoded.append(result.pixels)
            on_picture()
    if len(unreadable) > MAX_UNREADABLE * len(pictures):
        names = "\n".join(f"  {name}: {problem}" for name, problem in list(unreadable.items())[:10])
        raise DataError(
            f"{listing.folder}: {len(unreadable)} of {len(pictures)} pictures cannot be read, "
            f"expected at most {MAX_UNREADABLE:.0%}:\n{names}"
        )
    border = len(listing.training)
    return DataSet(
        labels=listing.labels,
        training=_split(listing, "training", listing.training, decoded[:border]),
        test=_split(listing, "test", listing.test, decoded[border:]),
        unreadable=unreadable,
        digest=_digest(hashes),
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
        return _Read(digest, fit(decode(data, max_pixels=MAX_PIXELS), target), None)
    except ImageError as error:
        return _Read(digest, None, str(error))


def _split(
    listing: Listing, name: str, pictures: Sequence[Picture], decoded: Sequence[NDArray[np.uint8] | None]
) -> Split:
    index = {label: number for number, label in enumerate(listing.labels)}
    read = [
        (pixels, index[picture.label]) for picture, pixels in zip(pictures, decoded, strict=True) if pixels is not None
    ]
    missing = set(range(len(index))) - {number for _, number in read}
    if missing:
        names = ", ".join(listing.labels[number] for number in sorted(missing))
        raise DataError(f"{listing.folder}: no readable {name} picture of {names}")
    return Split(np.stack([pixels for pixels, _ in read]), np.array([number for _, number in read], np.int32))


def _digest(hashes: dict[str, str]) -> str:
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(hashes.items()))
    return f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"


def _pictures(folder: Path) -> Iterator[Picture]:
    for class_folder in _folders(folder):
        for path in sorted(class_folder.iterdir()):
            if path.suffix.lower() in SUFFIXES and not path.name.startswith("."):
                match = FRAME_PATTERN.match(path.stem)
                film, frame = (match["film"] or "", int(match["frame"])) if match else (path.name, 0)
                yield Picture(path, class_folder.name, film, frame)


def _folders(folder: Path) -> list[Path]:
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
