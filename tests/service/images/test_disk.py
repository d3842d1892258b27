"""The folder of pictures: real files, a real disk that is full, real processes."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path

import anyio
import pytest
import structlog

from service.errors import StartupFailed, StoreUnavailable, UnknownImage
from service.images.disk import BLOCK, DiskStore, _File
from service.images.store import IMAGE_ID
from service.metrics import Metrics
from tests.conftest import ROOT, until

pytestmark = pytest.mark.anyio
DAY = 86_400
Open = Callable[..., AbstractAsyncContextManager[DiskStore]]


def picture(number: int, size: int = BLOCK) -> tuple[bytes, str]:
    data = random.Random(number).randbytes(size)
    return data, hashlib.sha256(data).hexdigest()


def kept(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("??/*")}


def kept_bytes(folder: Path) -> int:
    total = 0
    for path in folder.glob("??/*"):
        # A sweep may take it meanwhile.
        with suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def counted(store: DiskStore, name: str, **labels: str) -> float:
    return store._metrics.registry.get_sample_value(name, labels) or 0.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "images"


@pytest.fixture
def opened(folder: Path) -> Open:
    """A store of a process of its own, as far as it knows."""

    @asynccontextmanager
    async def store(
        place: Path = folder, *, required: bool = True, max_bytes: int = 2**30, max_seconds: int = DAY
    ) -> AsyncIterator[DiskStore]:
        async with DiskStore(
            place, required=required, max_bytes=max_bytes, max_seconds=max_seconds, metrics=Metrics()
        ) as store:
            yield store

    return store


async def test_a_picture_comes_back_as_it_was_sent_also_after_a_restart_and_from_another_process(opened: Open) -> None:
    data, image_id = picture(1, 100_001)
    async with opened() as store, opened() as other:
        assert await store.put(data, image_id)
        assert await store.get(image_id) == await other.get(image_id) == data
        assert counted(store, "sichtbar_images_stored_total") == 1
        assert counted(store, "sichtbar_image_lookups_total", result="found") == 1
    async with opened() as store:
        assert await store.get(image_id) == data


async def test_the_same_picture_again_costs_nothing(opened: Open, folder: Path) -> None:
    data, image_id = picture(1)
    async with opened() as store, opened() as other:
        assert not store.holds(image_id)
        assert await store.put(data, image_id)
        assert store.holds(image_id)
        inode = (folder / image_id[:2] / image_id).stat().st_ino
        assert await store.put(data, image_id)
        assert await other.put(data, image_id)
        assert (folder / image_id[:2] / image_id).stat().st_ino == inode
        assert counted(other, "sichtbar_images_stored_total") == 0


async def test_only_its_user_may_enter_the_folder_and_read_what_is_in_it(opened: Open, folder: Path) -> None:
    async with opened() as store:
        await store.put(*picture(1))
    for path in (folder, *folder.rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, path
    assert list((folder / "new").iterdir()) == []


@pytest.mark.parametrize("image_id", ["0" * 64, "", "../../etc/passwd", "a" * 63, "A" * 64, f"{'a' * 64}\n", "a/" * 32])
async def test_an_unknown_id_says_that_pictures_expire(opened: Open, image_id: str) -> None:
    async with opened() as store:
        with pytest.raises(UnknownImage, match="pictures expire, 86400 s after their last use"):
            await store.get(image_id)
        assert counted(store, "sichtbar_image_lookups_total", result="unknown") == 1


@pytest.mark.parametrize("damage", [b"", b"other", None], ids=["empty", "other", "truncated"])
async def test_a_damaged_picture_is_unknown_and_may_be_sent_again(
    opened: Open, folder: Path, damage: bytes | None
) -> None:
    data, image_id = picture(1)
    async with opened() as store:
        await store.put(data, image_id)
        path = folder / image_id[:2] / image_id
        path.write_bytes(data[:-1] if damage is None else damage)
        with pytest.raises(UnknownImage):
            await store.get(image_id)
        assert not path.exists()
        assert await store.put(data, image_id)
        assert await store.get(image_id) == data


async def test_what_a_crash_left_of_a_picture_is_written_over(opened: Open, folder: Path) -> None:
    data, image_id = picture(1)
    path = folder / image_id[:2] / image_id
    path.parent.mkdir(mode=0o700, parents=True)
    folder.chmod(0o700)
    path.write_bytes(b"")
    async with opened() as store:
        assert await store.put(data, image_id)
        assert await store.get(image_id) == data


async def test_the_least_recently_used_go_first(opened: Open, folder: Path) -> None:
    pictures = [picture(number) for number in range(20)]
    async with opened() as store:
        for age, (data, image_id) in enumerate(reversed(pictures)):
            await store.put(data, image_id)
            os.utime(folder / image_id[:2] / image_id, (time.time() - 100 * age - 100,) * 2)
        # The oldest, but used just now.
        await store.get(pictures[0][1])
    async with opened(max_bytes=10 * BLOCK) as store:
        await until(lambda: len(kept(folder)) <= 10)
        await until(lambda: counted(store, "sichtbar_image_bytes"))
        assert kept(folder) == {image_id for _, image_id in (pictures[0], *pictures[-8:])}
        assert counted(store, "sichtbar_image_bytes") == 9 * BLOCK
        assert counted(store, "sichtbar_images_removed_total", reason="room") == 11


async def test_the_cap_holds_while_pictures_come_in(opened: Open, folder: Path) -> None:
    async with opened(max_bytes=16 * BLOCK) as store:
        for number in range(100):
            data, image_id = picture(number, 100)
            assert await store.put(data, image_id)
        await until(lambda: len(kept(folder)) <= 16)
        removed = {picture(number, 100)[1] for number in range(100)} - kept(folder)
        await until(lambda: not any(store.holds(image_id) for image_id in removed))
        # Sent again, what went is kept again.
        data, image_id = next(picture(n, 100) for n in range(100) if picture(n, 100)[1] in removed)
        assert await store.put(data, image_id)
        assert await store.get(image_id) == data


async def test_a_picture_larger_than_the_cap_is_not_kept(opened: Open, folder: Path) -> None:
    async with opened(max_bytes=2 * BLOCK) as store:
        assert not await store.put(*picture(1, 2 * BLOCK + 1))
        assert counted(store, "sichtbar_images_not_stored_total", reason="too_large") == 1


async def test_an_expired_picture_is_not_served_and_goes(opened: Open, folder: Path) -> None:
    data, image_id = picture(1)
    path = folder / image_id[:2] / image_id
    path.parent.mkdir(mode=0o700, parents=True)
    folder.chmod(0o700)
    path.write_bytes(data)
    async with opened() as store:
        # Counted by its first sweep; the next is due in minutes.
        await until(lambda: counted(store, "sichtbar_image_bytes") == BLOCK)
        await store.put(*picture(2))
        os.utime(path, (time.time() - DAY - 1,) * 2)
        with pytest.raises(UnknownImage):
            await store.get(image_id)
        assert path.exists()
    async with opened() as store:
        await until(lambda: counted(store, "sichtbar_images_removed_total", reason="expired") == 1)
        assert kept(folder) == {picture(2)[1]}


async def test_pictures_go_without_any_request_once_their_time_is_over(opened: Open, folder: Path) -> None:
    async with opened(max_seconds=1) as store:
        assert await store.put(*picture(1))
        await until(lambda: not kept(folder))


async def test_a_use_keeps_a_picture_longer(opened: Open, folder: Path) -> None:
    data, image_id = picture(1)
    path = folder / image_id[:2] / image_id
    async with opened() as store, opened() as other:
        await store.put(data, image_id)
        for use in (store.get(image_id), other.put(data, image_id)):
            os.utime(path, (time.time() - DAY / 2,) * 2)
            await use
            assert time.time() - path.stat().st_mtime < 60


async def test_nothing_that_is_not_the_store_s_is_removed(opened: Open, folder: Path, tmp_path: Path) -> None:
    names = ["holiday.png", "ab/holiday.png", "new/notes.txt", f"ab/{'x' * 64}", "elsewhere/" + "a" * 64]
    for name in names:
        (folder / name).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / name).write_bytes(bytes(BLOCK))
        os.utime(folder / name, (0, 0))
    folder.chmod(0o700)
    ours = folder / "ab" / ("ab" * 32)
    ours.write_bytes(b"x")
    os.utime(ours, (0, 0))
    async with opened(max_bytes=BLOCK):
        await until(lambda: not ours.exists())
    assert all((folder / name).exists() for name in names)


async def test_what_a_killed_writer_left_is_removed_once_it_is_old(opened: Open, folder: Path) -> None:
    (folder / "new").mkdir(mode=0o700, parents=True)
    folder.chmod(0o700)
    old, young = folder / "new" / ("0" * 16), folder / "new" / ("1" * 16)
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 3600,) * 2)
    async with opened():
        await until(lambda: not old.exists())
        assert young.exists()


@pytest.mark.parametrize("kind", ["link", "file", "open", "foreign"])
async def test_a_folder_that_others_could_read_or_have_made_is_refused(
    opened: Open, folder: Path, tmp_path: Path, kind: str
) -> None:
    if kind == "link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "elsewhere")
    elif kind == "file":
        folder.touch(mode=0o600)
    else:
        folder.mkdir(mode=0o755 if kind == "open" else 0o700)
    if kind == "foreign":
        if os.geteuid() != 0:
            pytest.skip("only root can give a folder to another user")
        os.chown(folder, 12345, 12345)
    with pytest.raises(StartupFailed, match="expected"):
        async with opened():
            pass
    # Where nobody chose the folder, predictions do without.
    async with opened(required=False) as store:
        assert not await store.put(*picture(1))
        assert counted(store, "sichtbar_images_not_stored_total", reason="unsafe") == 1
        with pytest.raises(StoreUnavailable):
            await store.get(picture(1)[1])
        assert counted(store, "sichtbar_image_lookups_total", result="unavailable") == 1
    assert not list((tmp_path / "elsewhere").glob("*"))


async def test_a_folder_that_others_take_over_later_gets_no_picture(opened: Open, folder: Path) -> None:
    async with opened() as store:
        assert await store.put(*picture(1))
        shutil.rmtree(folder)
        folder.mkdir(mode=0o777)
        folder.chmod(0o777)
        assert not await store.put(*picture(2))
        assert not list(folder.iterdir())


async def test_a_folder_that_was_cleaned_away_is_made_again(opened: Open, folder: Path) -> None:
    async with opened() as store:
        assert await store.put(*picture(1))
        shutil.rmtree(folder)
        assert await store.put(*picture(2))
        assert await store.get(picture(2)[1]) == picture(2)[0]


# As on a read-only file system, also for root.
NO_PLACE = Path("/proc/sichtbar/images")


async def test_a_folder_that_was_named_and_cannot_be_made_stops_the_start(opened: Open) -> None:
    with pytest.raises(StartupFailed, match=f"expected a folder for pictures that can be made, got {NO_PLACE}"):
        async with opened(NO_PLACE):
            pass


async def test_a_folder_that_nobody_named_and_cannot_be_made_costs_no_start_and_one_warning(opened: Open) -> None:
    with structlog.testing.capture_logs() as logs:
        async with opened(NO_PLACE, required=False) as store:
            for number in range(5):
                assert not await store.put(*picture(number))
        not_stored = sum(
            counted(store, "sichtbar_images_not_stored_total", reason=reason) for reason in ("denied", "failed")
        )
    assert not_stored == 5
    assert [line["event"] for line in logs].count("picture_not_stored") == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("only root can mount a small disk")
    yield place
    subprocess.run(["umount", place], check=True)


async def test_a_disk_that_others_filled_costs_the_id_and_nothing_else(opened: Open, small_disk: Path) -> None:
    async with opened(small_disk / "images") as store:
        assert await store.put(*picture(1))
        filler = small_disk / "filler"
        with pytest.raises(OSError, match="No space"):
            filler.write_bytes(bytes(2**20))
        with structlog.testing.capture_logs() as logs:
            for number in range(2, 6):
                assert not await store.put(*picture(number, 2 * BLOCK))
        assert counted(store, "sichtbar_images_not_stored_total", reason="full") == 4
        assert [line["event"] for line in logs].count("picture_not_stored") == 1
        assert not list((small_disk / "images" / "new").iterdir())
        filler.unlink()
        assert await store.put(*picture(2, 2 * BLOCK))


async def test_on_a_disk_smaller_than_the_cap_the_least_recently_used_make_room(opened: Open, small_disk: Path) -> None:
    folder = small_disk / "images"
    async with opened(folder) as store:
        last = ""
        for number in range(400):
            data, last = picture(number)
            with anyio.fail_after(30):
                # The sweep that makes room may be on its way, or may just have made some.
                while not await store.put(data, last):
                    pass
        assert counted(store, "sichtbar_images_removed_total", reason="room")
        assert await store.get(last) == picture(399)[0]
        with pytest.raises(UnknownImage):
            await store.get(picture(0)[1])


FILE_LIMIT = """
import asyncio, hashlib, json, resource, sys
from pathlib import Path
from service.images.disk import DiskStore
from service.metrics import Metrics

