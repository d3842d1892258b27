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
    errors.Overloaded: 503,
    errors.Draining: 503,
    errors.DeadlineExceeded: 504,
    errors.InferenceFailed: 500,
    errors.StartupFailed: 500,
}
RETRY_AFTER_SECONDS = 1
# What the framework itself refuses.
FRAMEWORK_CODES = {404: "not_found", 405: "method_not_allowed"}

log = structlog.get_logger()


def install(app: FastAPI) -> None:
    """Answer every expected failure of `app` with a problem."""
    app.add_exception_handler(errors.ServiceError, _service_error)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(HTTPException, _framework_error)


def bug() -> JSONResponse:
    """The answer to an exception that nobody expected; its text stays inside."""
    return _problem(500, "internal_error", "The service made a mistake", "the request could not be answered")


def responses(*kinds: type[errors.ServiceError]) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's `responses` of a call that may fail in these ways, each with an example; any call may fail by a bug."""
    documented: dict[int | str, dict[str, Any]] = {}
    for kind in kinds:
        status = STATUS[kind]
        _document(documented, status, kind.code, _example(status, kind.code, _title(kind), kind.__doc__ or ""))
    _document(
        documented,
        500,
        "internal_error",
        _example(500, "internal_error", "The service made a mistake", "the request could not be answered"),
    )
    return documented


def _document(documented: dict[int | str, dict[str, Any]], status: int, code: str, example: dict[str, Any]) -> None:
    entry = documented.setdefault(
        status,
        {
            "description": HTTPStatus(status).phrase,
            "content": {PROBLEM_TYPE: {"schema": Problem.model_json_schema(), "examples": {}}},
        },
    )
    entry["content"][PROBLEM_TYPE]["examples"][code] = {"value": example}


def _example(status: int, code: str, title: str, detail: str) -> dict[str, Any]:
    return Problem(title=title, status=status, detail=detail, code=code).model_dump()


async def _service_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, errors.ServiceError)
    status = STATUS[type(error)]
    if isinstance(error, errors.Fault):
        log.error(error.code, exc_info=error)
    headers = {"retry-after": str(RETRY_AFTER_SECONDS)} if isinstance(error, errors.Unavailable) else None
    if isinstance(error, errors.BodyTooLarge):
        # The rest of the body is not read.
        headers = {"connection": "close"}
    request.app.state.classifier.metrics.errors.labels(error.code).inc()
    return _problem(status, error.code, _title(type(error)), str(error), headers)


async def _invalid_request(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    detail = "; ".join(f"{'.'.join(map(str, p['loc']))}: {p['msg']}, got {p.get('input')!r}" for p in error.errors())
    return await _service_error(request, errors.InvalidRequest(detail))


async def _framework_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    code = FRAMEWORK_CODES.get(error.status_code, "http_error")
    detail = f"{request.method} {request.url.path}: see /docs for what there is"
    return _problem(error.status_code, code, HTTPStatus(error.status_code).phrase, detail, error.headers)


def _problem(status: int, code: str, title: str, detail: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    body = Problem(title=title, status=status, detail=detail, code=code).model_dump()
    return JSONResponse(body, status, headers, PROBLEM_TYPE)


def _title(kind: type[errors.ServiceError]) -> str:
    return (kind.__doc__ or "").rstrip(".")
