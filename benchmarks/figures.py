"""Parts of a comparison in, a Markdown document or a JSON file with every run out."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path

from benchmarks.comparison import NAMES, OURS, Part
from benchmarks.report import HEADINGS, Machine, cells, engine_rates, engine_shares, ratios, summarise

BEGIN, END = "<!-- figures -->", "<!-- /figures -->"
SENDS = {"mlserver": "JSON of the Open Inference Protocol, the picture in base64"}


def write_json(path: Path, parts: Sequence[Part], machine: Machine) -> None:
    """Write every run, unrounded."""
    figures = {
        "created": _now(),
        "machine": asdict(machine),
        "parts": [asdict(part) for part in parts],
    }
    path.write_text(json.dumps(figures, indent=2, default=str) + "\n", encoding="utf-8")


def write_markdown(path: Path, parts: Sequence[Part], machine: Machine) -> None:
    """Write the document, or in one that has the marks, what stands between them."""
    figures = f"{BEGIN}\n{markdown(parts, machine)}{END}"
    text = path.read_text(encoding="utf-8") if path.exists() else "# Performance\n\n" + BEGIN + END + "\n"
    if BEGIN not in text or END not in text:
        text = text.rstrip("\n") + f"\n\n{BEGIN}{END}\n"
    marked = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    path.write_text(marked.sub(lambda _: figures, text), encoding="utf-8")


def markdown(parts: Sequence[Part], machine: Machine) -> str:
    """The machine and versions, then each part with its table, its ratios, and what is missing."""
    lines = [
        f"Measured {_now()[:10]} on {machine.cpu}, {machine.cores} cores, "
        f"load average {machine.load_average:.2f} before; Python {machine.python}, wrk {machine.wrk}.",
        "",
        *_versions(parts),
    ]
    for part in parts:
        lines += ["", *_part(part)]
    return "\n".join(lines) + "\n"


def title(part: Part) -> str:
    """Which model and picture."""
    plan = part.plan
    size = f"{part.picture_bytes / 1e6:.1f} MB" if plan.megapixels else f"{part.picture_bytes / 1e3:.1f} KB"
    return f"{plan.model}, a JPEG of {f'{plan.megapixels:g} megapixels, ' if plan.megapixels else ''}{size}"


def _part(part: Part) -> list[str]:
    plan, rows = part.plan, summarise(part.runs)
    levels = list(dict.fromkeys(row.concurrency for row in rows))
    lines = [f"## {title(part)}", "", f"Rounds: {plan.rounds}, of {plan.seconds} s each; medians.", ""]
    lines += _table(HEADINGS, [cells(row) for row in rows])
    if compared := ratios(rows, OURS):
        lines += ["", "Sichtbar over each peer:", ""]
        heads = [f"req/s at {level}" for level in levels] + [f"p50 at {level}" for level in levels]
        lines += _table(
            ["peer", *heads],
            [
                [peer]
                + [_number(by[level].requests_per_second if level in by else None) for level in levels]
                + [_number(by[level].p50 if level in by else None) for level in levels]
                for peer, by in compared.items()
            ],
        )
    if rates := engine_rates(part.engine):
        shares = engine_shares(rows, OURS, rates)
        lines += ["", "Our engine alone, in a loop in one process, without HTTP and decoding:", ""]
        lines += _table(["batch", "pictures/s"], [[str(size), f"{rate:.0f}"] for size, rate in rates.items()])
        said = "; ".join(f"{share:.0%} at {level} at once" for level, share in shares.items())
        lines += ["", f"Sichtbar's requests a second as a share of it, at the best batch of so many or fewer: {said}."]
    if part.missing:
        # The command itself shows the whole.
        reasons = {
            name: reason.splitlines()[0].removesuffix("; the end of its log:") for name, reason in part.missing.items()
        }
        lines += ["", *(f"- Not (fully) measured: {name}. {reason}" for name, reason in reasons.items())]
    return lines


def _versions(parts: Sequence[Part]) -> list[str]:
    found = {server: packages for part in parts for server, packages in part.versions.items()}
    ordered = [name for name in (OURS, *NAMES) if name in found]
    return _table(
        ["server", "takes", "packages"],
        [
            [name, SENDS.get(name, "multipart/form-data"), ", ".join(f"{p} {v}" for p, v in found[name].items())]
            for name in ordered
        ],
    )


def _table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    heads = list(headings)
    lines = [heads, ["---"] * len(heads), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def _number(value: float | None) -> str:
    return "?" if value is None else f"{value:.2f}"


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
