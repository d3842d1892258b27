"""Runs in, medians, ratios, a table and a JSON file out, with the machine they hold for."""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.load import Load

PACKAGES = ("tensorflow", "tensorflow-cpu", "openvino", "fastapi", "uvicorn", "pillow", "numpy")


@dataclass(frozen=True)
class Run:
    """One server under one load."""

    server: str
    concurrency: int
    round: int
    load: Load
    cpu_seconds: float | None
    """What the server's process computed meanwhile, on all cores."""
    resident_bytes: int | None

    @property
    def cpu_ms_per_request(self) -> float | None:
        """The least noisy figure on a machine that does other work too."""
        return None if self.cpu_seconds is None or not self.load.answers else self.cpu_seconds * 1e3 / self.load.answers


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
    packages: dict[str, str]


def this_machine(wrk: str) -> Machine:
    """Processor and versions."""
    return Machine(
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        load_average=os.getloadavg()[0],
        python=platform.python_version(),
        wrk=wrk,
        packages={name: number for name in PACKAGES if (number := _version(name)) is not None},
    )


def summarise(runs: Sequence[Run]) -> list[Row]:
    """A row for each concurrency and server, in the order of the runs."""
    keys = dict.fromkeys((run.concurrency, run.server) for run in runs)
    return [_row([run for run in runs if (run.concurrency, run.server) == key]) for key in keys]


def ratios(rows: Sequence[Row], ours: str, theirs: str) -> dict[int, float]:
    """By concurrency: our median requests a second over theirs."""
    rates = {(row.server, row.concurrency): row.requests_per_second for row in rows}
    levels = dict.fromkeys(row.concurrency for row in rows)
    return {level: rates[ours, level] / rates[theirs, level] for level in levels if rates[theirs, level]}


def show(console: Console, rows: Sequence[Row], compared: dict[int, float], machine: Machine) -> None:
    """Print the table, the ratios and the machine."""
    table = Table(
        title="requests/s, p50, p99 and CPU time of a request: medians of the rounds",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("server", no_wrap=True)
    for name in ("at once", "req/s", "range", "p50 ms", "p99 ms", "CPU ms", "failed", "MiB"):
        table.add_column(name, justify="right", no_wrap=True)
    for before, row in zip([None, *rows], rows, strict=False):
        if before is not None and before.concurrency != row.concurrency:
            table.add_section()
        table.add_row(*_cells(row))
    console.print(table)
    for level, ratio in compared.items():
        console.print(f"{level} at once: {ratio:.2f} times the tutorial's requests a second", highlight=False)
    versions = ", ".join(f"{name} {number}" for name, number in machine.packages.items())
    console.print(
        f"{machine.cpu}, {machine.cores} cores, load average {machine.load_average:.2f} before; "
        f"Python {machine.python}, {versions}, wrk {machine.wrk}",
        highlight=False,
        soft_wrap=True,
    )


def write(path: Path, runs: Sequence[Run], compared: dict[int, float], machine: Machine, how: dict[str, Any]) -> None:
    """Write every run, unrounded."""
    figures = {
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": asdict(machine),
        "settings": how,
        "ratios": compared,
        "runs": [asdict(run) for run in runs],
    }
    path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


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


def _cells(row: Row) -> list[str]:
    failures = f"[red]{row.failures}[/red]" if row.failures else "0"
    cpu = "?" if row.cpu_ms is None else f"{row.cpu_ms:.2f}"
    memory = "?" if row.resident_bytes is None else f"{row.resident_bytes / 2**20:.0f}"
    return [
        row.server,
        str(row.concurrency),
        f"{row.requests_per_second:.0f}",
        f"{row.slowest:.0f}-{row.fastest:.0f}",
        f"{row.p50_ms:.1f}",
        f"{row.p99_ms:.1f}",
        cpu,
        failures,
        memory,
    ]


def _cpu() -> str:
    try:
        found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
