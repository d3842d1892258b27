from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path
from time import time

import anyio
import pytest
from redis import Redis
from structlog.testing import capture_logs

from service.explain import results
from service.explain.disk_shelf import DiskShelf
from service.explain.redis_shelf import PREFIX, RedisShelf
from service.explain.results import Results
from service.images.disk import secure
from tests.service.conftest import StartRedis

pytestmark = pytest.mark.anyio


def open_results(
    folder: Path, *, above: Sequence[Path] = (), max_bytes: int = 10_000, max_seconds: int = 60
) -> Results:
    shelf = DiskShelf(folder, above=above, max_bytes=max_bytes, max_seconds=max_seconds)
    return Results(shelf, max_seconds=max_seconds)


async def test_another_process_finds_what_one_has_kept(tmp_path: Path) -> None:
    await open_results(tmp_path).put("a.png", b"drawn", shows_picture=True)
    assert await open_results(tmp_path).get("a.png") == b"drawn"
    assert await open_results(tmp_path).get("b.png") is None


async def test_without_a_folder_what_shows_a_picture_is_not_kept() -> None:
    kept = Results(None, max_seconds=60)
    await kept.put("a.png", b"drawn", shows_picture=True)
    await kept.put("a.json", b"numbers", shows_picture=False)
    assert await kept.get("a.png") is None
    assert await kept.get("a.json") == b"numbers"


async def test_what_is_too_old_is_gone_from_memory_and_disk(tmp_path: Path) -> None:
    kept = open_results(tmp_path, max_seconds=0)
    await kept.put("a.json", b"numbers", shows_picture=False)
    assert await kept.get("a.json") is None
    await kept.put("b.json", b"numbers", shows_picture=False)
    await kept.sweep()
    assert not list(tmp_path.iterdir())


async def test_the_least_recently_used_makes_room(tmp_path: Path) -> None:
    kept = open_results(tmp_path, max_bytes=3 * 1032)
    for place, name in enumerate("abc"):
        await kept.put(name, bytes(1000), shows_picture=True)
        os.utime(tmp_path / name, (time() - 50 + place, time()))
    assert await kept.get("a")
    await kept.put("d", bytes(1000), shows_picture=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "d"]


async def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "MEMORY_BYTES", 1500)
    kept = Results(None, max_seconds=60)
    for name in "ab":
        await kept.put(name, bytes(1000), shows_picture=False)
    assert await kept.get("a") is None
    assert await kept.get("b")


@pytest.mark.parametrize("damage", [b"", b"short", bytes(2000)])
async def test_what_is_damaged_is_no_result(tmp_path: Path, start_redis: StartRedis, damage: bytes) -> None:
    on_disk = open_results(tmp_path)
    await on_disk.put("a.png", b"drawn", shows_picture=True)
    (tmp_path / "a.png").write_bytes(damage)
    server = start_redis()
    shared = in_redis(server.url)
    with Redis.from_url(server.url) as redis:
        redis.set(f"{PREFIX}a.png", damage)
    for kept in (on_disk, shared):
        assert await kept.get("a.png") is None
        await kept.put("a.png", b"drawn", shows_picture=True)
        assert await kept.get("a.png") == b"drawn"
        await kept.close()


