"""Two servers and a picture in, requests a second of each and their ratio out: `python -m benchmarks.serve`."""

from __future__ import annotations

import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from benchmarks import report
from benchmarks.errors import BenchmarkFailed
from benchmarks.load import camera_jpeg, post_repeatedly, require_wrk, small_jpeg
from benchmarks.servers import Kind, Running, ours, start, tutorial

CONCURRENCY = [1, 8, 32]
WARM_UP_SECONDS = 3

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")


@app.command(
    epilog="\n\n".join(
        (
            "[bold]Examples[/bold]",
            "python -m benchmarks.serve",
            "python -m benchmarks.serve --rounds 2 --seconds 4 --concurrency 1 --concurrency 32",
            "python -m benchmarks.serve --megapixels 12 --concurrency 1 --concurrency 8",
            "python -m benchmarks.serve --models /srv/models --model fruit_cnn --json figures.json",
        )
    )
)
def serve(
    models: Annotated[Path, typer.Option(help="Folder of <model>/<version>/ folders.")] = Path("models"),
    model: Annotated[str, typer.Option(help="The model that both serve, in its highest version.")] = "fruit_cnn",
    picture: Annotated[
        Path, typer.Option(help="The picture to send, made a JPEG of 100 x 100 pixels and about 3 KB.")
    ] = Path("examples/banana.png"),
    megapixels: Annotated[
        float | None, typer.Option(min=0.1, max=50, help="Send it as a camera's JPEG of so many megapixels instead.")
    ] = None,
    concurrency: Annotated[
        list[int] | None, typer.Option(min=1, help="Requests open at once; repeat it.", show_default="1, 8, 32")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often each server is measured at each concurrency.")] = 3,
    seconds: Annotated[int, typer.Option(min=1, help="Length of each measurement.")] = 8,
    json: Annotated[Path | None, typer.Option(help="File for the raw figures.", metavar="FILE")] = None,
) -> None:
    """Measure Sichtbar beside a tutorial's FastAPI and TensorFlow app: same model, picture, machine and minutes.

    Both run as one process each on 127.0.0.1 and take turns; whichever is not being measured is idle. wrk makes the
    load on the same machine. Fails where an answer was not 2xx.
    """
    _stop_servers_on_signals()
    levels = list(dict.fromkeys(concurrency or CONCURRENCY))
    try:
        machine = report.this_machine(require_wrk())
        jpeg = camera_jpeg(picture, megapixels) if megapixels else small_jpeg(picture)
        runs = _measure([ours(models, model), tutorial(models, model)], jpeg, levels, rounds, seconds)
    except BenchmarkFailed as failure:
        Console(stderr=True).print(Text.assemble(("error: ", "bold red"), str(failure)), soft_wrap=True)
        raise typer.Exit(1) from None
    rows = report.summarise(runs)
    compared = report.ratios(rows, "sichtbar", "tutorial")
    report.show(Console(), rows, compared, machine)
    if json is not None:
        how = {"model": model, "picture_bytes": len(jpeg), "rounds": rounds, "seconds": seconds}
        report.write(json, runs, compared, machine, how)
    if any(row.failures for row in rows):
        raise typer.Exit(1)


def _measure(kinds: list[Kind], picture: bytes, levels: list[int], rounds: int, seconds: int) -> list[report.Run]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sichtbar-benchmark-")))
        progress = stack.enter_context(_progress())
        steps = progress.add_task("starting", total=len(kinds) * (1 + rounds * len(levels)))
        servers = [stack.enter_context(start(kind, folder / f"{kind.name}.log")) for kind in kinds]
        _require_same_class(servers, picture)
        path = folder / "picture.jpg"
        path.write_bytes(picture)
        for server in servers:
            progress.update(steps, description=f"warming up {server.kind.name}")
            post_repeatedly(server.url, path, concurrency=max(levels), seconds=WARM_UP_SECONDS)
            progress.advance(steps)
        runs = []
        for round_, level, server in _turns(servers, levels, rounds):
            progress.update(steps, description=f"{server.kind.name}, {level} at once, round {round_}")
            runs.append(_run(server, path, level, round_, seconds))
            progress.advance(steps)
        return runs


def _run(server: Running, picture: Path, concurrency: int, number: int, seconds: int) -> report.Run:
    before = server.cpu_seconds()
    load = post_repeatedly(server.url, picture, concurrency=concurrency, seconds=seconds)
    after = server.cpu_seconds()
    spent = None if before is None or after is None else after - before
    return report.Run(server.kind.name, concurrency, number, load, spent, server.resident_bytes())


def _turns(servers: list[Running], levels: list[int], rounds: int) -> Iterator[tuple[int, int, Running]]:
    """Every round, concurrency and server; who begins alternates, so that neither always meets the warmer machine."""
    for number in range(1, rounds + 1):
        for level in levels:
            for server in servers if number % 2 else reversed(servers):
                yield number, level, server


def _require_same_class(servers: list[Running], picture: bytes) -> None:
    classes = {server.kind.name: server.classify(picture) for server in servers}
    if len(set(classes.values())) > 1:
        found = ", ".join(f"{name} says {label}" for name, label in classes.items())
        raise BenchmarkFailed(f"expected the same class of the picture, but {found}; choose another with --picture")


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)


def _stop_servers_on_signals() -> None:
    """Leave through every context on SIGTERM and SIGHUP too, as Ctrl-C does."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _: sys.exit(128 + received))


if __name__ == "__main__":
    app(prog_name="python -m benchmarks.serve")
