"""Loaded versions in, the one that shall answer out. What answers for a model is replaced in one step."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import monotonic
from typing import NamedTuple

import anyio
import numpy as np
from numpy.typing import NDArray

from service.batcher import Batcher
from service.choices import EngineName
from service.engines.base import Engine, Outputs
from service.errors import ModelRequired, ModelUnavailable, StartupFailed, UnknownModel, UnknownVersion
from service.labels import Label, Labels
from service.manifest import InvalidVersion, Manifest, read_manifest, verify_files
from service.metrics import Metrics
from service.settings import Settings
from service.states import State
from service.statistics import Statistics
from service.watch import Key, version_folders


@dataclass(frozen=True)
class Version:
    """A version that answers.

    Whoever has it may ask it, also when another has taken its place: it is closed once nobody has it any more.
    """

    folder: Path
    manifest: Manifest
    engine: str
    batcher: Batcher[NDArray[np.uint8], Outputs]
    statistics: Statistics = field(default_factory=Statistics)

    @property
    def digest(self) -> str:
        """See `Manifest.digest`."""
        return self.manifest.digest

    @property
    def metric_labels(self) -> tuple[str, str]:
        """Its model's name and its number, as metrics have them."""
        return self.manifest.name, str(self.manifest.version)


@dataclass(frozen=True)
class VersionState:
    """What became of a version's folder."""

    model: str
    version: int
    state: State
    engine: str | None = None
    reason: str | None = None


class Serving(NamedTuple):
    """What answers for a model."""

    versions: Mapping[int, Version]
    labels: Labels
    """Of these versions, and no others."""
    missing: Mapping[Label, int] = {}
    """What the other labels shall name, once it is loaded."""

    @property
    def unnamed(self) -> int:
        """The version that answers where a request names none: the stable one, else the highest but for the canary."""
        return self.labels.stable or max(self.versions.keys() - {self.labels.canary} or self.versions)


