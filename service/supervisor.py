"""Several workers behind one address: started, watched, replaced when they die or hang, stopped together.

The workers share the listening sockets, so that what one of them has not accepted when it dies, another one does. A
channel to each tells when it serves and that its event loop turns, carries what one worker tells all others, and ends
with the supervisor, however that ends. What the workers need once for all of them, a helper does, which is started when
one of them rings its bell.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from asyncio.subprocess import Process
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import NamedTuple

import structlog

from service.errors import StartupFailed
from service.team import BEATS, CHANGED, SERVING, Place

# Between two deaths of workers that die again and again, the pause doubles.
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
# Whoever lived as long is started anew at once.
STEADY_SECONDS = 60.0
BACKLOG = 2048

log = structlog.get_logger()


class Helper(NamedTuple):
    """A process that the workers share: whoever rings `bell`, a socket in their folder, has it started."""

    command: Sequence[str]
    """It is given the descriptors of the bell and of its channel, and `again` where it replaces another."""
    environ: Mapping[str, str]


class _Worker:
    """A process, and the supervisor's end of its channel."""

    def __init__(self, number: int, process: Process, channel: socket.socket) -> None:
        self.number = number
        self.process = process
        self.channel = channel
        self.serving = asyncio.Event()
        self.started = monotonic()
        # Looks at it since it was heard: where the machine or the supervisor stands still, there are none.
        self.silent = 0


