from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

import anyio
import pytest

from service.watch import changes, scan


@pytest.fixture
def models(tmp_path: Path) -> Path:
    for version in ("cats/1", "cats/2", "dogs/1"):
        folder = tmp_path / version / "variables"
        folder.mkdir(parents=True)
        (folder / "data").write_bytes(b"weights")
    return tmp_path


def test_a_look_finds_versions_and_changes_with_nothing_but_their_files(models: Path) -> None:
    before = scan(models)
    assert set(before.versions) == {("cats", 1), ("cats", 2), ("dogs", 1)}
    assert before.labels == {"cats": (), "dogs": ()}
    (models / "cats" / "1" / "variables" / "data").read_bytes()
    (models / "cats" / "new").mkdir()
    assert scan(models) == before


def rewrite(file: Path) -> None:
    """The same bytes in length and time, in another file."""
    about = file.stat()
    (file.parent / "other").write_bytes(b"WEIGHTS")
    (file.parent / "other").replace(file)
    os.utime(file, ns=(about.st_atime_ns, about.st_mtime_ns))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda file: file.write_bytes(b"weight"), id="shorter"),
        pytest.param(rewrite, id="replaced"),
        pytest.param(lambda file: file.unlink(), id="gone"),
        pytest.param(lambda file: (file.parent / "index").touch(), id="another"),
    ],
)
def test_a_look_sees_every_change_of_a_version_s_files(models: Path, change: Callable[[Path], object]) -> None:
    before = scan(models)
    change(models / "cats" / "2" / "variables" / "data")
    after = scan(models)
    assert {key for key in before.versions if before.versions[key] != after.versions[key]} == {("cats", 2)}


def test_a_look_sees_labels_come_and_change(models: Path) -> None:
    seen = [scan(models).labels["cats"]]
    for text in ("{}", '{"stable": 1}'):
        (models / "cats" / "labels.json").write_text(text)
        seen.append(scan(models).labels["cats"])
    assert len(set(seen)) == 3


def test_a_folder_that_is_away_is_no_folder_without_models(models: Path) -> None:
    with pytest.raises(FileNotFoundError):
        scan(models / "missing")


@pytest.mark.anyio
async def test_the_system_tells_of_a_change_below(models: Path) -> None:
    told = asyncio.Event()

    async def listen() -> None:
        async with aclosing(changes(models)) as heard:
            async for _ in heard:
                told.set()

    listening = asyncio.create_task(listen())
    with anyio.fail_after(20):
        while not told.is_set():
            (models / "dogs" / "1" / "variables" / "data").write_bytes(b"other")
            await asyncio.sleep(0)
    listening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await listening


@pytest.mark.anyio
async def test_where_the_system_cannot_tell_it_ends(models: Path) -> None:
    assert [change async for change in changes(models / "missing")] == []
