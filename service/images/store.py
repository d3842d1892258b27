"""What every store of pictures does: keep one under the sha256 of its bytes without ever failing a prediction."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import OrderedDict
from time import monotonic
from typing import Literal, NoReturn, Protocol, get_args

import anyio
import structlog

from service.errors import StoreUnavailable, UnknownImage
from service.logs import Seldom
from service.metrics import Metrics

Reason = Literal["busy", "denied", "failed", "full", "slow", "too_large", "unavailable", "unsafe"]

IMAGE_ID = re.compile(r"[0-9a-f]{64}")
PUT_SECONDS, GET_SECONDS = 1.0, 5.0
# A store that lets its callers wait is left alone for so long: predictions must not pay for it one by one.
REST_SECONDS = 5.0
# How long a picture just kept is taken to be there still, and how many of them are remembered.
FRESH_SECONDS = 60.0
FRESH_IMAGES = 4096

log = structlog.get_logger()


class NotStored(Exception):
    """A picture could not be kept or read, and why."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class ImageStore(Protocol):
    """Pictures by the sha256 of their bytes."""

    def holds(self, image_id: str) -> bool:
        """Whether the picture was kept so lately that `put` has nothing to do."""

    async def put(self, data: bytes, image_id: str) -> bool:
        """Keep a picture, or say that it could not be kept; raises nothing, and takes a second at most."""

    async def get(self, image_id: str) -> bytes:
        """The picture's bytes as sent; being used, it stays longer.

        Raises:
            UnknownImage: no such picture is kept, or not any more.
            StoreUnavailable: the store gives no answer.
        """


class NoStore:
    """For those who must not keep pictures."""

    def holds(self, image_id: str) -> bool:
        """Never."""
        return False

    async def put(self, data: bytes, image_id: str) -> bool:
        """Keeps nothing."""
        return False

    async def get(self, image_id: str) -> NoReturn:
        """Knows nothing.

        Raises:
            UnknownImage: always.
        """
        raise UnknownImage("this service keeps no pictures: send the picture itself")


class KeepingStore(ABC):
    """Remembers what it has just kept, counts, bounds every wait, and warns once a minute of what is not kept."""

    def __init__(self, max_seconds: int, metrics: Metrics, *, fresh_seconds: float = FRESH_SECONDS) -> None:
        self._max_seconds = max_seconds
        self._metrics = metrics
        self._fresh_seconds = min(fresh_seconds, max_seconds / 10)
        self._fresh: OrderedDict[str, float] = OrderedDict()
        self._rest_until = -1.0
        self._may_warn = Seldom()
        for reason in get_args(Reason):
            # A counter that starts at nothing hides its first increase.
            metrics.images_not_stored.labels(reason)

    def holds(self, image_id: str) -> bool:
        """See `ImageStore`."""
        kept = self._fresh.get(image_id)
        return kept is not None and monotonic() - kept < self._fresh_seconds

    async def put(self, data: bytes, image_id: str) -> bool:
        """See `ImageStore`."""
        if self.holds(image_id):
            return True
        if monotonic() < self._rest_until:
            return self._lost(NotStored("unavailable", "left alone since it last failed"))
        try:
            with anyio.fail_after(PUT_SECONDS):
                await self._keep(data, image_id)
        except TimeoutError:
            self._rest()
            return self._lost(NotStored("slow", f"not kept within {PUT_SECONDS:g} s"))
        except NotStored as reason:
            if reason.reason == "unavailable":
                self._rest()
            return self._lost(reason)
        except Exception as bug:
            # Whatever it is, the prediction is good.
            log.exception("bug")
            return self._lost(NotStored("failed", type(bug).__name__))
        self._fresh[image_id] = monotonic()
        self._fresh.move_to_end(image_id)
        while len(self._fresh) > FRESH_IMAGES:
            self._fresh.popitem(last=False)
        return True

    async def get(self, image_id: str) -> bytes:
        """See `ImageStore`."""
        try:
            with anyio.fail_after(GET_SECONDS):
                # Anything else is no name of ours, and might be a path.
                data = await self._find(image_id) if IMAGE_ID.fullmatch(image_id) else None
        except (TimeoutError, NotStored) as failure:
            self._metrics.image_lookups.labels("unavailable").inc()
            log.warning("pictures_not_readable", detail=str(failure))
            raise StoreUnavailable("the pictures that the service keeps cannot be read at the moment") from None
        if data is None:
            self._forget(image_id)
            self._metrics.image_lookups.labels("unknown").inc()
            raise UnknownImage(
                f"expected the id of a picture that POST /predict has kept, got {image_id!r}; pictures expire, "
                f"{self._max_seconds} s after their last use or earlier to make room: send it again"
            )
        self._metrics.image_lookups.labels("found").inc()
        return data

    @abstractmethod
    async def _keep(self, data: bytes, image_id: str) -> None:
        """Write the picture, or touch the one that is there.

        Raises:
            NotStored: it could not be kept.
        """

    @abstractmethod
    async def _find(self, image_id: str) -> bytes | None:
        """Read and touch the picture, if it is there.

        Raises:
            NotStored: that cannot be told.
        """

    def _kept_before(self, image_id: str) -> bool:
        return image_id in self._fresh

    def _forget(self, image_id: str) -> None:
        self._fresh.pop(image_id, None)

    def _rest(self) -> None:
        self._rest_until = monotonic() + REST_SECONDS

    def _lost(self, reason: NotStored) -> bool:
        self._metrics.images_not_stored.labels(reason.reason).inc()
        self._warn(reason)
        return False

    def _warn(self, reason: NotStored) -> None:
        if self._may_warn():
            log.warning("picture_not_stored", reason=reason.reason, detail=str(reason))
