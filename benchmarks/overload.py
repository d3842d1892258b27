"""A service and a picture in, what becomes of answers under ten times its load out: `python -m benchmarks.overload`."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.arrivals import Offered, offer, percentile, post, saturate
from benchmarks.errors import BenchmarkFailed
from benchmarks.load import small_jpeg
from benchmarks.servers import ours, start
from benchmarks.uploads import form

WARM_UP_SECONDS = 2
SHARE = 0.8
MOST_RATIO = 3.0
EXPECTED = {200, 503}
HEADINGS = (
    "",
    "offered/s",
    "200/s",
    "503/s",
    "others",
    "no answer",
    "p50 ms",
    "p99 ms",
    "503 p99 ms",
    "client's p99 ms",
)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")


@dataclass(frozen=True)
class Overload:
    """One service under what it can bear, under less, and under far more."""

    sustained: Offered
    """Clients that wait for their answers: what it can bear."""
    usual: Offered
    over: Offered

    @property
    def ratio(self) -> float:
        """The p99 of answers under far more than it can bear, over that under `SHARE` of it."""
        return self.over.percentile(0.99) / self.usual.percentile(0.99)

    @property
    def problems(self) -> list[str]:
        """What is not as it should be."""
        found = []
        for name, offered in (("sustained", self.sustained), ("usual", self.usual), ("over", self.over)):
            if others := set(offered.statuses) - EXPECTED:
                found.append(f"{name}: expected 200 and 503 only, got {', '.join(map(str, sorted(others)))}")
            if offered.failures:
                told = ", ".join(f"{number} times {what}" for what, number in offered.failures.items())
                found.append(f"{name}: {told}")
        if not self.ratio <= MOST_RATIO:
            found.append(f"p99 under overload: expected at most {MOST_RATIO:g} times the usual, got {self.ratio:.2f}")
        return found


def measure(
    models: Path, model: str, picture: bytes, *, times: float, clients: int, seconds: int, usual_seconds: int
) -> Overload:
    """Find what one service can bear, then offer it `SHARE` of that, and `times` as much.

    Raises:
        BenchmarkFailed: the service does not start, or takes no connection.
    """
    kind = ours(models, model)
    with tempfile.TemporaryDirectory() as folder, start(kind, Path(folder) / "log", picture) as server:
        server.settle()
        request = post(kind.port, kind.path, form(picture))
        saturate(kind.port, request, clients=clients, seconds=WARM_UP_SECONDS)
        sustained = saturate(kind.port, request, clients=clients, seconds=usual_seconds)
        bearable = sustained.per_second(200)
        if not bearable:
            raise BenchmarkFailed(f"expected answers, got {sustained.statuses} and {dict(sustained.failures)}")
        usual = offer(kind.port, request, rate=SHARE * bearable, seconds=usual_seconds)
        over = offer(kind.port, request, rate=times * bearable, seconds=seconds)
    return Overload(sustained, usual, over)


def cells(name: str, offered: Offered) -> list[str]:
    """A row below `HEADINGS`."""
    others = sum(number for status, number in offered.statuses.items() if status not in EXPECTED)
    return [
        name,
        *(f"{rate:.0f}" for rate in (offered.requests / offered.seconds, *map(offered.per_second, (200, 503)))),
        str(others),
        str(offered.failures.total()),
        *(
            f"{seconds * 1e3:.1f}"
            for seconds in (
                offered.percentile(0.5),
                offered.percentile(0.99),
                offered.percentile(0.99, status=503),
                percentile(offered.late, 0.99),
            )
        ),
    ]


@app.command(
    epilog="\n\n".join(
        (
            "[bold]Examples[/bold]",
            "python -m benchmarks.overload",
            "python -m benchmarks.overload --model fruit_vgg16 --seconds 60 --json figures.json",
        )
    )
)
def run(
    models: Annotated[Path, typer.Option(help="Folder of <model>/<version>/ folders.")] = Path("models"),
    model: Annotated[str, typer.Option(help="The model that is asked, in its highest version.")] = "fruit_cnn",
    picture: Annotated[
        Path, typer.Option(help="The picture to send, made a JPEG of 100 x 100 pixels and about 3 KB.")
    ] = Path("examples/banana.png"),
    times: Annotated[float, typer.Option(min=1, help="How many times what it can bear is offered.")] = 10,
    clients: Annotated[int, typer.Option(min=1, help="Clients that find what it can bear.")] = 32,
    seconds: Annotated[int, typer.Option(min=1, help="Length of the overload.")] = 60,
    usual_seconds: Annotated[int, typer.Option(min=1, help="Length of each measurement before it.")] = 20,
    figures: Annotated[Path | None, typer.Option("--json", help="File for the raw figures.", metavar="FILE")] = None,
) -> None:
    """Offer a service ten times the load that it can bear: the answers that it gives must stay fast.

    What it can bear is what clients get that wait for their answers. Then requests come at random moments, whether or
    not others were answered: 0.8 times as many, and then ten times. Fails where a status is neither 200 nor 503, a
    request got no answer, or the p99 of those with 200 is more than three times that at 0.8.
    """
    console = Console()
    try:
        found = measure(
            models,
            model,
            small_jpeg(picture),
            times=times,
            clients=clients,
            seconds=seconds,
            usual_seconds=usual_seconds,
        )
    except BenchmarkFailed as failure:
        Console(stderr=True).print(f"error: {failure}", soft_wrap=True, markup=False)
        raise typer.Exit(1) from None
    show(console, f"{model}, {seconds} s of overload", found, times)
    if figures is not None:
        parts = {name: vars(offered) for name, offered in vars(found).items()}
        figures.write_text(json.dumps({"model": model, "times": times, **parts}) + "\n", encoding="utf-8")
    for problem in found.problems:
        Console(stderr=True).print(f"error: {problem}", soft_wrap=True, markup=False)
    raise typer.Exit(bool(found.problems))


def show(console: Console, title: str, found: Overload, times: float) -> None:
    """Print the table, and how the answers' p99 changed."""
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    for name in HEADINGS[1:]:
        table.add_column(name, justify="right")
    for name, offered in (
        ("what it can bear", found.sustained),
        (f"{SHARE:g} times as much", found.usual),
        (f"{times:g} times as much", found.over),
    ):
        table.add_row(*cells(name, offered))
    console.print(table)
    waits = ", ".join(f"{wait} s: {number}" for wait, number in sorted(found.over.retry_after.items()))
    console.print(f"p99 of the 200s: {found.ratio:.2f} times that at {SHARE:g}", highlight=False)
    console.print(f"Retry-After: {waits or 'none'}", highlight=False)


if __name__ == "__main__":
    app(prog_name="python -m benchmarks.overload")
