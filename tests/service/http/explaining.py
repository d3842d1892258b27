"""What tests of explanations share: pictures, questions, and waiting for what another process does."""

from __future__ import annotations

import re
from collections.abc import Callable
from time import monotonic, sleep
from typing import Any

import httpx

from tests.conftest import PATIENCE, draw, encode

# Each takes a tiny model some milliseconds; nobody waits for all of them.
SLOW = {"samples": 10_000, "superpixels": 200}
QUICK = {"samples": 32}


def picture(seed: int, size: tuple[int, int] = (60, 48)) -> bytes:
    return encode(draw("circle", seed, size))


def keep(client: httpx.Client, data: bytes) -> str:
    """A picture's id, once it is kept."""
    answer = client.post("/explain", params={**QUICK, "format": "json"}, files={"file": data})
    assert answer.status_code == 200, answer.text
    image_id: str = answer.json()["image_id"]
    return image_id


def metric(client: httpx.Client, name: str, **labels: str) -> float:
    """The sum of a metric's samples with these labels."""
    found = re.findall(rf"^{name}(?:{{(.*)}})? (\S+)$", client.get("/metrics").text, re.MULTILINE)
    return sum(float(value) for text, value in found if all(f'{k}="{v}"' in text for k, v in labels.items()))


def until(condition: Callable[[], Any]) -> Any:
    """What the condition gives, once it gives something; a process or a server is at work meanwhile."""
    deadline = monotonic() + PATIENCE
    while not (found := condition()):
        assert monotonic() < deadline, "it never happened"
        sleep(0.02)
    return found


def ended(client: httpx.Client, place: str) -> dict[str, Any]:
    """A job, once it is over."""

    def over() -> dict[str, Any] | None:
        job: dict[str, Any] = client.get(place).json()
        return job if job["state"] not in ("queued", "running") else None

    job: dict[str, Any] = until(over)
    return job
