from __future__ import annotations

import pytest

from service import crowd as module
from service.crowd import CALM_SECONDS, FIRST_TRY, TOGETHER_SECONDS, TRIES_APART, Crowd


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "monotonic", clock)
    return clock


def test_a_burst_is_taken_while_there_is_room(clock: Clock) -> None:
    crowd = Crowd(10, 2, 60)
    assert all(crowd.takes(waiting) for waiting in range(10))
    assert (crowd.surplus(10), crowd.at_once(8)) == (0, 8)


def test_after_one_too_many_only_few_are_taken_until_none_had_to_be_refused_for_a_while(clock: Clock) -> None:
    crowd = Crowd(10, 2, 60)
    assert not crowd.takes(10)
    assert (crowd.surplus(10), crowd.at_once(8), crowd.at_once(1)) == (8, 2, 1)
    assert crowd.takes(1)
    clock.now = CALM_SECONDS / 2
    assert not crowd.takes(2)
    clock.now = CALM_SECONDS
    assert not crowd.takes(5)
    assert crowd.takes(1)
    clock.now = 2 * CALM_SECONDS
    assert crowd.takes(5)
    assert crowd.surplus(5) == 0


def test_once_all_is_done_there_is_no_crowd(clock: Clock) -> None:
    crowd = Crowd(10, 2, 60)
    assert not crowd.takes(10)
    assert not crowd.takes(2)
    crowd.over()
    assert crowd.takes(2)


def test_no_more_are_done_together_than_soon_are_done_but_few_always(clock: Clock) -> None:
    crowd = Crowd(100, 2, 60)
    assert crowd.at_once(32) == 32
    crowd.pace.took(TOGETHER_SECONDS / 11)
    assert crowd.at_once(32) in (10, 11)
    for _ in range(100):
        crowd.pace.took(60.0)
    assert crowd.at_once(32) == 2


def test_nobody_is_taken_who_would_wait_too_long(clock: Clock) -> None:
    crowd = Crowd(10, 2, 60)
    crowd.pace.took(20)
    assert crowd.takes(3)
    assert not crowd.takes(4)


def test_now_and_then_it_is_tried_whether_no_more_than_some_come(clock: Clock) -> None:
    crowd = Crowd(100, 2, 60)

    def refused_until(moment: float) -> None:
        while clock.now < moment - CALM_SECONDS / 2:
            assert not crowd.takes(2)
            clock.now += CALM_SECONDS / 2
        clock.now = moment

    assert not crowd.takes(100)
    refused_until(FIRST_TRY)
    # It fails, and the next is made later.
    assert [crowd.takes(waiting) for waiting in (7, 8, 7)] == [True, False, False]
    assert crowd.surplus(8) == 6
    refused_until(FIRST_TRY + TRIES_APART * FIRST_TRY)
    # None is refused: there is no crowd.
    assert crowd.takes(7)
    clock.now += CALM_SECONDS
    assert crowd.takes(99)


def test_few_are_never_more_than_most(clock: Clock) -> None:
    crowd = Crowd(1, 8, 60)
    assert not crowd.takes(1)
    assert not crowd.takes(1)
    assert crowd.takes(0)
