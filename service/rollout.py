"""What lies in the folder of models in, what answers out: versions are loaded beside those that answer, then swapped.

A version is read once its files have stayed as they are for a while, and again when they change, whatever came of it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from shutil import rmtree
from time import monotonic
from typing import TypeVar

import anyio
import structlog

from service.choices import EngineName
from service.engines import choose_engine, open_engine
from service.engines.base import PROBE_TOLERANCE, ROUNDED_TOLERANCE, Engine, probe, warm_up
from service.errors import StartupFailed
from service.labels import LABELS, InvalidLabels, Label, Labels, read_labels, write_labels
from service.manifest import IncompleteVersion, InvalidVersion, Manifest, read_manifest, verify_files
from service.metrics import Metrics
from service.orders import Order, Orders, What
from service.policy import rule_for, takes
from service.repository import Repository, Serving, Version, VersionState
from service.settings import Settings, variable
from service.states import State
from service.watch import Files, Key, changes, files_below, fingerprint, scan, version_folders

T = TypeVar("T")

CHANGING: tuple[State, str] = ("incomplete", "its files are still changing")

log = structlog.get_logger()


@dataclass
class _Folder:
    """What is known of a version's folder."""

    path: Path
    files: Files | None = None
    """None: it is gone."""
    since: float = -inf
    """When they were first seen as they are."""
    tried: Files | None = None
    """What they were when they were last read."""
    problem: tuple[State, str] | None = None
    """What came of that, where it was no version."""
    order: Order | None = None
    """An admin's, where it still holds."""


@dataclass
class _Labelled:
    """What is known of a model's labels."""

    files: Files | None = None
    wanted: Labels = field(default_factory=Labels)
    problem: str | None = None
    """With the file."""


