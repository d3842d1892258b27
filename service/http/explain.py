"""Explain: a question about a picture in, a drawing or numbers out, or where they will be."""

from __future__ import annotations

import hashlib
from contextlib import AsyncExitStack
from typing import Annotated, Any, NamedTuple

import anyio
from fastapi import APIRouter, Query, Request, Response

from service import errors
from service.classifier import Classifier
from service.explain.explanations import Asked
from service.explain.explanations import Picture as PictureOf
from service.explain.flights import landed
from service.explain.jobs import Look
from service.explain.question import Explanation, Question, find_label
from service.explain.records import Format, Record
from service.explain.style import Style
from service.http.bodies import BINARY, BODY_ERRORS, IMAGE_ERRORS, PICTURE_BODY, read_picture
from service.http.disconnect import until_gone
from service.http.errors import failed, problem_of_ended, responses
from service.http.etags import CACHE, ETAG, IfNoneMatch, unless_held
from service.http.native import Service, address
from service.http.schemas import (
    ExplainBodyQuery,
    ExplainQuery,
    ExplanationJob,
    ExplanationQuery,
    HeatAnswer,
    JobLinks,
    JobProgress,
    LimeAnswer,
    ResultQuery,
)
from service.repository import Version

router = APIRouter()

LIME_ONLY = ("samples", "seed", "superpixels", "fill", "polarity", "top_superpixels")
# Drawing gets as long, also where no time is left of the wait.
DRAW_SECONDS = 1.0
RETRY_AFTER = {"retry-after": "1"}

EXPLAIN_ERRORS = (
    *IMAGE_ERRORS,
    errors.BodyTooLarge,
    errors.InvalidRequest,
    errors.ModelRequired,
    errors.UnknownModel,
    errors.UnknownVersion,
    errors.ModelUnavailable,
    errors.UnknownLabel,
    errors.Overloaded,
    errors.Draining,
    errors.DeadlineExceeded,
    errors.ExplainerDied,
    errors.ExplanationFailed,
)
RESULT: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The drawing, or with `format=json` its numbers.",
        "headers": ETAG | CACHE,
        "model": LimeAnswer | HeatAnswer,
        "content": {
            "image/png": {"schema": BINARY},
            "application/json": {"example": LimeAnswer.model_config["json_schema_extra"]["example"]},  # type: ignore[index]
        },
    }
}
HELD: dict[int | str, dict[str, Any]] = {
    304: {"description": "The client's copy is still right.", "headers": ETAG | CACHE}
}
LATER: dict[int | str, dict[str, Any]] = {
    202: {
        "description": "It takes longer; this is where it will be.",
        "model": ExplanationJob,
        "headers": {"Location": {"description": "The job.", "schema": {"type": "string"}}},
    }
}


class Wanted(NamedTuple):
    """A question, and how its answer is wanted."""

    asked: Asked
    look: Look


def wanted(query: ExplanationQuery, version: Version, image_id: str) -> Wanted:
    """Read a query.

    Raises:
        InvalidRequest: a parameter does not belong to the method.
        UnknownLabel: the version has no such class.
    """
    check_method(query, query.method)
    index = None if query.label is None else find_label(version.manifest, query.label)
    lime: dict[str, Any] = {name: getattr(query, name) for name in ("samples", "seed", "superpixels")}
    question = Question(method=query.method, class_index=index, **lime, fill=query.fill or Question().fill)
    label = None if index is None else version.manifest.labels[index]
    return Wanted(Asked(image_id, version, question), restyled(query, Look(Style(), "png", label)))


def diverted(service: Classifier, query: ExplanationQuery, version: Version, image_id: str) -> Version:
    """The version that answers for a picture, where none is asked for."""
    return version if query.version is not None else service.repository.divert(version, lambda: image_id)


