"""`python -m service.explain`: the process that explains. The service starts it, with one end of a pipe.

Where several workers share it, their supervisor does, with the bell where they ring and a channel that ends with it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from multiprocessing.connection import Connection
from socket import socket
from typing import Literal

from service.choices import EngineName
from service.engines import choose_engine
from service.explain.worker import Models, Worker, answer_rings


def main(
    engine: Literal["auto"] | EngineName, threads: str, nice: str, descriptor: str, channel: str = "", again: str = ""
) -> None:
    """Serve the pipe until it is closed, or whoever rings until the channel is."""
    # Ctrl-C in a terminal and systemd's stop reach the whole group; the service decides when its explanations end.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    os.nice(int(nice))
    models = Models(choose_engine(engine), threads=int(threads))
    if channel:
        bell = socket(fileno=int(descriptor))
        threading.Thread(target=answer_rings, args=(bell, models), kwargs={"again": bool(again)}, daemon=True).start()
        socket(fileno=int(channel)).recv(1)
    else:
        Worker(Connection(int(descriptor)), models).work()
    # A thread may be deep in a model, for nobody.
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])  # type: ignore[arg-type]
