"""Pictures in, the same overlays, numbers and page out as without a server: a running service explains."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import anyio
import httpx

from service.client import AsyncClient, Explanation, SichtbarError
from service.client.calls import ExplainOptions
from service.commands.asking import FAILURES, HOPELESS, problem, progress
from service.commands.sources import Source, fetching
from service.errors import ModelRequired
from service.explain.folder import Explained, Sheet, write
from service.explain.question import Explanation as Numbers
from service.explain.question import HeatExplanation, LimeExplanation, Question, find_label
from service.explain.style import Style
from service.manifest import Manifest
from service.states import ACTIVE

# How long whoever interrupts may be kept, so that the service need not go on.
LEAVE_SECONDS = 5.0


async def explain_there(
    server: str,
    key: str | None,
    sources: Sequence[Source],
    out: Path,
    model: str | None,
    version: int | None,
    label: str | None,
    questions: Sequence[Question],
    style: Style,
) -> tuple[Path, list[Explained]]:
    """Let the service at an address explain, one picture after another; where the page is, and what was written.

    Raises:
        SichtbarError: the service does not answer, or would refuse every picture.
        UnknownLabel, ModelRequired: the question is none that can be asked there.
        NotWritten: the folder cannot be written.
    """
    async with AsyncClient(server, key=key) as client, fetching() as web:
        await client.live()
        manifest = await _meant(client, model, version)
        named = None if label is None else manifest.labels[find_label(manifest, label)]
        with Sheet(out, manifest) as sheet, progress() as bars:
            bar = bars.add_task(f"{len(sources)} pictures by {manifest.name}/{manifest.version} of {server}", total=1.0)
            explained: list[Explained] = []
            total = len(sources) * len(questions)

            def tell(share: float) -> None:
                bars.update(bar, completed=(len(explained) + share) / total)

            for source in sources:
                for question in questions:
                    options = _options(manifest, named, question, style)
                    one, numbers = await _explained(client, web, source, question, options, sheet, tell)
                    explained.append(one)
                    await asyncio.to_thread(sheet.add, one, numbers)
                    tell(0.0)
    return sheet.page, explained


async def _meant(client: AsyncClient, model: str | None, version: int | None) -> Manifest:
    """What is promised by the version that answers: every picture is explained by the same."""
    if model is None:
        listed = await client.models()
        if listed.default is None:
            names = ", ".join(model.name for model in listed.models)
            raise ModelRequired(f"expected --model, one of {names or 'none that is loaded'}; got none")
        model = listed.default
    number = (await client.layers(model)).version if version is None else version
    return (await client.card(model, number)).manifest


def _options(manifest: Manifest, label: str | None, question: Question, style: Style) -> ExplainOptions:
    options: ExplainOptions = {
        "model": manifest.name,
        "version": manifest.version,
        "label": label,
        "method": question.method,
        "style": style.style,
    }
    if question.method == "lime":
        options["samples"], options["seed"] = question.samples, question.seed
        options["polarity"], options["top_superpixels"] = style.polarity, style.top_superpixels
    return options


async def _explained(
    client: AsyncClient,
    web: httpx.AsyncClient,
    source: Source,
    question: Question,
    options: ExplainOptions,
    sheet: Sheet,
    tell: Callable[[float], None],
) -> tuple[Explained, Numbers | None]:
    """One picture by one question: what was written, and the numbers."""
    try:
        explanation = await _followed(client, await source.read(web), options, tell)
    except HOPELESS:
        raise
    except FAILURES as error:
        return Explained(source.name, question.method, None, problem(error).detail), None
    overlay = f"{source.name}.{question.method}.png"
    await asyncio.to_thread(write, sheet.out / overlay, explanation.png)
    return Explained(source.name, question.method, overlay), _numbers(explanation)


async def _followed(
    client: AsyncClient, picture: Path | bytes, options: ExplainOptions, tell: Callable[[float], None]
) -> Explanation:
    asked = asyncio.ensure_future(client.explain_later(picture, **options))
    job = None
    try:
        job = await asyncio.shield(asked)
        async for known in client.follow(job):
            job = known
            if job.progress is not None:
                tell(job.progress.done / job.progress.total)
    finally:
        # Whoever interrupts this waits for nothing any more, not for what he has just asked for either.
        with anyio.move_on_after(LEAVE_SECONDS, shield=True), suppress(SichtbarError):
            job = job or await asked
            if job.state in ACTIVE:
                await client.cancel(job)
    return await client.result(job)


def _numbers(explanation: Explanation) -> Numbers:
    """As they are written where nobody is asked."""
    kind = LimeExplanation if explanation.numbers.method == "lime" else HeatExplanation
    return kind.model_validate(explanation.numbers.model_dump(include=set(kind.model_fields)))
