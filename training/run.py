"""One recipe on one data set: where its run keeps what, its examples, its training."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np

from service import __version__
from training.cache import Cache, digest
from training.checkpoint import Checkpoint
from training.compose import Scenery, compose
from training.data import DataSet
from training.devices import Precision
from training.events import Progress
from training.history import Epoch
from training.networks import Network
from training.recipe import Recipe
from training.tensorboard import Board
from training.train import Examples, train

# Pictures that are held out are composed with other dice than those to train on.
HELD_OUT_SEED = 2**32


def run_folder(
    runs: Path,
    recipe: Recipe,
    data_digest: str,
    scenery: Scenery,
    weights: Path | None,
    precision: Precision,
    *more: object,
) -> Path:
    """Below `runs`, named by all that decides what a run with these arguments ends with, and `more`."""
    first_weights = np.fromfile(weights, np.uint8) if weights and weights.is_file() else None
    software = (__version__, keras.__version__)
    decided = (software, recipe.model_dump(mode="json", exclude={"card"}), data_digest, first_weights, precision)
    what = digest(*decided, *more, *scenery.training.photographs)
    return runs / recipe.name / what[:16]


class Run:
    """A folder below `runs`: the same run finds it again."""

    def __init__(
        self,
        runs: Path,
        recipe: Recipe,
        data: DataSet,
        scenery: Scenery,
        *,
        weights: Path | None,
        precision: Precision,
        resume: bool,
    ) -> None:
        """With `resume` it goes on where it was, otherwise it begins anew.

        Raises:
            CacheError: `runs` cannot be written.
        """
        self._recipe = recipe
        self._data = data
        self._scenery = scenery
        self._resume = resume
        self._cache = Cache(runs / "cache")
        self.folder = run_folder(runs, recipe, data.digest, scenery, weights, precision)
        self._checkpoint = Checkpoint(self.folder / "checkpoint.npz")
        self.board = Board(self.folder / "tensorboard", resume=resume)

    def examples(self, progress: Progress) -> tuple[Examples, Examples]:
        """Those to train on, and those held out: all test pictures first, then what the augmentation makes of them.

        Raises:
            CacheError: the cache cannot be written.
        """
        training, test = self._data.training, self._data.test
        how = self._recipe.augmentation
        if how is None:
            return Examples.all_of(training.images, training.classes), Examples.all_of(test.images, test.classes)
        seed, target = self._recipe.fitting.seed, self._recipe.input
        all_plain = how.model_copy(update={"plain": 1.0, "copies": 1})
        made = [
            compose(
                split,
                plan,
                target,
                backgrounds,
                seed=from_seed,
                cache=self._cache,
                begin=lambda total: progress.stage("composing pictures", total),
                done=progress.advance,
            )
            for split, plan, backgrounds, from_seed in (
                (training, how, self._scenery.training, seed),
                (test, all_plain, self._scenery.held_out, seed + HELD_OUT_SEED),
            )
        ]
        return made[0], made[1]

    def train(self, network: Network, training: Examples, held_out: Examples, progress: Progress) -> list[Epoch]:
        """Fit the network's weights, in place; see `training.train`."""
        self.board.graph(network.model)
        self.board.samples(training.images, self._recipe.fitting.seed)
        return train(
            network,
            training,
            held_out,
            self._recipe.fitting,
            cache=self._cache,
            checkpoint=self._checkpoint,
            resume=self._resume,
            progress=progress,
            on_epoch=self.board.epoch,
        )

    def finish(self) -> None:
        """The version is published: there is nothing to resume."""
        self._checkpoint.forget()
        self.board.close()
