"""What was computed once is read from disk, and half of it is not computed again."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.conftest import ROOT
from training.cache import Cache, digest
from training.errors import CacheError

SHAPE = (10, 2, 3)
WHOLE = np.arange(60, dtype=np.float16).reshape(SHAPE)


class Work:
    """Rows of `WHOLE`, and what was asked for and told; it fails at row `broken_at`."""

    def __init__(self, broken_at: int | None = None) -> None:
        self.asked: list[tuple[int, int]] = []
        self.told: list[int] = []
        self._broken_at = broken_at

    def __call__(self, start: int, stop: int) -> NDArray[np.float16]:
        self.asked.append((start, stop))
        if start == self._broken_at:
            raise KeyboardInterrupt
        return WHOLE[start:stop]


def cached(folder: Path, work: Work) -> NDArray[np.float16]:
    return Cache(folder).array("key", SHAPE, np.float16, work, chunk=4, done=work.told.append)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param((np.array([[1, 2, 4]], np.uint8), "a", 1), id="bytes"),
        pytest.param((np.array([[1, 2, 3]], np.int8), "a", 1), id="type"),
        pytest.param((np.array([[1], [2], [3]], np.uint8), "a", 1), id="shape"),
        pytest.param(("a", np.array([[1, 2, 3]], np.uint8), 1), id="order"),
        pytest.param((np.array([[1, 2, 3]], np.uint8), "a", "1"), id="json-type"),
        pytest.param((np.array([[1, 2, 3]], np.uint8), "a1"), id="borders-of-parts"),
    ],
)
def test_a_digest_changes_with(other: tuple[object, ...]):
    assert digest(*other) != digest(np.array([[1, 2, 3]], np.uint8), "a", 1)


def test_a_digest_is_the_same_whatever_way_an_array_lies_in_memory():
    array = np.arange(12, dtype=np.int32).reshape(3, 4)
    assert digest(array) == digest(np.asfortranarray(array)) == digest(array[::-1].copy()[::-1])
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})


def test_an_array_is_computed_once_in_chunks_and_read_back_equal(tmp_path: Path):
    first, second = Work(), Work()
    np.testing.assert_array_equal(cached(tmp_path / "cache", first), WHOLE)
    again = cached(tmp_path / "cache", second)
    np.testing.assert_array_equal(again, WHOLE)
    assert again.dtype == np.float16
    assert first.asked == [(0, 4), (4, 8), (8, 10)]
    assert second.asked == []
    assert sum(first.told) == sum(second.told) == len(WHOLE)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["key.npy"]


def test_whole_chunks_are_not_computed_again(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt):
        cached(tmp_path, Work(broken_at=8))
    rest = Work()
    np.testing.assert_array_equal(cached(tmp_path, rest), WHOLE)
    assert rest.asked == [(8, 10)]
    assert sum(rest.told) == len(WHOLE)


def test_what_was_half_written_when_the_process_was_killed_is_computed_anew(tmp_path: Path):
    program = """
import os, signal, sys
from pathlib import Path
from tests.training.test_cache import Work, cached

class Killed(Work):
    def __call__(self, start, stop):
        if start == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(start, stop)

cached(Path(sys.argv[1]), Killed())
"""
    done = subprocess.run([sys.executable, "-c", program, tmp_path], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "key.npy").exists()
    rest = Work()
    np.testing.assert_array_equal(cached(tmp_path, rest), WHOLE)
    assert rest.asked == [(4, 8), (8, 10)]


def test_a_mark_without_its_rows_is_no_use(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt):
        cached(tmp_path, Work(broken_at=8))
    (tmp_path / "key.part").unlink()
    work = Work()
    np.testing.assert_array_equal(cached(tmp_path, work), WHOLE)
    assert work.asked[0] == (0, 4)


def test_two_runs_that_want_the_same_array_compute_it_once(tmp_path: Path):
    entered, go_on = threading.Event(), threading.Event()

    class Gated(Work):
        def __call__(self, start: int, stop: int) -> NDArray[np.float16]:
            entered.set()
            assert go_on.wait(30)
            return super().__call__(start, stop)

    slow, other = Gated(), Work()
    found: list[NDArray[np.float16]] = []

    def start(work: Work) -> threading.Thread:
        thread = threading.Thread(target=lambda: found.append(cached(tmp_path, work)))
        thread.start()
        return thread

    threads = [start(slow)]
    assert entered.wait(30)
    threads.append(start(other))
    go_on.set()
    for thread in threads:
        thread.join()
    assert [len(array) for array in found] == [10, 10]
    np.testing.assert_array_equal(found, [WHOLE, WHOLE])
    assert other.asked == []


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda folder: folder.write_bytes(b"mine"), id="file-instead"),
        pytest.param(lambda folder: (folder / "key.part").mkdir(parents=True), id="folder-in-its-place"),
    ],
)
def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path, spoil: Callable[[Path], object]):
    spoil(tmp_path / "cache")
    with pytest.raises(CacheError, match="cache: expected a folder to write to: "):
        cached(tmp_path / "cache", Work())
