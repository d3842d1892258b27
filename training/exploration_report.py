"""Findings about a folder of pictures in; a page with pictures beside it, a JSON file and tables on a terminal out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.image import imsave
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from service.decode import decode, fit
from service.errors import ImageError
from service.manifest import Input
from training.data import MAX_PIXELS
from training.errors import DataError
from training.explore import Exploration, Explored, Spread
from training.pages import write_figure, write_page

PAGE, FACTS = "explore.html", "explore.json"
SHOWN = Input(height=128, width=128, resize="pad")
GAP = 8
SHOWN_PAIRS = 12
# What the samples and pairs are read from may have changed since it was explored.
BLANK = np.full((SHOWN.height, SHOWN.width, 3), 255, np.uint8)


def write_exploration(explored: Explored, folder: Path, out: Path) -> Path:
    """Write `explore.html`, its PNG files and `explore.json` to `out`; files of those names there are replaced.

    Returns the page.

    Raises:
        DataError: nothing can be written there.
    """
    facts = explored.facts
    near = facts.near_duplicates.listed[:SHOWN_PAIRS] if facts.near_duplicates else []
    try:
        out.mkdir(parents=True, exist_ok=True)
        for number, (_, mean) in enumerate(sorted(explored.means.items())):
            imsave(out / f"mean-{number}.png", mean)
        with_samples = [one for one in facts.classes if one.samples]
        for number, one in enumerate(with_samples):
            imsave(out / f"samples-{number}.png", _strip(folder, one.samples))
        for number, pair in enumerate(near):
            imsave(out / f"pair-{number}.png", _strip(folder, [pair.first, pair.second]))
        spreads = _spreads(facts)
        varied = {name: spread for name, spread in spreads.items() if spread.least < spread.greatest}
        if varied:
            write_figure(out / "spreads.png", _histograms(varied))
        pictures = {one.label: number for number, one in enumerate(with_samples)}
        most = max((sum(one.pictures.values()) for one in facts.classes), default=1)
        page = out / PAGE
        write_page(
            page,
            "explore.html",
            facts=facts,
            pictures=pictures,
            most=most,
            pairs=near,
            spreads=spreads,
            varied=list(varied),
        )
        (out / FACTS).write_text(facts.model_dump_json(indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise DataError(f"{out}: expected a folder to write to: {error.strerror}") from error
    return page


def show_exploration(console: Console, facts: Exploration) -> None:
    """The findings as tables and sentences."""
    table = Table(
        "class",
        *(name if name != "all" else "pictures" for name in facts.splits),
        "unreadable",
        "films",
        "near-duplicates",
        title=f"{escape(facts.folder)}: {facts.pictures} pictures of {len(facts.classes)} classes",
    )
    for one in facts.classes:
        numbers = (*(one.pictures[split] for split in facts.splits), one.unreadable, one.films, one.alike)
        table.add_row(escape(one.label), *map(str, numbers))
    totals = [sum(one.pictures[split] for one in facts.classes) for split in facts.splits]
    films = facts.films.films if facts.films else 0
    alike = facts.near_duplicates.alike if facts.near_duplicates else 0
    table.add_row("[bold]all", *map(str, (*totals, len(facts.unreadable), films, alike)))
    console.print(table)
    if spreads := _spreads(facts):
        table = Table("of the pictures", "least", "median", "greatest")
        for name, spread in spreads.items():
            table.add_row(name, *(f"{value:,.6g}" for value in (spread.least, spread.median, spread.greatest)))
        console.print(table)
    for what, counts in (("formats", facts.formats), ("modes", facts.modes), ("other files", facts.ignored)):
        if counts:
            text = ", ".join(f"{escape(name)} {count}" for name, count in counts.items())
            console.print(f"{what}: {text}", highlight=False, soft_wrap=True)
    for name, reason in list(facts.unreadable.items())[:SHOWN_PAIRS]:
        line = f"[yellow]unreadable[/] {escape(name)}: {escape(reason)}"
        console.print(line, highlight=False, soft_wrap=True)
    for warning in facts.warnings:
        console.print(f"[yellow]warning:[/] {escape(warning)}", highlight=False, soft_wrap=True)
    for refusal in facts.refusals:
        console.print(f"[bold red]fit will refuse:[/] {escape(refusal)}", highlight=False, soft_wrap=True)


def _strip(folder: Path, names: list[str]) -> NDArray[np.uint8]:
    """Pictures side by side: [128, ..., 3]."""
    gap = BLANK[:, :GAP]
    parts = [part for name in names for part in (_picture(folder / name), gap)]
    return np.hstack(parts[:-1])


def _picture(path: Path) -> NDArray[np.uint8]:
    try:
        return fit(decode(path.read_bytes(), max_pixels=MAX_PIXELS), SHOWN)
    except (OSError, ImageError):
        return BLANK


def _spreads(facts: Exploration) -> dict[str, Spread]:
    named = {
        "width (pixels)": facts.widths,
        "height (pixels)": facts.heights,
        "width by height": facts.aspects,
        "file (bytes)": facts.file_bytes,
    }
    return {name: spread for name, spread in named.items() if spread}


def _histograms(spreads: dict[str, Spread]) -> Figure:
    figure = Figure(figsize=(3 * len(spreads), 2.4), layout="constrained")
    for axes, (name, spread) in zip(figure.subplots(1, len(spreads), squeeze=False)[0], spreads.items(), strict=True):
        axes.set_title(name, fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
        axes.bar(spread.edges[:-1], spread.counts, np.diff(spread.edges), align="edge", color="#2f7d4f")
        axes.tick_params(labelsize=8)
        axes.locator_params(axis="x", nbins=5)
        axes.locator_params(axis="y", integer=True)
    return figure
