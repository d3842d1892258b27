"""`python -m service explain`: pictures in, overlays, numbers and a page out; made here, or by a service."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.progress import Progress

from service.choices import Method
from service.commands.asking import FAILURES, Key, problem
from service.commands.explain_there import explain_there
from service.commands.sources import SourceError, gather, pictures_below
from service.engines import choose_engine
from service.errors import ServiceError
from service.explain.folder import Explained, Sheet, explain_folder
from service.explain.process import Explainer
from service.explain.question import MAX_SAMPLES, MIN_SAMPLES, Question, find_label
from service.explain.style import Polarity, Style, StyleName
from service.logs import configure_logging
from service.repository import find_version
from service.settings import Settings

HELP = "\n".join(
    (
        "Explain every picture of a folder: overlays as PNG, numbers as JSON, and a page that shows them all.",
        "\n",
        "With --server a running service explains: folders, files, and pictures at addresses, which are fetched here.",
        "\n\b",
        "Examples:",
        "  python -m service explain pictures --out explained",
        "  python -m service explain pictures --out explained --model fruit_vgg16 --method both",
        "  python -m service explain pictures --out explained --label Lemon --polarity both --top-superpixels 8",
        "  python -m service explain a.jpg b.jpg --out explained --server http://127.0.0.1:8000",
    )
)


def explain_pictures(
    pictures: Annotated[
        list[str],
        typer.Argument(
            help="Folder of pictures, also in folders below it; with --server also files and addresses, and several.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to write to; made where it is missing.", show_default=False)],
    server: Annotated[
        str | None, typer.Option(help="Address of a service that explains, instead of this program.", metavar="URL")
    ] = None,
    key: Key = None,
    model: Annotated[
        str | None, typer.Option(help="Name of a model; else SICHTBAR_DEFAULT_MODEL, or the only one.")
    ] = None,
    version: Annotated[int | None, typer.Option(min=1, help="Number of a version; else the highest.")] = None,
    method: Annotated[
        Literal[Method, "both"], typer.Option(help="How to explain; both: by LIME and by Grad-CAM.")
    ] = "lime",
    label: Annotated[str | None, typer.Option(help="Class to explain; else the predicted one.")] = None,
    samples: Annotated[
        int | None,
        typer.Option(min=MIN_SAMPLES, max=MAX_SAMPLES, help="Of LIME; else as many as the ranking needs to settle."),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of LIME; else from each picture.")] = None,
    style: Annotated[StyleName, typer.Option(help="How to draw it.")] = "overlay",
    polarity: Annotated[
        Polarity, typer.Option(help="Of LIME: what speaks for the class, against it, or both.")
    ] = "positive",
    top_superpixels: Annotated[int, typer.Option(min=1, help="Of LIME: how many are drawn.")] = 5,
) -> None:
    """Explain pictures."""
    methods: list[Method] = ["lime", "gradcam"] if method == "both" else [method]
    asked = [Question("lime", None, samples, seed) if each == "lime" else Question(each) for each in methods]
    look = Style(style, polarity, top_superpixels)
    if server is None and len(pictures) > 1:
        raise typer.BadParameter("expected one folder, or --server with several", param_hint="PICTURES")
    configure_logging("error")
    try:
        if server is None:
            page, explained = _explain_here(Path(pictures[0]), out, model, version, label, asked, look)
        else:
            there = explain_there(server, key, gather(pictures, out), out, model, version, label, asked, look)
            page, explained = asyncio.run(there)
    except (ServiceError, *FAILURES) as error:
        sys.exit(": ".join(problem(error, server or "")))
    for one in explained:
        if one.problem:
            typer.echo(f"{one.picture}: {one.problem}", err=True)
    written = sum(one.overlay is not None for one in explained)
    typer.echo(f"{written} of {len(explained)} explained; look at {page}")
    sys.exit(0 if written == len(explained) else 1)


def _explain_here(
    folder: Path,
    out: Path,
    model: str | None,
    version: int | None,
    label: str | None,
    asked: Sequence[Question],
    look: Style,
) -> tuple[Path, list[Explained]]:
    pictures = pictures_below(folder, out)
    if not pictures:
        raise SourceError(f"expected a folder with pictures, found none at {folder}")
    settings = Settings.from_environ()
    manifest, path = find_version(settings, model, version)
    index = None if label is None else find_label(manifest, label)

    async def explain_all(sheet: Sheet) -> list[Explained]:
        explainer = Explainer(await asyncio.to_thread(choose_engine, settings.engine), threads=settings.threads, nice=0)
        try:
            with Progress(console=Console(stderr=True), transient=True) as bars:
                bar = bars.add_task(f"{len(pictures)} pictures by {manifest.name}/{manifest.version}", total=1.0)
                return await explain_folder(
                    explainer,
                    path,
                    folder,
                    pictures,
                    sheet,
                    [question._replace(class_index=index) for question in asked],
                    look,
                    settings.max_pixels,
                    lambda share: bars.update(bar, completed=share),
                )
        finally:
            await explainer.close()

    with Sheet(out, manifest) as sheet:
        return sheet.page, asyncio.run(explain_all(sheet))
