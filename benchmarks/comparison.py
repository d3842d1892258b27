"""A model, a picture and peers in, what every server did by turns out."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.engine_alone import engine_alone, largest_batch
from benchmarks.environments import environment, versions
from benchmarks.errors import BenchmarkFailed
from benchmarks.load import Load, camera_jpeg, post_repeatedly, small_jpeg
from benchmarks.report import EngineRun, Run
from benchmarks.servers import PEERS, Kind, Running, empty, highest_version, ours, start

OURS, EMPTY = "sichtbar", "empty"
NAMES = (*PEERS, EMPTY)
WARM_UP_SECONDS = 3


@dataclass(frozen=True)
class Plan:
    """What is compared, and for how long."""

    models: Path
    model: str
    picture: Path
    megapixels: float | None
    """Of a camera's JPEG; none: a small one."""
    peers: tuple[str, ...]
    levels: tuple[int, ...]
    rounds: int
    seconds: int
    engine_alone: bool

    @property
    def batch_sizes(self) -> list[int]:
        """Of the engine alone: single pictures, as many as are asked for at once, and as many as it takes."""
        most = largest_batch()
        return sorted({1, most, *(min(level, most) for level in self.levels)})

    @property
    def steps(self) -> int:
        """Of which `tell` hears, at most."""
        turns = 1 + self.rounds * len(self.levels)
        return (1 + len(self.peers)) * turns + (self.rounds if self.engine_alone else 0)


@dataclass
class Part:
    """What came of a plan."""

    plan: Plan
    picture_bytes: int
    runs: list[Run] = field(default_factory=list)
    engine: list[EngineRun] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    """By peer: why it has no figures, or not all."""
    versions: dict[str, dict[str, str]] = field(default_factory=dict)
    """By server: its packages."""


def compare(plan: Plan, tell: Callable[[str, int], None]) -> Part:
    """Measure ours and the peers by turns; `tell` hears what goes on, and how many steps are done since.

    Who is not being measured is paused: some peers poll and gossip when nobody asks them anything.

    Raises:
        BenchmarkFailed: ours cannot be measured. A peer that cannot is among the missing.
    """
    picture = camera_jpeg(plan.picture, plan.megapixels) if plan.megapixels else small_jpeg(plan.picture)
    version = highest_version(plan.models, plan.model)
    part = Part(plan, len(picture))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sichtbar-benchmark-")))
        (folder / "picture.jpg").write_bytes(picture)

        def enter(kind: Kind) -> Running:
            tell(f"starting {kind.name}", 0)
            with ExitStack() as own:
                server = own.enter_context(start(kind, folder / f"{kind.name}.log", picture))
                _load(server, folder, picture, concurrency=max(plan.levels), seconds=WARM_UP_SECONDS)
                server.settle()
                server.tree.pause()
                part.versions[kind.name] = versions(kind.python)
                stack.enter_context(own.pop_all())
            tell(f"{kind.name} is ready", 1)
            return server

        servers = [enter(ours(plan.models, plan.model))]
        with _resumed(servers[0]):
            label, answer = servers[0].classify(picture), servers[0].ask(picture)
        for name in plan.peers:
            try:
                if name == EMPTY:
                    kind = empty(answer)
                else:
                    kind = PEERS[name](environment(name, lambda text: tell(text, 0)), version)
                server = enter(kind)
                with _resumed(server):
                    theirs = server.classify(picture)
                if theirs != label:
                    raise BenchmarkFailed(f"{name} says {theirs} where ours says {label}: choose another --picture")
            except BenchmarkFailed as failure:
                part.missing[name] = str(failure)
            else:
                servers.append(server)
        for number in range(1, plan.rounds + 1):
            if plan.engine_alone:
                tell(f"engine alone, round {number}", 0)
                rates = engine_alone(version, folder / "picture.jpg", plan.batch_sizes, plan.seconds)
                part.engine += [EngineRun(size, number, rate) for size, rate in rates.items()]
                tell(f"engine alone, round {number}", 1)
            for level, server in _turns(servers, plan.levels, number):
                name = server.kind.name
                if name in part.missing:
                    continue
                tell(f"{name}, {level} at once, round {number}", 0)
                try:
                    part.runs.append(_run(server, folder, picture, level, number, plan.seconds))
                except BenchmarkFailed as failure:
                    if name == OURS:
                        raise
                    part.missing[name] = str(failure)
                tell(f"{name}, {level} at once, round {number}", 1)
    return part


def _turns(servers: list[Running], levels: tuple[int, ...], number: int) -> Iterator[tuple[int, Running]]:
    """Every concurrency and server; who begins alternates, so that none always meets the warmer machine."""
    for level in levels:
        for server in servers if number % 2 else reversed(servers):
            yield level, server


def _run(server: Running, folder: Path, picture: bytes, level: int, number: int, seconds: int) -> Run:
    with _resumed(server):
        # What it put off while it was paused comes first.
        server.ask(picture)
        server.settle()
        before = server.tree.cpu_seconds()
        load = _load(server, folder, picture, concurrency=level, seconds=seconds)
        after = server.tree.cpu_seconds()
        spent = None if before is None or after is None else after - before
        return Run(server.kind.name, level, number, load, spent, server.tree.resident_bytes())


def _load(server: Running, folder: Path, picture: bytes, *, concurrency: int, seconds: int) -> Load:
    upload = server.kind.upload(picture)
    body = folder / f"{server.kind.name}.body"
    body.write_bytes(upload.body)
    return post_repeatedly(server.url, upload.content_type, body, concurrency=concurrency, seconds=seconds)


@contextmanager
def _resumed(server: Running) -> Iterator[None]:
    server.tree.resume()
    try:
        yield
    finally:
        server.tree.pause()
