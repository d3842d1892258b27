"""Stages, targets and the order of things; a run that was interrupted ends as the one that was not."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.training import tiny
from training.cache import Cache
from training.checkpoint import Checkpoint
from training.devices import devices
from training.errors import TrainingError
from training.frozen import set_trainable
from training.history import Epoch
from training.networks import Network
from training.recipe import Fitting
from training.train import NONE_OF_THE_CLASSES, Examples, train

TWO_STAGES = tiny.fitting(tiny.stage(2, 0), tiny.stage(2, 2))


def trained(
    folder: Path,
    fitting: Fitting,
    *,
    training: Examples | None = None,
    held_out: Examples | None = None,
    network: Network | None = None,
    resume: bool = False,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> tuple[Network, list[Epoch]]:
    """The tiny network, fitted, and its history."""
    with devices(fitting.seed):
        network = network or tiny.network()
        history = train(
            network,
            training or tiny.examples(0, 6),
            held_out or tiny.examples(100, 3),
            fitting,
            cache=Cache(folder / "cache"),
            checkpoint=Checkpoint(folder / "checkpoint.npz"),
            resume=resume,
            on_epoch=on_epoch,
        )
    return network, history


def weights(network: Network) -> dict[str, NDArray[np.float32]]:
    return {weight.path: weight.numpy() for weight in network.model.weights}


def moved(before: Network, after: Network) -> set[str]:
    """Names of the layers whose weights differ."""
    old, new = weights(before), weights(after)
    return {path.split("/")[0] for path in old if not np.array_equal(old[path], new[path])}


def measured(history: list[Epoch]) -> list[Epoch]:
    return [replace(epoch, seconds=0) for epoch in history]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Network, list[Epoch]]:
    return trained(tmp_path_factory.mktemp("whole"), TWO_STAGES)


def test_epochs_are_numbered_through_all_stages(uninterrupted: tuple[Network, list[Epoch]]):
    assert [(epoch.epoch, epoch.stage) for epoch in uninterrupted[1]] == [(1, 1), (2, 1), (3, 2), (4, 2)]


@pytest.mark.parametrize(
    ("stages", "expected"),
    [
        pytest.param([4], {"conv_1", "conv_2", "hidden", "logits"}, id="all-but-normalisation"),
        pytest.param([0, 2], {"conv_2", "hidden", "logits"}, id="more-in-the-second-stage"),
    ],
)
def test_only_what_a_stage_trains_moves(tmp_path: Path, stages: list[int], expected: set[str]):
    network, _ = trained(tmp_path, tiny.fitting(*(tiny.stage(1, count) for count in stages)))
    assert moved(tiny.network(), network) == expected


def test_a_second_stage_goes_on_from_the_first_with_layers_and_an_optimizer_of_its_own(tmp_path: Path):
    one, _ = trained(tmp_path / "one", tiny.fitting(tiny.stage(1, 2)))
    two, _ = trained(tmp_path / "two", tiny.fitting(tiny.stage(1, 2), tiny.stage(1, 0, rate=1e-7)))
    assert moved(one, two) == {"hidden", "logits"}
    old, new = weights(one), weights(two)
    for path in old:
        # Adam's steps are as long as its rate.
        np.testing.assert_allclose(new[path], old[path], atol=1e-5, err_msg=path)


class Interrupted(Exception):
    """After an epoch."""


def interrupt_after(last: int) -> Callable[[Epoch], None]:
    def on_epoch(epoch: Epoch) -> None:
        if epoch.epoch == last:
            raise Interrupted

    return on_epoch


@pytest.mark.parametrize(
    "last",
    [
        pytest.param(1, id="in-the-first-stage"),
        pytest.param(2, id="at-the-border"),
        pytest.param(3, id="in-the-second-stage"),
        pytest.param(4, id="at-the-end"),
    ],
)
def test_a_resumed_run_ends_bit_for_bit_as_the_uninterrupted(
    tmp_path: Path, uninterrupted: tuple[Network, list[Epoch]], last: int
):
    with pytest.raises(Interrupted):
        trained(tmp_path, TWO_STAGES, on_epoch=interrupt_after(last))
    told: list[Epoch] = []
    network, history = trained(tmp_path, TWO_STAGES, resume=True, on_epoch=told.append)
    whole, expected = uninterrupted
    assert not moved(whole, network)
    assert measured(history) == measured(expected)
    assert [epoch.epoch for epoch in told] == list(range(last + 1, 5))


def test_without_resume_a_run_begins_anew_and_its_seed_decides(tmp_path: Path):
    once = tiny.fitting(tiny.stage(1, 0))
    first, _ = trained(tmp_path, once)
    second, history = trained(tmp_path, once)
    assert [epoch.epoch for epoch in history] == [1]
    assert not moved(first, second)
    # Of order and dropout: the tiny network's first weights have a seed of their own.
    other, _ = trained(tmp_path, once.model_copy(update={"seed": 6}))
    assert moved(first, other)


def test_no_two_epochs_have_the_same_order_and_dropout(tmp_path: Path):
    # With a rate this small the weights stay: what differs is dropout and the batches.
    _, history = trained(tmp_path, tiny.fitting(tiny.stage(3, 0, rate=1e-9)))
    assert len({epoch.loss for epoch in history}) == 3
    assert len({round(epoch.val_loss, 5) for epoch in history}) == 1


def test_rows_that_do_not_take_part_have_no_influence(tmp_path: Path):
    every = tiny.examples(0, 4)
    rows = np.flatnonzero(np.arange(12) % 4 < 2)
    doctored = every.images.copy()
    doctored[np.setdiff1d(np.arange(12), rows)] = 0
    once = tiny.fitting(tiny.stage(1, 4))
    histories = [
        trained(tmp_path, once, training=Examples(images, every.classes, rows))[1]
        for images in (every.images, doctored)
    ]
    assert measured(histories[0]) == measured(histories[1])


def without_dropout() -> Network:
    network = tiny.network()
    network.model.get_layer("dropout").rate = 0
    return network


def test_trained_on_kept_features_is_trained_on_pictures(tmp_path: Path):
    network, history = trained(tmp_path, tiny.fitting(tiny.stage(3, 0)), network=without_dropout())
    # Keras alone, on whole pictures through the whole network.
    plain, examples = without_dropout(), tiny.examples(0, 6)
    set_trainable(plain, 0)
    plain.model.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    for epoch in history:
        order = np.random.default_rng([5, epoch.epoch]).permutation(18)
        images, classes = examples.images[order], examples.classes[order]
        losses = plain.model.fit(images, classes, batch_size=8, shuffle=False, verbose=0).history["loss"]
        assert epoch.loss == pytest.approx(losses[0], rel=1e-3)
    expected = weights(plain)
    for path, found in weights(network).items():
        np.testing.assert_allclose(found, expected[path], atol=2e-3, err_msg=path)


# What is asked of the network


def logits_of(network: Network, constant: list[float]) -> Network:
    """It answers so, whatever it sees, and learns nothing at the rate below."""
    head = network.model.get_layer("logits")
    head.kernel.assign(np.zeros_like(head.kernel))
    head.bias.assign(np.array(constant, np.float32))
    return network


STILL = tiny.stage(1, 0, rate=1e-12)


def measured_once(folder: Path, examples: Examples, constant: list[float], *, label_smoothing: float = 0.0) -> Epoch:
    _, (epoch,) = trained(
        folder,
        tiny.fitting(STILL, label_smoothing=label_smoothing),
        training=examples,
        held_out=examples,
        network=logits_of(tiny.network(), constant),
    )
    return epoch


def cross_entropy(targets: list[float], logits: list[float]) -> float:
    total = math.log(sum(math.exp(logit) for logit in logits))
    return sum(target * (total - logit) for target, logit in zip(targets, logits, strict=True))


def test_label_smoothing_takes_from_the_right_class_for_all(tmp_path: Path):
    first = tiny.examples(0, 1)
    circles = Examples(first.images, first.classes, np.array([0]))
    found = measured_once(tmp_path, circles, [2, 1, 0], label_smoothing=0.3)
    expected = cross_entropy([0.8, 0.1, 0.1], [2, 1, 0])
    assert (found.loss, found.val_loss) == (pytest.approx(expected, rel=1e-5), pytest.approx(expected, rel=1e-5))
    assert found.accuracy == found.val_accuracy == 1


def test_a_picture_of_none_of_the_classes_is_to_look_like_all_and_is_neither_right_nor_wrong(tmp_path: Path):
    # Of four pictures with a class, three are of the one that is always said.
    classes = np.array([0, 0, 0, 1, NONE_OF_THE_CLASSES, NONE_OF_THE_CLASSES], np.int32)
    found = measured_once(tmp_path, Examples.all_of(tiny.examples(0, 2).images, classes), [2, 1, 0])
    targets = [[1.0, 0.0, 0.0]] * 3 + [[0.0, 1.0, 0.0]] + [[1 / 3] * 3] * 2
    assert found.loss == pytest.approx(sum(cross_entropy(target, [2, 1, 0]) for target in targets) / 6, rel=1e-5)
    assert (found.accuracy, found.val_accuracy) == (0.75, 0.75)


def test_a_loss_that_is_not_finite_stops_the_run_and_leaves_the_last_good_epoch(tmp_path: Path):
    network = tiny.network()

    def spoil(epoch: Epoch) -> None:
        network.model.get_layer("logits").kernel.assign(np.full((8, 3), np.inf))

    with pytest.raises(TrainingError, match="training diverged: expected a finite loss"):
        trained(tmp_path, tiny.fitting(tiny.stage(3, 0)), network=network, on_epoch=spoil)
    assert [epoch.epoch for epoch in Checkpoint(tmp_path / "checkpoint.npz").history()] == [1]
