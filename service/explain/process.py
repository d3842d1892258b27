"""A process of its own that explains and looks inside, so that neither its work nor its death reaches a prediction.

The service sends it functions of a model, and their arguments; it runs them at low priority, the long ones one after
the other, the quick ones beside them. `python -m service.explain` is the process itself, `worker.py` what it does:
the service starts it. Several workers share one, which their supervisor starts when one of them rings its bell.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any, Protocol, TypeVar

import structlog

import service.explain
from service.choices import EngineName
from service.errors import Draining, ExplainerDied
from service.explain.messages import Cancel, Done, Ended, Failed, Forget, Here, Lane, Reported, Task
from service.explain.question import Progress

R = TypeVar("R")

# Matrices here are small: several threads would wait for each other, and sum in an order of their own.
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

COMMAND = (sys.executable, "-m", service.explain.__name__)

# A task that nobody waits for any more, and that does not end for so long, hangs: all behind it would wait for ever.
HANG_SECONDS = 60.0

log = structlog.get_logger()


@dataclass
class _Waiting:
    """A task that the process has not ended, also when its caller has gone."""

    answer: asyncio.Future[Any]
    on_progress: Callable[[Progress], None]
    overdue: asyncio.TimerHandle | None = None

    def end(self) -> None:
        if self.overdue is not None:
            self.overdue.cancel()


class _Process(Protocol):
    @property
    def pid(self) -> int | None: ...

    def kill(self) -> None: ...

    def wait(self) -> int | None: ...


class _Shared:
    """A process that somebody else has started, and waits for."""

    pid: int | None = None

    def kill(self) -> None:
        if self.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> None:
        pass


@dataclass(frozen=True)
class _Child:
    process: _Process
    pipe: Connection
    sender: ThreadPoolExecutor
    listener: threading.Thread


class Explainer:
    """The process, seen from the service: started when it is first needed, and anew when it died."""

    def __init__(
        self,
        engine: EngineName,
        *,
        threads: int,
        nice: int,
        bell: Path | None = None,
        on_restart: Callable[[], None] = lambda: None,
    ) -> None:
        """`bell`: the socket that calls the process that several workers share; its options are its supervisor's."""
        self._options = (engine, str(threads), str(nice))
        self._bell = bell
        self._on_restart = on_restart
        self._starts = 0
        self._closed = False
        self._numbers = itertools.count()
        self._waiting: dict[int, _Waiting] = {}
        self._child: _Child | None = None

    async def run(
        self,
        function: Callable[..., R],
        folder: Path,
        *arguments: object,
        lane: Lane = "quick",
        digest: str | None = None,
        on_progress: Callable[[Progress], None] = lambda progress: None,
    ) -> R:
        """Run `function(model, report, *arguments)` there. A caller who is cancelled cancels it.

        A function that was cancelled and does not end hangs: the process is killed.

        `digest`: of the manifest that the folder must have; unless given, whichever it has when it is first needed.
        `function` is one that a module has by name; its arguments and what it returns can be pickled.

        Raises:
            ServiceError: as the function raised it.
            ModelUnavailable: the version's files are not there any more.
            ExplanationFailed: the function raised something else, which is logged.
            ExplainerDied: the process died.
        """
        child = self._child if self._child is not None else self._start()
        number = next(self._numbers)
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[R] = loop.create_future()
        waiting = self._waiting[number] = _Waiting(answer, on_progress)
        child.sender.submit(_send, child.pipe, Task(number, lane, function, folder, arguments, digest))
        try:
            return await answer
        except asyncio.CancelledError:
            if number in self._waiting:
                child.sender.submit(_send, child.pipe, Cancel(number))
                waiting.overdue = loop.call_later(HANG_SECONDS, _kill, child)
            raise

    def forget(self, folder: Path, digest: str) -> None:
        """Free what the process holds of a version."""
        if self._child is not None:
            self._child.sender.submit(_send, self._child.pipe, Forget(folder, digest))

    @property
    def pid(self) -> int | None:
        """The process' id, while there is one."""
        return self._child.process.pid if self._child is not None else None

    async def close(self) -> None:
        """End the process at once, unless others share it; who waits for it gets `ExplainerDied`."""
        self._closed = True
        child = self._child
        if child is not None:
            if self._bell is None:
                child.process.kill()
            else:
                with socket.socket(fileno=os.dup(child.pipe.fileno())) as pipe, suppress(OSError):
                    pipe.shutdown(socket.SHUT_RDWR)
            await asyncio.to_thread(child.listener.join)

    def _start(self) -> _Child:
        if self._closed:
            raise Draining("the service is shutting down")
        try:
            process, pipe = self._spawn() if self._bell is None else _ring(self._bell)
        except OSError as problem:
            log.error("explainer_not_started", reason=str(problem))
            raise ExplainerDied("the process that explains could not be started; ask again") from None
        sender = ThreadPoolExecutor(1, thread_name_prefix="explainer-send")
        loop = asyncio.get_running_loop()
        listener = threading.Thread(target=lambda: self._listen(child, loop), name="explainer-listen", daemon=True)
        child = self._child = _Child(process, pipe, sender, listener)
        listener.start()
        return child

    def _spawn(self) -> tuple[_Process, Connection]:
        ours, theirs = Pipe()
        try:
            with theirs:
                process = subprocess.Popen(
                    [*COMMAND, *self._options, str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    env={**os.environ, **ONE_THREAD},
                )
        except OSError:
            ours.close()
            raise
        self._starts += 1
        if self._starts > 1:
            self._on_restart()
        log.info("explainer_started", pid=process.pid)
        return process, ours

    def _listen(self, child: _Child, loop: asyncio.AbstractEventLoop) -> None:
        with suppress(EOFError, OSError):
            while True:
                loop.call_soon_threadsafe(self._received, child, child.pipe.recv())
        status = child.process.wait()
        # The loop is closed where the service ended first.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(self._died, child, status)

    def _received(self, child: _Child, message: Here | Done | Failed | Ended | Reported) -> None:
        if isinstance(message, Here):
            if isinstance(child.process, _Shared):
                child.process.pid = message.pid
            if message.again:
                self._on_restart()
            return
        waiting = self._waiting.get(message.number)
        if waiting is None:
            return
        if not isinstance(message, Reported):
            waiting.end()
            del self._waiting[message.number]
        if waiting.answer.done():
            return
        if isinstance(message, Done):
            waiting.answer.set_result(message.value)
        elif isinstance(message, Reported):
            waiting.on_progress(message.progress)
        elif isinstance(message, Failed):
            if message.traceback is not None:
                log.error(message.error.code, exception=message.traceback)
            waiting.answer.set_exception(message.error)

    def _died(self, child: _Child, status: int | None) -> None:
        if not self._closed:
            log.warning("explainer_ended", pid=child.process.pid, status=status)
        # By the thread that may still send: what another opens next could have the pipe's number.
        child.sender.submit(child.pipe.close)
        child.sender.shutdown(wait=False)
        self._child = None
        for waiting in self._waiting.values():
            waiting.end()
            if not waiting.answer.done():
                waiting.answer.set_exception(ExplainerDied("the process that explains died; ask again"))
        self._waiting.clear()


def _ring(bell: Path) -> tuple[_Process, Connection]:
    """Whoever shall answer need not be there yet."""
    pipe = socket.socket(socket.AF_UNIX)
    try:
        pipe.connect(str(bell))
    except OSError:
        pipe.close()
        raise
    return _Shared(), Connection(pipe.detach())


def _kill(child: _Child) -> None:
    log.warning("explainer_hangs", pid=child.process.pid)
    child.process.kill()


def _send(pipe: Connection, message: Task | Cancel | Forget) -> None:
    # Of a process that died, `_listen` tells.
    with suppress(OSError):
        pipe.send(message)
