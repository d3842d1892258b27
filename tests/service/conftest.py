"""A Redis of the test's own."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


class RedisServer:
    """A redis-server of the test's own, on a free port and without a file."""

    def __init__(self, folder: Path, *options: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", *options]
        self._folder = folder
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, cwd=self._folder, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout
        for line in self._process.stdout:
            if "Ready to accept connections" in line:
                return
        raise AssertionError("redis-server did not start")

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout
        self._process.stdout.close()


StartRedis = Callable[..., RedisServer]


@pytest.fixture
def start_redis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StartRedis]:
    """Start one, with options of redis-server; stopped at the end. It is waited for longer than in service."""
    monkeypatch.setattr("service.images.connection.SECONDS", 10.0)
    monkeypatch.setattr("service.images.store.PUT_SECONDS", 20.0)
    if not shutil.which("redis-server"):
        pytest.skip("no redis-server on the PATH; on Debian: apt-get install redis-server")
    servers: list[RedisServer] = []

    def run(*options: str) -> RedisServer:
        servers.append(RedisServer(tmp_path, *options))
        return servers[-1]

    yield run
    for server in servers:
        server.stop()
