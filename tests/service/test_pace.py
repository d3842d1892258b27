from __future__ import annotations

import pytest

from service.pace import Pace


def test_a_pace_is_that_of_the_last_ones() -> None:
    pace = Pace()
    for _ in range(100):
        pace.took(2.0)
    assert pace.of(3) == pytest.approx(6)
    for _ in range(100):
        pace.took(8.0)
    assert pace.of(3) == pytest.approx(24, rel=1e-3)


def test_one_outlier_does_not_decide() -> None:
    pace = Pace()
    for seconds in [2.0] * 10 + [100.0]:
        pace.took(seconds)
    assert 2 < pace.of(1) < 20


def test_a_process_that_was_paused_has_not_become_slow() -> None:
    pace = Pace()
    for seconds in [0.02] * 10 + [60.0]:
        pace.took(seconds)
    assert pace.seconds < 0.05


def test_nothing_done_yet_is_no_pace() -> None:
    assert Pace().seconds == 0


def test_less_than_a_second_is_a_second() -> None:
    pace = Pace()
    assert pace.of(5) == 1
    pace.took(0.01)
    assert pace.of(5) == 1
