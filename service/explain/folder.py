"""A folder of pictures in, their overlays, their numbers and one page that shows them all out."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path
from types import TracebackType
from typing import TextIO
from urllib.parse import quote

from service.choices import Method
from service.errors import BrokenImage, ExplainerDied, ExplanationFailed, ImageError
from service.explain.process import Explainer
from service.explain.question import Explanation, LimeExplanation, Progress, Question
from service.explain.style import Style
from service.explain.tasks import draw, explain
from service.manifest import Manifest

SHEET, NUMBERS = "index.html", "explanations.json"
STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { margin: 2rem auto; max-width: 90rem; padding: 0 1rem; }
ul { display: grid; gap: 1.5rem; grid-template-columns: repeat(auto-fill, minmax(18rem, 1fr)); list-style: none; }
ul { padding: 0; }
figure { margin: 0; }
img { background: #8883; border-radius: 4px; height: 16rem; object-fit: contain; width: 100%; }
figcaption { overflow-wrap: anywhere; }
figcaption strong { display: block; }
small { opacity: 0.75; }
"""


@dataclass(frozen=True)
class Explained:
    """One picture and method: what was written, or why nothing was."""

    picture: str
    method: Method
    overlay: str | None
    problem: str | None = None


async def explain_folder(
    explainer: Explainer,
    version: Path,
    folder: Path,
    pictures: Sequence[Path],
    sheet: Sheet,
    questions: Sequence[Question],
    style: Style,
    max_pixels: int,
    on_progress: Callable[[float], None],
) -> list[Explained]:
    """Explain `pictures` of `folder` by every question, and write the overlays beside `sheet`, in the same folders.

    `on_progress` is told the share that is done. A picture that cannot be read costs nothing but itself.
    """
    total = len(pictures) * len(questions)
    explained: list[Explained] = []
    for path in pictures:
        name = path.relative_to(folder).as_posix()
        for question in questions:
            overlay = f"{name}.{question.method}.png"
            try:
                data = await asyncio.to_thread(_read, path)
                explanation = await explainer.run(
                    explain,
                    version,
                    data,
                    question,
                    max_pixels,
                    lane="long",
                    on_progress=partial(_tell, on_progress, len(explained), total),
                )
                drawn = await explainer.run(draw, version, data, explanation, style, max_pixels)
            except (ImageError, ExplanationFailed, ExplainerDied) as error:
                explained.append(Explained(name, question.method, None, str(error)))
                await asyncio.to_thread(sheet.add, explained[-1], None)
            else:
                explained.append(Explained(name, question.method, overlay))
                await asyncio.to_thread(write, sheet.out / overlay, drawn)
                await asyncio.to_thread(sheet.add, explained[-1], explanation)
            on_progress(len(explained) / total)
    return explained


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BrokenImage(f"the file cannot be read: {error.strerror}") from None


def _tell(on_progress: Callable[[float], None], before: int, total: int, progress: Progress) -> None:
    on_progress((before + progress.done / progress.total) / total)


class NotWritten(OSError):
    """What was explained cannot be written."""


@contextmanager
def _written(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise NotWritten(f"expected {what} that can be written, got {path}: {error.strerror}") from error


class Sheet:
    """Numbers are written as they come, and at the end, also when it comes too soon, a page with all overlays."""

    def __init__(self, out: Path, manifest: Manifest) -> None:
        self.out = out
        self._manifest = manifest
        self._figures: list[str] = []

    def __enter__(self) -> Sheet:
        """Begin anew.

        Raises:
            NotWritten: the folder cannot be written.
        """
        with _written(self.out, "a folder"):
            self.out.mkdir(parents=True, exist_ok=True)
            self._numbers: TextIO = (self.out / NUMBERS).open("w")
            self._numbers.write("[")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Write the page of what was added.

        Raises:
            NotWritten: there is no room.
        """
        with _written(self.out / NUMBERS, "a file"), self._numbers:
            self._numbers.write("\n]\n")
        # A file's name may be no text.
        write(self.page, _page(self._manifest, self._figures).encode(errors="replace"))

    @property
    def page(self) -> Path:
        """Where the page will be."""
        return self.out / SHEET

    def add(self, one: Explained, explanation: Explanation | None) -> None:
        """Write its numbers.

        Raises:
            NotWritten: there is no room.
        """
        with _written(self.out / NUMBERS, "a file"):
            self._numbers.write(",\n" if self._figures else "\n")
            self._numbers.write(json.dumps(_numbers(one, explanation, self._manifest), indent=1))
            self._numbers.flush()
        self._figures.append(_figure(one, explanation, self._manifest))


def _page(manifest: Manifest, figures: Sequence[str]) -> str:
    name, listed = escape(f"{manifest.name}/{manifest.version}"), "\n".join(figures)
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>What {name} sees</title>
<style>{STYLE}</style>
<h1>What {name} sees</h1>
<p>What speaks for the class stays in colour, inside a blue line; by LIME, what speaks against it has an orange one
where both are drawn. What the model does not see is dark. The deletion score tells how far LIME is to be trusted:
1 is perfect, 0 no better than chance.</p>
<ul>
{listed}
</ul>
</html>
"""


def _figure(one: Explained, explanation: Explanation | None, manifest: Manifest) -> str:
    if explanation is None or one.overlay is None:
        return f"<li><strong>{escape(one.picture)}</strong><br>{escape(one.problem or '')}</li>"
    label = escape(manifest.labels[explanation.class_index])
    detail = f"{one.method}"
    if isinstance(explanation, LimeExplanation) and explanation.deletion:
        detail += f", {explanation.samples} samples"
        if explanation.deletion.score is not None:
            detail += f", deletion score {explanation.deletion.score:.2f}"
    place = quote(os.fsencode(one.overlay))
    return (
        f'<li><figure><a href="{place}"><img src="{place}" loading="lazy" '
        f'alt="{escape(one.picture)}: what speaks for {label}"></a>'
        f"<figcaption><strong>{label} {explanation.probability:.1%}</strong>{escape(one.picture)}<br>"
        f"<small>{detail}</small></figcaption></figure></li>"
    )


def _numbers(one: Explained, explanation: Explanation | None, manifest: Manifest) -> dict[str, object]:
    known: dict[str, object] = {"picture": one.picture, "method": one.method, "overlay": one.overlay}
    if explanation is None:
        return {**known, "problem": one.problem}
    return {**known, "label": manifest.labels[explanation.class_index], **explanation.model_dump()}


def write(path: Path, data: bytes) -> None:
    """Write a file, and make the folder that it lies in.

    Raises:
        NotWritten: it cannot be written.
    """
    with _written(path, "a file"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
