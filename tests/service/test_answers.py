from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from service.answers import OVERHEAD, Answers
from service.engines.base import Outputs

ROOM = OVERHEAD + 2 * 16 * 4 + 4


def said(value: float, classes: int = 16) -> Outputs:
    """What an engine gives of the second picture of a batch."""
    batch = Outputs(
        np.full((32, classes), value, np.float32), np.full((32, classes), value, np.float32), np.zeros(32, np.float32)
    )
    return Outputs(*(rows[1] for rows in batch))


def test_an_answer_is_found_by_its_picture_and_its_version() -> None:
    answers = Answers(10 * ROOM)
    answers.put("lemon", "first", said(0.25))
    found = answers.get("lemon", "first")
    assert found is not None
    assert found.probabilities.tolist() == [0.25] * 16
    assert answers.get("lemon", "second") is None
    assert answers.get("banana", "first") is None


def test_the_least_recently_used_go_first() -> None:
    answers = Answers(2 * ROOM)
    answers.put("lemon", "1", said(0.1))
    answers.put("banana", "1", said(0.2))
    assert answers.get("lemon", "1") is not None
    answers.put("cherry", "1", said(0.3))
    assert [answers.get(name, "1") is not None for name in ("lemon", "banana", "cherry")] == [True, False, True]


def test_what_is_kept_twice_takes_room_once() -> None:
    totals: list[int] = []
    answers = Answers(2 * ROOM, totals.append)
    for _ in range(3):
        answers.put("lemon", "1", said(0.1))
    answers.put("banana", "1", said(0.2))
    assert totals == [ROOM, 2 * ROOM]
    assert answers.get("lemon", "1") is not None


@pytest.mark.parametrize("room", [0, ROOM - 1])
def test_an_answer_for_which_there_is_no_room_is_not_kept(room: int) -> None:
    answers = Answers(room)
    answers.put("lemon", "1", said(0.1))
    assert answers.get("lemon", "1") is None


@pytest.mark.parametrize("classes", [2, 16, 1000])
def test_answers_take_the_memory_that_they_may(classes: int) -> None:
    limit = 2 * 2**20
    answers = Answers(limit)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(limit // 400):
            answers.put(f"{number:064}", f"{'digest':64}", said(0.1, classes))
        held = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert limit / 2 < held < limit * 1.1