class Repository:
    """All versions that answer, and what became of the others."""

    engine: EngineName
    """What runs them."""

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        *,
        on_served: Callable[[Version], None] = lambda version: None,
        on_closed: Callable[[], None] = lambda: None,
        on_released: Callable[[Path, str], Awaitable[None]],
    ) -> None:
        """Tell of a version that answers from now on, of one that was closed, and of one that nobody has any more."""
        self._settings = settings
        self._metrics = metrics
        self._on_served = on_served
        self._on_closed = on_closed
        self._on_released = on_released
        self._serving: dict[str, Serving] = {}
        self._states: dict[str, dict[int, VersionState]] = {}
        self._label_problems: dict[str, str] = {}
        self._closing: Counter[Key] = Counter()
        self._closers: dict[asyncio.Task[None], Batcher[NDArray[np.uint8], Outputs]] = {}
        self._deadline: float | None = None

    async def close(self) -> None:
        """Let every version finish what it accepted, until the deadline of `drain_within`."""
        left = self._settings.drain_seconds if self._deadline is None else max(0.0, self._deadline - monotonic())
        batchers = [version.batcher for version in self.versions] + list(self._closers.values())
        for closer in self._closers:
            closer.cancel()
        await asyncio.gather(*(batcher.close(left) for batcher in batchers))

    def drain_within(self, seconds: float) -> None:
        """Say when all must be over."""
        self._deadline = monotonic() + seconds

    @property
    def models(self) -> list[str]:
        """Names of all models on disk, loaded or not."""
        return sorted(self._states)

    @property
    def default(self) -> str | None:
        """The model that answers where a request names none."""
        only = next(iter(self._serving)) if len(self._serving) == 1 else None
        return self._settings.default_model or only

    @property
    def versions(self) -> list[Version]:
        """Every loaded version."""
        return [version for serving in self._serving.values() for version in serving.versions.values()]

    @property
    def alive(self) -> bool:
        """Whether there are loaded versions, and each takes pictures."""
        return bool(self.versions) and all(version.batcher.alive for version in self.versions)

    def states(self, model: str) -> list[VersionState]:
        """What became of each of the model's versions, lowest first.

        Raises:
            UnknownModel: there is no such model.
        """
        if model not in self._states:
            raise UnknownModel(f"expected one of {', '.join(self.models)}, got {model!r}")
        return [state for _, state in sorted(self._states[model].items())]

    def state(self, model: str, version: int) -> VersionState:
        """What became of one version.

        Raises:
            UnknownModel, UnknownVersion: there is none on disk.
        """
        self.states(model)
        state = self.told(model, version)
        if state is not None:
            return state
        raise UnknownVersion(
            f"expected version {', '.join(map(str, sorted(self._states[model])))} of {model}, got {version}"
        )

    def told(self, model: str, version: int) -> VersionState | None:
        """What was last said of a version."""
        return self._states.get(model, {}).get(version)

    def serving(self, model: str) -> Serving:
        """What answers for a model now."""
        return self._serving.get(model, Serving({}, Labels()))

    def label_problem(self, model: str) -> str | None:
        """Why the model's labels are not what its file says."""
        return self._label_problems.get(model)

    def closing(self, model: str, version: int) -> bool:
        """Whether it answers the last of its requests."""
        return self._closing[model, version] > 0

    def find(self, model: str | None, version: int | Label | None = None, image_id: str | None = None) -> Version:
        """The version that shall answer: unless named, of the default model the stable one, else the highest but for
        the canary; the canary for some pictures, where `image_id` tells which.

        Raises:
            ModelRequired: none is named and there is no default.
            ModelUnavailable: the model has no loaded version at the moment, or not the one that the label shall name.
            UnknownModel: there is no such model.
            UnknownVersion: the model has no such version loaded.
        """
        name = self._loaded(model)
        serving = self._serving[name]
        versions, labels, missing = serving
        if version is None:
            chosen = versions[serving.unnamed]
            return chosen if image_id is None else self.divert(chosen, lambda: image_id)
        number = version if isinstance(version, int) else labels.number(version)
        if number is not None and number in versions:
            return versions[number]
        if version in missing:
            # Whoever pointed the label there may load it again: that it is not loaded is no client's fault.
            raise ModelUnavailable(f"{name}: {self.label_problem(name)}")
        raise UnknownVersion(
            f"expected version {', '.join(map(str, sorted(versions)))} of {name}, got {version}"
            f"{self._why_not(name, version)}"
        )

    def divert(self, version: Version, image_id: Callable[[], str]) -> Version:
        """The canary in a version's place, for its share of pictures: for the same picture always, or never."""
        versions, labels, _ = self.serving(version.manifest.name)
        if labels.canary is None or not labels.canary_weight:
            return version
        chance = int(image_id()[:13], 16) / 16**13
        return versions[labels.canary] if chance < labels.canary_weight else version

    def serve(self, model: str, serving: Serving) -> None:
        """Let these answer from now on. Those that did so before finish what they are asked by who has them."""
        before = self.serving(model).versions
        began = [version for number, version in serving.versions.items() if before.get(number) is not version]
        ended = [version for number, version in before.items() if serving.versions.get(number) is not version]
        for version in began:
            version.batcher.start()
            self._metrics.watch_queue(*version.metric_labels, partial(_waiting, version.batcher))
        if serving.versions:
            self._serving[model] = serving
        else:
            self._serving.pop(model, None)
        for version in ended:
            self._retire(version)
        for version in began:
            self._on_served(version)

    def tell(self, state: VersionState) -> None:
        """Say what became of a version."""
        self.forget(state.model, state.version)
        self._states.setdefault(state.model, {})[state.version] = state
        self._metrics.version_state.labels(*_labelled(state)).set(1)

    def tell_labels(self, model: str, problem: str | None) -> None:
        """Say why the model's labels are not what its file says."""
        if problem is not None:
            self._label_problems[model] = problem
            self._metrics.label_problem.labels(model).set(1)
        elif self._label_problems.pop(model, None) is not None:
            self._metrics.forget_label_problem(model)

    def forget(self, model: str, version: int) -> None:
        """Its folder is gone."""
        state = self._states.get(model, {}).pop(version, None)
        if state is not None:
            self._metrics.forget_state(*_labelled(state))
            if not self._states[model]:
                del self._states[model]

    def batcher(self, manifest: Manifest, engine: Engine) -> Batcher[NDArray[np.uint8], Outputs]:
        """The queue in front of one version's engine."""
        return Batcher(
            lambda images: _split(engine.predict(np.stack(images))),
            max_batch=self._settings.max_batch,
            max_queue=self._settings.max_queue,
            drain_seconds=self._settings.drain_seconds,
            patience=self._settings.patience,
            on_batch=self._metrics.batch_size.labels(manifest.name, str(manifest.version)).observe,
        )

    def _loaded(self, model: str | None) -> str:
        """The loaded model that is meant."""
        name = self._settings.default_model if model is None else model
        if name in self._serving:
            return name
        # The default, and what is on disk, may be loaded again: that they are not is no client's fault.
        if not self._serving or name in self._states or (name is not None and name == self._settings.default_model):
            states = self._states.get(name or "", {}).values()
            why = "; ".join(f"{state.version} {_said(state)}" for state in states)
            raise ModelUnavailable(f"no version of {name or 'any model'} is loaded{': ' if why else ''}{why}")
        return _meant(name, None, sorted(self._serving))

    def _why_not(self, model: str, version: int | Label) -> str:
        if isinstance(version, str):
            return ", which labels none"
        state = self.told(model, version)
        return f", which {_said(state)}" if state else ""

    def _retire(self, version: Version) -> None:
        """Close a version once nobody has it: Python counts who does."""
        loop = asyncio.get_running_loop()
        released = asyncio.Event()
        watched = weakref.ref(version, lambda _: loop.call_soon_threadsafe(released.set))
        manifest, batcher = version.manifest, version.batcher
        self._closing[manifest.name, manifest.version] += 1
        closer = asyncio.create_task(
            self._close(watched, released, manifest, version.folder, batcher),
            name=f"close {manifest.name}/{manifest.version}",
        )
        self._closers[closer] = batcher
        closer.add_done_callback(self._closers.pop)

    async def _close(
        self,
        watched: weakref.ref[Version],
        released: asyncio.Event,
        manifest: Manifest,
        folder: Path,
        batcher: Batcher[NDArray[np.uint8], Outputs],
    ) -> None:
        # A request's body and its answer may each take so long; an explanation may take longer, but asks not here.
        with anyio.move_on_after(2 * self._settings.timeout + 1):
            await released.wait()
        await batcher.close(self._settings.drain_seconds)
        if self.engine == "tensorflow":
            # Its objects hold each other, so that counting references frees none; and those of the start are frozen.
            frozen = gc.get_freeze_count()
            gc.unfreeze()
            gc.collect()
            if frozen:
                gc.freeze()
                gc.collect()
        model, number = manifest.name, manifest.version
        self._closing[model, number] -= 1
        if not self.closing(model, number):
            del self._closing[model, number]
            if number not in self.serving(model).versions:
                self._metrics.forget_queue(model, str(number))
        self._on_closed()
        await released.wait()
        await self._on_released(folder, manifest.digest)


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


def _said(state: VersionState) -> str:
    what = "failed" if state.state == "failed" else f"is {state.state}"
    return what if state.reason is None else f"{what}: {state.reason}"


def _labelled(state: VersionState) -> tuple[str, str, str, str]:
    return state.model, str(state.version), state.state, state.engine or ""


def _waiting(batcher: Batcher[NDArray[np.uint8], Outputs]) -> int:
    return batcher.waiting


def _split(outputs: Outputs) -> Sequence[Outputs]:
    return [Outputs(*rows) for rows in zip(*outputs, strict=True)]
