"""Whether what a client has is still right: RFC 9110's `ETag` and `If-None-Match`; `X-Cache`: whether we had it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Annotated

from fastapi import Header, Response

ETAG = {"ETag": {"description": "The same as long as the answer is the same.", "schema": {"type": "string"}}}

CACHE = {
    "X-Cache": {
        "description": "Whether it was kept from before: hit or miss.",
        "schema": {"type": "string", "enum": ["hit", "miss"]},
    }
}

IfNoneMatch = Annotated[str | None, Header(description="ETags of what the client has; 304 where one still holds.")]


async def unless_held(
    headers: Mapping[str, str], if_none_match: str | None, make: Callable[[], Awaitable[Response]]
) -> Response:
    """What `make` gives, or 304 where the client has what the `etag` of `headers` names: then nothing is made.

    `*` stands for whatever there is, and only `make` tells whether there is something.
    """
    held = {tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")}
    not_modified = Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    if headers["etag"] in held:
        return not_modified
    made = await make()
    return not_modified if held == {"*"} and made.status_code == HTTPStatus.OK else made
