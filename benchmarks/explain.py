"""A version and pictures in, what LIME costs and how true it is out: ours beside `lime`'s own explainer."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, median
from time import perf_counter
from typing import Annotated

import numpy as np
import tensorflow as tf
import typer
from lime.lime_image import LimeImageExplainer
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

from service.decode import decode, fit
from service.explain.model import Model
from service.explain.process import Explainer
from service.explain.question import LimeExplanation, Question
from service.explain.superpixels import superpixels
from service.explain.tasks import explain

STOCK_SAMPLES, STOCK_BATCH, REFERENCE_SAMPLES = 1000, 10, 5000
TOP = 5
NOTHING = -1
MAX_PIXELS = 50_000_000
PATTERNS = ("*.jpg", "*.jpeg", "*.png", "*.webp")

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")


@dataclass(frozen=True)
class Compared:
    """One picture, both ways: seconds, shared top superpixels and correlation with the reference."""

    picture: str
    superpixels: int
    samples: int
    stock_seconds: float
    ours_seconds: float
    stock_overlap: float
    ours_overlap: float
    stock_correlation: float
    ours_correlation: float
    gradcam_seconds: float


@app.command(
    epilog="\n\n".join(
        (
            "[bold]Examples[/bold]",
            "python -m benchmarks.explain models/fruit_vgg16/1 pictures",
            "python -m benchmarks.explain models/fruit_cnn/1 pictures --json figures.json",
        )
    )
)
def run(
    version: Annotated[Path, typer.Argument(help="Folder of a version: models/<name>/<version>.")],
    pictures: Annotated[Path, typer.Argument(help="Folder of pictures, also in folders below it.")],
    count: Annotated[int, typer.Option(min=1, help="How many of them, evenly spread.")] = 20,
    references: Annotated[
        Path | None, typer.Option(help="Folder to keep references in, which take longest, for the next run.")
    ] = None,
    references_only: Annotated[bool, typer.Option("--references-only", help="Make them and stop.")] = False,
    figures: Annotated[Path | None, typer.Option("--json", help="File for the raw figures.", metavar="FILE")] = None,
) -> None:
    """LIME beside `lime`: same picture, class, superpixels and fill, one after the other, the machine to themselves.

    Stock is `LimeImageExplainer.explain_instance` with 1,000 samples in batches of 10 that TensorFlow classifies. Ours
    is all that the service does from the file's bytes to the explanation. The reference is `lime`'s way with 5,000
    samples and another seed, in bfloat16 where the processor has it. Of both: how many of the reference's five most
    important superpixels are among theirs, and how the weights of all superpixels correlate.
    """
    console = Console()
    paths = sorted(path for pattern in PATTERNS for path in pictures.rglob(pattern))
    if len(paths) < count:
        console.print(f"error: expected at least {count} pictures in {pictures}, found {len(paths)}", markup=False)
        raise typer.Exit(1)
    chosen = [paths[number * len(paths) // count] for number in range(count)]
    model = Model(version.absolute(), "openvino", threads=0)
    made = [
        _reference(model, path, references)
        for path in track(chosen, "references (5,000 samples each)", console=console)
    ]
    if references_only:
        return
    compared = asyncio.run(_compare(version.absolute(), model, chosen, made, console))
    console.print(_table(version, compared))
    if figures:
        figures.write_text(json.dumps([asdict(row) for row in compared], indent=2) + "\n", encoding="utf-8")


async def _compare(
    version: Path, model: Model, paths: list[Path], references: list[NDArray[np.float64]], console: Console
) -> list[Compared]:
    classify = _tensorflow(version)
    explainer = Explainer("openvino", threads=0, nice=0)
    rows = []
    try:
        for question in (Question(), Question("gradcam")):
            await explainer.run(explain, version, paths[0].read_bytes(), question, MAX_PIXELS, lane="long")
        for path, reference in track(list(zip(paths, references, strict=True)), "explaining", console=console):
            data = path.read_bytes()
            started = perf_counter()
            ours = await explainer.run(explain, version, data, Question(), MAX_PIXELS, lane="long")
            middle = perf_counter()
            await explainer.run(explain, version, data, Question("gradcam"), MAX_PIXELS)
            gradcam = perf_counter() - middle
            assert isinstance(ours, LimeExplanation)
            stock_weights, stock_seconds = _stock(model, classify, data, ours.segments(), ours.class_index)
            rows.append(
                Compared(
                    picture=f"{path.parent.name}/{path.name}",
                    superpixels=len(ours.superpixels),
                    samples=ours.samples,
                    stock_seconds=stock_seconds,
                    ours_seconds=middle - started,
                    stock_overlap=_overlap(stock_weights, reference),
                    ours_overlap=_overlap(ours.weights(), reference),
                    stock_correlation=float(np.corrcoef(stock_weights, reference)[0, 1]),
                    ours_correlation=float(np.corrcoef(ours.weights(), reference)[0, 1]),
                    gradcam_seconds=gradcam,
                )
            )
    finally:
        await explainer.close()
    return rows


def _stock(
    model: Model,
    classify: Callable[[NDArray[np.uint8]], NDArray[np.float32]],
    data: bytes,
    segments: NDArray[np.int32],
    index: int,
) -> tuple[NDArray[np.float64], float]:
    target = model.manifest.input
    image = decode(data, max_pixels=MAX_PIXELS, target=target)
    started = perf_counter()
    grid = np.asarray(image.resize((segments.shape[1], segments.shape[0]), Image.Resampling.BILINEAR))
    explained = LimeImageExplainer(random_state=1).explain_instance(
        grid,
        lambda images: classify(np.stack([fit(Image.fromarray(image), target) for image in images])),
        labels=(index,),
        top_labels=None,
        num_samples=STOCK_SAMPLES,
        batch_size=STOCK_BATCH,
        segmentation_fn=lambda image: segments,
    )
    return _dense(explained.local_exp[index]), perf_counter() - started


def _reference(model: Model, path: Path, folder: Path | None) -> NDArray[np.float64]:
    """Weights by `lime`'s own sampling and fit, over the linear shortcut, which gives the same answers."""
    data = path.read_bytes()
    target = model.manifest.input
    parts = superpixels(decode(data, max_pixels=MAX_PIXELS, target=target), target, count=None, fill="mean")
    whole = model.predict(parts.perturbed(np.ones((1, parts.count), bool))).probabilities[0]
    index = int(whole.argmax())
    digest = hashlib.sha256(
        data + parts.segments.tobytes() + model.manifest.files["saved_model.pb"].encode()
    ).hexdigest()
    kept = folder / f"{digest}.npy" if folder else None
    if kept and kept.exists():
        return np.asarray(np.load(kept))
    # A picture of one pixel a superpixel, each pixel its number: what `lime` takes away becomes NOTHING.
    explained = LimeImageExplainer(random_state=2).explain_instance(
        np.repeat(np.arange(parts.count)[None, :, None], 3, axis=2),
        lambda rows: model.predict_quickly(parts.perturbed(np.array(rows)[:, 0, :, 0] != NOTHING)).probabilities,
        labels=(index,),
        top_labels=None,
        hide_color=NOTHING,
        num_samples=REFERENCE_SAMPLES,
        batch_size=32,
        segmentation_fn=lambda image: np.arange(parts.count)[None],
    )
    weights = _dense(explained.local_exp[index])
    if kept:
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.save(kept, weights)
    return weights


