"""What the worker processes of one service have in common: a folder for the time that it runs, and its supervisor."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import rmtree
from socket import socket
from tempfile import TemporaryDirectory, gettempdir

# What is said over a channel: one byte each.
SERVING, CHANGED, TURNING = b"s", b"c", b"t"
# Of the time for which a worker may hang: that often it says that it does not.
BEATS = 10
PREFIX = "sichtbar-workers-"


class Place:
    """What is in the folder that they share."""

    def __init__(self, folder: Path) -> None:
        self.bell = folder / "bell"
        self.metrics = folder / "metrics"
        self.orders = folder / "orders"
        self.allowances = folder / "allowances"
        self.turns = folder / "turns"
        self.weights = folder / "weights"
        self.alive = folder / "processes"
        self.helper = folder / "helper"
        self.ending = folder / "ending"

    def make(self) -> None:
        """Make the folders in it."""
        for folder in (self.metrics, self.orders, self.allowances, self.turns, self.weights, self.alive):
            folder.mkdir(0o700)


class Team(Place):
    """The workers of one service, seen from one of them."""

    def __init__(self, folder: Path, worker: int, channel: socket) -> None:
        super().__init__(folder)
        self.worker = worker
        self._folder = folder
        self._alone = False
        self._channel = channel
        channel.setblocking(False)
        # For as long as this process lives.
        _hold(folder)

    @property
    def processes(self) -> list[int]:
        """The workers' process ids."""
        return [int(path.name) for path in self.alive.iterdir()]

    @property
    def helper_process(self) -> list[int]:
        """The id of the process that helps them all, while there is one."""
        try:
            return [int(self.helper.read_text())]
        # None yet, or none any more; or its name is being written.
        except (FileNotFoundError, ValueError):
            return []

    @property
    def all_end(self) -> bool:
        """Whether no worker will take this one's place."""
        return self._alone or self.ending.exists()

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

    def beat(self, every: float) -> None:
        """Tell the supervisor, every so many seconds, that this worker's event loop turns."""
        self.tell(TURNING)
        asyncio.get_running_loop().call_later(every, self.beat, every)

    def leave(self) -> None:
        """End as one of them; where the supervisor is gone, the last removes what they had in common."""
        # Two may be the last.
        with suppress(FileNotFoundError):
            if self._alone:
                (self.alive / str(os.getpid())).unlink(missing_ok=True)
                if not self.processes:
                    rmtree(self._folder, ignore_errors=True)


@contextmanager
def shared_folder() -> Iterator[Path]:
    """A folder for the workers of one service; those of services that were killed are removed."""
    _clear()
    with TemporaryDirectory(prefix=PREFIX) as name:
        folder = Path(name)
        held = _hold(folder)
        try:
            yield folder
        finally:
            os.close(held)


def _hold(folder: Path) -> int:
    """A descriptor; until it is closed nobody clears the folder away, neither another service nor systemd-tmpfiles."""
    held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(held, fcntl.LOCK_SH)
    return held


def _clear() -> None:
    for folder in Path(gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):
            held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # An empty one may be another service's that has yet to lock it.
                if os.fstat(held).st_uid == os.getuid() and any(folder.iterdir()):
                    rmtree(folder, ignore_errors=True)
            finally:
                os.close(held)
