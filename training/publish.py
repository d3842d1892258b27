"""A finished export in, `models/<name>/<version>/` out: whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.manifest import MANIFEST, Manifest
from training.errors import PublishError


@contextmanager
def staging_folder(models: Path, name: str) -> Iterator[Path]:
    """A temporary folder beside the versions, on the same file system; gone afterwards, unless published.

    Raises:
        PublishError: nothing can be written there.
    """
    try:
        (models / name).mkdir(parents=True, exist_ok=True)
        # No version's folder starts with a dot: neither the service nor TensorFlow Serving looks inside.
        folder = Path(tempfile.mkdtemp(prefix=".publishing-", dir=models / name))
    except OSError as error:
        raise PublishError(f"{models / name}: expected a folder to write to: {error.strerror}") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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
