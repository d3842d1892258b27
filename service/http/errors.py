"""One table from error to status, one shape for every error: RFC 9457 `application/problem+json`.

Under `/v1` and `/v2` errors have the form, and where they differ the statuses, of the protocols that are spoken there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from math import ceil
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from service import errors
from service.http.schemas import Problem
from service.metrics import Metrics
from service.problems import described

PROBLEM_TYPE = "application/problem+json"

STATUS: dict[type[errors.ServiceError], int] = {
    errors.Unauthenticated: 401,
    errors.RateLimited: 429,
    errors.MalformedRequest: 400,
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
    errors.Forbidden: 403,
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
    errors.Interrupted: 410,
    errors.Overloaded: 503,
    errors.Draining: 503,
    errors.DeadlineExceeded: 504,
    errors.ExplainerDied: 503,
    errors.ModelUnavailable: 503,
    errors.LabelsNotWritten: 503,
    errors.StoreUnavailable: 503,
    errors.InferenceFailed: 500,
    errors.ExplanationFailed: 500,
    errors.StartupFailed: 500,
}
KEY_ERRORS = (errors.Unauthenticated, errors.Forbidden, errors.RateLimited)
KINDS = {kind.code: kind for kind in STATUS}
# TF Serving REST and the Open Inference Protocol.
PROTOCOL = re.compile(r"/v[12](/|$)", re.IGNORECASE)
# Both derive their statuses from gRPC's codes: INVALID_ARGUMENT, and RESOURCE_EXHAUSTED.
PROTOCOL_STATUS = {
    errors.InvalidRequest.code: 400,
    errors.NoImage.code: 400,
    errors.TooManyImages.code: 400,
    errors.EmptyImage.code: 400,
    errors.BrokenImage.code: 400,
    errors.UnsupportedImage.code: 400,
    errors.ImageTooLarge.code: 400,
    errors.Overloaded.code: 429,
}
# Characters of all that is told of what came.
MOST_DETAIL = 1000
# What the framework itself refuses.
FRAMEWORK_CODES = {404: "not_found", 405: "method_not_allowed"}

log = structlog.get_logger()


def install(app: FastAPI) -> None:
    """Answer every expected failure of `app` with a problem."""
    app.add_exception_handler(errors.ServiceError, _service_error)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(HTTPException, _framework_error)


BUG = Problem(
    title="The service made a mistake", status=500, detail="the request could not be answered", code="internal_error"
)


class ErrorResponse(JSONResponse):
    """A problem, in the form of the protocol that the request speaks."""

    def __init__(self, scope: Scope, problem: Problem, headers: Mapping[str, str] | None = None) -> None:
        if speaks_protocol(scope):
            status = PROTOCOL_STATUS.get(problem.code, problem.status)
            super().__init__({"error": problem.detail}, status, headers)
        else:
            super().__init__(problem.model_dump(), problem.status, headers, PROBLEM_TYPE)
        self.code = problem.code


def speaks_protocol(scope: Scope) -> bool:
    """Whether a request is of one of the other projects' protocols."""
    path: str = scope["path"]
    return PROTOCOL.match(path.removeprefix(scope.get("root_path", ""))) is not None


def bug(scope: Scope) -> ErrorResponse:
    """The answer to an exception that nobody expected; its text stays inside."""
    return ErrorResponse(scope, BUG)


def failure(scope: Scope, error: errors.ServiceError) -> ErrorResponse:
    """The answer to an expected failure."""
    headers: dict[str, str] = {}
    if isinstance(error, errors.Unavailable):
        headers["retry-after"] = str(ceil(error.retry_after))
    if isinstance(error, errors.Unauthenticated):
        headers["www-authenticate"] = "Bearer"
    if isinstance(error, (errors.MalformedRequest, errors.BodyTooLarge, errors.BodyTooSlow, errors.Draining)):
        # The rest of the body is not read.
        headers["connection"] = "close"
    return ErrorResponse(scope, problem_of(error), headers)


async def answer(response: ErrorResponse, metrics: Metrics, scope: Scope, receive: Receive, send: Send) -> None:
    """Count an error and send it, before or beside the framework, which does both by itself."""
    metrics.errors.labels(response.code).inc()
    await response(scope, receive, send)


def failed(code: str, detail: str) -> errors.ServiceError:
    """An expected failure that was written down, again."""
    return KINDS.get(code, errors.ExplanationFailed)(detail)


def problem_of(error: errors.ServiceError) -> Problem:
    """What is told of an expected failure."""
    detail = str(error)
    return _described(type(error), detail if len(detail) <= MOST_DETAIL else f"{detail[:MOST_DETAIL]}…")


def problem_of_ended(error: errors.ServiceError) -> Problem:
    """What is told of an expected failure of what is over: no waiting helps."""
    problem = problem_of(error)
    return problem.model_copy(update={"status": 410}) if isinstance(error, errors.Unavailable) else problem


def gone(request: Request, error: errors.ServiceError) -> ErrorResponse:
    """The answer to who asks for what is over, and has failed.

    Raises:
        ServiceError: the failure itself, where the same request would fail again.
    """
    if not isinstance(error, errors.Unavailable):
        raise error
    return _counted(request, ErrorResponse(request.scope, problem_of_ended(error)))


def responses(
    *kinds: type[errors.ServiceError], ended: Sequence[type[errors.Unavailable]] = ()
) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's `responses` of a call that may fail in these ways, each with an example.

    Any may fail for want of a key, or by a bug.
    `ended`: why what is asked for may have failed for good.
    """
    documented: dict[int | str, dict[str, Any]] = {}
    problems = [_described(kind, kind.__doc__ or "") for kind in (*kinds, *KEY_ERRORS)]
    problems += [problem_of_ended(kind(kind.__doc__ or "")) for kind in ended]
    for problem in [*problems, BUG]:
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


async def _service_error(request: Request, error: Exception) -> ErrorResponse:
    assert isinstance(error, errors.ServiceError)
    if isinstance(error, errors.Fault):
        log.error(error.code, exc_info=error)
    return _counted(request, failure(request.scope, error))


async def _invalid_request(request: Request, error: Exception) -> ErrorResponse:
    assert isinstance(error, RequestValidationError)
    detail = "; ".join(map(described, error.errors()))
    return _counted(request, failure(request.scope, errors.InvalidRequest(detail)))


async def _framework_error(request: Request, error: Exception) -> ErrorResponse:
    assert isinstance(error, HTTPException)
    if error.status_code == HTTPStatus.BAD_REQUEST:
        # FastAPI's answer to a body that it cannot decode; what it cannot parse is a RequestValidationError.
        return _counted(request, failure(request.scope, errors.InvalidRequest("body: expected JSON in UTF-8")))
    title, asked = HTTPStatus(error.status_code).phrase, f"{request.method} {request.url.path}"
    if allowed := (error.headers or {}).get("Allow"):
        detail = f"expected {allowed}, got {asked}"
    else:
        detail = f"{asked}: {title if speaks_protocol(request.scope) else 'see /docs for what there is'}"
    problem = Problem(
        title=title,
        status=error.status_code,
        detail=detail,
        code=FRAMEWORK_CODES.get(error.status_code, "http_error"),
    )
    return _counted(request, ErrorResponse(request.scope, problem, error.headers))


def _counted(request: Request, answer: ErrorResponse) -> ErrorResponse:
    request.app.state.classifier.metrics.errors.labels(answer.code).inc()
    return answer
