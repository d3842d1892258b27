"""What the worker processes of one service have in common: a folder for the time that it runs, and its supervisor."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from shutil import rmtree
from socket import socket

# What is said over a channel: one byte each.
SERVING, CHANGED = b"s", b"c"
BELL = "bell"
FOLDERS = ("metrics", "orders", "allowances", "turns", "weights", "processes")


class Team:
    """The workers of one service, seen from one of them."""

    def __init__(self, folder: Path, worker: int, channel: socket) -> None:
        self.worker = worker
        self._folder = folder
        self._alone = False
        self.bell = folder / BELL
        self.metrics, self.orders, self.allowances, self.turns, self.weights, self._processes = (
            folder / name for name in FOLDERS
        )
        self._channel = channel
        channel.setblocking(False)

    @property
    def processes(self) -> list[int]:
        """The workers' process ids."""
        return [int(path.name) for path in self._processes.iterdir()]

    def listen(self, on_changed: Callable[[], None], on_left_alone: Callable[[], None]) -> None:
        """From now on, say when another worker has changed what all shall look at, and when the supervisor is gone."""
        loop = asyncio.get_running_loop()

        def hear() -> None:
            try:
                said = self._channel.recv(4096)
            except BlockingIOError:
                return
            except OSError:
                said = b""
            if CHANGED in said:
                on_changed()
            if not said:
                loop.remove_reader(self._channel)
                self._alone = True
                on_left_alone()

        loop.add_reader(self._channel, hear)

    def tell(self, what: bytes) -> None:
        """Tell the supervisor that this worker is `SERVING`, or all others that something has `CHANGED`."""
        # Of one that is gone, `listen` tells.
        with suppress(OSError):
            self._channel.send(what)

    def leave(self) -> None:
        """End as one of them; where the supervisor is gone, the last removes what they had in common."""
        if self._alone:
            (self._processes / str(os.getpid())).unlink(missing_ok=True)
            if not self.processes:
                rmtree(self._folder, ignore_errors=True)
