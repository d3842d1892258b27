"""A rate and a request in, what became of each out: requests come as they come, whether or not others were answered.

That is an open loop. Of clients that wait for their answers a server that slows down gets fewer requests, and so never
more than it can bear.
"""

from __future__ import annotations

import gc
import random
import re
import select
import socket
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter, sleep
from typing import NamedTuple

from benchmarks.errors import BenchmarkFailed
from benchmarks.uploads import Upload

# Clients keep their connections, as a balancer does: so many are open before the first request, more come if need be.
KEPT, MOST_CONNECTIONS = 400, 1000
# A server closes what is idle, perhaps just when a request is on its way.
IDLE_SECONDS = 4.0
# An event loop takes one in each of its turns.
CONNECT_SECONDS = 1.0
# For the last answers.
ANSWER_SECONDS = 30.0
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
RETRY_AFTER = re.compile(rb"\r\nretry-after: *(\d+)", re.IGNORECASE)
CLOSE = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)


@dataclass
class Offered:
    """What became of the requests of one run."""

    seconds: float
    """Through which they came."""
    latencies: dict[int, list[float]] = field(default_factory=dict)
    """By status: seconds from when each was due to the end of its answer."""
    retry_after: Counter[int] = field(default_factory=Counter)
    """Answers by the seconds of their `Retry-After`."""
    failures: Counter[str] = field(default_factory=Counter)
    """Requests without an answer, by what happened instead."""
    late: list[float] = field(default_factory=list)
    """Seconds from when each was due until it was sent: the client's own share."""

    @property
    def statuses(self) -> dict[int, int]:
        """How many answers there were, by status."""
        return {status: len(seconds) for status, seconds in sorted(self.latencies.items())}

    @property
    def requests(self) -> int:
        """All that came."""
        return sum(self.statuses.values()) + self.failures.total()

    def per_second(self, status: int) -> float:
        """Answers of a status."""
        return len(self.latencies.get(status, ())) / self.seconds

    def percentile(self, share: float, status: int = 200) -> float:
        """Seconds that so large a share of a status's answers did not exceed; nan where there were none."""
        return percentile(self.latencies.get(status, []), share)


def percentile(values: list[float], share: float) -> float:
    """The least of the values that so large a share of them does not exceed; nan of none."""
    if not values:
        return float("nan")
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def post(port: int, path: str, upload: Upload) -> bytes:
    """A whole request, as it is sent."""
    head = (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: {upload.content_type}\r\n"
        f"content-length: {len(upload.body)}\r\n\r\n"
    )
    return head.encode() + upload.body


def offer(port: int, request: bytes, *, rate: float, seconds: float, connections: int = KEPT, seed: int = 0) -> Offered:
    """Send requests to 127.0.0.1 at random moments, so many a second on average, each when it is due.

    One for which no connection is left waits for one; its time counts.

    Raises:
        BenchmarkFailed: the server takes no connection.
    """
    chance, offered = random.Random(seed), Offered(seconds)
    with _clients(port, request, MOST_CONNECTIONS, offered) as clients:
        clients.connect(connections)
        begin = perf_counter()
        due = begin + chance.expovariate(rate)
        while due < begin + seconds:
            while due <= perf_counter():
                clients.send(due)
                due += chance.expovariate(rate)
            clients.receive(due - perf_counter())
        clients.finish()
    return offered


def saturate(port: int, request: bytes, *, clients: int, seconds: float) -> Offered:
    """Send requests to 127.0.0.1 by so many clients, each as soon as it has its last answer.

    Raises:
        BenchmarkFailed: the server takes no connection.
    """
    offered = Offered(seconds)
    with _clients(port, request, clients, offered) as together:
        end = perf_counter() + seconds
        for _ in range(clients):
            together.send(perf_counter())
        while perf_counter() < end:
            for _ in range(together.receive(end - perf_counter())):
                together.send(perf_counter())
        together.finish()
    return offered


class _Answer(NamedTuple):
    """The head of one, as it was understood."""

    status: int
    length: int
    retry_after: int | None
    close: bool


class _Connection:
    """One connection, on which one request after the other is sent."""

    __slots__ = ("asked", "idle_since", "received", "socket")

    def __init__(self, port: int) -> None:
        try:
            self.socket = socket.create_connection(("127.0.0.1", port), timeout=ANSWER_SECONDS)
        except OSError as error:
            raise BenchmarkFailed(f"expected a connection to port {port}, got none: {error}") from None
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.asked: float | None = None
        self.received = b""
        self.idle_since = 0.0