class Supervisor:
    """Keeps `size` workers until a signal ends them."""

    def __init__(
        self,
        command: Sequence[str],
        listeners: Sequence[socket.socket],
        folder: Path,
        *,
        size: int,
        helper: Helper,
        patience: float,
        hang: float,
        on_serving: Callable[[], None],
        on_ended: Callable[[int], None],
    ) -> None:
        """A worker is `command` with its number, the descriptors of its channel and of the listeners, the folder that
        all share, and `--again` where it replaces another. After the first signal they have `patience` seconds to end.
        One that serves and is not heard for `hang` seconds is ended, and says before where it stands.

        Tells when the first worker serves, and of each worker that has ended, before another takes its place.
        """
        self._command = command
        self._listeners = listeners
        self._folder = folder
        self._size = size
        self._helper = helper
        self._patience = patience
        self._hang = hang
        self._on_serving = on_serving
        self._on_ended = on_ended
        self._workers: dict[int, _Worker] = {}
        self._started: set[int] = set()
        self._stopping = asyncio.Event()
        self._place = Place(folder)
        self._place.make()

    async def run(self) -> int:
        """Until all have ended; the exit status that is due.

        Raises:
            StartupFailed: the folder's path is too long for a socket.
        """
        bell = self._hang_bell()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        beside = {asyncio.create_task(self._help(bell)), asyncio.create_task(self._watch())}
        try:
            # What keeps one from starting keeps all; it is said once.
            first = await self._start(0)
            ended, serving = asyncio.create_task(first.process.wait()), asyncio.create_task(first.serving.wait())
            await asyncio.wait({ended, serving}, return_when=asyncio.FIRST_COMPLETED)
            serving.cancel()
            if first.serving.is_set():
                self._on_serving()
            elif not self._stopping.is_set():
                self._end(first)
                return _exit_status(await ended)
            await asyncio.gather(self._keep(0, first), *(self._keep(number) for number in range(1, self._size)))
            return 0
        finally:
            for task in beside:
                task.cancel()
            await asyncio.wait(beside)

    async def _keep(self, number: int, worker: _Worker | None = None) -> None:
        """Let one worker follow the other."""
        pause = 0.0
        while worker is not None or not self._stopping.is_set():
            try:
                worker = worker or await self._start(number)
            # The machine may have no process or no file left to give for a while.
            except OSError as problem:
                pause = _longer(pause)
                log.error("worker_not_started", worker=number, reason=str(problem), pause=pause)
            else:
                status = await worker.process.wait()
                self._end(worker)
                if self._stopping.is_set():
                    return
                pause = 0.0 if monotonic() - worker.started > STEADY_SECONDS else _longer(pause)
                log.error("worker_died", worker=number, pid=worker.process.pid, status=status, pause=pause)
                worker = None
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)

    async def _start(self, number: int) -> _Worker:
        ours, theirs = socket.socketpair()
        descriptors = [theirs.fileno(), *(listener.fileno() for listener in self._listeners)]
        again = ["--again"] if number in self._started else []
        try:
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    *self._command,
                    str(number),
                    ",".join(map(str, descriptors)),
                    str(self._folder),
                    *again,
                    pass_fds=descriptors,
                    # Ctrl-C in a terminal reaches the supervisor alone, which tells the others.
                    start_new_session=True,
                    # Whoever aborts, or is made to, says where all its threads stand.
                    env={"PYTHONFAULTHANDLER": "1", **os.environ},
                )
            try:
                (self._place.alive / str(process.pid)).touch()
            except OSError:
                process.kill()
                await process.wait()
                raise
        except OSError:
            ours.close()
            raise
        worker = self._workers[number] = _Worker(number, process, ours)
        self._started.add(number)
        ours.setblocking(False)
        asyncio.get_running_loop().add_reader(ours, self._hear, worker)
        log.info("worker_started", worker=number, pid=process.pid)
        if self._stopping.is_set():
            process.terminate()
        return worker

    def _hear(self, worker: _Worker) -> None:
        try:
            said = worker.channel.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        worker.silent = 0
        if not said:
            asyncio.get_running_loop().remove_reader(worker.channel)
        if SERVING in said:
            worker.serving.set()
        if CHANGED in said:
            for other in self._workers.values():
                if other is not worker:
                    with suppress(OSError):
                        other.channel.send(CHANGED)

    async def _watch(self) -> None:
        """End workers whose event loop hangs; who still starts, or stops already, may take its time."""
        while True:
            await asyncio.sleep(self._hang / BEATS)
            for worker in self._workers.values():
                if self._stopping.is_set() or not worker.serving.is_set():
                    continue
                worker.silent += 1
                with suppress(ProcessLookupError):
                    if worker.silent == BEATS:
                        log.error("worker_hangs", worker=worker.number, pid=worker.process.pid, seconds=self._hang)
                        worker.process.send_signal(signal.SIGABRT)
                    elif worker.silent > BEATS:
                        worker.process.kill()

    def _hang_bell(self) -> socket.socket:
        bell = socket.socket(socket.AF_UNIX)
        bell.setblocking(False)
        try:
            bell.bind(str(self._place.bell))
        except OSError as problem:
            bell.close()
            raise StartupFailed(f"TMPDIR: expected a shorter path, got {self._place.bell.parent}: {problem}") from None
        bell.listen(BACKLOG)
        return bell

    async def _help(self, bell: socket.socket) -> None:
        """Start the helper whenever somebody rings while there is none."""
        loop, again, pause = asyncio.get_running_loop(), False, 0.0
        with bell:
            while True:
                rung = asyncio.Event()
                loop.add_reader(bell, rung.set)
                await rung.wait()
                loop.remove_reader(bell)
                try:
                    await self._run_helper(bell, again=again)
                    again, pause = True, 0.0
                except OSError as problem:
                    pause = _longer(pause)
                    log.error("explainer_not_started", reason=str(problem), pause=pause)
                # Whoever still waits at the bell has waited for the one that died.
                with suppress(OSError):
                    while True:
                        bell.accept()[0].close()
                await asyncio.sleep(pause)

    async def _run_helper(self, bell: socket.socket, *, again: bool) -> None:
        ours, theirs = socket.socketpair()
        # Closed however this ends, which ends the helper.
        with ours:
            with theirs:
                descriptors = [bell.fileno(), theirs.fileno()]
                process = await asyncio.create_subprocess_exec(
                    *self._helper.command,
                    *map(str, descriptors),
                    *(["again"] if again else []),
                    pass_fds=descriptors,
                    start_new_session=True,
                    env={**os.environ, **self._helper.environ},
                )
            log.info("explainer_started", pid=process.pid)
            with suppress(OSError):
                self._place.helper.write_text(str(process.pid))
            status = await process.wait()
            self._place.helper.unlink(missing_ok=True)
        log.warning("explainer_ended", pid=process.pid, status=status)

    def _end(self, worker: _Worker) -> None:
        asyncio.get_running_loop().remove_reader(worker.channel)
        worker.channel.close()
        del self._workers[worker.number]
        (self._place.alive / str(worker.process.pid)).unlink(missing_ok=True)
        self._on_ended(worker.number)

    def _stop(self) -> None:
        """Let all finish on the first signal; end them on the second."""
        if self._stopping.is_set():
            self._kill()
            return
        self._stopping.set()
        self._place.ending.touch()
        # Whoever would connect from now on must not wait for nobody.
        for listener in self._listeners:
            listener.close()
        for worker in self._workers.values():
            with suppress(ProcessLookupError):
                worker.process.terminate()
        asyncio.get_running_loop().call_later(self._patience, self._kill)

    def _kill(self) -> None:
        for worker in self._workers.values():
            log.error("worker_killed", worker=worker.number, pid=worker.process.pid)
            with suppress(ProcessLookupError):
                worker.process.kill()


def _longer(pause: float) -> float:
    return min(max(FIRST_PAUSE, 2 * pause), LONGEST_PAUSE)


def _exit_status(status: int) -> int:
    """As a shell tells of a process that a signal ended."""
    return status if status >= 0 else 128 - status