def _tensorflow(version: Path) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    loaded = tf.saved_model.load(str(version))

    def classify(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        answer: NDArray[np.float32] = loaded.signatures["serving_default"](images=tf.constant(images))[
            "probabilities"
        ].numpy()
        return answer

    classify.loaded = loaded  # type: ignore[attr-defined]
    return classify


def _dense(pairs: list[tuple[int, float]]) -> NDArray[np.float64]:
    weights = np.zeros(len(pairs))
    for superpixel, weight in pairs:
        weights[superpixel] = weight
    return weights


def _overlap(weights: NDArray[np.float64], reference: NDArray[np.float64]) -> float:
    found, wanted = (set(np.argsort(-np.abs(w))[:TOP].tolist()) for w in (weights, reference))
    return len(found & wanted) / len(wanted)


def _table(version: Path, rows: list[Compared]) -> Table:
    ratios = [row.stock_seconds / row.ours_seconds for row in rows]
    table = Table("", "lime", "Sichtbar", title=f"LIME on {version.parent.name}/{version.name}, {len(rows)} pictures")
    table.add_row("samples, mean", str(STOCK_SAMPLES), f"{mean(row.samples for row in rows):.0f}")
    table.add_row(
        "seconds, median",
        f"{median(row.stock_seconds for row in rows):.3f}",
        f"{median(row.ours_seconds for row in rows):.3f}",
    )
    table.add_row(
        "seconds, mean",
        f"{mean(row.stock_seconds for row in rows):.3f}",
        f"{mean(row.ours_seconds for row in rows):.3f}",
    )
    table.add_row(
        "times faster, median (least to most)", "1", f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    )
    table.add_row(
        f"top {TOP} shared with the reference, mean",
        f"{mean(row.stock_overlap for row in rows):.3f}",
        f"{mean(row.ours_overlap for row in rows):.3f}",
    )
    table.add_row(
        "correlation with the reference, mean",
        f"{mean(row.stock_correlation for row in rows):.4f}",
        f"{mean(row.ours_correlation for row in rows):.4f}",
    )
    table.add_row("Grad-CAM, milliseconds, median", "", f"{median(row.gradcam_seconds for row in rows) * 1e3:.1f}")
    return table


if __name__ == "__main__":
    app(prog_name="python -m benchmarks.explain")
