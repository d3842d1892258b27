"""A service and a picture in, how long predictions take while it explains, and while it does not, out."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from time import monotonic, sleep
from typing import Annotated

import httpx
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.errors import BenchmarkFailed
from benchmarks.load import Load, post_repeatedly, require_wrk, small_jpeg
from benchmarks.servers import ours, start
from benchmarks.uploads import form

WARM_UP_SECONDS = 3
PRELOAD_SECONDS = 120
# More than any round lasts: the explanation goes on from one round to the next.
SAMPLES = 10_000

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")


@dataclass(frozen=True)
class Pair:
    """One round of each."""

    alone: Load
    explaining: Load
    samples: int
    """How far the explanations came meanwhile."""


@app.command(
    epilog="\n\n".join(
        (
            "[bold]Examples[/bold]",
            "python -m benchmarks.beside",
            "python -m benchmarks.beside --explained fruit_vgg16 --rounds 5 --seconds 10",
        )
    )
)
def run(
    models: Annotated[Path, typer.Option(help="Folder of <model>/<version>/ folders.")] = Path("models"),
    model: Annotated[str, typer.Option(help="The model that is asked for predictions.")] = "fruit_cnn",
    explained: Annotated[str, typer.Option(help="The model that is explained by LIME meanwhile.")] = "fruit_vgg16",
    picture: Annotated[Path, typer.Option(help="The picture for both.")] = Path("examples/banana.png"),
    concurrency: Annotated[int, typer.Option(min=1, help="Requests open at once.")] = 4,
    rounds: Annotated[int, typer.Option(min=1, help="How often each is measured.")] = 5,
    seconds: Annotated[int, typer.Option(min=1, help="Length of each measurement.")] = 8,
    figures: Annotated[Path | None, typer.Option("--json", help="File for the raw figures.", metavar="FILE")] = None,
) -> None:
    """Ask for predictions while the same service explains, and while it does not, by turns."""
    console = Console()
    try:
        require_wrk()
        pairs = _measure(models, model, explained, small_jpeg(picture), concurrency, rounds, seconds)
    except (BenchmarkFailed, httpx.HTTPError) as failure:
        Console(stderr=True).print(f"error: {failure}", soft_wrap=True, markup=False)
        raise typer.Exit(1) from None
    table = Table("", "alone", "explaining", "explaining / alone", title=f"{model} while {explained} is explained")
    for name in ("p50_ms", "p99_ms", "requests_per_second"):
        alone = median(getattr(pair.alone, name) for pair in pairs)
        busy = median(getattr(pair.explaining, name) for pair in pairs)
        table.add_row(name, f"{alone:.2f}", f"{busy:.2f}", f"{busy / alone:.2f}")
    table.add_row("samples a second", "", f"{median(pair.samples for pair in pairs) / seconds:.1f}", "")
    console.print(table)
    failures = sum(load.failures for pair in pairs for load in (pair.alone, pair.explaining))
    console.print(f"{failures} failures")
    if figures:
        figures.write_text(json.dumps([asdict(pair) for pair in pairs], indent=2) + "\n", encoding="utf-8")
    if failures:
        raise typer.Exit(1)


def _measure(
    models: Path, model: str, explained: str, jpeg: bytes, concurrency: int, rounds: int, seconds: int
) -> list[Pair]:
    with tempfile.TemporaryDirectory(prefix="sichtbar-benchmark-") as folder:
        path = Path(folder) / "body"
        upload = form(jpeg)
        path.write_bytes(upload.body)
        with start(ours(models, model), Path(folder) / "log", jpeg) as server, httpx.Client(timeout=60) as client:

            def load(length: int) -> Load:
                return post_repeatedly(server.url, upload.content_type, path, concurrency=concurrency, seconds=length)

            _explain_once(client, server.base, explained, jpeg)
            load(WARM_UP_SECONDS)
            pairs = []
            for number in range(rounds):
                alone = load(seconds)
                with _job(client, server.base, explained, jpeg, number) as done:
                    busy = load(seconds)
                    pairs.append(Pair(alone, busy, done()))
            return pairs


def _explain_once(client: httpx.Client, base: str, model: str, jpeg: bytes) -> None:
    """Wait until everything is loaded."""
    for method in ("lime&samples=16", "gradcam"):
        answer = client.post(f"{base}/explain?model={model}&method={method}&wait=60", files={"file": jpeg})
        if answer.status_code != httpx.codes.OK:
            raise BenchmarkFailed(f"expected an explanation, got {answer.status_code}: {answer.text[:200]}")


@contextmanager
def _job(client: httpx.Client, base: str, model: str, jpeg: bytes, seed: int) -> Iterator[Callable[[], int]]:
    answer = client.post(
        f"{base}/explanations?model={model}&samples={SAMPLES}&seed={seed}", files={"file": jpeg}
    ).raise_for_status()
    job = f"{base}{answer.headers['location']}"

    def done() -> int:
        state = client.get(job).raise_for_status().json()
        if state["state"] != "running":
            raise BenchmarkFailed(f"expected the explanation to run, it is {state['state']}")
        return int(state["progress"]["done"])

    deadline = monotonic() + PRELOAD_SECONDS
    while client.get(job).json()["state"] == "queued" and monotonic() < deadline:
        sleep(0.1)
    before = done()
    try:
        yield lambda: done() - before
    finally:
        client.delete(job)


if __name__ == "__main__":
    app(prog_name="python -m benchmarks.beside")
