"""A process in, all that it started out: their memory and processor time, paused, resumed and ended together."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True)
class _Process:
    pid: int
    parent: int
    started: int
    """In clock ticks since boot: another process may have the number later."""
    ticks: int
    """Computed so far, with its children that have ended."""


class Tree:
    """A process and its descendants, as they are when asked; where the system has no `/proc`, nothing but signals."""

    def __init__(self, root: int) -> None:
        self._root = root

    def resident_bytes(self) -> int | None:
        """Resident memory of all; pages that several processes share count once, each has its part of them."""
        sizes = [size for process in self._all() if (size := _resident_bytes(process.pid)) is not None]
        return sum(sizes) if sizes else None

    def cpu_seconds(self) -> float | None:
        """What all have computed so far, on all cores."""
        processes = self._all()
        return sum(process.ticks for process in processes) / os.sysconf("SC_CLK_TCK") if processes else None

    def pause(self) -> None:
        """Stop all where they are, so that none computes or polls."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let all go on."""
        self._signal(signal.SIGCONT)

    def rest(self) -> Rest:
        """All of now, to end those that outlive the root."""
        return Rest(self._all())

    def _signal(self, number: signal.Signals) -> None:
        for pid in [process.pid for process in self._all()] or [self._root]:
            _send(pid, number)

    def _all(self) -> list[_Process]:
        """Parents before children."""
        processes = {process.pid: process for process in _processes()}
        children: dict[int, list[int]] = {}
        for process in processes.values():
            children.setdefault(process.parent, []).append(process.pid)
        pids = [self._root] if self._root in processes else []
        for pid in pids:
            pids += children.get(pid, [])
        return [processes[pid] for pid in pids]


class Rest:
    """The processes of one moment."""

    def __init__(self, processes: list[_Process]) -> None:
        self._processes = processes

    def kill(self) -> None:
        """End those that still run; whoever has their number now is spared."""
        running = {(process.pid, process.started) for process in _processes()}
        for process in self._processes:
            if (process.pid, process.started) in running:
                _send(process.pid, signal.SIGKILL)


def _processes() -> Iterator[_Process]:
    for folder in PROC.glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        # proc(5), from the third field on: the name in brackets before may hold spaces.
        fields = stat.rpartition(")")[2].split()
        yield _Process(int(folder.name), int(fields[1]), int(fields[19]), sum(map(int, fields[11:15])))


def _resident_bytes(pid: int) -> int | None:
    for file, field in (("smaps_rollup", "Pss"), ("status", "VmRSS")):
        try:
            text = (PROC / str(pid) / file).read_text(encoding="utf-8")
        except OSError:
            continue
        if found := re.search(rf"^{field}:\s+(\d+) kB", text, re.MULTILINE):
            return int(found[1]) * 1024
    return None


def _send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        # It has ended by itself.
        return
