"""Explanations that come later: ask, watch, fetch, cancel."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import StreamingResponse
from pydantic import TypeAdapter, ValidationError

from service import errors
from service.classifier import Classifier
from service.explain.explanations import Asked
from service.explain.explanations import Picture as PictureOf
from service.explain.jobs import Look
from service.explain.records import Record
from service.http.bodies import BINARY, BODY_ERRORS, PICTURE_BODY, in_time
from service.http.disconnect import until_gone
from service.http.errors import failed, gone, responses
from service.http.etags import IfNoneMatch, unless_held
from service.http.explain import (
    EXPLAIN_ERRORS,
    HELD,
    LATER,
    RESULT,
    Wanted,
    check_method,
    diverted,
    itself,
    job_answer,
    known,
    later,
    named,
    png_answer,
    read_checked,
    restyled,
    shown,
    wanted,
)
from service.http.native import Nothing, Service
from service.http.schemas import ExplanationJob, JobQuery, ResultQuery

router = APIRouter()

# Longer JSON is a picture.
MAX_PARAMETERS = 4096
OBJECT: TypeAdapter[dict[str, Any]] = TypeAdapter(dict[str, Any])
REFUSALS = (errors.UnknownExplanation, errors.InvalidRequest)
NO_STORE = {"cache-control": "no-store"}
JOB_BODY: dict[str, Any] = {
    "required": False,
    "content": PICTURE_BODY["content"]
    | {
        "application/json": {
            "schema": {"anyOf": [JobQuery.model_json_schema(), PICTURE_BODY["content"]["application/json"]["schema"]]},
            "example": {
                "image_id": "e55d901371482da3e7b130029d19bd89fab155dfed8ac5bf4d95d8f9463f5a7d",
                "model": "fruit_cnn",
                "samples": 1000,
            },
        }
    },
}
EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Server-sent events, each with the job as its data.",
        "content": {
            "text/event-stream": {
                # Before 3.2 OpenAPI has no word for one item of a stream: by use, this is what each event is.
                "schema": {
                    "type": "object",
                    "required": ["event", "id", "data"],
                    "properties": {
                        "event": {"enum": ["progress", "done", "failed", "cancelled"]},
                        "id": {"type": "string", "description": "The job's revision."},
                        "data": {"type": "string", "contentMediaType": "application/json"},
                    },
                },
                "example": {"event": "done", "id": "4", "data": '{"state": "done"}'},
            }
        },
    }
}
PREVIEW: dict[int | str, dict[str, Any]] = {
    200: {"description": "The drawing.", "content": {"image/png": {"schema": BINARY}}}
}

JobId = Annotated[str, Path(description="As the job's `id`.")]


@router.post(
    "/explanations",
    summary="Ask for an explanation that comes later",
    status_code=202,
    response_class=Response,
    openapi_extra={"requestBody": JOB_BODY},
    responses=LATER | responses(*EXPLAIN_ERRORS, *BODY_ERRORS, errors.UnknownImage, errors.StoreUnavailable),
)
async def ask(request: Request, query: Annotated[JobQuery, Query()], service: Service) -> Response:
    """The parameters of `GET /explain`, in the query or as JSON; or those in the query and a picture in the body."""
    given = await _parameters(request, service.settings.timeout)
    if given is None and query.image_id is not None and _has_body(request):
        raise errors.InvalidRequest("expected `image_id` or a picture in the body, got both")
    query = given or query
    if query.image_id is None and not _has_body(request):
        raise errors.NoImage("expected `image_id` or a picture in the body, got neither")
    version = service.repository.find(query.model, query.version, query.image_id)
    want = wanted(query, version, query.image_id or "")
    if query.image_id is not None:
        async with service.picture(query.image_id) as data:
            return later(request, await service.explaining.jobs.start(*want, data, hold=False))
    data, image_id = await read_checked(request, service, keep=query.store)
    hold = not (query.store and service.images.holds(image_id))
    want = wanted(query, diverted(service, query, version, image_id), image_id)
    return later(request, await service.explaining.jobs.start(*want, data, hold=hold))


@router.head("/explanations/{job}", include_in_schema=False)
@router.get("/explanations/{job}", summary="How far an explanation is", responses=responses(*REFUSALS))
async def state(request: Request, response: Response, job: JobId, query: Nothing, service: Service) -> ExplanationJob:
    """Queued, running, done, failed or cancelled, and where to go on."""
    response.headers.update(NO_STORE)
    return job_answer(request, await service.explaining.jobs.find(job))


@router.delete("/explanations/{job}", summary="Cancel an explanation", responses=responses(*REFUSALS))
async def cancel(request: Request, response: Response, job: JobId, query: Nothing, service: Service) -> ExplanationJob:
    """Others who asked for the same still get it. A job that is over stays as it is."""
    response.headers.update(NO_STORE)
    return job_answer(request, await service.explaining.jobs.cancel(job))


@router.head("/explanations/{job}/result", include_in_schema=False)
@router.get(
    "/explanations/{job}/result",
    summary="What an explanation came to",
    response_class=Response,
    responses=RESULT
    | HELD
    | LATER
    | responses(
        *EXPLAIN_ERRORS,
        *REFUSALS,
        errors.UnknownImage,
        errors.StoreUnavailable,
        errors.ExplanationCancelled,
        errors.Interrupted,
        ended=(errors.DeadlineExceeded, errors.ExplainerDied, errors.Overloaded),
    ),
)
async def result(
    request: Request,
    job: JobId,
    query: Annotated[ResultQuery, Query()],
    service: Service,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """What `GET /explain` answers, drawn as it was asked for or as the query says; 202 while it is not done.
    410 where it was cancelled or cut short: nothing will become of it, and it may be asked for again.
    """
    record = await service.explaining.jobs.find(job)
    check_method(query, record.question.method)
    if record.failure is not None:
        return gone(request, failed(record.failure.code, record.failure.detail))
    if record.state == "cancelled":
        raise errors.ExplanationCancelled("expected an explanation that was not cancelled; ask for it again")
    if record.active:
        return later(request, record)
    want = _wanted(service, record, query)
    return await until_gone(request, unless_held(known(want), if_none_match, lambda: _result(service, record, want)))


@router.head("/explanations/{job}/preview", include_in_schema=False)
@router.get(
    "/explanations/{job}/preview",
    summary="What an explanation's samples so far say",
    response_class=Response,
    responses=PREVIEW
    | responses(*EXPLAIN_ERRORS, *REFUSALS, errors.UnknownImage, errors.StoreUnavailable, errors.NoPreview),
)
async def preview(request: Request, job: JobId, query: Annotated[ResultQuery, Query()], service: Service) -> Response:
    """A drawing of the latest preview; of the result, once there is one."""
    jobs = service.explaining.jobs
    record = await jobs.find(job)
    check_method(query, record.question.method)
    if query.format == "json":
        raise errors.InvalidRequest("expected no format but png, got json")
    want = _wanted(service, record, query)
    # Also of a job whose result is wanted as numbers.
    want = want._replace(look=want.look._replace(format="png"))
    if record.state == "done":
        return await until_gone(request, _result(service, record, want))
    found = await jobs.preview(job)
    if found is None:
        raise errors.NoPreview(f"expected an explanation that has samples, got one that is {record.state} without")
    async with AsyncExitStack() as held:
        drawn = service.explaining.explanations.draw(
            want.asked, found, want.look.style, _picture(service, record, held), keep=False
        )
        return Response(await until_gone(request, drawn), headers=NO_STORE, media_type="image/png")


@router.get(
    "/explanations/{job}/events",
    summary="An explanation's progress as it happens",
    response_class=Response,
    responses=EVENTS | responses(*REFUSALS),
)
async def events(request: Request, job: JobId, query: Nothing, service: Service) -> Response:
    """Server-sent events: `progress` with the job now and after each change, then `done`, `failed` or `cancelled`."""
    # An unknown job is answered as one, not by a stream that breaks.
    await service.explaining.jobs.find(job)
    return StreamingResponse(_events(request, service, job), headers=NO_STORE, media_type="text/event-stream")


async def _events(request: Request, service: Classifier, job: str) -> AsyncIterator[str]:
    async for record in service.explaining.jobs.watch(job):
        if record is None:
            yield ": still there\n\n"
        else:
            name = "progress" if record.active else record.state
            yield f"event: {name}\nid: {record.revision}\ndata: {job_answer(request, record).model_dump_json()}\n\n"


async def _parameters(request: Request, seconds: float) -> JobQuery | None:
    """A body's parameters, where it holds no picture."""
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    length = request.headers.get("content-length", "")
    if kind != "application/json" or (length.isdecimal() and int(length) > MAX_PARAMETERS):
        return None
    body = await in_time(request.body(), seconds)
    if len(body) > MAX_PARAMETERS:
        return None
    try:
        given = OBJECT.validate_json(body)
        if "image" in given:
            if beside := [name for name in given if name != "image"]:
                raise errors.InvalidRequest(
                    f"expected `image` alone and its parameters in the query, got it with {', '.join(beside)}"
                )
            return None
        if request.query_params:
            raise errors.InvalidRequest("expected parameters in the query or as JSON, got both")
        query = JobQuery.model_validate_json(body)
    except ValidationError as invalid:
        raise RequestValidationError([{**e, "loc": ("body", *e["loc"])} for e in invalid.errors()]) from None
    if query.image_id is None:
        raise errors.NoImage("expected `image_id` or `image`, got neither")
    return query