class Rollout:
    """Keeps what answers like the folder of models, while its context is open."""

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        *,
        on_served: Callable[[Version], None] = lambda version: None,
        on_released: Callable[[Path, str], None] = lambda folder, digest: None,
        on_changed: Callable[[], None] = lambda: None,
        orders: Orders | None = None,
        weights: Path | None = None,
    ) -> None:
        """Several workers share `orders`, and in a folder `weights`; `on_changed` is called when an admin has changed
        what the others shall look at.
        """
        self._settings = settings
        self._metrics = metrics
        self._on_changed = on_changed
        self._on_released = on_released
        self._orders = orders or Orders()
        self._weights = weights
        self._woken = asyncio.Event()
        self._folders: dict[Key, _Folder] = {}
        self._labels: dict[str, _Labelled] = {}
        self._waiting: list[asyncio.Future[None]] = []
        self._tasks: list[asyncio.Task[None]] = []
        # Its own: nobody who stops the service waits for what is being loaded.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rollout")
        self.repository = Repository(
            settings, metrics, on_served=on_served, on_closed=self._woken.set, on_released=self._release
        )

    async def __aenter__(self) -> Rollout:
        """Load what the settings say.

        Raises:
            StartupFailed: no version could be loaded.
        """
        version_folders(self._settings.models)
        repository, default = self.repository, self._settings.default_model
        repository.engine = await self._run(choose_engine, self._settings.engine)
        # Whoever starts the service says that the files are there.
        await self._round(now=-inf)
        # Whoever takes the place of a worker that died serves what admins have left.
        ordered = any(folder.order for folder in self._folders.values())
        if not repository.versions and not ordered:
            states = [state for model in repository.models for state in repository.states(model)]
            reasons = "; ".join(f"{state.model}/{state.version}: {state.reason}" for state in states)
            raise StartupFailed(f"no valid model under {self._settings.models}: {reasons}")
        loaded = sorted({version.manifest.name for version in repository.versions})
        if default is not None and default not in loaded and not ordered:
            await repository.close()
            raise StartupFailed(f"{variable('default_model')}: expected one of {', '.join(loaded)}, got {default!r}")
        self._tasks.append(asyncio.create_task(self._work(), name="rollout"))
        if self._settings.watch == "auto":
            self._tasks.append(asyncio.create_task(self._listen(), name="watch models"))
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Let every version finish what it accepted."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with suppress(asyncio.CancelledError):
                await task
        await self.repository.close()

    def look(self) -> None:
        """Something may have changed."""
        self._woken.set()

    async def order(self, model: str, number: int, what: What) -> VersionState:
        """Load a version whatever the settings say, or unload it until it is loaded again or its files change.

        Raises:
            UnknownModel, UnknownVersion: there is none on disk.
        """
        self.repository.state(model, number)
        key = model, number
        await asyncio.to_thread(self._orders.give, key, what, self._folders[key].files)
        self._on_changed()
        await self._next_round()
        return self.repository.state(model, number)

    async def label(self, model: str, labels: Labels) -> None:
        """Write down which versions the labels name; from then on they do.

        Raises:
            UnknownModel, UnknownVersion: there is none on disk.
            LabelsNotWritten: the folder is read-only.
        """
        for label in LABELS:
            number = labels.number(label)
            if number is not None:
                self.repository.state(model, number)
        self.repository.states(model)
        await asyncio.to_thread(write_labels, self._settings.models / model, labels)
        self._on_changed()
        await self._next_round()

    async def _run(self, function: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    async def _next_round(self) -> None:
        """Until all that is known by now has been dealt with, or for as long as a client waits."""
        dealt: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(dealt)
        self._woken.set()
        with anyio.move_on_after(self._settings.timeout):
            await dealt

    async def _listen(self) -> None:
        async for _ in changes(self._settings.models):
            self._woken.set()

    async def _work(self) -> None:
        pause: float | None = 0.0
        readable = True
        while True:
            with anyio.move_on_after(inf if pause is None else pause):
                await self._woken.wait()
            self._woken.clear()
            waiting, self._waiting = self._waiting, []
            try:
                pause = await self._round(monotonic())
                readable = True
            except OSError as error:
                if readable:
                    log.warning("models_not_read", reason=error.strerror)
                readable = False
                pause = self._settings.watch_seconds
            except Exception:
                log.exception("bug")
                pause = self._settings.watch_seconds
            for dealt in waiting:
                if not dealt.done():
                    dealt.set_result(None)

    async def _round(self, now: float) -> float | None:
        """Look at the folder and act on it; for how many seconds nothing else need be done.

        Raises:
            OSError: the folder cannot be read; what answers goes on.
        """
        seen = await self._run(scan, self._settings.models)
        for key in {*seen.versions, *self._folders}:
            folder = self._folders.setdefault(key, _Folder(self._settings.models / key[0] / str(key[1])))
            if seen.versions.get(key) != folder.files:
                folder.files, folder.since = seen.versions.get(key), now
            await self._obey(key, folder)
        for model in sorted({model for model, _ in self._folders}):
            await self._read_labels(model, seen.labels.get(model))
            await self._bring(model, now)
        soon = [self._settles(folder) - monotonic() for folder in self._folders.values() if self._settles(folder) > now]
        if self._settings.watch != "off":
            soon.append(self._settings.watch_seconds)
        return max(0.0, min(soon)) if soon else None

    async def _obey(self, key: Key, folder: _Folder) -> None:
        before, order = folder.order, await self._run(self._orders.of, key)
        folder.order = order if order is not None and order.holds(folder.files) else None
        if order != before and order is not None and order.what == "load":
            model, number = key
            if number not in self.repository.serving(model).versions:
                # What failed is tried again.
                folder.tried = None

    async def _read_labels(self, model: str, files: Files | None) -> None:
        labelled = self._labels.setdefault(model, _Labelled())
        if files == labelled.files:
            return
        labelled.files = files
        try:
            labelled.wanted = await self._run(read_labels, self._settings.models / model)
            labelled.problem = None
        except InvalidLabels as error:
            labelled.problem = str(error)

    async def _bring(self, model: str, now: float) -> None:
        """Bring what answers for a model in line with its folder: load first, then swap."""
        before, labelled = self.repository.serving(model), self._labels[model]
        named = {labels.number(label) for labels in (labelled.wanted, before.labels) for label in LABELS}
        rule = rule_for(self._settings.versions, model)
        folders = {number: folder for (name, number), folder in self._folders.items() if name == model}
        chosen: dict[int, Version] = {}
        unwanted: dict[int, str] = {}
        for number, folder in sorted(folders.items(), reverse=True):
            if folder.order and folder.order.what == "unload":
                unwanted[number] = "an admin unloaded it"
            elif folder.order or number in named or takes(rule, number, len(chosen)):
                version = before.versions.get(number)
                if self._settles(folder) <= now:
                    version = await self._version(folder, version)
                if version is not None:
                    chosen[number] = version
            else:
                unwanted[number] = f"{variable('versions')}={rule} leaves it out"
        serving, problem = _labelled(labelled.wanted, before.labels, chosen)
        labels = serving.labels
        problem = "; ".join(filter(None, (labelled.problem, problem))) or None
        self.repository.serve(model, serving)
        if (labels, problem) != (before.labels, self.repository.label_problem(model)):
            log.log(
                logging.ERROR if problem else logging.INFO,
                "labels",
                model=model,
                **labels.model_dump(),
                problem=problem,
            )
            self.repository.tell_labels(model, problem)
        if labels != before.labels:
            # What only the old ones named may go.
            self._woken.set()
        for number, folder in folders.items():
            settled = self._settles(folder) <= now
            self._tell_end(model, number, folder, chosen.get(number), unwanted.get(number), settled=settled)
        if not any(name == model for name, _ in self._folders):
            del self._labels[model]
            self.repository.tell_labels(model, None)

    async def _version(self, folder: _Folder, current: Version | None) -> Version | None:
        """The version that a folder's files are now, or, where they are none, the one that they were."""
        if folder.files is None:
            return None
        if folder.files == folder.tried and (current or folder.problem):
            return current
        folder.tried, folder.problem = folder.files, None
        model, number = folder.path.parent.name, int(folder.path.name)
        started = monotonic()
        shared: Path | None = None
        # A counter that starts at nothing hides its first increase.
        failures = self._metrics.load_failures.labels(model, str(number))
        try:
            manifest = await self._run(_promised, folder.path)
            if current is not None and current.digest == manifest.digest:
                return current
            if current is None:
                self._tell(VersionState(model, number, "loading"))
            shared = self._weights and self._weights / f"{manifest.digest}-{fingerprint(folder.files)}"
            engine = await self._run(_open, folder.path, manifest, self.repository.engine, self._settings, shared)
            if await self._run(files_below, folder.path) != folder.files:
                raise IncompleteVersion("its files changed while they were read")
        except IncompleteVersion as error:
            # What is missing costs little to look for again.
            folder.tried, folder.problem = None, ("incomplete", str(error))
        # Whatever an engine raises on a folder from outside, the other versions shall serve.
        except Exception as error:
            folder.problem = ("failed", _reason(error))
            failures.inc()
            log.error(
                "version_failed",
                model=model,
                version=number,
                reason=_reason(error),
                exc_info=None if isinstance(error, InvalidVersion) else error,
            )
        else:
            seconds = monotonic() - started
            self._metrics.load_seconds.labels(model).observe(seconds)
            self._metrics.loads.labels(model, str(number)).inc()
            log.info("version_loaded", model=model, version=number, engine=engine.name, seconds=round(seconds, 3))
            return Version(folder.path, manifest, engine.name, self.repository.batcher(manifest, engine))
        if shared is not None:
            await self._run(_remove, [shared])
        return current

    async def _release(self, folder: Path, digest: str) -> None:
        self._on_released(folder, digest)
        if self._weights is not None:
            await asyncio.to_thread(_remove, self._weights.glob(f"{digest}-*"))

    def _settles(self, folder: _Folder) -> float:
        """When its files may be read, unless they change again."""
        return folder.since + self._settings.settle_seconds

    def _tell_end(
        self, model: str, number: int, folder: _Folder, version: Version | None, unwanted: str | None, *, settled: bool
    ) -> None:
        """Say what became of a version in this round."""
        gone = folder.files is None and settled
        problem = folder.problem if settled else CHANGING
        if version is not None:
            kept = f"as it was before its files changed: {problem[1]}" if problem else None
            self._tell(VersionState(model, number, "available", version.engine, kept))
        elif self.repository.closing(model, number):
            self._tell(VersionState(model, number, "unloading", reason="its folder is gone" if gone else unwanted))
        elif gone:
            del self._folders[model, number]
            self._orders.forget((model, number))
            self.repository.forget(model, number)
            log.info("version_gone", model=model, version=number)
        elif unwanted is not None:
            self._tell(VersionState(model, number, "unloaded", reason=unwanted))
        elif problem is not None:
            self._tell(VersionState(model, number, problem[0], reason=problem[1]))

    def _tell(self, state: VersionState) -> None:
        model, number = state.model, state.version
        before = self.repository.told(model, number)
        if state == before:
            return
        self.repository.tell(state)
        # Of what was loaded or failed, that was said with all that is known of it.
        if state.state in ("incomplete", "unloading", "unloaded") and (before is None or before.state != state.state):
            log.info("version_not_served", model=model, version=number, state=state.state, reason=state.reason)


def _labelled(wanted: Labels, before: Labels, chosen: Mapping[int, Version]) -> tuple[Serving, str | None]:
    """What is loaded, by its labels: each stays where it was until the version that it shall name can answer."""
    numbers: dict[Label, int] = {}
    missing: dict[Label, int] = {}
    problems = []
    for label in LABELS:
        number, held = wanted.number(label), before.number(label)
        if number is None:
            continue
        if number in chosen:
            numbers[label] = number
            continue
        problem = f"{label} is to be version {number}, which is not loaded"
        if held is not None and held in chosen:
            numbers[label] = held
            problem += f"; it is still {held}"
        else:
            missing[label] = number
        problems.append(problem)
    serving = Serving(chosen, Labels(**numbers, canary_weight=wanted.canary_weight), missing)
    if "stable" in missing and chosen:
        problems.append(f"what names no version goes to {serving.unnamed}")
    return serving, "; ".join(problems) or None


def _promised(folder: Path) -> Manifest:
    manifest = read_manifest(folder)
    verify_files(folder, manifest)
    return manifest


def _open(
    folder: Path,
    manifest: Manifest,
    name: EngineName,
    settings: Settings,
    shared: Path | None,
) -> Engine:
    """Load, warm up and probe a version that was verified."""
    exact = settings.precision == "float32"
    engine = open_engine(name, folder, threads=settings.threads, exact=exact, few=True, shared=shared)
    warm_up(engine, manifest, settings.max_batch)
    probe(engine, manifest, PROBE_TOLERANCE if exact else ROUNDED_TOLERANCE)
    return engine


def _remove(weights: Iterable[Path]) -> None:
    """Other workers that still have them mapped keep them."""
    for shared in weights:
        rmtree(shared, ignore_errors=True)


def _reason(error: Exception) -> str:
    # Foreign exceptions may name paths and internals; the log has them.
    return str(error) if isinstance(error, InvalidVersion) else f"the engine cannot load it ({type(error).__name__})"
