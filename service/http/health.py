"""For orchestrators and dashboards: live, ready, metrics."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST

from service.http.schemas import Health

router = APIRouter()


@router.head("/health/live", include_in_schema=False)
@router.get("/health/live", summary="Whether the process answers")
async def live() -> Health:
    """Always, while the event loop turns; restart the container when it does not."""
    return Health(status="live")


@router.head("/health/ready", include_in_schema=False)
@router.get(
    "/health/ready",
    summary="Whether to send pictures here",
    response_model=Health,
    responses={
        503: {"model": Health, "description": "Draining, no version is loaded, or a model's worker has stopped."}
    },
)
async def ready(request: Request) -> Response:
    """There are loaded versions, each takes pictures, and the service is not shutting down."""
    is_ready = request.app.state.classifier.ready
    return JSONResponse({"status": "ready" if is_ready else "not ready"}, 200 if is_ready else 503)


@router.head("/metrics", include_in_schema=False)
@router.get(
    "/metrics",
    summary="Prometheus' metrics",
    response_class=Response,
    responses={
        200: {
            "content": {
                "text/plain": {
                    "schema": {"type": "string"},
                    "example": 'sichtbar_predictions_total{model="fruit_cnn",version="1"} 42.0\n',
                }
            }
        }
    },
)
async def metrics(request: Request) -> Response:
    """Prometheus' text exposition format."""
    return Response(request.app.state.classifier.metrics.exposition(), media_type=CONTENT_TYPE_LATEST)
