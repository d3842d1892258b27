"""The workshop's fruits out of Fruits-360, from Kaggle: a folder that `fit` trains on, whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from pydantic import BaseModel

from training.data import SUFFIXES, digest_of_files
from training.errors import DataError, TrainingError

# H. Muresan, M. Oltean, "Fruit recognition from images using deep learning", Acta Univ. Sapientiae, Informatica 10(1),
# 2018.
HANDLE = "moltean/fruits"
SPLITS = ("Training", "Test")
LABELS = (
    "Apricot",
    "Avocado",
    "Banana",
    "Clementine",
    "Cocos",
    "Kiwi",
    "Lemon",
    "Limes",
    "Mandarine",
    "Orange",
    "Peach",
    "Pineapple",
    "Plum",
    "Pomegranate",
    "Raspberry",
    "Strawberry",
)
# Of the release of 2018-09-07, by which the bundled models were trained.
DIGEST = "sha256:df1e9e86f4769e3762a714278524ef1654bcad716d6efbc89b88631bbee0e0ee"
PICTURES = {"Training": 7_709, "Test": 2_592}


class Downloaded(BaseModel):
    """What was made, and how it differs from the pictures that the bundled models were trained on."""

    folder: str
    pictures: dict[str, int]
    """By split."""
    digest: str
    differences: list[str]


def download(to: Path, *, release: int | None = None, any_release: bool = False) -> Downloaded:
    """Fetch Fruits-360 into kagglehub's cache and arrange the workshop's classes at `to`.

    `release` is Kaggle's number of a version, the newest otherwise. kagglehub tries once; a host that does not answer
    is given up by the system's own limit.

    Raises:
        TrainingError: kagglehub is not installed, or fails.
        DataError: as `arrange`.
    """
    _refuse_taken(to)
    if find_spec("kagglehub") is None:
        raise TrainingError("kagglehub not installed: pip install -c constraints.txt -e '.[download]'")
    handle = HANDLE if release is None else f"{HANDLE}/versions/{release}"
    # Where kagglehub is imported, its log takes hold of standard output, which belongs to our answer.
    with contextlib.redirect_stdout(sys.stderr):
        try:
            import kagglehub

            tree = Path(kagglehub.dataset_download(handle))
        # Whatever fails: the network, the credentials, the disk or Kaggle; a person can mend each of them.
        except Exception as cause:
            raise TrainingError(
                f"{handle} cannot be downloaded; expected a network that reaches Kaggle, and, if Kaggle asks for them, "
                "credentials (KAGGLE_USERNAME and KAGGLE_KEY): "
                + textwrap.shorten(f"{type(cause).__name__}: {cause}", 300, placeholder=" ...")
            ) from cause
    return arrange(tree, to, any_release=any_release)


def arrange(tree: Path, to: Path, *, any_release: bool = False) -> Downloaded:
    """Copy the workshop's classes out of a tree of Kaggle's to `to`, as `Training` and `Test` with class folders.

    `tree` holds, at any depth, a folder with `Training` and `Test`. Newer releases number the classes: `Banana 1` is
    `Banana`.

    Raises:
        DataError: `to` is there already, `tree` has none of the classes, or, without `any_release`, what would be made
            is not what the bundled models were trained on; then nothing is left at `to`.
    """
    _refuse_taken(to)
    classes, differences = _find(tree)
    try:
        with _staging_folder(to) as staged:
            hashes = _copy(classes, staged)
            pictures = {split: sum(name.startswith(f"{split}/") for name in hashes) for split in SPLITS}
            digest = digest_of_files(hashes)
            if digest != DIGEST:
                differences += [
                    f"{pictures[split]} pictures in {split}, expected {count}"
                    for split, count in PICTURES.items()
                    if pictures[split] != count
                ]
                differences.append(f"digest {digest}, expected {DIGEST}")
            if differences and not any_release:
                raise DataError(
                    f"{to}: expected the pictures of the release of 2018-09-07; --any-release keeps others, too. "
                    f"Found: {'; '.join(differences)}"
                )
            staged.rename(to)
    except OSError as error:
        raise DataError(f"{to}: cannot be written: {error.strerror}") from error
    return Downloaded(folder=str(to), pictures=pictures, digest=digest, differences=differences)


def _refuse_taken(to: Path) -> None:
    if to.exists():
        raise DataError(f"{to}: expected no such folder yet, found one; nothing was downloaded or overwritten")


@contextlib.contextmanager
def _staging_folder(to: Path) -> Iterator[Path]:
    to.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".downloading-", dir=to.parent))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _find(tree: Path) -> tuple[dict[str, Path], list[str]]:
    """The class folders by where they shall go, as `Training/Banana`; and how they differ from what was expected."""
    found: dict[str, Path] = {}
    for place in sorted(path.parent for path in tree.rglob(SPLITS[0]) if (path.parent / SPLITS[1]).is_dir()):
        candidates = {
            f"{split}/{label}": place / split / name
            for split in SPLITS
            for label in LABELS
            for name in (f"{label} 1", label)
            if (place / split / name).is_dir()
        }
        # Where several sizes of the pictures lie side by side, only one has classes of these names.
        if len(candidates) > len(found):
            found = candidates
    if not found:
        raise DataError(f"expected a folder with Training/{LABELS[0]} and Test/{LABELS[0]} and so on, found none")
    wanted = [f"{split}/{label}" for split in SPLITS for label in LABELS]
    differences = [f"no {goal}" for goal in wanted if goal not in found]
    differences += [
        f"{goal} is {path.name!r} there" for goal, path in found.items() if path.name != goal.partition("/")[2]
    ]
    return found, differences


def _copy(classes: dict[str, Path], staged: Path) -> dict[str, str]:
    """Copy the pictures; their sha256 by their new names."""
    hashes: dict[str, str] = {}
    for goal, folder in classes.items():
        (staged / goal).mkdir(parents=True)
        for path in folder.iterdir():
            if path.suffix.lower() in SUFFIXES and not path.name.startswith("."):
                data = path.read_bytes()
                (staged / goal / path.name).write_bytes(data)
                hashes[f"{goal}/{path.name}"] = hashlib.sha256(data).hexdigest()
    return hashes
