"""Model folders in, loaded versions out: each is verified, loaded, warmed up and probed before it answers anybody."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from time import monotonic
from typing import Literal

import numpy as np
import structlog
from numpy.typing import NDArray

from service.batcher import Batcher
from service.engines import choose_engine, open_engine
from service.engines.base import Engine, Outputs, probe, warm_up
from service.errors import ModelRequired, StartupFailed, UnknownModel, UnknownVersion
from service.manifest import NAME_PATTERN, InvalidVersion, Manifest, read_manifest, verify_files
from service.metrics import Metrics
from service.settings import Settings
from service.statistics import Statistics

VERSION_NAME = re.compile(r"[1-9][0-9]{0,17}")

log = structlog.get_logger()


@dataclass(frozen=True)
class Version:
    """A version that answers."""

    folder: Path
    manifest: Manifest
    engine: str
    batcher: Batcher[NDArray[np.uint8], Outputs]
    statistics: Statistics = field(default_factory=Statistics)

    @cached_property
    def digest(self) -> str:
        """Of all that decides what it answers: its manifest, which has the sha256 of every file."""
        return hashlib.sha256(self.manifest.model_dump_json().encode()).hexdigest()


@dataclass(frozen=True)
class VersionState:
    """What became of a version's folder."""

    model: str
    version: int
    state: Literal["available", "failed"]
    engine: str | None = None
    reason: str | None = None


class Repository:
    """All versions below one folder, loaded while the context is open."""

    engine: Literal["openvino", "tensorflow"]
    """What runs them."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._versions: dict[str, dict[int, Version]] = {}
        self._states: list[VersionState] = []
        self._deadline: float | None = None

    async def __aenter__(self) -> Repository:
        """Load every version.

        Raises:
            StartupFailed: no version could be loaded.
        """
        folders = version_folders(self._settings.models)
        self.engine = await asyncio.to_thread(choose_engine, self._settings.engine)
        for folder in folders:
            await self._load(folder)
        if not self._versions:
            reasons = "; ".join(f"{s.model}/{s.version}: {s.reason}" for s in self._states)
            raise StartupFailed(f"no valid model under {self._settings.models}: {reasons}")
        default = self._settings.default_model
        if default is not None and default not in self._versions:
            await self.__aexit__()
            raise StartupFailed(f"the default model {default!r} is none of {', '.join(sorted(self._versions))}")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Let every version finish what it accepted, until the deadline of `drain_within`."""
        left = self._settings.drain_seconds if self._deadline is None else max(0.0, self._deadline - monotonic())
        await asyncio.gather(*(version.batcher.close(left) for version in self.versions))

    def drain_within(self, seconds: float) -> None:
        """Say when all must be over."""
        self._deadline = monotonic() + seconds

    @property
    def models(self) -> list[str]:
        """Names of all models on disk, loaded or not."""
        return sorted({state.model for state in self._states})

    @property
    def versions(self) -> list[Version]:
        """Every loaded version."""
        return [version for model in self._versions.values() for version in model.values()]

    @property
    def alive(self) -> bool:
        """Whether every loaded version takes pictures."""
        return bool(self.versions) and all(version.batcher.alive for version in self.versions)

    def states(self, model: str) -> list[VersionState]:
        """What became of each of the model's versions, lowest first.

        Raises:
            UnknownModel: there is no such model.
        """
        states = [state for state in self._states if state.model == model]
        if not states:
            raise UnknownModel(f"expected one of {', '.join(self.models)}, got {model!r}")
        return states

    def find(self, model: str | None, version: int | None) -> Version:
        """The version that shall answer: the default model and its highest version unless named.

        Raises:
            ModelRequired: none is named and there is no default.
            UnknownModel: no such model is loaded.
            UnknownVersion: the model has no such version loaded.
        """
        name = _meant(model, self._settings.default_model, sorted(self._versions))
        versions = self._versions[name]
        if version is None:
            return versions[max(versions)]
        if version not in versions:
            failed = [state.reason for state in self._states if (state.model, state.version) == (name, version)]
            why = f", which failed: {failed[0]}" if failed else ""
            raise UnknownVersion(
                f"expected version {', '.join(map(str, sorted(versions)))} of {name}, got {version}{why}"
            )
        return versions[version]

    async def _load(self, folder: Path) -> None:
        model, number = folder.parent.name, int(folder.name)
        try:
            manifest, engine = await asyncio.to_thread(load_version, folder, self.engine, self._settings)
        # Whatever an engine raises on a folder from outside, the other versions shall serve.
        except Exception as error:
            state = VersionState(model, number, "failed", reason=_reason(error))
            log.error(
                "version_failed",
                model=model,
                version=number,
                reason=state.reason,
                exc_info=None if isinstance(error, InvalidVersion) else error,
            )
        else:
            batcher = await self.batcher(manifest, engine).__aenter__()
            self._versions.setdefault(model, {})[number] = Version(folder, manifest, engine.name, batcher)
            state = VersionState(model, number, "available", engine=engine.name)
            log.info("version_loaded", model=model, version=number, engine=engine.name)
        self._states.append(state)
        self._metrics.version_state.labels(model, str(number), state.state, state.engine or "").set(1)

    def batcher(self, manifest: Manifest, engine: Engine) -> Batcher[NDArray[np.uint8], Outputs]:
        """The queue in front of one version's engine."""
        labels = (manifest.name, str(manifest.version))
        batcher: Batcher[NDArray[np.uint8], Outputs] = Batcher(
            lambda images: _split(engine.predict(np.stack(images))),
            max_batch=self._settings.max_batch,
            max_queue=self._settings.max_queue,
            drain_seconds=self._settings.drain_seconds,
            on_batch=self._metrics.batch_size.labels(*labels).observe,
        )
        self._metrics.watch_queue(*labels, lambda: batcher.waiting)
        return batcher


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
    folders = [folder for folder in models.glob("*/*") if _is_version(folder)]
    if not folders:
        raise StartupFailed(f"no valid model under {models}: expected <model>/<version>/manifest.json, found none")
    return sorted(folders, key=lambda folder: (folder.parent.name, int(folder.name)))


