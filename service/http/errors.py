"""One table from error to status, one shape for every error: RFC 9457 `application/problem+json`."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from service import errors
from service.http.schemas import Problem

PROBLEM_TYPE = "application/problem+json"

STATUS: dict[type[errors.ServiceError], int] = {
    errors.BodyTooLarge: 413,
    errors.BodyTooSlow: 408,
    errors.InvalidRequest: 422,
    errors.UnsupportedMediaType: 415,
    errors.NoImage: 422,
    errors.TooManyImages: 422,
    errors.EmptyImage: 422,
    errors.BrokenImage: 422,
    errors.UnsupportedImage: 415,
    errors.ImageTooLarge: 413,
    errors.ModelRequired: 422,
    errors.UnknownModel: 404,
    errors.UnknownVersion: 404,
    errors.UnknownReport: 404,
    errors.UnknownImage: 404,
    errors.UnknownLabel: 404,
    errors.UnknownLayer: 404,
    errors.UnknownExplanation: 404,
    errors.NoPreview: 404,
    errors.ExplanationCancelled: 410,
    errors.Overloaded: 503,
    errors.Draining: 503,
    errors.DeadlineExceeded: 504,
    errors.ExplainerDied: 503,
    errors.Interrupted: 503,
    errors.StoreUnavailable: 503,
    errors.InferenceFailed: 500,
    errors.ExplanationFailed: 500,
    errors.StartupFailed: 500,
}
KINDS = {kind.code: kind for kind in STATUS}
RETRY_AFTER_SECONDS = 1
# What the framework itself refuses.
FRAMEWORK_CODES = {404: "not_found", 405: "method_not_allowed"}

log = structlog.get_logger()


def install(app: FastAPI) -> None:
    """Answer every expected failure of `app` with a problem."""
    app.add_exception_handler(errors.ServiceError, _service_error)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(HTTPException, _framework_error)


class ProblemResponse(JSONResponse):
    """One problem, as RFC 9457 has it."""

    media_type = PROBLEM_TYPE

    def __init__(self, problem: Problem, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(problem.model_dump(), problem.status, headers)
        self.code = problem.code


BUG = Problem(
    title="The service made a mistake", status=500, detail="the request could not be answered", code="internal_error"
)


def bug() -> ProblemResponse:
    """The answer to an exception that nobody expected; its text stays inside."""
    return ProblemResponse(BUG)


def service_problem(error: errors.ServiceError) -> ProblemResponse:
    """The answer to an expected failure."""
    headers: dict[str, str] = {}
    if isinstance(error, errors.Unavailable):
        headers["retry-after"] = str(RETRY_AFTER_SECONDS)
    if isinstance(error, (errors.BodyTooLarge, errors.BodyTooSlow, errors.Draining)):
        # The rest of the body is not read.
        headers["connection"] = "close"
    return ProblemResponse(problem_of(error), headers)


def failed(code: str, detail: str) -> errors.ServiceError:
    """An expected failure that was written down, again."""
    return KINDS.get(code, errors.ExplanationFailed)(detail)


def problem_of(error: errors.ServiceError) -> Problem:
    """What is told of an expected failure."""
    return _described(type(error), str(error))


def responses(*kinds: type[errors.ServiceError]) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's `responses` of a call that may fail in these ways, each with an example; any call may fail by a bug."""
    documented: dict[int | str, dict[str, Any]] = {}
    for problem in [*(_described(kind, kind.__doc__ or "") for kind in kinds), BUG]:
        entry = documented.setdefault(
            problem.status,
            {
                "description": HTTPStatus(problem.status).phrase,
                "content": {PROBLEM_TYPE: {"schema": Problem.model_json_schema(), "examples": {}}},
            },
        )
        entry["content"][PROBLEM_TYPE]["examples"][problem.code] = {"value": problem.model_dump()}
    return documented


def _described(kind: type[errors.ServiceError], detail: str) -> Problem:
    return Problem(title=(kind.__doc__ or "").rstrip("."), status=STATUS[kind], detail=detail, code=kind.code)


async def _service_error(request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, errors.ServiceError)
    if isinstance(error, errors.Fault):
        log.error(error.code, exc_info=error)
    return _counted(request, service_problem(error))


async def _invalid_request(request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, RequestValidationError)
    detail = "; ".join(f"{'.'.join(map(str, p['loc']))}: {p['msg']}, got {p.get('input')!r}" for p in error.errors())
    return _counted(request, service_problem(errors.InvalidRequest(detail)))


async def _framework_error(request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, HTTPException)
    problem = Problem(
        title=HTTPStatus(error.status_code).phrase,
        status=error.status_code,
        detail=f"{request.method} {request.url.path}: see /docs for what there is",
        code=FRAMEWORK_CODES.get(error.status_code, "http_error"),
    )
    return _counted(request, ProblemResponse(problem, error.headers))


def _counted(request: Request, problem: ProblemResponse) -> ProblemResponse:
    request.app.state.classifier.metrics.errors.labels(problem.code).inc()
    return problem
