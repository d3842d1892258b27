"""A finished export in, `models/<name>/<version>/` out: whole or not at all."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from service.manifest import MANIFEST, Manifest, hash_files, read_manifest
from training.errors import PublishError

# No version's folder starts with a dot: neither the service nor TensorFlow Serving looks inside.
STAGING = ".publishing-"
REPORT = "report"


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
    _write_manifest(staged, manifest)
    # A rename replaces an empty folder silently, and a folder with files not at all.
    refuse_taken(models, manifest.name, manifest.version)
    try:
        staged.rename(destination)
    except OSError as error:
        raise PublishError(f"{destination}: cannot be published: {error.strerror}") from error
    return destination


def renew(folder: Path, change: Callable[[Path], None]) -> Manifest:
    """Let `change` work on the report of a copy of a published version, then put the copy in its place: two renames.

    All but the report is linked, not copied. A version is never there in part: between the two renames, a moment, it
    is not there at all.

    Raises:
        PublishError: its folder cannot be written.
    """
    manifest = read_manifest(folder)
    with staging_folder(folder.parent.parent, manifest.name) as staged:
        try:
            shutil.copytree(folder, staged, copy_function=_link, ignore=_report_of(folder), dirs_exist_ok=True)
            if (folder / REPORT).is_dir():
                shutil.copytree(folder / REPORT, staged / REPORT)
            change(staged / REPORT)
            renewed = manifest.model_copy(update={"files": hash_files(staged)})
            _write_manifest(staged, renewed)
            _replace(folder, staged)
        except OSError as error:
            raise PublishError(f"{folder}: cannot be renewed: {error.strerror}") from error
    return renewed


def _replace(folder: Path, staged: Path) -> None:
    # No name that `staging_folder` removes: should this process end between the two, nothing is lost.
    before = folder.with_name(f".before-{folder.name}")
    # Meanwhile nobody shall take the number for free.
    with _locked(folder.parent):
        folder.rename(before)
        try:
            staged.rename(folder)
        except OSError:
            before.rename(folder)
            raise
    shutil.rmtree(before, ignore_errors=True)


def _report_of(version: Path) -> Callable[[str, list[str]], list[str]]:
    return lambda folder, names: [REPORT] if Path(folder) == version and REPORT in names else []


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        # A file system without links.
        shutil.copy2(source, target)


def _write_manifest(folder: Path, manifest: Manifest) -> None:
    path = folder / MANIFEST
    # A renewed version's is a link to that of before.
    path.unlink(missing_ok=True)
    path.write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    folder.chmod(0o755)
