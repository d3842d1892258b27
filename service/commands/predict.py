"""`python -m service predict`: pictures in, a table or one JSON object out; a running service answers."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, NamedTuple

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from service.client import AsyncClient
from service.client.calls import PredictOptions
from service.client.connection import SERVER
from service.commands.asking import FAILURES, HOPELESS, Key, Problem, problem, progress
from service.commands.sources import Source, fetching, gather, text
from service.http.schemas import PredictAnswer

HELP = "\n".join(
    (
        "Ask a running service what is on pictures: files, folders and those below, addresses, which are fetched here.",
        "\n\b",
        "Examples:",
        "  python -m service predict examples/lemon.png",
        "  python -m service predict examples --model fruit_cnn --top-k 1",
        "  python -m service predict photo.jpg https://example.org/lemon.jpg --server https://fruits.example.org",
        "  python -m service predict examples --json > answers.json",
        "\n\b",
        "It ends with 0 where each picture got an answer, 1 where one did not, 2 where it was called wrongly, 130",
        "where it was interrupted; what was answered until then is printed all the same.",
    )
)
BAR_WIDTH = 10
INTERRUPTED = 130
RECOGNISED = {True: "[green]yes[/]", False: "[yellow]no[/]", None: "-"}


class Answered(NamedTuple):
    """One picture, and what the service said of it, or what went wrong."""

    source: Source
    answer: PredictAnswer | Problem


def predict_pictures(
    pictures: Annotated[
        list[str],
        typer.Argument(help="Files, folders and addresses of pictures.", show_default=False),
    ],
    server: Annotated[str, typer.Option(help="Address of the service.", metavar="URL")] = SERVER,
    key: Key = None,
    model: Annotated[str | None, typer.Option(help="Name of a model; else the service's default.")] = None,
    version: Annotated[
        str | None, typer.Option(help="Number of a version, stable or canary; else stable, else the highest.")
    ] = None,
    top_k: Annotated[int, typer.Option(min=1, max=1000, help="How many classes, the most probable first.")] = 5,
    store: Annotated[
        bool, typer.Option(help="Whether the service keeps the pictures for other calls.", show_default=True)
    ] = True,
    at_once: Annotated[int, typer.Option(min=1, max=64, help="Pictures that are sent at the same time.")] = 4,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as one JSON object, and nothing else.")
    ] = False,
) -> None:
    """Classify pictures."""
    options: PredictOptions = {"model": model, "top_k": top_k, "store": store}
    if version is not None:
        options["version"] = version  # type: ignore[typeddict-item]
    sources: list[Source] = []
    by_place: dict[int, Answered] = {}
    status, why = 0, ""
    try:
        with progress() as bars:
            sources = gather(pictures)
            bar = bars.add_task(f"{len(sources)} pictures", total=len(sources), visible=len(sources) > 1)
            asyncio.run(_ask(server, key, sources, options, at_once, by_place, lambda: bars.advance(bar)))
    except KeyboardInterrupt:
        status, why = INTERRUPTED, "interrupted"
    except FAILURES as error:
        status, why = 1, ": ".join(problem(error, server))
    answered = [by_place[place] for place in sorted(by_place)]
    if why and not answered:
        typer.echo(why, err=True)
        sys.exit(status)
    if as_json:
        typer.echo(json.dumps({"server": server, "pictures": [_json(one) for one in answered]}))
    else:
        _print(Console(), answered)
    failed = sum(isinstance(one.answer, Problem) for one in answered)
    if why:
        typer.echo(f"{len(answered) - failed} of {len(sources)} answered: {why}", err=True)
    sys.exit(status or (1 if failed else 0))


async def _ask(
    server: str,
    key: str | None,
    sources: Sequence[Source],
    options: PredictOptions,
    at_once: int,
    answered: dict[int, Answered],
    on_answer: Callable[[], object],
) -> None:
    """Fill `answered` as answers come, by the place of the picture: whoever interrupts loses none."""
    turns = asyncio.Semaphore(at_once)
    async with AsyncClient(server, key=key) as client, fetching() as web:
        # Who is not there need not be asked for each picture.
        await client.live()

        async def ask(place: int, source: Source) -> None:
            async with turns:
                try:
                    answered[place] = Answered(source, await client.predict(await source.read(web), **options))
                except HOPELESS:
                    raise
                except FAILURES as error:
                    answered[place] = Answered(source, problem(error))
                finally:
                    on_answer()

        tasks = [asyncio.create_task(ask(place, source)) for place, source in enumerate(sources)]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()


def _json(one: Answered) -> dict[str, object]:
    shown = {"picture": text(one.source.shown)}
    if isinstance(one.answer, Problem):
        return {**shown, "problem": one.answer._asdict()}
    (image,) = one.answer.images
    told = image.model_dump(mode="json", exclude={"name"})
    return {**shown, "model": one.answer.model, "version": one.answer.version, **told}


def _print(console: Console, answered: Sequence[Answered]) -> None:
    answers = [one.answer for one in answered if isinstance(one.answer, PredictAnswer)]
    by = sorted({f"{answer.model}/{answer.version}" for answer in answers})
    title = escape(f"by {', '.join(by)}") if by else None
    # Without edges, names of 20 letters fit into a terminal of 80 columns.
    table = Table(title=title, title_justify="left", show_edge=False, pad_edge=False)
    table.add_column("picture", overflow="fold")
    table.add_column("class", overflow="fold")
    table.add_column("probability", no_wrap=True)
    table.add_column("recognised", no_wrap=True)
    table.add_column("seconds", justify="right", no_wrap=True)
    for one in answered:
        name = Text(text(one.source.shown))
        if isinstance(one.answer, Problem):
            table.add_row(name, Text(": ".join(one.answer), "red"), end_section=True)
            continue
        (image,) = one.answer.images
        seconds = image.seconds.decode + image.seconds.queue + image.seconds.inference
        beside = (RECOGNISED[image.recognised], f"{seconds:.3f}")
        for place, prediction in enumerate(image.predictions, 1):
            row = (Text(prediction.label), _bar(prediction.probability))
            last = place == len(image.predictions)
            table.add_row(name if place == 1 else "", *row, *(beside if place == 1 else ()), end_section=last)
    console.print(table)


def _bar(probability: float) -> Table:
    grid = Table.grid(padding=(0, 1))
    grid.add_column(justify="right", width=6)
    grid.add_column(width=BAR_WIDTH)
    bar = ProgressBar(1.0, probability, BAR_WIDTH, complete_style="green", finished_style="green")
    grid.add_row(f"{probability:.1%}", bar)
    return grid
