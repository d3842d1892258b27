from __future__ import annotations

import asyncio

import pytest

from service.statistics import Statistics


def test_a_request_counts_once_with_the_times_of_its_slowest_picture() -> None:
    statistics = Statistics()
    with statistics.request() as pictures:
        pictures.append({"decode": 1.0, "queue": 2.0, "inference": 3.0})
        pictures.append({"queue": 6.0, "inference": 3.0})
    assert statistics.pictures == 2
    assert statistics.succeeded.count == 1
    assert {stage: (did.count, did.seconds) for stage, did in statistics.stages.items()} == {
        "queue": (1, 6.0),
        "inference": (1, 3.0),
    }
    assert statistics.last is not None


def test_a_request_that_fails_is_counted_as_failed_alone() -> None:
    statistics = Statistics()
    with pytest.raises(ZeroDivisionError), statistics.request() as pictures:
        pictures.append({"queue": 1 / 0})
    assert (statistics.failed.count, statistics.succeeded.count, statistics.pictures) == (1, 0, 0)
    assert not statistics.stages


def test_a_client_that_leaves_is_neither_a_success_nor_a_failure() -> None:
    statistics = Statistics()
    with pytest.raises(asyncio.CancelledError), statistics.request():
        raise asyncio.CancelledError
    assert (statistics.failed.count, statistics.succeeded.count) == (0, 0)
