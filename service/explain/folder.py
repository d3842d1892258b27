"""A folder of pictures in, their overlays and one page that shows them all out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path
from urllib.parse import quote

from service.decode import FORMATS
from service.errors import BrokenImage, ExplainerDied, ExplanationFailed, ImageError
from service.explain.overlay import Style
from service.explain.process import Explainer
from service.explain.question import Explanation, LimeExplanation, Method, Progress, Question
from service.explain.tasks import draw, explain
from service.manifest import Manifest

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"} | (
    {".avif"} if "AVIF" in FORMATS else set()
)
SHEET = "index.html"
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
    explanation: Explanation | None
    problem: str | None = None


def pictures_below(folder: Path, out: Path) -> list[Path]:
    """The files with a picture's suffix, also in folders below but not in `out`, sorted."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and path.is_file() and out.resolve() not in path.resolve().parents
    )


async def explain_folder(
    explainer: Explainer,
    version: Path,
    folder: Path,
    pictures: Sequence[Path],
    out: Path,
    questions: Sequence[Question],
    style: Style,
    max_pixels: int,
    on_progress: Callable[[float], None],
) -> list[Explained]:
    """Explain `pictures` of `folder` by every question, and write the overlays below `out`, in the same folders.

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
                explained.append(Explained(name, question.method, None, None, str(error)))
            else:
                await asyncio.to_thread(_write, out / overlay, drawn)
                explained.append(Explained(name, question.method, overlay, explanation))
            on_progress(len(explained) / total)
    return explained


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BrokenImage(f"the file cannot be read: {error.strerror}") from None


def _tell(on_progress: Callable[[float], None], before: int, total: int, progress: Progress) -> None:
    on_progress((before + progress.done / progress.total) / total)


def write_sheet(out: Path, manifest: Manifest, explained: Sequence[Explained]) -> Path:
    """One page with all overlays, and every number beside it as `explanations.json`."""
    _write(
        out / "explanations.json",
        (json.dumps([_numbers(one, manifest) for one in explained], indent=1) + "\n").encode(),
    )
    figures = "\n".join(_figure(one, manifest) for one in explained)
    name = escape(f"{manifest.name}/{manifest.version}")
    page = f"""<!doctype html>
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
{figures}
</ul>
</html>
"""
    _write(out / SHEET, page.encode())
    return out / SHEET


def _figure(one: Explained, manifest: Manifest) -> str:
    if one.explanation is None or one.overlay is None:
        return f"<li><strong>{escape(one.picture)}</strong><br>{escape(one.problem or '')}</li>"
    label = escape(manifest.labels[one.explanation.class_index])
    detail = f"{one.method}"
    if isinstance(one.explanation, LimeExplanation) and one.explanation.deletion:
        detail += f", {one.explanation.samples} samples"
        if one.explanation.deletion.score is not None:
            detail += f", deletion score {one.explanation.deletion.score:.2f}"
    return (
        f'<li><figure><a href="{quote(one.overlay)}"><img src="{quote(one.overlay)}" loading="lazy" '
        f'alt="{escape(one.picture)}: what speaks for {label}"></a>'
        f"<figcaption><strong>{label} {one.explanation.probability:.1%}</strong>{escape(one.picture)}<br>"
        f"<small>{detail}</small></figcaption></figure></li>"
    )


def _numbers(one: Explained, manifest: Manifest) -> dict[str, object]:
    known: dict[str, object] = {"picture": one.picture, "method": one.method, "overlay": one.overlay}
    if one.explanation is None:
        return {**known, "problem": one.problem}
    return {**known, "label": manifest.labels[one.explanation.class_index], **one.explanation.model_dump()}


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
