"""Visits of the page out: what each fetches, when it is painted, and how long from a picture to its first answer."""

from __future__ import annotations

import base64
import json
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Annotated

import typer
from playwright.sync_api import Browser, Response, sync_playwright
from rich.console import Console
from rich.table import Table

from benchmarks.arrivals import percentile
from benchmarks.errors import BenchmarkFailed
from benchmarks.load import small_jpeg
from benchmarks.servers import ours, start

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]

# First contentful paint, in milliseconds since the page was asked for.
PAINTED = """() => new Promise((resolve) =>
  new PerformanceObserver((list) => {
    const paint = list.getEntriesByName("first-contentful-paint")[0];
    if (paint) resolve(paint.startTime);
  }).observe({ type: "paint", buffered: true }))"""
# From a file that is chosen to the paint of its bars.
ANSWERED = """(content) => new Promise((resolve) => {
  const data = new DataTransfer();
  const bytes = Uint8Array.from(atob(content), (character) => character.charCodeAt(0));
  data.items.add(new File([bytes], "picture.jpg", { type: "image/jpeg" }));
  const field = document.getElementById("files");
  field.files = data.files;
  new MutationObserver((_, observer) => {
    if (!document.querySelector(".bars .bar")) return;
    observer.disconnect();
    // A message that is sent before a paint comes after it.
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => resolve(performance.now() - begun);
    requestAnimationFrame(() => port2.postMessage(null));
  }).observe(document.getElementById("view"), { childList: true, subtree: true });
  const begun = performance.now();
  field.dispatchEvent(new Event("change"));
})"""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")


@dataclass(frozen=True)
class Visit:
    """One visit by a browser that has nothing of the page."""

    requests: int
    bytes: int
    """Of all bodies, as they are before any compression."""
    painted_ms: float
    """From the request to the first contentful paint."""
    answered_ms: float
    """From a picture that is chosen to the paint of its answer."""


@app.command(
    epilog="\n\n".join(
        ("[bold]Examples[/bold]", "python -m benchmarks.page", "python -m benchmarks.page --model fruit_vgg16")
    )
)
def run(
    models: Annotated[Path, typer.Option(help="Folder of <model>/<version>/ folders.")] = Path("models"),
    model: Annotated[str, typer.Option(help="The model that answers.")] = "fruit_cnn",
    picture: Annotated[Path, typer.Option(help="The picture that is chosen.")] = Path("examples/banana.png"),
    visits: Annotated[int, typer.Option(min=1, help="How many.")] = 15,
    figures: Annotated[Path | None, typer.Option("--json", help="File for the raw figures.", metavar="FILE")] = None,
) -> None:
    """Visit the page in the system's Chromium, each time as if for the first time, and show it a picture."""
    console = Console()
    try:
        jpeg = small_jpeg(picture)
        with (
            tempfile.TemporaryDirectory(prefix="sichtbar-benchmark-") as folder,
            start(ours(models, model), Path(folder) / "log", jpeg) as server,
        ):
            server.settle()
            found = visit(server.base, jpeg, visits)
    except BenchmarkFailed as failure:
        Console(stderr=True).print(f"error: {failure}", soft_wrap=True, markup=False)
        raise typer.Exit(1) from None
    table = Table("", "median", "p90", "least", "most", title=f"{visits} first visits, {model}")
    for name in ("requests", "bytes", "painted_ms", "answered_ms"):
        values = [float(getattr(one, name)) for one in found]
        table.add_row(name, *(f"{v:,.0f}" for v in (median(values), percentile(values, 0.9), min(values), max(values))))
    console.print(table)
    if figures:
        figures.write_text(json.dumps([asdict(one) for one in found], indent=2) + "\n", encoding="utf-8")


def visit(url: str, jpeg: bytes, visits: int) -> list[Visit]:
    """Visit the page at `url` so often, one after the other, by one browser that keeps nothing.

    Raises:
        BenchmarkFailed: there is no browser, or what the page is made of comes from elsewhere, not at all, or fails.
    """
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        raise BenchmarkFailed(f"expected one of {', '.join(BROWSERS)}, found none; on Debian: apt-get install chromium")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=ARGUMENTS)
        try:
            # The first one's time is the browser's own.
            return [_visit(browser, url, jpeg) for _ in range(visits + 1)][1:]
        finally:
            browser.close()


def _visit(browser: Browser, url: str, jpeg: bytes) -> Visit:
    context = browser.new_context()
    try:
        page = context.new_page()
        came: list[Response] = []
        errors: list[str] = []
        page.on("response", lambda response: came.append(response))
        page.on("requestfailed", lambda request: errors.append(f"{request.url}: {request.failure}"))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(url, wait_until="networkidle")
        errors += [f"{response.status} {response.url}" for response in came if not response.ok]
        errors += [f"another host: {response.url}" for response in came if not response.url.startswith(url)]
        if errors:
            raise BenchmarkFailed("; ".join(errors))
        fetched = [len(response.body()) for response in came]
        painted = float(page.evaluate(PAINTED))
        answered = float(page.evaluate(ANSWERED, base64.b64encode(jpeg).decode()))
        return Visit(len(fetched), sum(fetched), painted, answered)
    finally:
        context.close()


if __name__ == "__main__":
    app(prog_name="python -m benchmarks.page")
