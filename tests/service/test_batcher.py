from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Sequence

import pytest

from service import batcher as module
from service.batcher import Batcher
from service.errors import Draining, InferenceFailed, Overloaded
from tests.conftest import until

pytestmark = pytest.mark.anyio


class Model:
    """Doubles its inputs, once the gate is open; "raises" and "short" misbehave."""

    def __init__(self, *, is_open: bool = True) -> None:
        self.gate = threading.Event()
        self.batches: list[list[object]] = []
        if is_open:
            self.gate.set()

    def __call__(self, items: Sequence[object]) -> Sequence[object]:
        self.batches.append(list(items))
        assert self.gate.wait(10)
        if "raises" in items:
            raise ZeroDivisionError("secret")
        return [] if "short" in items else [item * 2 for item in items]


def batcher(
    model: Model, *, max_batch: int = 4, max_queue: int = 8, drain_seconds: float = 5
) -> Batcher[object, object]:
    return Batcher(model, max_batch=max_batch, max_queue=max_queue, drain_seconds=drain_seconds)


async def test_answers_reach_their_askers() -> None:
    async with batcher(Model()) as batches:
        answers = await asyncio.gather(*(batches.submit(n) for n in range(6)))
    assert [answer.value for answer in answers] == [0, 2, 4, 6, 8, 10]
    assert all(answer.queued >= 0 and answer.ran >= 0 for answer in answers)


async def test_work_that_queued_behind_a_busy_model_goes_as_batches_of_at_most_max_batch() -> None:
    model = Model(is_open=False)
    async with batcher(model) as batches:
        first = asyncio.create_task(batches.submit(0))
        await until(lambda: model.batches)
        rest = [asyncio.create_task(batches.submit(n)) for n in range(1, 7)]
        await until(lambda: batches.waiting == 6)
        model.gate.set()
        await asyncio.gather(first, *rest)
    assert model.batches == [[0], [1, 2, 3, 4], [5, 6]]


async def test_a_client_that_leaves_does_not_disturb_its_neighbours() -> None:
    model = Model(is_open=False)
    async with batcher(model) as batches:
        tasks = [asyncio.create_task(batches.submit(n)) for n in (1, 2, 3)]
        await until(lambda: model.batches)
        tasks[1].cancel()
        model.gate.set()
        assert (await tasks[0]).value == 2
        assert (await tasks[2]).value == 6


async def test_a_client_that_left_before_its_turn_costs_nothing() -> None:
    model = Model(is_open=False)
    async with batcher(model) as batches:
        first = asyncio.create_task(batches.submit(0))
        await until(lambda: model.batches)
        gone = asyncio.create_task(batches.submit("gone"))
        await until(lambda: batches.waiting == 1)
        gone.cancel()
        await asyncio.wait([gone])
        assert batches.waiting == 0
        model.gate.set()
        await first
    assert model.batches == [[0]]


@pytest.mark.parametrize("bad", ["raises", "short"])
async def test_the_batch_after_a_failed_one_is_served(bad: str) -> None:
    async with batcher(Model()) as batches:
        with pytest.raises(InferenceFailed) as caught:
            await batches.submit(bad)
        assert "secret" not in str(caught.value)
        assert (await batches.submit(4)).value == 8
        assert batches.alive


async def test_each_client_of_a_failed_batch_gets_an_exception_of_its_own() -> None:
    model = Model(is_open=False)
    async with batcher(model) as batches:
        first = asyncio.create_task(batches.submit(0))
        await until(lambda: model.batches)
        rest = [asyncio.create_task(batches.submit("raises")) for _ in range(2)]
        await until(lambda: batches.waiting == 2)
        model.gate.set()
        await first
        failures = await asyncio.gather(*rest, return_exceptions=True)
    assert all(isinstance(failure, InferenceFailed) for failure in failures)
    assert failures[0] is not failures[1]


async def test_a_full_queue_refuses_at_once() -> None:
    model = Model(is_open=False)
    async with batcher(model, max_queue=2) as batches:
        tasks = [asyncio.create_task(batches.submit(0))]
        await until(lambda: model.batches)
        tasks += [asyncio.create_task(batches.submit(n)) for n in (1, 2)]
        await until(lambda: batches.waiting == 2)
        with pytest.raises(Overloaded, match="2 pictures are waiting"):
            await batches.submit(3)
        model.gate.set()
        assert [answer.value for answer in await asyncio.gather(*tasks)] == [0, 2, 4]