def restyled(query: ResultQuery, look: Look) -> Look:
    """How a result is wanted, where the query says it."""
    names = ("style", "polarity", "opacity", "size")
    changes: dict[str, Any] = {name: value for name in names if (value := getattr(query, name)) is not None}
    if query.top_superpixels is not None:
        changes["top_superpixels"] = query.top_superpixels or None
    form: Format = query.format or look.format
    return look._replace(style=look.style._replace(**changes), format=form)


def check_method(query: ResultQuery, method: str) -> None:
    """Refuse what only LIME takes.

    Raises:
        InvalidRequest: a parameter does not belong to the method.
    """
    if method == "lime":
        return
    if foreign := [name for name in LIME_ONLY if getattr(query, name, None) is not None]:
        raise errors.InvalidRequest(
            f"expected none of LIME's own parameters with method={method}, got {', '.join(foreign)}"
        )


@router.head("/explain", include_in_schema=False)
@router.get(
    "/explain",
    summary="Why a model says what it says of a kept picture",
    response_class=Response,
    responses=RESULT | HELD | LATER | responses(*EXPLAIN_ERRORS, errors.UnknownImage, errors.StoreUnavailable),
)
async def explain(
    request: Request,
    query: Annotated[ExplainQuery, Query()],
    service: Service,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """By LIME, which superpixels speak for a class and against it; by Grad-CAM, where a layer does. The same picture,
    version and parameters give the same bytes. What takes longer than `wait` goes on as a job.
    """
    want = wanted(query, service.repository.find(query.model, query.version, query.image_id), query.image_id)

    async def answer() -> Response:
        async with AsyncExitStack() as held:
            picture = named(service, query.image_id, held)
            return await _answer(request, service, want, query.wait, picture, hold=False)

    return await until_gone(request, unless_held(known(want), if_none_match, answer))


@router.post(
    "/explain",
    summary="Why a model says what it says of a picture",
    response_class=Response,
    openapi_extra={"requestBody": PICTURE_BODY},
    responses=RESULT | LATER | responses(*EXPLAIN_ERRORS, *BODY_ERRORS),
)
async def explain_body(request: Request, query: Annotated[ExplainBodyQuery, Query()], service: Service) -> Response:
    """As `GET /explain`, with one picture in the body as `POST /predict` takes it; it is kept for further questions
    unless `store` is false.
    """
    # What is wrong with the question is said before a body is read.
    version = service.repository.find(query.model, query.version)
    wanted(query, version, "")
    data, image_id = await read_checked(request, service, keep=query.store)
    want = wanted(query, diverted(service, query, version, image_id), image_id)
    hold = not (query.store and service.images.holds(image_id))
    return await until_gone(request, _answer(request, service, want, query.wait, itself(data), hold=hold))


async def read_checked(request: Request, service: Classifier, *, keep: bool) -> tuple[bytes, str]:
    """The one picture of a request's body, which can be decoded, and its id; `keep`: for further questions.

    Raises:
        BodyTooSlow: it did not arrive in time.
        ClientError: it is none, or not one.
        Overloaded, DeadlineExceeded: see `Classifier.check`.
    """
    picture = await read_picture(request, service.settings.timeout)
    return picture.data, await until_gone(request, service.check(picture, keep=keep))


def itself(data: bytes) -> PictureOf:
    """A picture that is at hand."""

    async def get() -> bytes:
        return data

    return get


def named(service: Classifier, image_id: str, held: AsyncExitStack) -> PictureOf:
    """A kept picture; once it is read, it is in hand until `held` ends."""
    return lambda: held.enter_async_context(service.picture(image_id))


async def _answer(
    request: Request, service: Classifier, want: Wanted, wait: float | None, picture: PictureOf, *, hold: bool
) -> Response:
    asked, look = want
    explanations = service.explaining.explanations
    if look.format == "png" and (png := await explanations.kept_drawing(asked.drawing(look.style))):
        return png_answer(want, png, hit=True)
    wait = service.settings.explain_wait if wait is None else wait
    deadline = anyio.current_time() + wait
    explanation = await explanations.kept(asked.name)
    hit = explanation is not None
    if explanation is None or look.format == "png":
        picture = itself(await picture())
    if explanation is None:
        data = await picture()
        flight = explanations.join(asked, data)
        try:
            with anyio.move_on_after(wait):
                explanation = await landed(flight)
            if explanation is None:
                # From now on the job waits for it, too.
                return later(request, await service.explaining.jobs.start(asked, look, data, hold=hold))
        finally:
            explanations.leave(flight)
    with anyio.move_on_after(max(DRAW_SECONDS, deadline - anyio.current_time())):
        return await shown(service, want, explanation, picture, hit=hit, keep=not hold)
    # Its job is done, and draws when its result is fetched.
    return later(request, await service.explaining.jobs.start(asked, look, await picture(), hold=hold))


async def shown(
    service: Classifier, want: Wanted, explanation: Explanation, picture: PictureOf, *, hit: bool, keep: bool
) -> Response:
    """The answer with an explanation: its numbers, or a drawing of it, which is kept where its picture is.

    Raises:
        UnknownImage: the picture is not kept any more, nor the drawing.
    """
    asked, look = want
    if look.format == "json":
        return _json(want, explanation, hit=hit)
    png = await service.explaining.explanations.draw(asked, explanation, look.style, picture, keep=keep)
    return png_answer(want, png, hit=False)


def later(request: Request, record: Record) -> Response:
    """Where the answer will be."""
    job = job_answer(request, record)
    return Response(
        job.model_dump_json(),
        202,
        {"location": job.links.self, "cache-control": "no-store", **RETRY_AFTER},
        media_type="application/json",
    )


def job_answer(request: Request, record: Record) -> ExplanationJob:
    """What is told of a job."""
    place = address(request, f"/explanations/{record.id}")
    failure = record.failure
    return ExplanationJob(
        **record.model_dump(
            include={"id", "state", "image_id", "model", "version", "label", "created", "ahead", "started", "finished"}
        ),
        method=record.question.method,
        progress=JobProgress(**record.progress.model_dump()) if record.progress else None,
        error=problem_of_ended(failed(failure.code, failure.detail)) if failure else None,
        links=JobLinks(
            self=place,
            events=f"{place}/events",
            preview=f"{place}/preview" if record.preview or record.state == "done" else None,
            result=f"{place}/result" if record.state == "done" else None,
        ),
    )


def _etag(want: Wanted) -> str:
    """Strong: what decides an answer's bytes."""
    asked, look = want
    name = asked.name if look.format == "json" else asked.drawing(look.style)
    return f'"{hashlib.sha256(name.encode()).hexdigest()}"'


def known(want: Wanted) -> dict[str, str]:
    """What is said of an answer to a client who has it: known by its name alone."""
    return _headers(want, hit=True)


def png_answer(want: Wanted, png: bytes, *, hit: bool) -> Response:
    """A drawing."""
    return Response(png, headers=_headers(want, hit=hit), media_type="image/png")


def _json(want: Wanted, explanation: Explanation, *, hit: bool) -> Response:
    manifest = want.asked.version.manifest
    about: dict[str, Any] = {
        "image_id": want.asked.image_id,
        "model": manifest.name,
        "version": manifest.version,
        "label": manifest.labels[explanation.class_index],
    }
    numbers = explanation.model_dump()
    answer = LimeAnswer(**about, **numbers) if explanation.method == "lime" else HeatAnswer(**about, **numbers)
    return Response(answer.model_dump_json(), headers=_headers(want, hit=hit), media_type="application/json")


def _headers(want: Wanted, *, hit: bool) -> dict[str, str]:
    # A browser asks again: of a model named without a version, another one may answer by then.
    return {"etag": _etag(want), "cache-control": "private, no-cache", "x-cache": "hit" if hit else "miss"}
