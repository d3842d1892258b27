"""A version's report, as training wrote it: the files that the manifest lists below `report/`, and no other."""

from __future__ import annotations

import hashlib
from pathlib import Path as FilePath
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, Path, Response
from fastapi.responses import RedirectResponse

from service import errors
from service.http.bodies import BINARY
from service.http.errors import responses
from service.http.etags import ETAG, IfNoneMatch, unless_held
from service.http.native import Nothing, Service
from service.repository import Version

router = APIRouter()

FOLDER, PAGE = "report", "index.html"
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".json": "application/json",
}
HEADERS = {
    # The page's pictures are beside it and its style is inside; it runs nothing and asks no other host.
    "content-security-policy": "default-src 'none'; img-src 'self'; style-src 'unsafe-inline'",
    # Kept by browsers, but asked for again: a folder of the same version may be replaced.
    "cache-control": "no-cache",
}

REFUSALS = (
    errors.UnknownModel,
    errors.UnknownVersion,
    errors.ModelUnavailable,
    errors.UnknownReport,
    errors.InvalidRequest,
)
FOUND: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The file.",
        "headers": ETAG,
        "content": {
            "text/html": {"schema": {"type": "string"}, "example": "<!doctype html><title>Report</title>"},
            "application/json": {"schema": {}, "example": {}},
            "image/png": {"schema": BINARY},
            "image/jpeg": {"schema": BINARY},
        },
    },
    304: {"description": "The client's copy is still right.", "headers": ETAG},
}
MOVED: dict[int | str, dict[str, Any]] = {
    307: {
        "description": "Where the page is.",
        "headers": {"Location": {"schema": {"type": "string"}, "example": f"{FOLDER}/"}},
    }
}


@router.head("/models/{model}/versions/{version}/report", include_in_schema=False)
@router.get(
    "/models/{model}/versions/{version}/report",
    summary="One version's report",
    status_code=307,
    response_class=RedirectResponse,
    responses=MOVED | responses(*REFUSALS),
)
async def report(model: str, version: Annotated[int, Path(ge=1)], query: Nothing, service: Service) -> RedirectResponse:
    """Leads to the page `report/`, what training measured: figures, and pictures beside it."""
    _promised(service.repository.find(model, version), PAGE)
    # Relative: a proxy may serve this under another path.
    return RedirectResponse(f"{FOLDER}/", 307)


@router.head("/models/{model}/versions/{version}/report/", include_in_schema=False)
@router.get("/models/{model}/versions/{version}/report/", include_in_schema=False)
async def page(
    model: str,
    version: Annotated[int, Path(ge=1)],
    query: Nothing,
    service: Service,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """The page itself."""
    return await _file(service.repository.find(model, version), PAGE, if_none_match)


@router.head("/models/{model}/versions/{version}/report/{file}", include_in_schema=False)
@router.get(
    "/models/{model}/versions/{version}/report/{file}",
    summary="A file of one version's report",
    response_class=Response,
    responses=FOUND | responses(*REFUSALS),
)
async def file(
    model: str,
    version: Annotated[int, Path(ge=1)],
    file: str,
    query: Nothing,
    service: Service,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """`index.html`, one of its pictures, or `report.json`: the same figures for programs."""
    return await _file(service.repository.find(model, version), file, if_none_match)


def _promised(version: Version, name: str) -> str:
    """The sha256 of a file of the report.

    Raises:
        UnknownReport: the manifest lists no such file.
    """
    digest = version.manifest.files.get(f"{FOLDER}/{name}")
    if digest is None:
        files = version.manifest.files
        listed = sorted(path.removeprefix(f"{FOLDER}/") for path in files if path.startswith(f"{FOLDER}/"))
        of = f"{version.manifest.name}/{version.manifest.version}"
        raise errors.UnknownReport(
            f"expected one of {', '.join(listed)} of {of}, got {name!r}" if listed else f"{of} has no report"
        )
    return digest


async def _file(version: Version, name: str, if_none_match: str | None) -> Response:
    digest = _promised(version, name)
    path = version.folder / FOLDER / name
    headers = {**HEADERS, "etag": f'"{digest}"'}

    async def send() -> Response:
        content = await anyio.to_thread.run_sync(_read, path, digest)
        return Response(content, media_type=MEDIA_TYPES.get(path.suffix, "application/octet-stream"), headers=headers)

    return await unless_held(headers, if_none_match, send)


def _read(path: FilePath, digest: str) -> bytes:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise errors.UnknownReport(f"{path.name} is gone since the version was loaded") from None
    if hashlib.sha256(content).hexdigest() != digest:
        raise errors.UnknownReport(f"{path.name} has changed since the version was loaded")
    return content
