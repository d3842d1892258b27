"""A version in, its successors out, each swapped in while clients ask: `python -m benchmarks.swaps`.

Each has the labels in another order, so that an answer shows by whom it was given, whatever it says of it.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic
from typing import Annotated

import httpx
import typer

from benchmarks.errors import BenchmarkFailed
from benchmarks.servers import ours, start

EARLY = 5
MOST_GROWTH = 1.1
SWAP_SECONDS = 120.0
MIB = 2**20
# As quick as can be without reading what is still written.
ENVIRONMENT = {
    "SICHTBAR_VERSIONS": "latest:1",
    "SICHTBAR_SETTLE_SECONDS": "0.2",
    "SICHTBAR_STORE": "none",
}

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass
class Swapped:
    """What clients and memory showed while versions were swapped."""

    answers: Counter[int] = field(default_factory=Counter)
    """By the version that they name."""
    wrong: list[str] = field(default_factory=list)
    """Answers that are not of the version that they name."""
    failed: list[str] = field(default_factory=list)
    resident: list[tuple[int, int]] = field(default_factory=list)
    """Bytes after each swap: of the service, and of the process that explains."""

    def growth(self, early: int = EARLY) -> float:
        """The service's resident memory after the last swap, as a multiple of that after an early one."""
        return self.resident[-1][0] / self.resident[early - 1][0]


def turned(labels: list[str], number: int) -> list[str]:
    """The labels of a version: those of the first, turned by a place for each that came after it."""
    places = (number - 1) % len(labels)
    return labels[places:] + labels[:places]


def publish(model: Path, source: Path, number: int) -> list[str]:
    """Publish a copy of a version as `<model>/<number>`; its labels."""
    manifest = json.loads((source / "manifest.json").read_text(encoding="utf-8"))
    manifest |= {"version": number, "labels": turned(manifest["labels"], number)}
    new = Path(shutil.copytree(source, model / f".new-{number}"))
    (new / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    new.rename(model / str(number))
    return list(manifest["labels"])


async def swap(url: str, pid: int, model: Path, source: Path, picture: bytes, swaps: int, clients: int) -> Swapped:
    """Publish copies of `source`, each once the one before has gone, while so many clients ask. `<model>/1` answers.

    Raises:
        BenchmarkFailed: a version does not come to answer.
    """
    found, done = Swapped(), asyncio.Event()
    own = json.loads((source / "manifest.json").read_text(encoding="utf-8"))["labels"]
    limits = httpx.Limits(max_connections=clients + 1)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=60) as client:
        first = await client.post("/predict", files={"file": picture})
        index = first.json()["images"][0]["predictions"][0]["index"]

        async def ask() -> None:
            while not done.is_set():
                try:
                    answer = await client.post("/predict", params={"top_k": 1}, files={"file": picture})
                except httpx.HTTPError as error:
                    found.failed.append(repr(error))
                    continue
                if answer.is_error:
                    found.failed.append(answer.text)
                    continue
                version, (said,) = answer.json()["version"], answer.json()["images"][0]["predictions"]
                found.answers[version] += 1
                if (said["index"], said["label"]) != (index, turned(own, version)[index]):
                    found.wrong.append(answer.text)

        asking = [asyncio.create_task(ask()) for _ in range(clients)]
        try:
            for number in range(2, swaps + 2):
                await asyncio.to_thread(publish, model, source, number)
                await _until(client, model.name, {number: "available", number - 1: "unloaded"})
                await asyncio.to_thread(shutil.rmtree, model / str(number - 1))
                found.resident.append(resident(pid))
        finally:
            done.set()
            await asyncio.gather(*asking)
    return found


async def _until(client: httpx.AsyncClient, model: str, wanted: dict[int, str]) -> None:
    deadline = monotonic() + SWAP_SECONDS
    while True:
        listed = (await client.get(f"/models/{model}")).json()["versions"]
        states = {version["version"]: version["state"] for version in listed}
        if all(states.get(number) == state for number, state in wanted.items()):
            return
        if monotonic() > deadline:
            raise BenchmarkFailed(f"expected {wanted} within {SWAP_SECONDS:g} s, got {listed}")
        await asyncio.sleep(0.05)


def resident(pid: int) -> tuple[int, int]:
    """Bytes of the service, and of the process that explains."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
    return _bytes(str(pid)), sum(_bytes(child) for child in children)


def _bytes(pid: str) -> int:
    pages = Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


@app.command()
def main(
    version: Annotated[Path, typer.Argument(help="Folder of the version to copy.")] = Path("models/fruit_cnn/1"),
    picture: Annotated[Path, typer.Option(help="What clients ask about.")] = Path("examples/lemon.png"),
    swaps: Annotated[int, typer.Option(min=EARLY, help="How many.")] = 50,
    clients: Annotated[int, typer.Option(min=1, help="How many ask at once.")] = 16,
) -> None:
    """Swap versions under load: no answer may fail or be wrong, and memory must not grow."""
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "models" / version.absolute().parent.name
        model.mkdir(parents=True)
        publish(model, version, 1)
        kind = ours(model.parent, model.name)
        kind = replace(kind, environment={**kind.environment, **ENVIRONMENT})
        try:
            data = picture.read_bytes()
            with start(kind, Path(folder) / "log", data) as server:
                url = server.url.removesuffix("/predict")
                found = asyncio.run(swap(url, server.process.pid, model, version, data, swaps, clients))
        except BenchmarkFailed as failure:
            sys.exit(str(failure))
    for number in sorted({1, EARLY, *range(10, swaps, 10), swaps}):
        service, explainer = found.resident[number - 1]
        typer.echo(
            f"after {number:3} swaps: {service / MIB:7.1f} MiB, and {explainer / MIB:7.1f} MiB where it explains"
        )
    typer.echo(
        f"{found.answers.total()} answers of {len(found.answers)} versions, {len(found.failed)} failed, "
        f"{len(found.wrong)} wrong; memory grew to {found.growth():.1%} of that after {EARLY} swaps"
    )
    for answer in (found.failed + found.wrong)[:3]:
        typer.echo(answer)
    sys.exit(bool(found.failed or found.wrong or found.growth() > MOST_GROWTH))


if __name__ == "__main__":
    app()
