"""For people with a browser."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import RedirectResponse

router = APIRouter()


@router.head("/", include_in_schema=False)
@router.get("/", include_in_schema=False)
async def start() -> RedirectResponse:
    """Where every call can be read and tried."""
    return RedirectResponse("/docs")
