"""A server's whole tree is measured, paused and ended."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.processes import Tree

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc")

# A parent that takes little, and a child with 64 MiB that it has written to; both wait for what never comes.
CHILD = "held = bytearray(b'x') * (64 * 2**20); print('ready', flush=True); input()"
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {CHILD!r}])"


@pytest.fixture
def parent() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        rest = Tree(process.pid).rest()
        yield process
        process.kill()
        rest.kill()


def states(pids: list[int]) -> list[str]:
    return [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] for pid in pids]


def members(root: int) -> list[int]:
    children = Path(f"/proc/{root}/task/{root}/children").read_text().split()
    return [root, *map(int, children)]


def test_memory_is_that_of_children_too(parent: subprocess.Popen[bytes]) -> None:
    resident = Tree(parent.pid).resident_bytes()
    assert resident is not None
    assert 64 * 2**20 < resident < 200 * 2**20


def test_processor_time_is_that_of_children_too(parent: subprocess.Popen[bytes]) -> None:
    spent = Tree(parent.pid).cpu_seconds()
    assert spent is not None
    assert spent > 0


def test_all_are_paused_and_go_on(parent: subprocess.Popen[bytes]) -> None:
    tree, pids = Tree(parent.pid), members(parent.pid)
    assert len(pids) == 2
    tree.pause()
    # A signal is on its way until the process is seen to have it.
    while states(pids) != ["T", "T"]:
        pass
    tree.resume()
    while "T" in states(pids):
        pass


def test_those_that_outlive_the_root_are_ended(parent: subprocess.Popen[bytes]) -> None:
    rest = Tree(parent.pid).rest()
    parent.kill()
    parent.wait()
    assert parent.stdout
    rest.kill()
    # The child held its other end.
    assert parent.stdout.read() == b""


def test_a_tree_that_is_gone_has_no_figures(parent: subprocess.Popen[bytes]) -> None:
    rest = Tree(parent.pid).rest()
    parent.kill()
    parent.wait()
    rest.kill()
    assert Tree(parent.pid).resident_bytes() is None
    assert Tree(parent.pid).cpu_seconds() is None
    Tree(parent.pid).rest().kill()
