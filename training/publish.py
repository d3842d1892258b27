"""A finished export in, `models/<name>/<version>/` out: whole or not at all."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.manifest import MANIFEST, Manifest
from training.errors import PublishError

# No version's folder starts with a dot: neither the service nor TensorFlow Serving looks inside.
STAGING = ".publishing-"


@contextmanager
def staging_folder(models: Path, name: str) -> Iterator[Path]:
    """A temporary folder beside the versions, on the same file system; gone afterwards, unless published.

    What a killed run left there goes too: its folder is locked no more.

    Raises:
        PublishError: nothing can be written there.
    """
    try:
        (models / name).mkdir(parents=True, exist_ok=True)
        with _locked(models / name):
            for left in (models / name).glob(f"{STAGING}*"):
                _remove_unless_locked(left)
            folder = Path(tempfile.mkdtemp(prefix=STAGING, dir=models / name))
            lock = os.open(folder, os.O_RDONLY)
            fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError as error:
        raise PublishError(f"{models / name}: expected a folder to write to: {error.strerror}") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _remove_unless_locked(folder: Path) -> None:
    try:
        lock = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        # Published or removed since it was listed.
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    else:
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)


@contextmanager
def numbered(models: Path, name: str, version: int | None) -> Iterator[int]:
    """The number to publish as: `version`, else the next; nobody else gets it meanwhile."""
    with _locked(models / name):
        yield version or next_version(models, name)


def next_version(models: Path, name: str) -> int:
    """One more than the highest version of the model that is there."""
    taken = [int(folder.name) for folder in (models / name).glob("*") if folder.name.isdecimal()]
    return max(taken, default=0) + 1


def refuse_taken(models: Path, name: str, version: int) -> None:
    """See that the version can be published.

    Raises:
        PublishError: it is there already.
    """
    destination = models / name / str(version)
    if destination.exists():
        raise PublishError(f"{destination}: expected a free version number, found a version; nothing was overwritten")


def publish(staged: Path, manifest: Manifest, models: Path) -> Path:
    """Write the manifest and move the version to its place in one step.

    Raises:
        PublishError: the version is there already; it is left as it was.
    """
    destination = models / manifest.name / str(manifest.version)
    (staged / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    staged.chmod(0o755)
    # A rename replaces an empty folder silently, and a folder with files not at all.
    refuse_taken(models, manifest.name, manifest.version)
    try:
        staged.rename(destination)
    except OSError as error:
        raise PublishError(f"{destination}: cannot be published: {error.strerror}") from error
    return destination
