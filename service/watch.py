"""A folder of models in, what lies in it out: every version's files, and when they may have changed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from stat import S_ISDIR
from typing import NamedTuple

import structlog
from watchfiles import awatch

from service.errors import StartupFailed
from service.labels import FILE as LABELS_FILE
from service.manifest import NAME_PATTERN, VERSION_NAME

# Of a burst of changes one is told, this many milliseconds after the last.
QUIET_MS = 100

Files = tuple[tuple[str, int, int, int, int], ...]
"""Path, bytes, inode, and the times of modification and change of each file: as long as these stay, so does it."""
Key = tuple[str, int]
"""A model's name and a version's number."""

log = structlog.get_logger()


class Seen(NamedTuple):
    """What lies in the folder."""

    versions: dict[Key, Files]
    labels: dict[str, Files]
    """By model, also where there is no such file."""


def version_folders(models: Path) -> list[Path]:
    """Every `<model>/<version>` folder, by model and number.

    Raises:
        StartupFailed: `models` is no folder, or holds no version.
    """
    try:
        is_folder = models.is_dir()
    except OSError as error:
        raise StartupFailed(f"the folder of models at {models.absolute()} cannot be read: {error.strerror}") from None
    if not is_folder:
        raise StartupFailed(f"expected a folder of models at {models.absolute()}, found none; set SICHTBAR_MODELS")
    folders = _versions(models)
    if not folders:
        raise StartupFailed(f"no valid model under {models}: expected <model>/<version>/manifest.json, found none")
    return folders


def scan(models: Path) -> Seen:
    """Look at every file, without reading it.

    Raises:
        OSError: the folder cannot be read, which does not mean that its models are gone.
    """
    models.stat()
    folders = _versions(models)
    return Seen(
        {(folder.parent.name, int(folder.name)): files_below(folder) for folder in folders},
        {folder.parent.name: _stat(folder.parent, [folder.parent / LABELS_FILE]) for folder in folders},
    )


def files_below(folder: Path) -> Files:
    """Every file below a folder."""
    return _stat(folder, sorted(folder.rglob("*")))


def fingerprint(files: Files | None) -> str:
    """Of other files it is another."""
    return hashlib.sha256(repr(files).encode()).hexdigest()


async def changes(models: Path) -> AsyncIterator[None]:
    """Whenever the system tells of a change below `models`, until it cannot."""
    try:
        async for _ in awatch(models, watch_filter=None, step=QUIET_MS):
            yield
    # The library's own error is a RuntimeError.
    except (OSError, RuntimeError) as error:
        log.warning("models_not_watched", reason=str(error))


def _versions(models: Path) -> list[Path]:
    folders = [folder for folder in models.glob("*/*") if _is_version(folder)]
    return sorted(folders, key=lambda folder: (folder.parent.name, int(folder.name)))


def _is_version(folder: Path) -> bool:
    named = re.fullmatch(NAME_PATTERN, folder.parent.name) and VERSION_NAME.fullmatch(folder.name)
    try:
        return bool(named) and folder.is_dir()
    except OSError:
        return False


def _stat(folder: Path, paths: list[Path]) -> Files:
    found = []
    for path in paths:
        # It may be gone since it was listed.
        with suppress(OSError):
            about = path.stat()
            if not S_ISDIR(about.st_mode):
                name = path.relative_to(folder).as_posix()
                found.append((name, about.st_size, about.st_ino, about.st_mtime_ns, about.st_ctime_ns))
    return tuple(found)
