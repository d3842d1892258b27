"""`python -m service.explain`: the process that explains. The service starts it, with one end of a pipe."""

from __future__ import annotations

import os
import signal
import sys
from multiprocessing.connection import Connection

from service.explain.model import EngineName
from service.explain.process import Worker


def main(descriptor: str, engine: EngineName, threads: str, nice: str) -> None:
    """Serve the pipe until it is closed."""
    # Ctrl-C in a terminal and systemd's stop reach the whole group; the service decides when its explanations end.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    os.nice(int(nice))
    Worker(Connection(int(descriptor)), engine, threads=int(threads)).work()
    # A thread may be deep in a model, for nobody.
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])  # type: ignore[arg-type]
