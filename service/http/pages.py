"""For people with a browser: the page, which asks no host but this service."""

from __future__ import annotations

import ast
import hashlib
import json
import mimetypes
from functools import cache
from pathlib import Path
from typing import NamedTuple, get_args

import anyio
from fastapi import APIRouter, HTTPException, Response

from service.choices import Method
from service.http.etags import IfNoneMatch, unless_held

router = APIRouter()

FOLDER = Path(__file__).parent.parent / "web"
START = "index.html"
METHODS = "methods.json"
HEADERS = {
    # Its scripts and styles are files of its own; pictures are also shown from the memory of the page.
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
    # Kept by browsers, but asked for again: the next version of the service brings its own.
    "cache-control": "no-cache",
}
# Systems may lack these, or call them otherwise.
MEDIA_TYPES = {".js": "text/javascript", ".json": "application/json", ".svg": "image/svg+xml"}


class _File(NamedTuple):
    content: bytes
    media_type: str
    etag: str


@router.head("/", include_in_schema=False)
@router.get("/", include_in_schema=False)
async def start(if_none_match: IfNoneMatch = None) -> Response:
    """The page itself. What its address asks for, it reads by itself."""
    return await file(START, if_none_match)


@router.head("/web/{name:path}", include_in_schema=False)
@router.get("/web/{name:path}", include_in_schema=False)
async def file(name: str, if_none_match: IfNoneMatch = None) -> Response:
    """What the page is made of."""
    files = await anyio.to_thread.run_sync(_files)
    if name not in files:
        raise HTTPException(404)
    found = files[name]
    headers = {**HEADERS, "etag": found.etag}

    async def send() -> Response:
        return Response(found.content, headers=headers, media_type=found.media_type)

    return await unless_held(headers, if_none_match, send)


@cache
def _files() -> dict[str, _File]:
    """All of them, by their path below the folder; and which methods explain, with what each says of itself."""
    found = {path.relative_to(FOLDER).as_posix(): path.read_bytes() for path in FOLDER.rglob("*") if path.is_file()}
    found[METHODS] = json.dumps({method: _summary(method) for method in get_args(Method)}).encode()
    return {name: _typed(name, content) for name, content in found.items()}


def _typed(name: str, content: bytes) -> _File:
    kind = MEDIA_TYPES.get(Path(name).suffix) or mimetypes.guess_type(name)[0] or "text/plain"
    return _File(content, kind, f'"{hashlib.sha256(content).hexdigest()}"')


def _summary(method: str) -> str:
    """The first line of its module, which is not imported here: only the process that explains needs it."""
    module = FOLDER.parent / "explain" / f"{method}.py"
    return (ast.get_docstring(ast.parse(module.read_bytes())) or "").partition("\n")[0]
