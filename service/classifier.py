"""Picture files in, ranked classes out: decode, queue, infer, rank. Every protocol comes through here."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, NamedTuple, TypeVar

import anyio
import numpy as np
from numpy.typing import NDArray

from service.decode import decode, fit, is_quick
from service.engines import require_tensorflow
from service.engines.base import Outputs
from service.errors import DeadlineExceeded, ImageError, TooManyImages
from service.metrics import Metrics
from service.pool import BoundedPool
from service.repository import Repository, Version
from service.settings import Settings

T = TypeVar("T")


class Picture(NamedTuple):
    """A file that a client sent."""

    data: bytes
    name: str | None = None


@dataclass(frozen=True)
class Prediction:
    """One class, and how probable it is."""

    label: str
    index: int
    probability: float


@dataclass(frozen=True)
class Classified:
    """What a model says of one picture."""

    image_id: str
    """sha256 of the file's bytes."""
    name: str | None
    predictions: list[Prediction]
    """The most probable first."""
    recognised: bool | None
    seconds: dict[str, float]
    """By stage."""


class _Decoded(NamedTuple):
    pixels: NDArray[np.uint8]
    image_id: str
    seconds: float


class Classifier:
    """The service without its transport. Models are loaded while the context is open."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.repository = Repository(settings, self.metrics)
        self.draining = False
        self._decoders = BoundedPool(settings.decode_threads, max_queue=settings.max_queue, name="decode")

    async def __aenter__(self) -> Classifier:
        """Load every model.

        Raises:
            StartupFailed: TensorFlow is not installed, or no model is valid.
        """
        require_tensorflow()
        await self.repository.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Finish what was accepted."""
        self.draining = True
        await self.repository.__aexit__(*exc_info)
        self._decoders.close()

    def drain(self, after: float = 0.0) -> None:
        """Stop being ready at once; in `after` seconds and the drain's, all must be over."""
        self.draining = True
        self.repository.drain_within(after + self.settings.drain_seconds)

    @property
    def ready(self) -> bool:
        """Whether a balancer should send pictures here."""
        return not self.draining and self.repository.alive

    async def classify(self, pictures: Sequence[Picture], version: Version, top_k: int) -> list[Classified]:
        """Classify each picture. All are decoded before any is queued: a bad one costs no inference.

        Raises:
            TooManyImages: there are more than one request may carry.
            ImageError: a picture cannot be decoded; says which.
            Overloaded: too many pictures wait already.
            DeadlineExceeded: the answer would come too late.
            InferenceFailed: the model failed.
        """
        if len(pictures) > self.settings.max_images:
            raise TooManyImages(f"expected at most {self.settings.max_images} pictures, got {len(pictures)}")
        try:
            with anyio.fail_after(self.settings.timeout):
                alone = len(pictures) == 1
                decoded = await _together([self._decode(picture, version, alone) for picture in pictures])
                return await _together(
                    [self._infer(*pair, version, top_k) for pair in zip(pictures, decoded, strict=True)]
                )
        except TimeoutError:
            raise DeadlineExceeded(f"no answer within {self.settings.timeout:g} s") from None

    async def _decode(self, picture: Picture, version: Version, alone: bool) -> _Decoded:
        started = perf_counter()
        target = version.manifest.input

        def read() -> tuple[NDArray[np.uint8], str]:
            image = decode(picture.data, max_pixels=self.settings.max_pixels)
            return fit(image, target), hashlib.sha256(picture.data).hexdigest()

        try:
            pixels, image_id = read() if alone and is_quick(picture.data) else await self._decoders.run(read)
        except ImageError as error:
            raise error if not picture.name else type(error)(f"{picture.name}: {error}") from error.__cause__
        return _Decoded(pixels, image_id, perf_counter() - started)

    async def _infer(self, picture: Picture, decoded: _Decoded, version: Version, top_k: int) -> Classified:
        answer = await version.batcher.submit(decoded.pixels)
        seconds = {"decode": decoded.seconds, "queue": answer.queued, "inference": answer.ran}
        manifest = version.manifest
        for stage, spent in seconds.items():
            self.metrics.stage_seconds.labels(manifest.name, str(manifest.version), stage).observe(spent)
        self.metrics.predictions.labels(manifest.name, str(manifest.version)).inc()
        return Classified(
            image_id=decoded.image_id,
            name=picture.name,
            predictions=rank(answer.value, manifest.labels, top_k),
            recognised=_recognised(float(answer.value.recognition), manifest.recognition_threshold),
            seconds={stage: round(spent, 6) for stage, spent in seconds.items()},
        )


async def _together(coroutines: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    if len(coroutines) == 1:
        # The usual request: no task need be made.
        return [await coroutines[0]]
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        return await asyncio.gather(*tasks)
    finally:
        # Where one failed, the answers of the others are for nobody.
        for task in tasks:
            task.cancel()


def rank(outputs: Outputs, labels: Sequence[str], top_k: int) -> list[Prediction]:
    """The `top_k` most probable classes of one picture, the most probable first; ties keep the labels' order."""
    order = np.argsort(-outputs.probabilities, kind="stable")[:top_k]
    return [Prediction(labels[i], int(i), float(outputs.probabilities[i])) for i in order]


def _recognised(recognition: float, threshold: float | None) -> bool | None:
    return None if threshold is None else bool(recognition >= threshold)