async def main():
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
    metrics = Metrics()
    async with DiskStore(Path(sys.argv[1]), required=True, max_bytes=2**30, max_seconds=60, metrics=metrics) as store:
        answers = [await store.put(data, hashlib.sha256(data).hexdigest()) for data in (bytes(90_000), bytes(9))]
    print(json.dumps([*answers, metrics.registry.get_sample_value(
        "sichtbar_images_not_stored_total", {"reason": "full"})]))

asyncio.run(main())
"""


def started(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_picture_that_the_disk_takes_half_of_leaves_nothing(folder: Path) -> None:
    output, errors = started(FILE_LIMIT, folder).communicate(timeout=60)
    assert errors == ""
    assert json.loads(output.splitlines()[-1]) == [False, True, 1.0]
    assert kept(folder) == {hashlib.sha256(bytes(9)).hexdigest()}
    assert not list((folder / "new").iterdir())


WRITER = """
import asyncio, hashlib, random, sys
from pathlib import Path
from service.images.disk import DiskStore
from service.metrics import Metrics

async def main():
    folder, seed, count, cap = Path(sys.argv[1]), *map(int, sys.argv[2:])
    async with DiskStore(folder, required=True, max_bytes=cap, max_seconds=60, metrics=Metrics()) as store:
        for number in range(count):
            data = random.Random(number % 97 + seed).randbytes(200_000)
            image_id = hashlib.sha256(data).hexdigest()
            assert await store.put(data, image_id), number
            print(image_id, flush=True)

