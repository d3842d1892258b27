"""Picture files in, ranked classes out: decode, queue, infer, rank. Every protocol comes through here."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any, NamedTuple, TypeVar

import anyio
import numpy as np
from numpy.typing import NDArray

from service import tracing
from service.answers import Answers
from service.deadline import Deadline
from service.decode import decode, pixels_if_quick, pixels_of
from service.engines import require_tensorflow
from service.engines.base import Outputs
from service.errors import DeadlineExceeded, ImageError, NoImage, Overloaded, TooManyImages, Unavailable
from service.explain.process import Explainer
from service.explaining import Explaining
from service.images import ImageStore, open_store
from service.metrics import Metrics
from service.orders import Orders
from service.pool import BoundedPool
from service.repository import Version
from service.rollout import Rollout
from service.settings import Settings
from service.team import CHANGED, Team

T = TypeVar("T")
Pixels = NDArray[np.uint8]

# Looks inside take turns, and the first of a model loads it.
MOST_LOOKING, LOOK_SECONDS = 64, 60
# Bodies up to here are read in less time than handing the work to another thread takes.
QUICK_BODY = 16_384
# Where an answer was kept from before.
UNSPENT = {"decode": 0.0, "queue": 0.0, "inference": 0.0}
# Kept pictures that requests may hold in memory at once.
MOST_IN_HAND = 64
# Another worker may be asked for this one's metrics; what it has counted needs no look.
REFRESH_SECONDS = 0.5


class Picture(NamedTuple):
    """A file that a client sent."""

    data: bytes
    name: str | None = None

    @property
    def image_id(self) -> str:
        """sha256 of the bytes; computed anew each time."""
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True)
class Prediction:
    """One class, and how probable it is."""

    label: str
    index: int
    probability: float


@dataclass(frozen=True)
class Classified:
    """What a model says of one picture."""

    image_id: str | None
    """sha256 of the file's bytes, where it is kept."""
    name: str | None
    predictions: list[Prediction]
    """The most probable first."""
    recognised: bool | None
    seconds: dict[str, float]
    """By stage."""
    cached: bool
    """Whether the model was asked before, and not again."""


class _Decoded(NamedTuple):
    pixels: Pixels
    image_id: str | None = None
    seconds: float | None = None


class _Known(NamedTuple):
    outputs: Outputs
    image_id: str
    seconds: float


