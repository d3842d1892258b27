"""A checkpoint is whole, or the one before it is."""

from __future__ import annotations

import resource
import signal
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from training.checkpoint import Checkpoint
from training.errors import CacheError
from training.history import Epoch

HISTORY = [Epoch(1, 1, 0.5, 0.75, 0.6, 0.7, 1.25), Epoch(2, 1, 0.4, 0.8, 0.5, 0.75, 1.5)]


def layer_and_optimizer(steps: int) -> tuple[keras.layers.Dense, keras.optimizers.Optimizer]:
    """A layer, and Adam after so many steps."""
    layer = keras.layers.Dense(2)
    layer.build((None, 3))
    optimizer = keras.optimizers.Adam(0.1)
    optimizer.build(layer.trainable_variables)
    for step in range(steps):
        optimizer.apply([np.full((3, 2), 1.0 + step, np.float32), np.full(2, 2.0, np.float32)])
    return layer, optimizer


def test_weights_optimizer_and_history_come_back(tmp_path: Path):
    checkpoint = Checkpoint(tmp_path / "deep" / "checkpoint.npz")
    assert checkpoint.history() == []
    layer, optimizer = layer_and_optimizer(3)
    checkpoint.save([layer], optimizer, HISTORY)
    assert checkpoint.history() == HISTORY
    fresh, its_optimizer = layer_and_optimizer(0)
    checkpoint.restore([fresh], its_optimizer)
    # The next step is the same only with Adam's moments and its count of steps.
    gradients = [np.full((3, 2), 5.0, np.float32), np.full(2, -3.0, np.float32)]
    optimizer.apply(gradients)
    its_optimizer.apply(gradients)
    for found, expected in zip(fresh.weights, layer.weights, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_without_an_optimizer_the_weights_alone_come_back(tmp_path: Path):
    checkpoint = Checkpoint(tmp_path / "checkpoint.npz")
    layer, optimizer = layer_and_optimizer(2)
    checkpoint.save([layer], optimizer, HISTORY)
    fresh, untouched = layer_and_optimizer(0)
    checkpoint.restore([fresh], None)
    np.testing.assert_array_equal(fresh.kernel, layer.kernel)
    assert int(untouched.iterations) == 0


def test_the_latest_replaces_and_is_forgotten(tmp_path: Path):
    checkpoint = Checkpoint(tmp_path / "checkpoint.npz")
    for epochs in (1, 2):
        checkpoint.save([], keras.optimizers.SGD(0.1), HISTORY[:epochs])
    assert checkpoint.history() == HISTORY
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.npz"]
    checkpoint.forget()
    checkpoint.forget()
    assert checkpoint.history() == []


def test_where_the_disk_is_full_the_one_before_stays(tmp_path: Path):
    checkpoint = Checkpoint(tmp_path / "checkpoint.npz")
    layer, optimizer = layer_and_optimizer(1)
    checkpoint.save([layer], optimizer, HISTORY[:1])
    # No file may grow beyond that: what a full disk says, said by the kernel.
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(CacheError, match=r"checkpoint\.npz: cannot be written: "):
            checkpoint.save([layer], optimizer, HISTORY)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert checkpoint.history() == HISTORY[:1]
    checkpoint.restore([layer], optimizer)


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda folder: folder.write_bytes(b"mine"), id="file-instead-of-the-folder"),
        pytest.param(lambda folder: (folder / "checkpoint.part").mkdir(parents=True), id="folder-in-its-place"),
    ],
)
def test_a_checkpoint_that_cannot_be_written_is_said(tmp_path: Path, spoil: Callable[[Path], object]):
    spoil(tmp_path / "run")
    with pytest.raises(CacheError, match=r"checkpoint\.npz: cannot be written: "):
        Checkpoint(tmp_path / "run" / "checkpoint.npz").save([], keras.optimizers.SGD(0.1), HISTORY)