def _has_body(request: Request) -> bool:
    return request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers


def _wanted(service: Classifier, record: Record, query: ResultQuery) -> Wanted:
    version = service.repository.find(record.model, record.version)
    look = restyled(query, Look(record.style, record.format, record.label))
    return Wanted(Asked(record.image_id, version, record.question), look)


async def _result(service: Classifier, record: Record, want: Wanted) -> Response:
    explanations = service.explaining.explanations
    if want.look.format == "png" and (png := await explanations.kept_drawing(want.asked.drawing(want.look.style))):
        return png_answer(want, png, hit=True)
    explanation = await explanations.kept(record.result)
    if explanation is None or want.asked.name != record.result:
        raise errors.UnknownExplanation("expected an explanation that is kept, got one that is not any more; ask again")
    keep = service.explaining.jobs.picture(record.id) is None
    seconds = max(service.settings.timeout, service.settings.explain_wait)
    try:
        with anyio.fail_after(seconds):
            async with AsyncExitStack() as held:
                picture = _picture(service, record, held)
                return await shown(service, want, explanation, picture, hit=True, keep=keep)
    except TimeoutError:
        raise errors.DeadlineExceeded(f"not drawn within {seconds:g} s") from None


def _picture(service: Classifier, record: Record, held: AsyncExitStack) -> PictureOf:
    data = service.explaining.jobs.picture(record.id)
    return named(service, record.image_id, held) if data is None else itself(data)
