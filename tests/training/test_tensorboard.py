"""What TensorBoard reads is what a run measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.conftest import SHAPES, draw
from training.errors import CacheError
from training.fit import Published, fit
from training.history import Epoch
from training.recipe import Recipe, read_recipe
from training.tensorboard import Board


def read(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder))
    events.Reload()
    return events


def scalars(events: EventAccumulator, name: str) -> list[tuple[int, float]]:
    """By step: files of one process and second are read in the order of their numbers' first digits."""
    return sorted((event.step, float(tf.make_ndarray(event.tensor_proto))) for event in events.Tensors(name))


def pictures(events: EventAccumulator, name: str) -> list[np.ndarray]:
    """Width and height come first."""
    (event,) = events.Tensors(name)
    _, _, *encoded = tf.make_ndarray(event.tensor_proto)
    return [tf.io.decode_png(one).numpy() for one in encoded]


def after(epoch: int) -> Epoch:
    return Epoch(epoch, 1, loss=1 / epoch, accuracy=0.5, val_loss=2 / epoch, val_accuracy=0.25, seconds=3.0)


@pytest.fixture(scope="module")
def recipe(recipe_file: Path) -> Recipe:
    return read_recipe(str(recipe_file)).with_fitting(epochs=2)


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of four pictures."""
    folder = tmp_path_factory.mktemp("few")
    for shape in SHAPES[:2]:
        (folder / shape).mkdir()
        for number in range(4):
            draw(shape, number).save(folder / shape / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, recipe: Recipe, few: Path) -> tuple[Published, Path]:
    """A version, and the folder of its run's logs."""
    folder = tmp_path_factory.mktemp("logged")
    published = fit(recipe, few, folder / "models", runs=folder / "runs", filters=False)
    (logs,) = (folder / "runs").rglob("tensorboard")
    return published, logs


def test_each_epoch_is_there(finished: tuple[Published, Path]):
    training, held_out = (read(finished[1] / name) for name in ("training", "held-out"))
    for events, name in ((training, "loss"), (training, "accuracy"), (training, "seconds"), (held_out, "accuracy")):
        assert [step for step, _ in scalars(events, name)] == [1, 2]
    ((_, _), (_, last)) = scalars(held_out, "accuracy")
    assert last == pytest.approx(finished[0].metrics.accuracy)


def test_graph_and_training_pictures_are_there(finished: tuple[Published, Path], recipe: Recipe):
    events = read(finished[1] / "training")
    names = {
        node.name.split("/")[-1] for node in tf.compat.v1.GraphDef.FromString(events.Graph().SerializeToString()).node
    }
    assert "images" in names
    assert {picture.shape for picture in pictures(events, "training pictures")} == {(16, 12, 3)}
    assert len(pictures(events, "training pictures")) == 6


def test_the_confusion_matrix_is_there(finished: tuple[Published, Path]):
    (picture,) = pictures(read(finished[1] / "held-out"), "confusion matrix")
    assert min(picture.shape[:2]) > 100
    assert picture.std() > 0


def test_a_resumed_run_goes_on_with_the_numbers_of_the_killed_one_and_a_new_one_begins_anew(tmp_path: Path):
    killed = Board(tmp_path, resume=False)
    killed.epoch(after(1))
    # Its process ends here, with nothing closed.
    resumed = Board(tmp_path, resume=True)
    resumed.epoch(after(2))
    assert scalars(read(tmp_path / "training"), "loss") == [(1, 1.0), (2, 0.5)]
    assert scalars(read(tmp_path / "held-out"), "loss") == [(1, 2.0), (2, 1.0)]
    anew = Board(tmp_path, resume=False)
    anew.epoch(after(1))
    assert scalars(read(tmp_path / "training"), "loss") == [(1, 1.0)]
    for board in (killed, resumed, anew):
        board.close()


def test_runs_that_cannot_be_written_are_said_before_training(tmp_path: Path, recipe: Recipe, few: Path):
    (tmp_path / "runs").write_bytes(b"mine")
    with pytest.raises(CacheError, match="expected a folder to write to: "):
        fit(recipe, few, tmp_path / "models", runs=tmp_path / "runs")
    assert list((tmp_path / "models" / "shapes").iterdir()) == []