async def test_a_disk_that_cannot_be_written_costs_only_the_keeping(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    kept = open_results(tmp_path / "file" / "folder")
    await kept.put("a.json", b"numbers", shows_picture=False)
    assert await kept.get("a.json") == b"numbers"
    await kept.sweep()


async def test_folders_that_were_removed_are_made_again_and_closed_to_others(tmp_path: Path) -> None:
    store = tmp_path / "store"
    kept = open_results(store / "folder", above=[store])
    await kept.put("a", b"1", shows_picture=True)
    shutil.rmtree(store)
    await kept.put("a", b"2", shows_picture=True)
    assert await kept.get("a") == b"2"
    secure(store)
    secure(store / "folder")


async def test_nothing_is_kept_or_found_where_others_may_write(tmp_path: Path) -> None:
    store = tmp_path / "store"
    kept = open_results(store / "folder", above=[store])
    await kept.put("a", b"1", shows_picture=True)
    store.chmod(0o777)
    await kept.put("b", b"1", shows_picture=True)
    assert await kept.get("a") is None
    assert [path.name for path in (store / "folder").iterdir()] == ["a"]


async def test_a_disk_that_hangs_is_waited_for_once_and_then_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    kept = open_results(tmp_path)
    monkeypatch.setattr("service.explain.disk.SECONDS", 0.1)
    monkeypatch.setattr(kept._shelf, "_read", lambda *_: gate.wait(20))
    with anyio.fail_after(5):
        for _ in range(50):
            assert await kept.get("a.png") is None
            await kept.put("a.png", b"drawn", shows_picture=True)
    gate.set()
    await kept.close()
    assert not list(tmp_path.iterdir())


async def test_a_disk_that_answers_again_is_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.explain.disk.SECONDS", 0.1)
    monkeypatch.setattr("service.explain.disk.REST_SECONDS", 0.1)
    gate = threading.Event()
    kept = open_results(tmp_path)
    with monkeypatch.context() as hanging:
        hanging.setattr(kept._shelf, "_read", lambda *_: gate.wait(20))
        assert await kept.get("a.png") is None
    gate.set()
    with anyio.fail_after(5):
        while await kept.get("a.png") is None:
            await kept.put("a.png", b"drawn", shows_picture=True)
            await anyio.sleep(0.02)


def in_redis(url: str) -> Results:
    return Results(RedisShelf(url, max_seconds=60), max_seconds=60)


async def test_another_host_finds_what_one_has_put_into_redis_until_it_expires(start_redis: StartRedis) -> None:
    url = start_redis().url
    one, other = in_redis(url), in_redis(url)
    await one.put("a.png", b"drawn", shows_picture=True)
    assert await other.get("a.png") == b"drawn"
    assert await other.get("b.png") is None
    with Redis.from_url(url) as redis:
        (key,) = redis.keys()
        assert key == f"{PREFIX}a.png".encode()
        assert 0 < redis.ttl(key) <= 60
        redis.delete(key)
    assert await other.get("a.png") is None
    for each in (one, other):
        await each.close()


async def test_a_redis_that_refuses_to_write_is_read(start_redis: StartRedis) -> None:
    server = start_redis()
    kept = in_redis(server.url)
    await kept.put("a.png", b"drawn", shows_picture=True)
    with Redis.from_url(server.url) as redis:
        redis.config_set("min-replicas-to-write", 1)
    await kept.put("b.png", b"drawn", shows_picture=True)
    assert await kept.get("a.png") == b"drawn"
    assert await kept.get("b.png") is None
    await kept.close()


async def test_a_redis_that_is_away_costs_only_the_keeping_and_is_left_alone_for_a_while(
    start_redis: StartRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.explain.redis_shelf.REST_SECONDS", 600)
    server = start_redis()
    kept = in_redis(server.url)
    server.stop()
    with capture_logs() as logged:
        await kept.put("a.json", b"numbers", shows_picture=False)
        assert await kept.get("a.json") == b"numbers"
        assert await kept.get("a.png") is None
        server.start()
        await kept.put("a.png", b"drawn", shows_picture=True)
        assert await kept.get("a.png") is None
    # Once a minute.
    assert [line["event"] for line in logged] == ["result_not_kept"]
    monkeypatch.setattr(kept._shelf, "_rest_until", 0.0)
    await kept.put("a.png", b"drawn", shows_picture=True)
    assert await kept.get("a.png") == b"drawn"
    await kept.close()


async def test_a_full_redis_is_asked_again(start_redis: StartRedis) -> None:
    server = start_redis("--maxmemory", "1", "--maxmemory-policy", "noeviction")
    kept = in_redis(server.url)
    with capture_logs() as logged:
        await kept.put("a.png", b"drawn", shows_picture=True)
    assert [line["event"] for line in logged] == ["result_not_kept"]
    with Redis.from_url(server.url) as redis:
        redis.config_set("maxmemory", "100mb")
    await kept.put("a.png", b"drawn", shows_picture=True)
    assert await kept.get("a.png") == b"drawn"
    await kept.close()
