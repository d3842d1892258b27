"""The process that explains, seen from inside: tasks in, answers out. Of the other end of the pipe see `process.py`."""

from __future__ import annotations

import gc
import os
import select
import socket
import threading
import traceback
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

from service.choices import EngineName
from service.errors import ExplanationFailed, ServiceError
from service.explain.messages import LANES, Cancel, Done, Ended, Failed, Forget, Here, Reported, Task
from service.explain.model import Model
from service.explain.question import Cancelled, Progress


class Models:
    """What the process has loaded, and its threads."""

    def __init__(self, engine: EngineName, *, threads: int) -> None:
        self.lanes = {lane: ThreadPoolExecutor(1, thread_name_prefix=lane) for lane in LANES}
        self._open = partial(Model, engine=engine, threads=threads)
        self._opened: dict[tuple[Path, str | None], Model] = {}
        self._opening = threading.Lock()

    def find(self, folder: Path, digest: str | None) -> Model:
        """The version, loaded when it is first asked for."""
        with self._opening:
            if (folder, digest) not in self._opened:
                self._opened[folder, digest] = self._open(folder, digest=digest)
            return self._opened[folder, digest]

    def forget(self, folder: Path, digest: str) -> None:
        """Nobody asks about it any more."""
        with self._opening:
            self._opened.pop((folder, digest), None)
        # TensorFlow's objects hold each other.
        gc.collect()


class Worker:
    """The process, seen from inside by one who asks."""

    def __init__(self, pipe: Connection, models: Models) -> None:
        self._pipe = pipe
        self._models = models
        self._sending = threading.Lock()
        self._wanted: set[int] = set()
        self._futures: dict[int, Future[None]] = {}

    def work(self) -> None:
        """Take tasks until the service closes the pipe; nobody waits for those that are left."""
        # A service that died with messages unread leaves a reset connection.
        with suppress(EOFError, OSError):
            while True:
                message = self._pipe.recv()
                if isinstance(message, Cancel):
                    self._cancel(message.number)
                elif isinstance(message, Forget):
                    # After all that was asked before.
                    self._models.lanes["long"].submit(self._models.forget, message.folder, message.digest)
                else:
                    self._submit(message)
        for number in list(self._wanted):
            self._cancel(number)

    def _submit(self, task: Task) -> None:
        self._wanted.add(task.number)
        self._futures[task.number] = future = self._models.lanes[task.lane].submit(self._run, task)
        future.add_done_callback(lambda future: self._futures.pop(task.number, None))

    def _cancel(self, number: int) -> None:
        self._wanted.discard(number)
        future = self._futures.get(number)
        # What waits behind another task ends now; what runs ends itself.
        if future is not None and future.cancel():
            self._send(Ended(number))

    def _run(self, task: Task) -> None:
        def report(progress: Progress) -> None:
            if task.number not in self._wanted:
                raise Cancelled
            self._send(Reported(task.number, progress))

        answer: Done | Failed | Ended
        try:
            answer = Done(
                task.number, task.function(self._models.find(task.folder, task.digest), report, *task.arguments)
            )
        except Cancelled:
            answer = Ended(task.number)
        except ServiceError as error:
            answer = Failed(task.number, error, None)
        except Exception:
            answer = Failed(task.number, ExplanationFailed("the explanation failed"), traceback.format_exc())
        self._wanted.discard(task.number)
        self._send(answer)

    def _send(self, message: Done | Failed | Ended | Reported) -> None:
        with self._sending, suppress(OSError):
            self._pipe.send(message)


def answer_rings(bell: socket.socket, models: Models, *, again: bool) -> None:
    """Serve whoever rings the bell, each on a thread."""
    while True:
        # That the bell does not block is for the supervisor, which shares it.
        select.select([bell], [], [])
        pipe = Connection(bell.accept()[0].detach())
        with suppress(OSError):
            pipe.send(Here(os.getpid(), again))
        again = False
        threading.Thread(target=Worker(pipe, models).work, daemon=True).start()
