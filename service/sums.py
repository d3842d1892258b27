"""What several workers count in, what they count together out: each of them shows it, also of those that have died."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from prometheus_client import Metric, ProcessCollector, values
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from service.team import Team

# What of it is 0 is not shown.
SHOWN_WHERE_TRUE = "sichtbar_model_version_state"
# In /proc/PID/stat after the name, see proc(5): utime and stime, cutime and cstime.
OWN, DEAD_CHILDREN = slice(11, 13), slice(13, 15)


def share(team: Team) -> None:
    """Keep the values of every metric made from now on in files; a worker goes on with those of its predecessor."""
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(team.metrics)
    values.ValueClass = values.MultiProcessValue(lambda: team.worker)  # type: ignore[no-untyped-call]


def forget_worker(folder: Path, worker: int) -> None:
    """A worker has ended: what it counted stays in `folder`, what it had is gone."""
    mark_process_dead(worker, str(folder))  # type: ignore[no-untyped-call]


class Sums(Collector):
    """All workers' values."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterator[Metric]:
        """But for states that versions were in."""
        # What a worker has only just made is empty, and no file of values yet.
        files = [str(file) for file in self._folder.glob("*.db") if _size(file)]
        for metric in MultiProcessCollector.merge(files):  # type: ignore[no-untyped-call]
            if metric.name == SHOWN_WHERE_TRUE:
                metric.samples = [sample for sample in metric.samples if sample.value]
            yield metric


def _size(file: Path) -> int:
    # A worker's gauges go when it dies.
    with suppress(FileNotFoundError):
        return file.stat().st_size
    return 0


class Processes(Collector):
    """What the workers take together."""

    def __init__(self, team: Team) -> None:
        self._team = team

    def collect(self) -> Iterator[Metric]:
        """The sum over the workers, and the start of the first; of CPU time, over all that was ever started."""
        sums: dict[str, Metric] = {}
        for pid in self._team.processes:
            for metric in ProcessCollector(pid=partial(int, pid), registry=None).collect():
                (sample,) = metric.samples
                sum_ = sums.setdefault(metric.name, metric)
                if sum_ is not metric:
                    both = sum_.samples[0].value, sample.value
                    total = min(both) if metric.name == "process_start_time_seconds" else sum(both)
                    sum_.samples = [sample._replace(value=total)]
        cpu = sums.get("process_cpu_seconds")
        if cpu is not None:
            (sample,) = cpu.samples
            cpu.samples = [sample._replace(value=self._processor_seconds())]
        yield from sums.values()

    def _processor_seconds(self) -> float:
        """Of those that live and those that have died; again where one dies meanwhile, which may be counted as both."""
        while True:
            dead = _ticks(os.getppid(), DEAD_CHILDREN)
            living = sum(_ticks(pid, OWN) for pid in [*self._team.processes, *self._team.helper_process])
            if dead == _ticks(os.getppid(), DEAD_CHILDREN):
                return (living + dead) / os.sysconf("SC_CLK_TCK")


def _ticks(pid: int, which: slice) -> int:
    """Processor time of a process, or of its children that have died and been waited for."""
    with suppress(OSError):
        # The name before them may hold spaces.
        return sum(map(int, Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[which]))
    return 0
