"""A real small server that answers as a test says, also as no good server would, and remembers what it was asked."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple

Step = Callable[[socket.socket], None]


class Asked(NamedTuple):
    """One request."""

    line: str
    headers: dict[str, str]
    body: bytes


def answer(status: int, body: bytes = b"", **headers: str) -> Step:
    """A whole answer; headers by name with _ for -."""
    lines = [f"HTTP/1.1 {status} Whatever", f"content-length: {len(body)}", "connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return pieces("\r\n".join([*lines, "", ""]).encode() + body)


def pieces(*parts: bytes) -> Step:
    """Exactly these bytes, then the connection is closed."""

    def send(connection: socket.socket) -> None:
        for part in parts:
            connection.sendall(part)

    return send


def trickle(head: bytes, piece: bytes) -> Step:
    """A piece again and again, until the client has had enough."""

    def send(connection: socket.socket) -> None:
        connection.sendall(head)
        connection.settimeout(0.01)
        while True:
            connection.sendall(piece)
            try:
                if not connection.recv(1):
                    return
            except TimeoutError:
                continue

    return send


def silence(connection: socket.socket) -> None:
    """Nothing, until the client has had enough."""
    connection.recv(1)


class Scripted:
    """Serves one step a connection, in order; one request too many breaks the test."""

    def __init__(self, *steps: Step, port: int = 0) -> None:
        self._steps = steps
        self._socket = socket.create_server(("127.0.0.1", port))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self.asked: list[Asked] = []

    def __enter__(self) -> Scripted:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Whoever still waits for a connection is woken by one.
        socket.create_connection(("127.0.0.1", self.port)).close()
        self._thread.join(10)
        self._socket.close()
        assert not self._thread.is_alive()

    @property
    def port(self) -> int:
        port: int = self._socket.getsockname()[1]
        return port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _serve(self) -> None:
        steps = iter(self._steps)
        while True:
            connection, _ = self._socket.accept()
            with connection:
                asked = _read(connection)
                if asked is None:
                    return
                self.asked.append(asked)
                try:
                    next(steps, answer(500, b"one request too many"))(connection)
                except OSError:
                    # The client has gone.
                    continue


def _read(connection: socket.socket) -> Asked | None:
    received = b""
    while b"\r\n\r\n" not in received:
        if not (piece := connection.recv(65536)):
            return None
        received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    line, *fields = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (field.partition(": ") for field in fields)}
    while len(body) < int(headers.get("content-length", 0)):
        body += connection.recv(65536)
    return Asked(line, headers, body)


def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port
