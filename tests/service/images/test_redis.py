"""Pictures in a real Redis, which may be slow, full, closed to us, or gone."""

from __future__ import annotations

import hashlib
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic

import httpx
import pytest
from fastapi import FastAPI
from redis import Redis

from service.app import create_app
from service.errors import StartupFailed, StoreUnavailable, UnknownImage
from service.images.redis import PREFIX, RedisStore
from service.metrics import Metrics
from service.settings import Settings
from tests.conftest import ROOT, draw, encode

pytestmark = pytest.mark.anyio
DATA = encode(draw("circle", 7))
IMAGE_ID = hashlib.sha256(DATA).hexdigest()


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


Start = Callable[..., RedisServer]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    if not shutil.which("redis-server"):
        pytest.skip("no redis-server on the PATH; on Debian: apt-get install redis-server")
    servers: list[RedisServer] = []

    def run(*options: str) -> RedisServer:
        servers.append(RedisServer(tmp_path, *options))
        return servers[-1]

    yield run
    for server in servers:
        server.stop()


def opened(url: str, max_seconds: int = 100) -> RedisStore:
    return RedisStore(url, max_seconds=max_seconds, metrics=Metrics())


def not_stored(store: RedisStore, reason: str) -> float | None:
    return store._metrics.registry.get_sample_value("sichtbar_images_not_stored_total", {"reason": reason})


async def test_two_hosts_share_pictures(start: Start) -> None:
    url = start().url
    async with opened(url) as one, opened(url) as other:
        assert await one.put(DATA, IMAGE_ID)
        assert one.holds(IMAGE_ID)
        assert await other.get(IMAGE_ID) == DATA
        with pytest.raises(UnknownImage, match="pictures expire, 100 s after"):
            await other.get("0" * 64)


async def test_a_picture_expires_after_its_last_use(start: Start) -> None:
    server = start()
    with Redis.from_url(server.url) as redis:
        async with opened(server.url) as store, opened(server.url) as other:
            await store.put(DATA, IMAGE_ID)
            assert 90 < redis.ttl(PREFIX + IMAGE_ID) <= 100
            for use in (store.get(IMAGE_ID), other.put(DATA, IMAGE_ID)):
                redis.expire(PREFIX + IMAGE_ID, 5)
                await use
                assert 90 < redis.ttl(PREFIX + IMAGE_ID) <= 100


async def test_what_redis_has_still_is_not_sent_again_and_what_it_lost_is(start: Start) -> None:
    server = start()
    with Redis.from_url(server.url) as redis:
        async with opened(server.url) as store:
            store._fresh_seconds = 0
            await store.put(DATA, IMAGE_ID)
            received = redis.info("stats")["total_net_input_bytes"]
            await store.put(DATA, IMAGE_ID)
            assert redis.info("stats")["total_net_input_bytes"] - received < len(DATA)
            redis.flushall()
            await store.put(DATA, IMAGE_ID)
            assert await store.get(IMAGE_ID) == DATA


async def test_a_redis_that_comes_later_is_used_then(start: Start) -> None:
    server = start()
    server.stop()
    async with opened(server.url) as store:
        assert not await store.put(DATA, IMAGE_ID)
        with pytest.raises(StoreUnavailable):
            await store.get(IMAGE_ID)
        server.start()
        store._rest_until = 0
        assert await store.put(DATA, IMAGE_ID)
        assert await store.get(IMAGE_ID) == DATA
        # A new process on the other end of the old connections.
        server.stop()
        server.start()
        with pytest.raises(UnknownImage):
            await store.get(IMAGE_ID)
        assert not store.holds(IMAGE_ID)
        assert await store.put(DATA, IMAGE_ID)


async def test_a_redis_that_does_not_answer_is_waited_for_once(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with opened(f"redis://127.0.0.1:{silent.getsockname()[1]}") as store:
            started = monotonic()
            assert [await store.put(DATA, IMAGE_ID) for _ in range(100)] == [False] * 100
            assert monotonic() - started < 3
            assert not_stored(store, "unavailable") or not_stored(store, "slow")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        pytest.param(["--maxmemory", "1", "--maxmemory-policy", "noeviction"], "full", id="full"),
        pytest.param(["--requirepass", "secret"], "denied", id="password"),
        pytest.param(["--replicaof", "127.0.0.1 1"], "denied", id="replica"),
    ],
)
async def test_a_redis_that_refuses_is_counted_by_its_reason(start: Start, options: list[str], reason: str) -> None:
    async with opened(start(*options).url) as store:
        assert not await store.put(DATA, IMAGE_ID)
        assert not_stored(store, reason) == 1


@pytest.mark.parametrize("url", ["redis://127.0.0.1:secret", "http://secret", "s3://secret", "redis:// secret:x/y/z"])
def test_an_address_that_is_none_stops_the_start_without_being_shown(url: str) -> None:
    with pytest.raises(StartupFailed, match="expected redis://") as failure:
        opened(url)
    assert "secret" not in str(failure.value)


def test_a_start_without_the_client_says_which_extra_to_install() -> None:
    hide = (
        "import sys; sys.modules['redis'] = None; from service.images.redis import RedisStore; "
        "from service.metrics import Metrics; RedisStore('redis://x', max_seconds=1, metrics=Metrics())"
    )
    finished = subprocess.run([sys.executable, "-c", hide], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "StartupFailed" in finished.stderr
    assert "pip install -c constraints.txt -e '.[redis]'" in finished.stderr


def test_over_http_predictions_are_answered_with_and_without_redis(
    start: Start, shapes_models: Path, serve: Callable[[FastAPI], httpx.Client]
) -> None:
    server = start()
    settings = Settings(models=shapes_models, engine="openvino", store=server.url)
    one, other = (serve(create_app(settings)) for _ in range(2))
    assert one.post("/predict", files={"file": DATA}).json()["images"][0]["image_id"] == IMAGE_ID
    assert other.get(f"/images/{IMAGE_ID}").content == DATA
    server.stop()
    image = other.post("/predict", files={"file": DATA}).json()["images"][0]
    assert image["image_id"] is None
    assert image["predictions"][0]["label"] == "circle"
    answer = other.get(f"/images/{IMAGE_ID}")
    assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
    assert answer.headers["retry-after"] == "1"
