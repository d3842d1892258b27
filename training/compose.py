"""A split of studio pictures in, examples out: some as they are, some cut out and set before other backgrounds."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service import __version__
from service.manifest import Input
from training.augment import Augmentation, Backgrounds, composite, cut_out
from training.cache import Cache, digest
from training.data import Split
from training.errors import DataError
from training.train import NONE_OF_THE_CLASSES, Examples

# Pictures of the same class that a composite with several objects may draw from.
COMPANIONS = 7
CHUNK = 512


@dataclass(frozen=True)
class Scenery:
    """Backgrounds for training, and others for what is held out."""

    training: Backgrounds
    held_out: Backgrounds

    @classmethod
    def of(cls, folder: Path | None) -> Scenery:
        """Drawn textures and the photographs of a folder, of which every tenth is held out.

        Raises:
            DataError: the folder has no photographs, or one cannot be read.
        """
        if folder is None:
            return cls(Backgrounds(), Backgrounds())
        every = Backgrounds.of_folder(folder)
        photographs = every.photographs
        kept = [photograph for number, photograph in enumerate(photographs) if number % 10]
        return cls(Backgrounds(kept, every.share), Backgrounds(photographs[::10], every.share))


def compose(
    split: Split,
    augmentation: Augmentation,
    target: Input,
    backgrounds: Backgrounds,
    *,
    seed: int,
    cache: Cache,
    begin: Callable[[int], None],
    done: Callable[[int], None],
) -> Examples:
    """Plain pictures, then composites, then negatives; the same arguments give the same pictures, from disk if there.

    Raises:
        DataError: the augmentation leaves a class without pictures.
        CacheError: the cache cannot be written.
    """
    plan = _Plan.of(split, augmentation, seed)
    cut_outs: list[NDArray[np.uint8]] = []
    by_class = [np.flatnonzero(split.classes == number) for number in range(split.classes.max() + 1)]

    def one(row: int) -> NDArray[np.uint8]:
        if row < len(plan.plain):
            return np.asarray(split.images[plan.plain[row]])
        rng = np.random.default_rng([seed, row])
        things: list[NDArray[np.uint8]] = []
        if row < plan.first_negative:
            source = plan.composed[row - len(plan.plain)]
            others = rng.choice(by_class[split.classes[source]], COMPANIONS)
            things = [cut_outs[source], *(cut_outs[other] for other in others)]
        background = backgrounds.draw(rng, target.height, target.width)
        return composite(things, background, target, rng, augmentation)

    def rows(start: int, stop: int) -> NDArray[np.uint8]:
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            if not cut_outs:
                cut_outs.extend(threads.map(cut_out, split.images))
            return np.stack(list(threads.map(one, range(start, stop))))

    begin(len(plan.classes))
    images = cache.array(
        digest(
            split.images,
            split.classes,
            augmentation.model_dump(),
            backgrounds.share,
            seed,
            __version__,
            *backgrounds.photographs,
        ),
        (len(plan.classes), target.height, target.width, 3),
        np.uint8,
        rows,
        chunk=CHUNK,
        done=done,
    )
    return Examples.all_of(images, plan.classes)


class _Plan:
    """Which picture each row is made of."""

    def __init__(self, plain: NDArray[np.int64], composed: NDArray[np.int64], classes: NDArray[np.int32]) -> None:
        self.plain = plain
        self.composed = composed
        self.classes = classes
        self.first_negative = len(plain) + len(composed)

    @classmethod
    def of(cls, split: Split, augmentation: Augmentation, seed: int) -> _Plan:
        count = len(split.classes)
        order = np.random.default_rng(seed).permutation(count)
        plain = np.sort(order[: round(augmentation.plain * count)])
        composed = np.tile(np.arange(count), augmentation.copies)
        some = len(plain) + len(composed)
        negatives = round(some * augmentation.negatives / (1 - augmentation.negatives))
        if missing := set(split.classes.tolist()) - set(split.classes[np.concatenate([plain, composed])].tolist()):
            raise DataError(
                f"augmentation: expected copies above 0, or plain so large that each class has a picture, found "
                f"{len(missing)} classes without"
            )
        classes = np.concatenate(
            [split.classes[plain], split.classes[composed], np.full(negatives, NONE_OF_THE_CLASSES)]
        )
        return cls(plain, composed, classes.astype(np.int32))
