"""Pictures in a real Redis, which may be slow, full, closed to us, or gone."""

from __future__ import annotations

import hashlib
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from redis import Redis
from structlog.testing import capture_logs

from service.app import create_app
from service.errors import StartupFailed, StoreUnavailable, UnknownImage
from service.explain.redis_shelf import PREFIX as EXPLANATIONS
from service.explain.results import DIGEST_BYTES
from service.images.redis import PREFIX, RedisStore
from service.metrics import Metrics
from service.settings import Settings
from tests.conftest import PATIENCE, ROOT, draw, encode
from tests.service.conftest import StartRedis

pytestmark = pytest.mark.anyio
DATA = encode(draw("circle", 7))
IMAGE_ID = hashlib.sha256(DATA).hexdigest()


def opened(url: str, max_seconds: int = 100) -> RedisStore:
    return RedisStore(url, max_seconds=max_seconds, metrics=Metrics())


def not_stored(store: RedisStore, reason: str) -> float | None:
    return store._metrics.registry.get_sample_value("sichtbar_images_not_stored_total", {"reason": reason})


async def test_two_hosts_share_pictures(start_redis: StartRedis) -> None:
    url = start_redis().url
    async with opened(url) as one, opened(url) as other:
        assert await one.put(DATA, IMAGE_ID)
        assert one.holds(IMAGE_ID)
        assert await other.get(IMAGE_ID) == DATA
        with pytest.raises(UnknownImage, match="pictures expire, 100 s after"):
            await other.get("0" * 64)


async def test_a_picture_expires_after_its_last_use(start_redis: StartRedis) -> None:
    server = start_redis()
    with Redis.from_url(server.url) as redis:
        async with opened(server.url) as store, opened(server.url) as other:
            await store.put(DATA, IMAGE_ID)
            assert 90 < redis.ttl(PREFIX + IMAGE_ID) <= 100
            for use in (store.get(IMAGE_ID), other.put(DATA, IMAGE_ID)):
                redis.expire(PREFIX + IMAGE_ID, 5)
                await use
                assert 90 < redis.ttl(PREFIX + IMAGE_ID) <= 100


async def test_what_redis_has_still_is_not_sent_again_and_what_it_lost_is(start_redis: StartRedis) -> None:
    server = start_redis()
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


async def test_a_redis_that_comes_later_is_used_then(start_redis: StartRedis) -> None:
    server = start_redis()
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


async def test_a_damaged_picture_is_unknown_and_may_be_sent_again(start_redis: StartRedis) -> None:
    server = start_redis()
    async with opened(server.url) as store:
        assert await store.put(DATA, IMAGE_ID)
        with Redis.from_url(server.url) as redis:
            redis.set(PREFIX + IMAGE_ID, b"garbage")
        with capture_logs() as logged, pytest.raises(UnknownImage):
            await store.get(IMAGE_ID)
        assert [line["event"] for line in logged] == ["picture_damaged"]
        assert await store.put(DATA, IMAGE_ID)
        assert await store.get(IMAGE_ID) == DATA


async def test_a_redis_that_does_not_answer_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.images.store.REST_SECONDS", 600)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with opened(f"redis://127.0.0.1:{silent.getsockname()[1]}") as store:
            assert [await store.put(DATA, IMAGE_ID) for _ in range(100)] == [False] * 100
            assert not_stored(store, "unavailable") or not_stored(store, "slow")
        silent.setblocking(False)
        tried = 0
        with suppress(BlockingIOError):
            while True:
                silent.accept()[0].close()
                tried += 1
        # A connection that is not answered, and perhaps one more in case Redis had just closed it.
        assert tried in (1, 2)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        pytest.param(["--maxmemory", "1", "--maxmemory-policy", "noeviction"], "full", id="full"),
        pytest.param(["--requirepass", "secret"], "denied", id="password"),
        pytest.param(["--replicaof", "127.0.0.1 1"], "denied", id="replica"),
        pytest.param(["--min-replicas-to-write", "1"], "denied", id="without-replicas"),
    ],
)
async def test_a_redis_that_refuses_is_counted_by_its_reason(
    start_redis: StartRedis, options: list[str], reason: str
) -> None:
    async with opened(start_redis(*options).url) as store:
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
    start_redis: StartRedis, shapes_models: Path, serve: Callable[[FastAPI], httpx.Client]
) -> None:
    server = start_redis()
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


def test_over_http_hosts_share_explanations_and_each_makes_its_own_without_redis(
    start_redis: StartRedis, shapes_models: Path, serve: Callable[[FastAPI], httpx.Client]
) -> None:
    server = start_redis()
    settings = Settings(models=shapes_models, engine="openvino", explain_wait=PATIENCE, store=server.url)
    one, other = (serve(create_app(settings)) for _ in range(2))
    for client in (one, other):
        client.timeout = PATIENCE
    asked = {"image_id": one.post("/predict", files={"file": DATA}).json()["images"][0]["image_id"], "samples": 50}
    for format_ in ("json", "png"):
        first, second = (client.get("/explain", params={**asked, "format": format_}) for client in (one, other))
        assert (first.headers["x-cache"], second.headers["x-cache"]) == ("miss", "hit")
        assert second.content == first.content
    unkept = {"params": {"samples": 50, "store": "false"}, "files": {"file": encode(draw("square", 8))}}
    drawn, again = (client.post("/explain", **unkept) for client in (one, other))  # type: ignore[arg-type]
    assert drawn.content == again.content
    with Redis.from_url(server.url) as redis:
        kept = [redis.get(key) for key in redis.scan_iter(f"{EXPLANATIONS}*")]
    assert [data for data in kept if drawn.content in data] == []
    assert len([data for data in kept if data[DIGEST_BYTES:].startswith(b"{")]) == 2
    server.stop()
    query, files = {"samples": 50, "seed": 7}, {"file": DATA}
    mine, its = (client.post("/explain", params=query, files=files) for client in (one, other))
    assert (mine.headers["x-cache"], its.headers["x-cache"]) == ("miss", "miss")
    assert mine.content == its.content