class _Clients:
    """Connections to one server, opened as they are needed. No framework: the server needs the processor itself."""

    def __init__(self, port: int, request: bytes, most: int, offered: Offered) -> None:
        self._port = port
        self._request = request
        self._most = most
        self._offered = offered
        self._free: list[_Connection] = []
        self._waiting: deque[float] = deque()
        self._open: dict[int, _Connection] = {}
        self._heads: dict[bytes, _Answer] = {}
        self._poll = select.epoll()

    def send(self, due: float) -> None:
        """Send a request that is due since then, or soon."""
        now = perf_counter()
        while self._free:
            connection = self._free.pop()
            if connection.idle_since > now - IDLE_SECONDS:
                self._ask(connection, due)
                return
            self._close(connection)
        if len(self._open) < self._most:
            self._ask(self._connected(), due)
        else:
            self._waiting.append(due)

    def connect(self, number: int) -> None:
        """Open connections, and wait until the server has all."""
        self._free += [self._connected() for _ in range(number)]
        sleep(CONNECT_SECONDS)
        for connection in self._free:
            connection.idle_since = perf_counter()

    def receive(self, seconds: float) -> int:
        """Take answers that are there, or come within so many seconds; how many were whole."""
        whole = 0
        for number, _ in self._poll.poll(max(0.0, seconds)):
            connection = self._open[number]
            try:
                data = connection.socket.recv(65_536)
            except OSError:
                data = b""
            if not data:
                self._close(connection)
                if connection.asked is not None:
                    self._offered.failures["connection lost"] += 1
                continue
            connection.received += data
            whole += self._take(connection)
        return whole

    def finish(self) -> None:
        """Wait for what was sent."""
        deadline = perf_counter() + ANSWER_SECONDS
        while (asked := self._asked()) and perf_counter() < deadline:
            self.receive(0.1)
        if asked:
            self._offered.failures["no answer"] += asked

    def close(self) -> None:
        """Close all."""
        for connection in list(self._open.values()):
            self._close(connection)
        self._poll.close()

    def _connected(self) -> _Connection:
        connection = _Connection(self._port)
        self._open[connection.socket.fileno()] = connection
        self._poll.register(connection.socket, select.EPOLLIN)
        return connection

    def _asked(self) -> int:
        return len(self._waiting) + sum(connection.asked is not None for connection in self._open.values())

    def _ask(self, connection: _Connection, due: float) -> None:
        connection.asked = due
        self._offered.late.append(perf_counter() - due)
        try:
            connection.socket.sendall(self._request)
        except OSError:
            self._close(connection)
            self._offered.failures["connection lost"] += 1

    def _take(self, connection: _Connection) -> bool:
        head, end, body = connection.received.partition(b"\r\n\r\n")
        if not end or connection.asked is None:
            return False
        # Refusals are all alike.
        answer = self._heads.get(head)
        if answer is None:
            answer = _understood(head)
            if answer.retry_after is not None:
                self._heads[head] = answer
        if len(body) < answer.length:
            return False
        now = perf_counter()
        self._offered.latencies.setdefault(answer.status, []).append(now - connection.asked)
        if answer.retry_after is not None:
            self._offered.retry_after[answer.retry_after] += 1
        connection.asked, connection.received, connection.idle_since = None, b"", now
        if answer.close:
            self._close(connection)
        elif self._waiting:
            self._ask(connection, self._waiting.popleft())
        else:
            self._free.append(connection)
        return True

    def _close(self, connection: _Connection) -> None:
        if self._open.pop(connection.socket.fileno(), None) is None:
            return
        if connection in self._free:
            self._free.remove(connection)
        self._poll.unregister(connection.socket)
        connection.socket.close()


@contextmanager
def _clients(port: int, request: bytes, most: int, offered: Offered) -> Iterator[_Clients]:
    clients = _Clients(port, request, most, offered)
    # A collection of what a minute's answers left would be a pause of the client's own.
    gc.collect()
    gc.disable()
    try:
        yield clients
    finally:
        gc.enable()
        clients.close()


def _understood(head: bytes) -> _Answer:
    length, retry_after = LENGTH.search(head), RETRY_AFTER.search(head)
    return _Answer(
        status=int(head[9:12]),
        length=int(length[1]) if length else 0,
        retry_after=int(retry_after[1]) if retry_after else None,
        close=CLOSE.search(head) is not None,
    )
