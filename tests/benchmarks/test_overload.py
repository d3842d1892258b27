"""An open loop of requests on a real server, and what is made of its figures."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fastapi import FastAPI, Request, Response
from typer.testing import CliRunner

from benchmarks.arrivals import Offered, offer, percentile, post, saturate
from benchmarks.errors import BenchmarkFailed
from benchmarks.overload import HEADINGS, Overload, app, cells
from benchmarks.uploads import form
from tests.conftest import LiveServer, draw

PICTURE = b"x" * 3000


def offered(*answered: tuple[int, float], failures: dict[str, int] | None = None) -> Offered:
    found = Offered(10.0, failures=Counter(failures or {}))
    for status, seconds in answered:
        found.latencies.setdefault(status, []).append(seconds)
    return found


USUAL = offered(*[(200, 0.01)] * 98, (200, 0.02), (200, 0.03))


def test_a_percentile_is_one_of_the_values() -> None:
    assert percentile([3.0, 1.0, 2.0, 4.0], 0.5) == 3
    assert percentile([float(n) for n in range(100)], 0.99) == 99
    assert percentile([5.0], 0.99) == 5
    assert str(percentile([], 0.5)) == "nan"


def test_accepted_requests_that_stay_fast_are_no_problem() -> None:
    over = offered(*[(200, 0.05)] * 99, (200, 9.0), *[(503, 20.0)] * 500)
    over.latencies[200][-1] = 0.09
    found = Overload(USUAL, USUAL, over)
    assert found.ratio == pytest.approx(3)
    assert found.problems == []


@pytest.mark.parametrize(
    ("over", "problem"),
    [
        (offered((200, 0.01), (504, 10.0)), "over: expected 200 and 503 only, got 504"),
        (offered((200, 0.01), failures={"connection lost": 2}), "over: 2 times connection lost"),
        (offered((200, 0.0901)), "p99 under overload: expected at most 3 times the usual, got 3.00"),
        (offered((503, 0.01)), "p99 under overload: expected at most 3 times the usual, got nan"),
    ],
    ids=["status", "failure", "slow", "no-answer-at-all"],
)
def test_what_is_not_as_it_should_be_is_told(over: Offered, problem: str) -> None:
    assert Overload(USUAL, USUAL, over).problems == [problem]


def test_a_row_has_a_cell_below_each_heading() -> None:
    row = cells("x", offered((200, 0.5), (503, 0.25), (504, 9.0), failures={"no answer": 3}))
    assert row == ["x", "1", "0", "0", "1", "3", "500.0", "500.0", "250.0", "nan"]
    assert len(row) == len(HEADINGS)


def test_clients_that_wait_each_ask_again_and_again() -> None:
    api, bodies = FastAPI(), set()

    @api.post("/predict")
    async def answer(request: Request) -> Response:
        bodies.add(await request.body())
        return Response("{}")

    upload = form(PICTURE)
    with LiveServer(api) as server:
        port = int(server.url.rpartition(":")[2])
        found = saturate(port, post(port, "/predict", upload), clients=3, seconds=0.3)
    assert bodies == {upload.body}
    assert set(found.statuses) == {200}
    assert found.requests > 3
    assert not found.failures


def test_requests_come_whether_or_not_others_were_answered() -> None:
    api, numbers = FastAPI(), itertools.count(1)
    most, gate = 0, asyncio.Event()

    @api.post("/predict")
    async def answer() -> Response:
        nonlocal most
        most = max(most, next(numbers))
        if most < 50:
            # None is answered before as many have come as no client would send that waits.
            await gate.wait()
        gate.set()
        return Response("{}", 503 if most % 2 else 200, {"retry-after": "7"} if most % 2 else {})

    with LiveServer(api) as server:
        port = int(server.url.rpartition(":")[2])
        found = offer(port, post(port, "/predict", form(PICTURE)), rate=200, seconds=0.5, connections=4)
    assert 50 <= most < 200
    assert found.requests == most
    assert found.retry_after[7] == found.statuses[503]
    assert not found.failures


def test_a_connection_that_is_closed_is_opened_again() -> None:
    api, numbers = FastAPI(), itertools.count()

    @api.post("/predict")
    async def answer() -> Response:
        next(numbers)
        return Response("{}", headers={"connection": "close"})

    with LiveServer(api) as server:
        port = int(server.url.rpartition(":")[2])
        found = offer(port, post(port, "/predict", form(PICTURE)), rate=100, seconds=0.3, connections=1)
    assert found.statuses == {200: next(numbers)}
    assert not found.failures


def test_a_connection_that_is_lost_is_a_failure() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as thread:

        def close_three() -> None:
            for _ in range(3):
                listener.accept()[0].close()

        closing = thread.submit(close_three)
        found = saturate(listener.getsockname()[1], b"x", clients=3, seconds=0.2)
        closing.result()
    assert dict(found.failures) == {"connection lost": 3}


def test_where_nobody_listens_there_is_nothing_to_measure() -> None:
    with pytest.raises(BenchmarkFailed, match="expected a connection to port 1, got none"):
        saturate(1, b"", clients=1, seconds=0.1)


def test_under_many_times_its_load_a_real_service_answers_or_says_503(shapes_models: Path, tmp_path: Path) -> None:
    draw("circle", 1).save(tmp_path / "circle.png")
    figures = tmp_path / "figures.json"
    arguments = ["--models", shapes_models, "--model", "shapes", "--picture", tmp_path / "circle.png"]
    arguments += ["--clients", 8, "--seconds", 2, "--usual-seconds", 1, "--json", figures]
    finished = CliRunner().invoke(app, [str(argument) for argument in arguments])
    over = json.loads(figures.read_text())["over"]
    # How fast it is here and now is not what this holds.
    assert set(over["latencies"]) == {"200", "503"}, finished.output
    assert over["failures"] == {}
    assert sum(over["retry_after"].values()) == len(over["latencies"]["503"])
    assert "10 times as much" in finished.output