async def test_a_full_queue_says_when_it_will_be_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = itertools.count(0, 30)
    monkeypatch.setattr(module, "perf_counter", lambda: next(seconds))
    model = Model()
    async with batcher(model, max_queue=2) as batches:
        await batches.submit(0)
        model.gate.clear()
        tasks = [asyncio.create_task(batches.submit(0))]
        await until(lambda: len(model.batches) == 2)
        tasks += [asyncio.create_task(batches.submit(n)) for n in (1, 2)]
        await until(lambda: batches.waiting == 2)
        with pytest.raises(Overloaded) as refused:
            await batches.submit(3)
        # Two, at 30 seconds each.
        assert refused.value.retry_after == 60
        model.gate.set()
        await asyncio.gather(*tasks)


async def test_once_too_many_came_few_are_taken_and_those_that_waited_longest_are_let_go() -> None:
    model = Model(is_open=False)
    async with batcher(model, max_batch=8, max_queue=8) as batches:
        first = asyncio.create_task(batches.submit(0))
        await until(lambda: model.batches)
        rest = [asyncio.create_task(batches.submit(n)) for n in range(1, 9)]
        await until(lambda: batches.waiting == 8)
        with pytest.raises(Overloaded, match="8 pictures are waiting"):
            batches.admit()
        assert batches.waiting == 2
        with pytest.raises(Overloaded, match="2 pictures are waiting"):
            batches.admit()
        model.gate.set()
        outcomes = await asyncio.gather(first, *rest, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes[1:7]] == [Overloaded] * 6
        assert [outcome.value for outcome in (outcomes[0], *outcomes[7:])] == [0, 14, 16]
        # All is done: whoever comes now may wait as those at first.
        model.gate.clear()
        await until(lambda: batches._crowd.takes(7))


async def test_what_would_wait_longer_than_its_patience_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = itertools.count(0, 3)
    monkeypatch.setattr(module, "perf_counter", lambda: next(seconds))
    model = Model()
    async with Batcher(model, max_batch=8, max_queue=8, drain_seconds=5, patience=5) as batches:
        await batches.submit(0)
        model.gate.clear()
        tasks = [asyncio.create_task(batches.submit(0))]
        await until(lambda: len(model.batches) == 2)
        batches.admit()
        tasks += [asyncio.create_task(batches.submit(1)) for _ in range(2)]
        await until(lambda: batches.waiting == 2)
        # Two, at 3 seconds each.
        with pytest.raises(Overloaded) as refused:
            batches.admit()
        assert refused.value.retry_after == 6
        model.gate.set()
        await asyncio.gather(*tasks)


async def test_leaving_finishes_what_was_accepted_and_refuses_the_rest() -> None:
    model = Model(is_open=False)
    batches = batcher(model, max_batch=1)
    await batches.__aenter__()
    tasks = [asyncio.create_task(batches.submit(n)) for n in (1, 2, 3)]
    await until(lambda: model.batches)
    closing = asyncio.create_task(batches.__aexit__())
    await until(lambda: not batches.alive)
    with pytest.raises(Draining):
        await batches.submit(4)
    with pytest.raises(Draining):
        batches.admit()
    model.gate.set()
    await closing
    assert [answer.value for answer in await asyncio.gather(*tasks)] == [2, 4, 6]


async def test_a_drain_that_outlasts_its_limit_fails_what_still_waits() -> None:
    model = Model(is_open=False)
    batches = batcher(model, max_batch=1, drain_seconds=0.01)
    await batches.__aenter__()
    running, waiting = (asyncio.create_task(batches.submit(n)) for n in (1, 2))
    await until(lambda: model.batches and batches.waiting == 1)
    await batches.__aexit__()
    outcomes = await asyncio.gather(running, waiting, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Draining, Draining]
    model.gate.set()


async def test_batch_sizes_are_observed() -> None:
    sizes: list[int] = []
    async with Batcher(Model(), max_batch=4, max_queue=8, drain_seconds=5, on_batch=sizes.append) as batches:
        await batches.submit(1)
    assert sizes == [1]
