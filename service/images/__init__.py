"""A picture in under the sha256 of its bytes, the same bytes out until it expires: on disk, in Redis, or neither."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from service.images.disk import DiskStore
from service.images.redis import RedisStore
from service.images.store import ImageStore, NoStore
from service.metrics import Metrics
from service.settings import Settings

__all__ = ["NOTHING", "ImageStore", "default_folder", "names_redis", "open_store"]

NOTHING = "none"


@asynccontextmanager
async def open_store(settings: Settings, metrics: Metrics) -> AsyncIterator[ImageStore]:
    """The store that the settings name, while the context is open.

    Raises:
        StartupFailed: it cannot be what the settings say.
    """
    name = settings.store
    if name == NOTHING:
        yield NoStore()
        return
    store: DiskStore | RedisStore
    if name and names_redis(name):
        store = RedisStore(name, max_seconds=settings.store_max_seconds, metrics=metrics)
    else:
        store = DiskStore(
            Path(name) if name else default_folder(),
            required=bool(name),
            max_bytes=settings.store_max_bytes,
            max_seconds=settings.store_max_seconds,
            metrics=metrics,
        )
    async with store:
        yield store


def names_redis(store: str) -> bool:
    """Whether a store is an address, not a folder."""
    return "://" in store


def default_folder() -> Path:
    """Where pictures are kept unless the settings say where."""
    try:
        place = tempfile.gettempdir()
    except FileNotFoundError:
        # Nothing can be written here at all; the store will say so.
        place = "/tmp"
    return Path(place) / f"sichtbar-{os.geteuid()}"