def find_version(settings: Settings, model: str | None, version: int | None) -> tuple[Manifest, Path]:
    """A version and its folder, without loading it: of the default model, and the highest, unless named.

    Raises:
        StartupFailed: there are no models, or the version's files are not what its manifest promises.
        ModelRequired, UnknownModel, UnknownVersion: see `Repository.find`.
    """
    folders = version_folders(settings.models)
    name = _meant(model, settings.default_model, sorted({folder.parent.name for folder in folders}))
    numbers = {int(folder.name): folder for folder in folders if folder.parent.name == name}
    found = numbers.get(max(numbers) if version is None else version)
    if found is None:
        raise UnknownVersion(f"expected version {', '.join(map(str, numbers))} of {name}, got {version}")
    try:
        manifest = read_manifest(found)
        verify_files(found, manifest)
    except InvalidVersion as invalid:
        raise StartupFailed(f"{found}: {invalid}") from None
    return manifest, found.absolute()


def _meant(model: str | None, default: str | None, names: Sequence[str]) -> str:
    """The one of `names` that is asked for: the default, or the only one, unless `model` is given."""
    name = model if model is not None else default
    if name is None and len(names) == 1:
        return names[0]
    if name is None:
        raise ModelRequired(f"expected `model`, one of {', '.join(names)}; got none")
    if name not in names:
        raise UnknownModel(f"expected one of {', '.join(names)}, got {name!r}")
    return name


def _is_version(folder: Path) -> bool:
    named = re.fullmatch(NAME_PATTERN, folder.parent.name) and VERSION_NAME.fullmatch(folder.name)
    try:
        return bool(named) and folder.is_dir()
    except OSError as error:
        log.warning("folder_skipped", folder=str(folder), reason=error.strerror)
        return False


def load_version(
    folder: Path, engine_name: Literal["openvino", "tensorflow"], settings: Settings
) -> tuple[Manifest, Engine]:
    """Verify, load, warm up and probe one version.

    Raises:
        InvalidVersion: the folder is not what its manifest promises.
    """
    manifest = read_manifest(folder)
    verify_files(folder, manifest)
    engine = open_engine(engine_name, folder, threads=settings.threads)
    warm_up(engine, manifest, settings.max_batch)
    probe(engine, manifest)
    return manifest, engine


def _split(outputs: Outputs) -> Sequence[Outputs]:
    return [Outputs(*rows) for rows in zip(*outputs, strict=True)]


def _reason(error: Exception) -> str:
    # Foreign exceptions may name paths and internals; the log has them.
    return str(error) if isinstance(error, InvalidVersion) else f"the engine cannot load it ({type(error).__name__})"
