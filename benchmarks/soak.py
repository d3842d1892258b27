"""A service under mixed calls for minutes, its mistakes and memory out: `python -m benchmarks.soak --minutes 20`."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic
from typing import Annotated, Any

import httpx
import typer
from PIL import Image
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.errors import BenchmarkFailed
from benchmarks.servers import ours, start
from benchmarks.swaps import publish, resident

# The one that is swapped, and one that stays.
SWAPPED, STAYS = "fruit_cnn", "fruit_vgg16"
EXAMPLES = Path("examples")
# From here on nothing may grow, but for what memory allocators do.
EARLY_MINUTES, MOST_GROWTH = 5, 1.05
MINUTE = 60.0
# Explanations, of low priority, get what is left.
PAUSE_SECONDS = 0.2
ANSWER_SECONDS = 120.0
MIB = 2**20
ENVIRONMENT = {"SICHTBAR_VERSIONS": f"all {SWAPPED}=latest:1", "SICHTBAR_SETTLE_SECONDS": "0.2"}

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")


@dataclass
class Soaked:
    """What one service did under mixed calls."""

    calls: Counter[str] = field(default_factory=Counter)
    """Answered as they should be, by what was asked."""
    errors: list[str] = field(default_factory=list)
    swaps: int = 0
    resident: list[tuple[int, int]] = field(default_factory=list)
    """Bytes at each mark: of the service, and of the process that explains."""

    def growth(self, early: int) -> tuple[float, float]:
        """Memory at the last mark as a multiple of that at an early one, which is counted from 1; of both processes."""
        first, last = self.resident[min(early, len(self.resident)) - 1], self.resident[-1]
        return last[0] / first[0], last[1] / first[1]

    def problems(self, early: int) -> list[str]:
        """What is not as it should be."""
        found = [f"{len(self.errors)} unexpected answers, such as {self.errors[0]}"] if self.errors else []
        for name, grown in zip(("the service", "the process that explains"), self.growth(early), strict=True):
            if grown > MOST_GROWTH:
                found.append(
                    f"memory of {name}: expected at most {MOST_GROWTH:.0%} of that at mark {early}, got {grown:.1%}"
                )
        return found


class _Mixture:
    """Calls of every kind, each with other pictures, and what they must be answered."""

    def __init__(self, client: httpx.AsyncClient, found: Soaked, number: int) -> None:
        self._client = client
        self._found = found
        self._chance = random.Random(number)
        self._examples = [Image.open(path).convert("RGB") for path in sorted(EXAMPLES.glob("*.png"))]
        # Of three clients one asks what takes long, so that the others need not wait for it.
        self._kinds: tuple[Callable[[], Awaitable[object]], ...] = (
            (self._explained, self._job, self._cancelled, self._inside)
            if number % 3 == 0
            else (self._forms, self._raw, self._json, self._told, self._bad, self._tensorflow, self._inference)
        )

    async def run(self, until: float) -> None:
        """Ask one after the other."""
        while monotonic() < until:
            try:
                await self._chance.choice(self._kinds)()
            except (httpx.HTTPError, LookupError, ValueError) as error:
                self._found.errors.append(repr(error))
            await asyncio.sleep(PAUSE_SECONDS)

    async def _ask(self, method: str, path: str, expected: int = 200, **options: Any) -> httpx.Response:  # noqa: ANN401
        answer = await self._client.request(method, path, **options)
        if answer.status_code == expected:
            self._found.calls[f"{method} {path.partition('?')[0]} {expected}"] += 1
        else:
            self._found.errors.append(
                f"{method} {path}: expected {expected}, got {answer.status_code}: {answer.text[:300]}"
            )
        return answer

    def _picture(self, kind: str = "JPEG") -> bytes:
        turned = self._chance.choice(self._examples).rotate(self._chance.uniform(0, 360), fillcolor="white")
        file = io.BytesIO()
        turned.resize((self._chance.randint(60, 300),) * 2).save(file, kind)
        return file.getvalue()

    def _model(self) -> str:
        return self._chance.choice((SWAPPED, SWAPPED, SWAPPED, STAYS))

    def _encoded(self) -> str:
        return base64.b64encode(self._picture()).decode()

    async def _forms(self) -> None:
        files = [("file", ("a.jpg", self._picture())) for _ in range(self._chance.randint(1, 4))]
        await self._ask("POST", "/predict", params={"model": self._model()}, files=files)

    async def _raw(self) -> None:
        kind = self._chance.choice(("JPEG", "PNG", "WEBP", "GIF"))
        headers = {"content-type": f"image/{kind.lower()}"}
        await self._ask("POST", "/predict", params={"model": SWAPPED}, content=self._picture(kind), headers=headers)

    async def _json(self) -> None:
        await self._ask("POST", "/predict", params={"store": "false"}, json={"image": self._encoded()})

    async def _kept(self) -> str:
        answer = await self._ask("POST", "/predict", files={"file": self._picture()})
        image_id: str = answer.json()["images"][0]["image_id"]
        return image_id

    async def _explained(self) -> None:
        params = {
            "model": STAYS,
            "method": self._chance.choice(("lime", "gradcam")),
            "format": self._chance.choice(("png", "json")),
            "samples": 64,
            "wait": 100,
        }
        if params["method"] == "gradcam":
            del params["samples"]
        await self._ask("POST", "/explain", params=params, files={"file": self._picture()})

    async def _job(self) -> None:
        query = {"model": STAYS, "image_id": await self._kept(), "samples": 64}
        place = (await self._ask("POST", "/explanations", 202, params=query)).headers["location"]
        # A client that polls is what is tried here.
        while (await self._client.get(place)).json()["state"] in ("queued", "running"):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        await self._count("GET", place, "/result")

    async def _cancelled(self) -> None:
        query = {"model": STAYS, "image_id": await self._kept(), "samples": 5000}
        place = (await self._ask("POST", "/explanations", 202, params=query)).headers["location"]
        await self._count("DELETE", place)

    async def _count(self, method: str, place: str, below: str = "") -> None:
        answer = await self._client.request(method, place + below)
        if answer.status_code == 200:
            self._found.calls[f"{method} /explanations/{{job}}{below} 200"] += 1
        else:
            self._found.errors.append(
                f"{method} {place}{below}: expected 200, got {answer.status_code}: {answer.text[:300]}"
            )

    async def _inside(self) -> None:
        query = {"model": STAYS, "image_id": await self._kept()}
        await self._ask("GET", "/activations", params={**query, "layer": "block1_conv1"})
        await self._ask("GET", "/walk", params=query)
        await self._ask("GET", f"/models/{STAYS}/filters", params={"layer": "block1_conv1"})

    async def _told(self) -> None:
        path = self._chance.choice(
            (
                "/models",
                f"/models/{SWAPPED}",
                f"/models/{STAYS}/versions/1",
                f"/models/{STAYS}/graph",
                f"/models/{STAYS}/layers",
                "/metrics",
                "/health/ready",
                "/openapi.json",
            )
        )
        await self._ask("GET", path)

    async def _bad(self) -> None:
        await self._ask("POST", "/predict", 422, files={"file": self._picture("PNG")[:60]})
        await self._ask("POST", "/predict", 415, files={"file": b"no picture"})
        await self._ask("POST", "/explain", 404, params={"label": "Durian"}, files={"file": self._picture()})
        await self._ask("GET", "/nothing", 404)

    async def _tensorflow(self) -> None:
        picture = {"b64": self._encoded()}
        await self._ask("POST", f"/v1/models/{self._model()}:predict", json={"instances": [picture, picture]})
        await self._ask("POST", f"/v1/models/{SWAPPED}:classify", json={"examples": [{"image": picture}]})
        await self._ask("GET", f"/v1/models/{STAYS}/metadata")

    async def _inference(self) -> None:
        tensor = {"name": "images", "shape": [1], "datatype": "BYTES", "data": [self._encoded()]}
        await self._ask("POST", f"/v2/models/{self._model()}/infer", json={"inputs": [tensor]})
        await self._ask("GET", f"/v2/models/{STAYS}/stats")
        await self._ask("POST", "/v2/repository/index", json={})


async def soak(url: str, pid: int, models: Path, *, minutes: float, clients: int, swap_minutes: float) -> Soaked:
    """Ask by so many clients for so many minutes, and swap a version now and then.

    Raises:
        BenchmarkFailed: a version does not come to answer.
    """
    found, begun = Soaked(), monotonic()
    end = begun + minutes * MINUTE
    async with httpx.AsyncClient(base_url=url, timeout=ANSWER_SECONDS) as client:
        work = [_Mixture(client, found, number).run(end) for number in range(clients)]
        tasks = [
            asyncio.create_task(each) for each in (*work, _swap(client, models / SWAPPED, found, end, swap_minutes))
        ]
        try:
            while monotonic() < end:
                await asyncio.sleep(min(MINUTE, end - monotonic()))
                found.resident.append(resident(pid))
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
    return found


async def _swap(client: httpx.AsyncClient, model: Path, found: Soaked, end: float, every: float) -> None:
    source = Path("models") / SWAPPED / "1"
    number = 1
    while monotonic() + every * MINUTE < end:
        await asyncio.sleep(every * MINUTE)
        number += 1
        await asyncio.to_thread(publish, model, source, number)
        deadline = monotonic() + ANSWER_SECONDS
        while not await _has_taken_over(client, number):
            if monotonic() > deadline:
                raise BenchmarkFailed(f"expected version {number} of {SWAPPED} within {ANSWER_SECONDS:g} s")
            await asyncio.sleep(0.2)
        await asyncio.to_thread(shutil.rmtree, model / str(number - 1))
        found.swaps += 1


async def _has_taken_over(client: httpx.AsyncClient, number: int) -> bool:
    listed = (await client.get(f"/models/{SWAPPED}")).json()["versions"]
    states = {version["version"]: version["state"] for version in listed}
    return states.get(number) == "available" and states.get(number - 1) in (None, "unloaded")


@app.command(
    epilog="\n\n".join(
        (
            "[bold]Examples[/bold]",
            "python -m benchmarks.soak --minutes 20",
            "python -m benchmarks.soak --minutes 2 --swap-minutes 0.5 --json figures.json",
        )
    )
)
def run(
    minutes: Annotated[float, typer.Option(min=0.1, help="How long.")] = 20,
    clients: Annotated[int, typer.Option(min=1, help="Clients that ask at once, each one thing after the other.")] = 6,
    swap_minutes: Annotated[float, typer.Option(min=0.1, help="Minutes from one version to the next.")] = 3,
    figures: Annotated[Path | None, typer.Option("--json", help="File for the raw figures.", metavar="FILE")] = None,
) -> None:
    """Ask one service for all that it does, for minutes: no answer may be unexpected, and memory must not grow.

    Pictures are new each time: predictions in every form and protocol, explanations and jobs, looks inside, what is
    told of models, bad pictures; and a version is swapped every few minutes. Fails where an answer was unexpected, or
    where memory at the end is above 105 % of that after five minutes.
    """
    console = Console()
    try:
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            shutil.copytree("models", place / "models")
            kind = ours(place / "models", SWAPPED)
            kind = replace(
                kind, environment={**kind.environment, **ENVIRONMENT, "SICHTBAR_STORE": str(place / "store")}
            )
            picture = next(EXAMPLES.glob("*.png")).read_bytes()
            with start(kind, place / "log", picture) as server:
                server.settle()
                found = asyncio.run(
                    soak(
                        server.base,
                        server.process.pid,
                        place / "models",
                        minutes=minutes,
                        clients=clients,
                        swap_minutes=swap_minutes,
                    )
                )
    except BenchmarkFailed as failure:
        Console(stderr=True).print(f"error: {failure}", soft_wrap=True, markup=False)
        raise typer.Exit(1) from None
    show(console, found)
    if figures is not None:
        figures.write_text(json.dumps(vars(found), indent=2) + "\n", encoding="utf-8")
    problems = found.problems(EARLY_MINUTES)
    for problem in problems:
        Console(stderr=True).print(f"error: {problem}", soft_wrap=True, markup=False)
    raise typer.Exit(bool(problems))


def show(console: Console, found: Soaked) -> None:
    """Print what was asked, and memory at each mark."""
    table = Table(title="answered as expected", box=box.SIMPLE_HEAD)
    table.add_column("call")
    table.add_column("times", justify="right")
    for call, times in sorted(found.calls.items()):
        table.add_row(call, str(times))
    console.print(table)
    table = Table(title="resident memory, MiB", box=box.SIMPLE_HEAD)
    for name in ("mark", "service", "process that explains"):
        table.add_column(name, justify="right")
    for number, sizes in enumerate(found.resident, start=1):
        table.add_row(str(number), *(f"{size / MIB:.1f}" for size in sizes))
    console.print(table)
    service, explainer = found.growth(EARLY_MINUTES)
    console.print(
        f"{found.calls.total()} answers, {len(found.errors)} unexpected, {found.swaps} swaps; memory at the end "
        f"{service:.1%} of that after {EARLY_MINUTES} minutes, where it explains {explainer:.1%}",
        highlight=False,
    )
    for error in found.errors[:5]:
        console.print(error, highlight=False, markup=False, soft_wrap=True)


if __name__ == "__main__":
    app(prog_name="python -m benchmarks.soak")
