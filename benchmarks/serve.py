"""Servers and a picture in, requests a second of each and our ratio to them out: `python -m benchmarks.serve`."""

from __future__ import annotations

import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from benchmarks import report
from benchmarks.comparison import NAMES, OURS, Part, Plan, compare
from benchmarks.errors import BenchmarkFailed
from benchmarks.figures import title, write_json, write_markdown
from benchmarks.load import require_wrk

CONCURRENCY = (1, 8, 32)
# What docs/performance.md shows, and how many times longer. Where answers take seconds, those that batch answer many
# together: a short measurement would count a batch more or less. And what decodes tells nothing of the engine.
ALL: tuple[tuple[int, dict[str, Any]], ...] = (
    (1, {"model": "fruit_cnn", "megapixels": None}),
    (2, {"model": "fruit_cnn", "megapixels": 12.0, "engine_alone": False}),
    (2, {"model": "fruit_vgg16", "megapixels": None}),
)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")


@app.command(
    epilog="\n\n".join(
        (
            "[bold]Examples[/bold]",
            "python -m benchmarks.serve",
            "python -m benchmarks.serve --peer litserve --peer empty --engine-alone --concurrency 1 --concurrency 32",
            "python -m benchmarks.serve --megapixels 12 --concurrency 1 --concurrency 8",
            "python -m benchmarks.serve --all --markdown docs/performance.md --json figures.json",
        )
    )
)
def serve(
    models: Annotated[Path, typer.Option(help="Folder of <model>/<version>/ folders.")] = Path("models"),
    model: Annotated[str, typer.Option(help="The model that all serve, in its highest version.")] = "fruit_cnn",
    picture: Annotated[
        Path, typer.Option(help="The picture to send, made a JPEG of 100 x 100 pixels and about 3 KB.")
    ] = Path("examples/banana.png"),
    megapixels: Annotated[
        float | None, typer.Option(min=0.1, max=50, help="Send it as a camera's JPEG of so many megapixels instead.")
    ] = None,
    peer: Annotated[
        list[str] | None,
        typer.Option(help=f"What ours is measured beside: {', '.join(NAMES)}; repeat it.", show_default="tutorial"),
    ] = None,
    engine_alone: Annotated[
        bool, typer.Option("--engine-alone", help="Measure our engine in a loop too, without HTTP and decoding.")
    ] = False,
    everything: Annotated[
        bool,
        typer.Option(
            "--all",
            help="fruit_cnn with small pictures, then with 12 megapixels, fruit_vgg16 with small ones; every peer, "
            "unless some are named; the engine alone. The last two are measured twice as long.",
        ),
    ] = False,
    concurrency: Annotated[
        list[int] | None, typer.Option(min=1, help="Requests open at once; repeat it.", show_default="1, 8, 32")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often each server is measured at each concurrency.")] = 3,
    seconds: Annotated[int, typer.Option(min=1, help="Length of each measurement.")] = 8,
    json: Annotated[Path | None, typer.Option(help="File for the raw figures.", metavar="FILE")] = None,
    markdown: Annotated[
        Path | None,
        typer.Option(
            help="File for the tables; in one that has <!-- figures --> and <!-- /figures -->, what is between.",
            metavar="FILE",
        ),
    ] = None,
) -> None:
    """Measure Sichtbar beside what else serves a SavedModel: same model, picture, machine and minutes.

    All run on 127.0.0.1 and take turns; whichever is not being measured is paused. wrk makes the load on the same
    machine. A peer's environment is made in .bench on first use. Fails where an answer was not 2xx, and where a peer
    could not be measured, after the others have been.
    """
    _stop_servers_on_signals()
    peers = tuple(dict.fromkeys(peer or (NAMES if everything else ("tutorial",))))
    if unknown := set(peers) - set(NAMES):
        raise typer.BadParameter(f"expected some of {', '.join(NAMES)}, got {', '.join(unknown)}", param_hint="--peer")
    levels = tuple(dict.fromkeys(concurrency or CONCURRENCY))
    plan = Plan(models, model, picture, megapixels, peers, levels, rounds, seconds, engine_alone or everything)
    plans = [plan]
    if everything:
        plans = [replace(plan, **part, seconds=seconds * times) for times, part in ALL]
    console = Console()
    try:
        machine = report.this_machine(require_wrk())
        parts = _measure(plans, console)
    except BenchmarkFailed as failure:
        _complain(str(failure))
        raise typer.Exit(1) from None
    console.print(
        f"{machine.cpu}, {machine.cores} cores, load average {machine.load_average:.2f} before; "
        f"Python {machine.python}, wrk {machine.wrk}",
        highlight=False,
        soft_wrap=True,
    )
    if json is not None:
        write_json(json, parts, machine)
    if markdown is not None:
        write_markdown(markdown, parts, machine)
    for part in parts:
        for name, reason in part.missing.items():
            _complain(f"{title(part)}: {name} was not (fully) measured: {reason}")
    if any(part.missing or any(run.load.failures for run in part.runs) for part in parts):
        raise typer.Exit(1)


def _measure(plans: list[Plan], console: Console) -> list[Part]:
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("starting", total=sum(plan.steps for plan in plans))

        def tell(text: str, steps: int) -> None:
            progress.update(task, description=text, advance=steps)
            if not progress.console.is_terminal and not steps:
                progress.console.print(text, highlight=False, soft_wrap=True)

        parts = []
        for plan in plans:
            part = compare(plan, tell)
            report.show(console, title(part), report.summarise(part.runs), part.engine, OURS)
            parts.append(part)
        return parts


def _complain(text: str) -> None:
    Console(stderr=True).print(Text.assemble(("error: ", "bold red"), text), soft_wrap=True)


def _stop_servers_on_signals() -> None:
    """Leave through every context on SIGTERM and SIGHUP too, as Ctrl-C does."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _: sys.exit(128 + received))


if __name__ == "__main__":
    app(prog_name="python -m benchmarks.serve")
