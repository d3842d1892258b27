"""For whoever runs the service: load and unload versions, and point labels at them, with a key for that."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi.security import HTTPBearer

from service import errors
from service.http.errors import responses
from service.http.native import Nothing, Service, label_summary, version_summary
from service.http.schemas import LabelSummary, VersionNumber, VersionSummary
from service.labels import Labels
from service.settings import variable

# Only documents the header: `service.http.access` has looked at it.
KEY = HTTPBearer(auto_error=False, scheme_name="admin", description="A key of `SICHTBAR_KEYS` for `admin`.")


async def require_keys(service: Service, documented: Annotated[object, Depends(KEY)]) -> None:
    """Raises Forbidden: there are no keys, so that whoever asks may be anybody."""
    if service.settings.keys is None:
        raise errors.Forbidden(f"admin calls are switched off; {variable('keys')} switches them on")


router = APIRouter(dependencies=[Depends(require_keys)])

REFUSALS = (errors.UnknownModel, errors.UnknownVersion, errors.InvalidRequest)


@router.post("/models/{model}/versions/{version}:load", summary="Load a version", responses=responses(*REFUSALS))
async def load(model: str, version: VersionNumber, query: Nothing, service: Service) -> VersionSummary:
    """Whatever `SICHTBAR_VERSIONS` says, until it is unloaded or the service starts again; what failed is tried again.
    Answers with what became of it, or that it still loads after `SICHTBAR_TIMEOUT`.
    """
    return version_summary(await service.rollout.order(model, version, "load"))


@router.post("/models/{model}/versions/{version}:unload", summary="Unload a version", responses=responses(*REFUSALS))
async def unload(model: str, version: VersionNumber, query: Nothing, service: Service) -> VersionSummary:
    """It finishes what it was asked, and stays unloaded until it is loaded, its files change or the service starts
    again.
    """
    return version_summary(await service.rollout.order(model, version, "unload"))


@router.put(
    "/models/{model}/labels",
    summary="Point labels at versions",
    responses=responses(*REFUSALS, errors.LabelsNotWritten),
)
async def label(model: str, labels: Labels, query: Nothing, service: Service) -> LabelSummary:
    """Replaces the model's `labels.json`, so that it lasts. A label moves once its version can answer."""
    await service.rollout.label(model, labels)
    return label_summary(service, model)