class Classifier:
    """The service without its transport. Models are loaded, and pictures kept, while the context is open."""

    images: ImageStore

    def __init__(self, settings: Settings, team: Team | None = None) -> None:
        """`team`: the other workers, where there are several."""
        self.settings = settings
        self.metrics = Metrics(team)
        self.metrics.watch_ready(lambda: self.ready)
        self.metrics.queue_limit.set(settings.max_queue)
        self.explaining = Explaining(settings, self.metrics, team.turns if team else None)
        self.rollout = Rollout(
            settings,
            self.metrics,
            on_served=lambda version: self.explaining.preload([version]),
            on_released=lambda folder, digest: self.explainer.forget(folder, digest),
            on_changed=lambda: team.tell(CHANGED) if team else None,
            orders=Orders(team.orders if team else None),
            weights=team.weights if team else None,
        )
        self.repository = self.rollout.repository
        self._team = team
        self._looking = self._in_hand = self._bytes_in_hand = 0
        self.draining = False
        self._answers = Answers(settings.cache_bytes, self.metrics.cache_bytes.set)
        self._decoders = BoundedPool(
            settings.decode_threads, max_queue=settings.max_queue, name="decode", patience=settings.patience
        )

    async def __aenter__(self) -> Classifier:
        """Open the store of pictures and load every model.

        Raises:
            StartupFailed: TensorFlow is not installed, no model is valid, or the store is not what the settings say.
        """
        require_tensorflow()
        async with AsyncExitStack() as opened:
            self.images = await opened.enter_async_context(open_store(self.settings, self.metrics))
            await opened.enter_async_context(self.rollout)
            self.explainer = Explainer(
                self.repository.engine,
                threads=self.settings.threads,
                nice=self.settings.explain_nice,
                bell=self._team.bell if self._team else None,
                on_restart=self.metrics.explainer_restarts.inc,
            )
            opened.push_async_callback(self.explainer.close)
            await self.explaining.open(self.explainer, self.repository.versions)
            opened.push_async_callback(self.explaining.close)
            if self._team is not None:
                refreshing = asyncio.create_task(self._refresh(), name="refresh metrics")
                opened.callback(refreshing.cancel)
            self._opened = opened.pop_all()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Finish what was accepted."""
        self.draining = True
        await self._opened.aclose()
        self._decoders.close()

    def drain(self, after: float = 0.0) -> None:
        """Stop being ready at once; in `after` seconds and the drain's, all must be over."""
        self.draining = True
        self.metrics.refresh()
        self.repository.drain_within(after + self.settings.drain_seconds)
        self.explaining.drain_within(after + self.settings.drain_seconds)

    async def _refresh(self) -> None:
        while True:
            self.metrics.refresh()
            await asyncio.sleep(REFRESH_SECONDS)

    @property
    def ready(self) -> bool:
        """Whether a balancer should send pictures here."""
        return not self.draining and self.repository.alive

    def admit(self, version: Version, size: int) -> None:
        """Ask before a request of so many bytes is read: to refuse costs little there.

        Raises:
            Overloaded: too many pictures wait already.
            Draining: the version answers no more.
        """
        try:
            self._admit(version, size)
        except Unavailable:
            self.metrics.model_request_of(*version.metric_labels, "unavailable").inc()
            raise

    async def classify(
        self, pictures: Sequence[Picture], version: Version, top_k: int, *, keep: bool = True
    ) -> list[Classified]:
        """Classify each picture. All are decoded before any is queued or kept: a bad one costs no inference.

        Raises:
            TooManyImages: there are more than one request may carry.
            ImageError: a picture cannot be decoded; says which.
            Overloaded: too many pictures wait already.
            DeadlineExceeded: the answer would come too late.
            InferenceFailed: the model failed.
        """
        with self._request(version, len(pictures)) as spent:
            self._admit(version, sum(len(picture.data) for picture in pictures))
            alone = len(pictures) == 1
            async with self._deadline():
                decoded = await _together([self._decode(picture, version, alone, keep) for picture in pictures])
                return await _together(
                    [self._classify(*pair, version, top_k, spent, keep) for pair in zip(pictures, decoded, strict=True)]
                )

    async def infer(self, images: Sequence[Picture | Pixels], version: Version) -> Outputs:
        """What a model gives for pictures, or for pixels at its size; nothing is kept.

        Raises:
            NoImage: there is none.
            ServiceError: see `classify`.
        """
        if not images:
            raise NoImage("expected at least one picture, got none")
        with self._request(version, len(images)) as spent:
            self._admit(version, sum(len(image.data) for image in images if isinstance(image, Picture)))
            alone = len(images) == 1
            async with self._deadline():
                decoded = await _together(
                    [
                        self._decode(image, version, alone, keep=False) if isinstance(image, Picture) else _given(image)
                        for image in images
                    ]
                )
                answers = await _together([self._answer(one, version, spent) for one in decoded])
        return Outputs(*(np.stack(rows) for rows in zip(*(outputs for outputs, _ in answers), strict=True)))

    async def read(self, body: bytes, function: Callable[[], T]) -> T:
        """Run what makes sense of a body: on a decoder's thread, unless the body is small.

        Raises:
            ServiceError: as the function raised it.
            Overloaded: too many pictures wait already.
            DeadlineExceeded: its turn came too late.
        """
        if len(body) <= QUICK_BODY:
            return function()
        async with self._deadline():
            return await self._decoders.run(function)

    async def check(self, picture: Picture, *, keep: bool) -> str:
        """The `image_id` of a picture that can be decoded; from now on it is kept, if it shall and can be.

        Raises:
            ImageError: it cannot be decoded.
            Overloaded: too many pictures wait already.
            DeadlineExceeded: its turn came too late.
        """

        def read() -> str:
            decode(picture.data, max_pixels=self.settings.max_pixels)
            return picture.image_id

        with self.metrics.refusals(), tracing.stage("decode"):
            async with self._deadline():
                image_id = await self._decoders.run(read)
        if keep:
            await self._keep(picture, image_id)
        return image_id

    @asynccontextmanager
    async def picture(self, image_id: str) -> AsyncIterator[bytes]:
        """A kept picture, held in memory while the context is open.

        Raises:
            Overloaded: requests hold as many, or as many bytes of them, as they may.
            UnknownImage, StoreUnavailable: see `ImageStore.get`.
        """
        if self._in_hand >= MOST_IN_HAND:
            raise Overloaded(f"{self._in_hand} kept pictures are worked on already")
        self._in_hand += 1
        size = 0
        try:
            data = await self.images.get(image_id)
            size = len(data)
            self._bytes_in_hand += size
            if self._bytes_in_hand > self.settings.max_total_bytes:
                raise Overloaded(
                    f"requests under way hold {self.settings.max_total_bytes} bytes of kept pictures already"
                )
            yield data
        finally:
            self._in_hand -= 1
            self._bytes_in_hand -= size

    async def look(self, function: Callable[..., T], version: Version, *arguments: object) -> T:
        """Run a function of `service.activations` on a version, in the process that explains.

        Raises:
            ServiceError: as the function raised it.
            Overloaded: too many wait for the same already.
            DeadlineExceeded: the answer would come too late.
            ExplainerDied: the process died.
        """
        if self._looking >= MOST_LOOKING:
            raise Overloaded(f"{self._looking} requests are waiting already")
        self._looking += 1
        started = perf_counter()
        try:
            with anyio.fail_after(LOOK_SECONDS), self.metrics.refusals(), tracing.stage("look", version.metric_labels):
                seen = await self.explainer.run(function, version.folder, *arguments, digest=version.digest)
        except TimeoutError:
            raise DeadlineExceeded(f"no answer within {LOOK_SECONDS} s") from None
        finally:
            self._looking -= 1
        self.metrics.look_seconds.labels(*version.metric_labels).observe(perf_counter() - started)
        return seen

    @contextmanager
    def _request(self, version: Version, images: int) -> Iterator[list[dict[str, float]]]:
        with self.metrics.model_request(*version.metric_labels), version.statistics.request() as spent:
            if images > self.settings.max_images:
                raise TooManyImages(f"expected at most {self.settings.max_images} pictures, got {images}")
            yield spent

    def _admit(self, version: Version, size: int) -> None:
        # What was answered before need not wait: that is known once it has been read.
        if not self.settings.cache_bytes:
            version.batcher.admit()
        if size > QUICK_BODY:
            self._decoders.admit()

    def _deadline(self) -> Deadline:
        return Deadline(self.settings.timeout, self._late)

    def _late(self) -> DeadlineExceeded:
        return DeadlineExceeded(f"no answer within {self.settings.timeout:g} s")

    async def _decode(self, picture: Picture, version: Version, alone: bool, keep: bool) -> _Decoded | _Known:
        started = perf_counter()
        target = version.manifest.input
        known: str | None = None
        if self.settings.cache_bytes:
            known = await self.read(picture.data, lambda: picture.image_id)
            outputs = self._answers.get(known, version.digest)
            self.metrics.cache.labels(*version.metric_labels, "miss" if outputs is None else "hit").inc()
            if outputs is not None:
                return _Known(outputs, known, perf_counter() - started)
            version.batcher.admit()

        def identify() -> str | None:
            return known or (picture.image_id if keep else None)

        def read() -> tuple[Pixels, str | None]:
            return pixels_of(picture.data, target, max_pixels=self.settings.max_pixels), identify()

        try:
            with self.metrics.refusals(), tracing.stage("decode", version.metric_labels):
                quick = pixels_if_quick(picture.data, target, max_pixels=self.settings.max_pixels) if alone else None
                pixels, image_id = await self._decoders.run(read) if quick is None else (quick, identify())
        except ImageError as error:
            raise error if not picture.name else type(error)(f"{picture.name}: {error}") from error.__cause__
        return _Decoded(pixels, image_id, perf_counter() - started)

    async def _keep(self, picture: Picture, image_id: str) -> bool:
        with tracing.stage("store"):
            return await self.images.put(picture.data, image_id)

    async def _classify(
        self,
        picture: Picture,
        decoded: _Decoded | _Known,
        version: Version,
        top_k: int,
        spent: list[dict[str, float]],
        keep: bool,
    ) -> Classified:
        kept: asyncio.Task[bool] | None = None
        image_id = decoded.image_id if keep else None
        if image_id is not None and not self.images.holds(image_id):
            # While the model runs.
            kept = asyncio.create_task(self._keep(picture, image_id))
        try:
            outputs, seconds = await self._answer(decoded, version, spent)
            image_id = image_id if kept is None or await kept else None
        finally:
            if kept:
                kept.cancel()
        manifest = version.manifest
        return Classified(
            image_id=image_id,
            name=picture.name,
            predictions=rank(outputs, manifest.labels, top_k),
            recognised=is_recognised(float(outputs.recognition), manifest.recognition_threshold),
            seconds=UNSPENT | {stage: round(each, 6) for stage, each in seconds.items()},
            cached=isinstance(decoded, _Known),
        )

    async def _answer(
        self, decoded: _Decoded | _Known, version: Version, spent: list[dict[str, float]]
    ) -> tuple[Outputs, dict[str, float]]:
        if isinstance(decoded, _Known):
            outputs, seconds = decoded.outputs, {"cache": decoded.seconds}
            tracing.ended("cache", decoded.seconds, version.metric_labels)
        else:
            answer = await version.batcher.submit(decoded.pixels)
            outputs = answer.value
            seconds = {} if decoded.seconds is None else {"decode": decoded.seconds}
            seconds |= {"queue": answer.queued, "inference": answer.ran}
            tracing.ended("queue", answer.queued, version.metric_labels, ago=answer.ran)
            tracing.ended("inference", answer.ran, version.metric_labels)
            if decoded.image_id is not None:
                self._answers.put(decoded.image_id, version.digest, outputs)
        for stage, each in seconds.items():
            self.metrics.stage_seconds_of(*version.metric_labels, stage).observe(each)
        self.metrics.prediction_of(*version.metric_labels).inc()
        spent.append(seconds)
        return outputs, seconds


async def _given(pixels: Pixels) -> _Decoded:
    return _Decoded(pixels)


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


def is_recognised(recognition: float, threshold: float | None) -> bool | None:
    """Whether a picture shows one of the classes at all; None where the version has no threshold."""
    return None if threshold is None else bool(recognition >= threshold)
