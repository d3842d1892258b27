"""What versions have said of pictures of late: the same picture again costs neither decoding nor inference."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import numpy as np

from service.engines.base import Outputs

# What Python holds of an answer beside its numbers.
OVERHEAD = 768


class Answers:
    """Kept by the picture's sha256 and the version's digest, so that no other version's answer is ever found.

    They hold `max_bytes` at most; to make room, the least recently used go. With 0 none is kept.
    """

    def __init__(self, max_bytes: int, on_change: Callable[[int], None] = lambda total: None) -> None:
        """`on_change` is told how many bytes they hold."""
        self._max_bytes = max_bytes
        self._on_change = on_change
        self._kept: OrderedDict[tuple[str, str], Outputs] = OrderedDict()
        self._bytes = 0

    def get(self, image_id: str, digest: str) -> Outputs | None:
        """What the version says of the picture, if it was asked of late."""
        found = self._kept.get((image_id, digest))
        if found is not None:
            self._kept.move_to_end((image_id, digest))
        return found

    def put(self, image_id: str, digest: str, outputs: Outputs) -> None:
        """Keep what the version says of one picture, where there is room for it."""
        if (image_id, digest) in self._kept or _size(outputs) > self._max_bytes:
            return
        # Rows of a batch: a view would keep the whole of it.
        self._kept[image_id, digest] = Outputs(*(np.array(row) for row in outputs))
        self._bytes += _size(outputs)
        while self._bytes > self._max_bytes:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= _size(oldest)
        self._on_change(self._bytes)


def _size(outputs: Outputs) -> int:
    return OVERHEAD + sum(row.nbytes for row in outputs)
