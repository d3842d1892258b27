"""A recipe and its pictures in, seconds an epoch of ours and of plain Keras and their ratio out."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Annotated

import keras
import numpy as np
import tensorflow as tf
import typer
from rich.console import Console
from rich.table import Table

from training.cache import Cache
from training.checkpoint import Checkpoint
from training.data import DataSet, list_pictures, load
from training.devices import devices
from training.errors import TrainingError
from training.networks import build_network
from training.recipe import Recipe, read_recipe
from training.train import OPTIMIZERS, Examples, train

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")


@dataclass(frozen=True)
class Stage:
    """Seconds of each epoch of one stage."""

    trainable: str
    seconds: list[float]

    @property
    def later(self) -> float:
        """Median of the epochs after the first, which compiles, and with us computes what is frozen."""
        return median(self.seconds[1:])


@dataclass(frozen=True)
class Way:
    """One way to train, and where it got."""

    name: str
    stages: list[Stage]
    accuracy: float


@app.command(
    epilog="\n\n".join(
        (
            "[bold]Examples[/bold]",
            "python -m benchmarks.train --data fruits-360 --weights vgg16_notop.weights.h5",
            "python -m benchmarks.train --data fruits-360 --epochs 3 --json figures.json",
        )
    )
)
def run(
    data: Annotated[Path, typer.Option(help="Fruits-360, or another folder of class folders.")],
    weights: Annotated[Path | None, typer.Option(help="VGG16's, instead of downloading them.")] = None,
    epochs: Annotated[int, typer.Option(min=2, help="Of each of the two stages.")] = 2,
    figures: Annotated[Path | None, typer.Option("--json", help="File for the raw figures.", metavar="FILE")] = None,
) -> None:
    """Fine-tune fruit_vgg16_finetune beside plain Keras: same pictures, layers, rates, batches, machine and minutes.

    Plain Keras is what its guide to transfer learning does: the base inside the model, fit on pictures from memory. It
    is spared the validation that ours does after each epoch.
    """
    console = Console()
    recipe = read_recipe("fruit_vgg16_finetune").with_fitting(epochs=epochs)
    try:
        listing = list_pictures(data, test_fraction=recipe.data.test_fraction, seed=recipe.fitting.seed)
        pictures = load(listing, recipe.input)
        # Before what takes long: weights that cannot be had must not be found out after it.
        build_network(recipe, len(pictures.labels), weights)
    except TrainingError as error:
        Console(stderr=True).print(f"error: {error}", soft_wrap=True, markup=False)
        raise typer.Exit(1) from None
    # Plain Keras first: ours makes the whole process deterministic, which may cost it something.
    ways = [_plain(recipe, pictures, weights), _ours(recipe, pictures, weights)]
    table = Table("", *(way.name for way in ways), "plain / ours", title=f"{recipe.name}, seconds an epoch")
    for plain, ours in zip(ways[0].stages, ways[1].stages, strict=True):
        table.add_row(
            f"{plain.trainable}: first",
            f"{plain.seconds[0]:.1f}",
            f"{ours.seconds[0]:.1f}",
            f"{plain.seconds[0] / ours.seconds[0]:.2f}",
        )
        table.add_row(
            f"{plain.trainable}: later", f"{plain.later:.1f}", f"{ours.later:.1f}", f"{plain.later / ours.later:.2f}"
        )
    table.add_row("test accuracy", *(f"{way.accuracy:.2%}" for way in ways), "")
    console.print(table)
    if figures:
        figures.write_text(json.dumps([asdict(way) for way in ways], indent=2) + "\n", encoding="utf-8")


def _plain(recipe: Recipe, data: DataSet, weights: Path | None) -> Way:
    keras.utils.set_random_seed(recipe.fitting.seed)
    side = (recipe.input.height, recipe.input.width, 3)
    base = keras.applications.VGG16(include_top=False, weights=weights or "imagenet", input_shape=side)
    images = keras.Input(side)
    x = base(keras.applications.vgg16.preprocess_input(images))
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dense(519, activation="relu")(x)
    x = keras.layers.Dropout(0.5)(x)
    model = keras.Model(images, keras.layers.Dense(len(data.labels), activation="softmax")(x))
    training = tf.data.Dataset.from_tensor_slices((data.training.images, data.training.classes))
    batches = (
        training.shuffle(len(data.training.classes), seed=recipe.fitting.seed)
        .batch(recipe.fitting.batch_size)
        .prefetch(tf.data.AUTOTUNE)
    )
    stages = []
    for stage in recipe.fitting.stages:
        count = int(stage.base_layers)
        for number, layer in enumerate(base.layers):
            layer.trainable = number >= len(base.layers) - count
        model.compile(
            OPTIMIZERS[stage.optimizer.name](stage.optimizer.learning_rate),
            loss="sparse_categorical_crossentropy",
            metrics=["accuracy"],
        )
        clock = _EpochSeconds()
        model.fit(batches, epochs=stage.epochs, callbacks=[clock], verbose=2)
        stages.append(Stage(_trainable(count), clock.seconds))
    test = tf.data.Dataset.from_tensor_slices((data.test.images, data.test.classes)).batch(256)
    return Way("plain Keras", stages, float(model.evaluate(test, verbose=0)[1]))


def _ours(recipe: Recipe, data: DataSet, weights: Path | None) -> Way:
    with tempfile.TemporaryDirectory(prefix="sichtbar-benchmark-") as folder, devices(recipe.fitting.seed):
        network = build_network(recipe, len(data.labels), weights)
        ends = [perf_counter()]
        history = train(
            network,
            Examples.all_of(data.training.images, data.training.classes),
            Examples.all_of(data.test.images, data.test.classes),
            recipe.fitting,
            cache=Cache(Path(folder)),
            checkpoint=Checkpoint(Path(folder) / "checkpoint.npz"),
            on_epoch=lambda epoch: ends.append(perf_counter()),
        )
    # All that passes between two epochs' ends: frozen features, the epoch, its validation and its checkpoint.
    seconds = np.diff(ends)
    stages = [
        Stage(
            _trainable(int(stage.base_layers)),
            [float(seconds[epoch.epoch - 1]) for epoch in history if epoch.stage == number],
        )
        for number, stage in enumerate(recipe.fitting.stages, start=1)
    ]
    return Way("Sichtbar", stages, history[-1].val_accuracy)


def _trainable(base_layers: int) -> str:
    return f"head and last {base_layers} layers" if base_layers else "head alone"


class _EpochSeconds(keras.callbacks.Callback):
    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        self._started = perf_counter()

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        self.seconds.append(perf_counter() - self._started)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    app(prog_name="python -m benchmarks.train")
