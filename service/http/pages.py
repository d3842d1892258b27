"""For people with a browser."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse

from service.http.native import address

router = APIRouter()


@router.head("/", include_in_schema=False)
@router.get("/", include_in_schema=False)
async def start(request: Request) -> RedirectResponse:
    """Where every call can be read and tried."""
    return RedirectResponse(address(request, "/docs"))
