"""A recipe and a folder of pictures in; what it reaches on films it never saw, beside a naive split's claim, out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Literal

import keras
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from service.manifest import Metrics
from training import figures
from training.cache import Cache, replace_text
from training.checkpoint import Checkpoint
from training.compose import Scenery, compose
from training.data import Split, gather, list_pictures
from training.devices import Precision, devices
from training.errors import DataError
from training.evaluate import answer
from training.events import Progress
from training.export import signatures
from training.history import Epoch
from training.networks import Network, build_network
from training.pages import make_folder, write_figure, write_page
from training.recipe import Recipe
from training.report import Findings, write_report
from training.run import run_folder
from training.train import Examples, train
from training.versions import graph_of

Grouping = Literal["grouped", "naive"]
GROUPINGS: tuple[Grouping, Grouping] = ("grouped", "naive")
DOCUMENT, PAGE = "crossval.json", "index.html"

Rows = NDArray[np.int64]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Fold(_Model):
    """One part of the pictures, held out while a network was trained on the others."""

    number: int = Field(ge=1)
    training_images: int
    shared_films: int = Field(ge=0, description="Films with frames both in training and held out: leaks.")
    metrics: Metrics
    report: str = Field(description="The fold's own page, beside this one.")


class Estimate(_Model):
    """All folds of one way to split."""

    folds: list[Fold]
    mean: float = Field(ge=0, le=1, description="Of the folds' accuracies.")
    standard_deviation: float = Field(ge=0, description="Of the folds' accuracies (n - 1).")
    top3_mean: float = Field(ge=0, le=1)

    @classmethod
    def of(cls, folds: list[Fold]) -> Estimate:
        """Their mean and standard deviation."""
        accuracies = [fold.metrics.accuracy for fold in folds]
        return cls(
            folds=folds,
            mean=mean(accuracies),
            standard_deviation=stdev(accuracies),
            top3_mean=mean(fold.metrics.top3_accuracy for fold in folds),
        )


class CrossValidation(_Model):
    """Both estimates of one recipe."""

    recipe: str
    pictures: int
    films: int
    grouped: Estimate
    naive: Estimate


def cross_validate(
    recipe: Recipe,
    data_folder: Path,
    out: Path,
    *,
    folds: int,
    runs: Path,
    weights: Path | None = None,
    backgrounds: Path | None = None,
    precision: Precision = "auto",
    resume: bool = False,
    progress: Progress | None = None,
) -> CrossValidation:
    """Train `folds` networks with whole films held out, as many with pictures held out at random, and compare.

    Frames of one film are nearly the same picture. Where they straddle training and held-out pictures, as a random
    split lets them, the figure says how well a network remembers; with films kept together it says how well it does on
    a film that it never saw. Where the folder has Training and Test, only Training is used: Test stays held out.

    `runs` keeps finished folds and the checkpoint of the one under way: `resume` goes on from there.

    Raises:
        RecipeError: the recipe's network cannot be built.
        WeightsError: the backbone's first weights cannot be had.
        DataError: the folder is no data set to train on, or has fewer films or pictures of a class than folds.
        TrainingError: the loss is not finite, or `out` cannot be written.
        CacheError: `runs` cannot be written.
    """
    progress = progress or Progress()
    make_folder(out)
    scenery = Scenery.of(backgrounds)
    labels, split, data_digest = _read(recipe, data_folder, progress)
    films = np.array([f"{picture.label}/{picture.film}" for picture in split.pictures])
    if len(set(films)) == len(films):
        progress.note("no film has two pictures: file names tell of no films, so both ways to split are random here")
    plans = {grouping: _plan(grouping, split.classes, films, folds, recipe.fitting.seed) for grouping in GROUPINGS}
    place = run_folder(runs, recipe, data_digest, scenery, weights, precision, "crossval", folds)
    cache = Cache(runs / "cache")

    def run(name: str, rows: Rows, held_out: Rows) -> Metrics:
        checkpoint = Checkpoint(place / f"{name}.npz")
        with devices(recipe.fitting.seed, precision):
            network = build_network(recipe, len(labels), weights)
            history = train(
                network,
                _training(recipe, split, rows, scenery, cache, progress),
                Examples(split.images, split.classes, held_out),
                recipe.fitting,
                cache=cache,
                checkpoint=checkpoint,
                resume=resume,
                progress=progress,
            )
            progress.stage(f"measuring {name}", len(held_out))
            metrics = _report(out / name, name, recipe, labels, split.take(held_out), network, history, progress)
        # Of the fold's network, or ten of them stay in memory.
        keras.backend.clear_session()
        return metrics

    estimates = {}
    for grouping, plan in plans.items():
        finished = []
        for number, (rows, held_out) in enumerate(plan, start=1):
            name = f"{grouping}-{number}"
            record = place / f"{name}.json"
            if resume and record.exists() and (out / name).is_dir():
                progress.note(f"{name} was finished before")
                finished.append(Fold.model_validate_json(record.read_bytes()))
                continue
            record.unlink(missing_ok=True)
            progress.note(f"{name} of {folds}: {len(rows):,} training pictures, {len(held_out):,} held out")
            fold = Fold(
                number=number,
                training_images=len(rows),
                shared_films=len(set(films[rows]) & set(films[held_out])),
                metrics=run(name, rows, held_out),
                report=f"{name}/index.html",
            )
            progress.note(f"{name}: accuracy {fold.metrics.accuracy:.2%}")
            replace_text(record, fold.model_dump_json())
            Checkpoint(place / f"{name}.npz").forget()
            finished.append(fold)
        estimates[grouping] = Estimate.of(finished)
    result = CrossValidation(
        recipe=recipe.name,
        pictures=len(split.classes),
        films=len(set(films)),
        grouped=estimates["grouped"],
        naive=estimates["naive"],
    )
    (out / DOCUMENT).write_text(result.model_dump_json(indent=2) + "\n", encoding="utf-8")
    write_figure(out / "folds.png", figures.fold_accuracies(_accuracies(result.grouped), _accuracies(result.naive)))
    write_page(out / PAGE, "crossval.html", result=result)
    return result


def _accuracies(estimate: Estimate) -> list[float]:
    return [fold.metrics.accuracy for fold in estimate.folds]


def _read(recipe: Recipe, folder: Path, progress: Progress) -> tuple[list[str], Split, str]:
    listing = list_pictures(folder, test_fraction=recipe.data.test_fraction, seed=recipe.fitting.seed)
    for warning in listing.warnings:
        progress.note(warning)
    listed = listing.training if listing.has_test_folder else sorted(listing.training + listing.test)
    progress.reading(len(listed))
    gathered = gather(folder, listed, recipe.input, progress.read_one)
    for name, problem in gathered.unreadable.items():
        progress.note(f"skipped {name}: {problem}")
    return listing.labels, gathered.split(listing.labels, np.arange(len(gathered.pictures))), gathered.digest


def _plan(
    grouping: Grouping, classes: NDArray[np.int32], films: NDArray[np.str_], folds: int, seed: int
) -> list[tuple[Rows, Rows]]:
    """Rows to train on and rows held out, fold by fold; each picture is held out once."""
    for number in np.unique(classes) if grouping == "grouped" else ():
        if len(set(films[classes == number])) < 2:
            raise DataError(
                f"{films[classes == number][0].split('/')[0]}: expected two films at least, to train on one while the "
                "other is held out, found one"
            )
    count = len(set(films)) if grouping == "grouped" else int(np.unique(classes, return_counts=True)[1].min())
    if count < folds:
        what = "films" if grouping == "grouped" else "pictures of each class"
        raise DataError(f"folds: expected at most as many as {what}, {count}, found {folds}")
    pictures = np.zeros(len(classes))
    if grouping == "grouped":
        return list(StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(pictures, classes, films))
    return list(StratifiedKFold(folds, shuffle=True, random_state=seed).split(pictures, classes))


def _training(recipe: Recipe, split: Split, rows: Rows, scenery: Scenery, cache: Cache, progress: Progress) -> Examples:
    if recipe.augmentation is None:
        # One array for all folds: what is frozen is computed once.
        return Examples(split.images, split.classes, rows)
    return compose(
        split.take(rows),
        recipe.augmentation,
        recipe.input,
        scenery.training,
        seed=recipe.fitting.seed,
        cache=cache,
        begin=lambda total: progress.stage("composing pictures", total),
        done=progress.advance,
    )


def _report(
    folder: Path,
    title: str,
    recipe: Recipe,
    labels: list[str],
    held_out: Split,
    network: Network,
    history: Sequence[Epoch],
    progress: Progress,
) -> Metrics:
    asked = graph_of(signatures(network))
    said = answer(asked.serve, held_out.images, progress.advance)
    findings = Findings(
        title=f"{recipe.name}, fold {title}",
        labels=labels,
        classes=held_out.classes,
        logits=said.logits,
        probabilities=said.probabilities,
        recognition=said.recognition,
        images=held_out.images,
        names=[f"{picture.label}/{picture.path.name}" for picture in held_out.pictures],
        gradcam=asked.gradcam,
        history=history,
        data={"held-out pictures": len(held_out.classes)},
        recipe=recipe.model_dump(mode="json", exclude={"card"}),
    )
    return write_report(folder, findings).metrics
