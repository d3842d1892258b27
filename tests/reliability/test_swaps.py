"""Versions swapped under load; `python -m benchmarks.swaps` does it fifty times, and looks at memory."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from benchmarks.swaps import swap, turned
from tests.conftest import draw, encode
from tests.reliability.conftest import Models
from tests.service.http.test_openinference import connect, pictures, wanted

SWAPS, CLIENTS = 4, 16


def ask_by_triton(client: httpx.Client, picture: bytes, labels: list[str], done: threading.Event) -> set[int]:
    """The versions that answered Triton's client, unchanged, each by its own labels."""
    triton, answered = connect(client), set()
    while not done.is_set():
        answer = triton.infer("shapes", pictures(picture), outputs=[wanted("probabilities", classes=1)])
        version = int(answer.get_response()["model_version"])
        _, index, label = answer.as_numpy("probabilities").ravel()[0].decode().split(":")
        assert label == turned(labels, version)[int(index)]
        answered.add(version)
    triton.close()
    return answered


def test_no_answer_fails_or_is_wrong_while_versions_are_swapped(
    serve_models: Callable[..., Models], times: int
) -> None:
    swaps = SWAPS * times
    models = serve_models(SICHTBAR_VERSIONS="latest:1")
    url, pid = str(models.client.base_url), models.program.process.pid
    picture = encode(draw("square", 1))
    labels = json.loads(Path(models.source, "manifest.json").read_text())["labels"]
    done = threading.Event()
    with ThreadPoolExecutor(1) as thread:
        triton = thread.submit(ask_by_triton, models.client, picture, labels, done)
        try:
            found = asyncio.run(swap(url, pid, models.folder / "shapes", models.source, picture, swaps, CLIENTS))
        finally:
            done.set()
    assert triton.result() >= set(range(1, swaps + 1))
    assert found.failed == []
    assert found.wrong == []
    assert found.answers.keys() == set(range(1, swaps + 2))