asyncio.run(main())
"""


async def test_processes_that_write_and_sweep_at_once_do_not_disturb_each_other(opened: Open, folder: Path) -> None:
    cap = 4 * 2**20
    writers = [started(WRITER, folder, seed, 150, cap) for seed in (0, 50, 90)]
    for writer in writers:
        _, errors = await asyncio.to_thread(writer.communicate, timeout=60)
        assert writer.returncode == 0, errors
        assert errors == ""
    async with opened(max_bytes=cap) as store:
        await until(lambda: kept_bytes(folder) <= cap)
        names = kept(folder)
        assert names
        for image_id in names:
            assert hashlib.sha256(await store.get(image_id)).hexdigest() == image_id


async def test_a_writer_killed_at_any_moment_leaves_only_whole_pictures(opened: Open, folder: Path) -> None:
    for seed in range(3):
        writer = started(WRITER, folder, seed * 1000, 10_000, 2**30)
        assert writer.stdout
        assert writer.stderr
        promised = [writer.stdout.readline().strip() for _ in range(5 + seed)]
        writer.send_signal(signal.SIGKILL)
        promised += writer.stdout.read().split()
        writer.stdout.close()
        writer.stderr.close()
        assert writer.wait() == -signal.SIGKILL
        async with opened() as store:
            for image_id in {name for name in promised if IMAGE_ID.fullmatch(name)} | kept(folder):
                assert hashlib.sha256(await store.get(image_id)).hexdigest() == image_id


async def test_a_disk_that_hangs_is_waited_for_once_and_then_left_alone(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    async with opened() as store:
        monkeypatch.setattr("service.images.store.PUT_SECONDS", 0.1)
        monkeypatch.setattr(store, "_write", lambda *_: gate.wait(20))
        with anyio.fail_after(5):
            assert [await store.put(*picture(number)) for number in range(50)] == [False] * 50
        gate.set()
        assert counted(store, "sichtbar_images_not_stored_total", reason="slow") == 1
        assert counted(store, "sichtbar_images_not_stored_total", reason="unavailable") == 49


async def test_a_put_that_is_given_up_breaks_nothing(opened: Open) -> None:
    data, image_id = picture(1)
    async with opened() as store:
        task = asyncio.create_task(store.put(data, image_id))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await store.put(data, image_id)
        assert await store.get(image_id) == data


async def test_a_picture_used_since_it_was_counted_stays(opened: Open, folder: Path) -> None:
    data, image_id = picture(1)
    async with opened() as store:
        await store.put(data, image_id)
        path = folder / image_id[:2] / image_id
        assert store._remove([_File(path.stat().st_mtime - 1, BLOCK, path)], "room") == []
        assert path.exists()


async def test_a_bug_in_the_store_costs_the_id_only(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened() as store:
        monkeypatch.setattr(store, "_write", lambda *_: {}["bug"])
        assert not await store.put(*picture(1))
        assert counted(store, "sichtbar_images_not_stored_total", reason="failed") == 1
