"""Runs in, medians and ratios out, as a table on the terminal, with the machine they hold for."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.load import Load

HEADINGS = ("server", "at once", "req/s", "range", "p50 ms", "p99 ms", "CPU ms", "failed", "MiB")


@dataclass(frozen=True)
class Run:
    """One server under one load."""

    server: str
    concurrency: int
    round: int
    load: Load
    cpu_seconds: float | None
    """What the server's processes computed meanwhile, on all cores."""
    resident_bytes: int | None
    """Of all its processes."""

    @property
    def cpu_ms_per_request(self) -> float | None:
        """The least noisy figure on a machine that does other work too."""
        return None if self.cpu_seconds is None or not self.load.answers else self.cpu_seconds * 1e3 / self.load.answers


@dataclass(frozen=True)
class EngineRun:
    """Our engine alone, in batches of one size."""

    batch: int
    round: int
    pictures_per_second: float


@dataclass(frozen=True)
class Row:
    """All rounds of one server at one concurrency: medians, and how far the rounds lie apart."""

    server: str
    concurrency: int
    requests_per_second: float
    slowest: float
    fastest: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float | None
    """Of a request."""
    failures: int
    resident_bytes: int | None


@dataclass(frozen=True)
class Machine:
    """What the figures hold for."""

    cpu: str
    cores: int
    load_average: float
    """Of the minute before; what else ran here makes the figures worse."""
    python: str
    wrk: str


def this_machine(wrk: str) -> Machine:
    """Processor and versions."""
    return Machine(
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        load_average=os.getloadavg()[0],
        python=platform.python_version(),
        wrk=wrk,
    )


def summarise(runs: Sequence[Run]) -> list[Row]:
    """A row for each concurrency and server, in the order of the runs."""
    keys = dict.fromkeys((run.concurrency, run.server) for run in runs)
    return [_row([run for run in runs if (run.concurrency, run.server) == key]) for key in keys]


@dataclass(frozen=True)
class Ratio:
    """Ours over theirs, of the medians at one concurrency."""

    requests_per_second: float | None
    p50: float | None


def ratios(rows: Sequence[Row], ours: str) -> dict[str, dict[int, Ratio]]:
    """By peer, and by concurrency; none where a peer answered nothing."""
    found: dict[str, dict[int, Ratio]] = {}
    our_rows = {row.concurrency: row for row in rows if row.server == ours}
    for row in rows:
        if row.server != ours:
            mine = our_rows[row.concurrency]
            found.setdefault(row.server, {})[row.concurrency] = Ratio(
                mine.requests_per_second / row.requests_per_second if row.requests_per_second else None,
                mine.p50_ms / row.p50_ms if row.p50_ms else None,
            )
    return found


def engine_rates(engine: Sequence[EngineRun]) -> dict[int, float]:
    """By batch size: the median of pictures a second."""
    sizes = sorted({run.batch for run in engine})
    return {size: median(run.pictures_per_second for run in engine if run.batch == size) for size in sizes}


def engine_shares(rows: Sequence[Row], ours: str, rates: dict[int, float]) -> dict[int, float]:
    """By concurrency: our requests a second over the engine alone, at its best batch of that many pictures or fewer."""
    shares = {}
    for row in rows:
        within = [rate for size, rate in rates.items() if size <= row.concurrency]
        if row.server == ours and within:
            shares[row.concurrency] = row.requests_per_second / max(within)
    return shares


def show(console: Console, title: str, rows: Sequence[Row], engine: Sequence[EngineRun], ours: str) -> None:
    """Print the table, the ratios to each peer and to the engine alone."""
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("server", no_wrap=True)
    for name in HEADINGS[1:]:
        table.add_column(name, justify="right", no_wrap=True)
    for before, row in zip([None, *rows], rows, strict=False):
        if before is not None and before.concurrency != row.concurrency:
            table.add_section()
        table.add_row(*cells(row), style="red" if row.failures else None)
    console.print(table)
    for peer, levels in ratios(rows, ours).items():
        for level, ratio in levels.items():
            rate, p50 = ratio.requests_per_second, ratio.p50
            if rate is not None and p50 is not None:
                text = f"{level} at once: {rate:.2f} times the requests a second of {peer}, {p50:.2f} times its p50"
                console.print(text, highlight=False)
    rates = engine_rates(engine)
    for size, rate in rates.items():
        console.print(f"engine alone, batches of {size}: {rate:.0f} pictures a second", highlight=False)
    for level, share in engine_shares(rows, ours, rates).items():
        console.print(f"{level} at once: {share:.0%} of the engine alone", highlight=False)


def cells(row: Row) -> list[str]:
    """A row below `HEADINGS`."""
    cpu = "?" if row.cpu_ms is None else f"{row.cpu_ms:.2f}"
    memory = "?" if row.resident_bytes is None else f"{row.resident_bytes / 2**20:.0f}"
    return [
        row.server,
        str(row.concurrency),
        _rate(row.requests_per_second),
        f"{_rate(row.slowest)}-{_rate(row.fastest)}",
        f"{row.p50_ms:.1f}",
        f"{row.p99_ms:.1f}",
        cpu,
        str(row.failures),
        memory,
    ]


def _rate(per_second: float) -> str:
    return f"{per_second:.0f}" if per_second >= 100 else f"{per_second:.1f}"


def _row(runs: Sequence[Run]) -> Row:
    rates = [run.load.requests_per_second for run in runs]
    cpu = [run.cpu_ms_per_request for run in runs if run.cpu_ms_per_request is not None]
    return Row(
        server=runs[0].server,
        concurrency=runs[0].concurrency,
        requests_per_second=median(rates),
        slowest=min(rates),
        fastest=max(rates),
        p50_ms=median(run.load.p50_ms for run in runs),
        p99_ms=median(run.load.p99_ms for run in runs),
        cpu_ms=median(cpu) if cpu else None,
        failures=sum(run.load.failures for run in runs),
        resident_bytes=max((run.resident_bytes for run in runs if run.resident_bytes is not None), default=None),
    )


def _cpu() -> str:
    try:
        found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()
