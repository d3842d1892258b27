"""Whether what a client has is still right: RFC 9110's `ETag` and `If-None-Match`."""

from __future__ import annotations

from typing import Annotated

from fastapi import Header

ETAG = {"ETag": {"description": "The file's sha256.", "schema": {"type": "string"}}}

IfNoneMatch = Annotated[str | None, Header(description="ETags of what the client has; 304 where one still holds.")]


def still_holds(etag: str, if_none_match: str | None) -> bool:
    """Whether the client has the file that `etag` names."""
    held = {tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")}
    return bool({"*", etag} & held)
