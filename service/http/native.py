"""Sichtbar's own calls: classify pictures, and see which models there are."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from service import errors
from service.classifier import Classifier
from service.http.bodies import PREDICT_BODY, in_time, read_pictures
from service.http.disconnect import while_there
from service.http.errors import responses
from service.http.etags import CACHE
from service.http.routes import PlainRoute, admit, service_of
from service.http.schemas import (
    ImageAnswer,
    LabelSummary,
    ModelList,
    ModelSummary,
    NoQuery,
    PredictAnswer,
    PredictQuery,
    VersionCard,
    VersionNumber,
    VersionSummary,
)
from service.repository import VersionState

router = APIRouter()

KEPT: dict[int | str, dict[str, Any]] = {200: {"headers": CACHE}}


# FastAPI would call what is not async on another thread.
async def _classifier(request: Request) -> Classifier:
    return service_of(request)


async def refuse_repeated(request: Request) -> None:
    """Of a parameter that is given twice, one value would be ignored silently.

    Raises:
        InvalidRequest: one is.
    """
    names = [name for name, _ in request.query_params.multi_items()]
    if len(names) == len(set(names)):
        return
    given = Counter(names)
    if repeated := [f"{name} {times} times" for name, times in given.items() if times > 1]:
        raise errors.InvalidRequest(f"expected each parameter once, got {', '.join(repeated)}")


Service = Annotated[Classifier, Depends(_classifier)]
Nothing = Annotated[NoQuery, Query()]


def address(request: Request, path: str) -> str:
    """A call's path as links name it, also where the service is below another path."""
    return f"{request.scope.get('root_path', '')}{path}"


class PredictRoute(PlainRoute):
    """Takes `POST /predict` before FastAPI's route, which documents it."""

    def __init__(self) -> None:
        super().__init__("/predict", self._answer, methods=["POST"])

    async def _answer(self, request: Request) -> Response:
        await refuse_repeated(request)
        try:
            query = PredictQuery.model_validate(dict(request.query_params))
        except ValidationError as invalid:
            raise RequestValidationError([{**e, "loc": ("query", *e["loc"])} for e in invalid.errors()]) from None
        return await predict(request, query, await _classifier(request))


@router.post(
    "/predict",
    summary="Classify pictures",
    response_model=PredictAnswer,
    openapi_extra={"requestBody": PREDICT_BODY},
    responses=KEPT
    | responses(
        errors.BodyTooSlow,
        errors.BodyTooLarge,
        errors.ImageTooLarge,
        errors.UnsupportedMediaType,
        errors.UnsupportedImage,
        errors.InvalidRequest,
        errors.NoImage,
        errors.TooManyImages,
        errors.EmptyImage,
        errors.BrokenImage,
        errors.ModelRequired,
        errors.UnknownModel,
        errors.UnknownVersion,
        errors.ModelUnavailable,
        errors.Overloaded,
        errors.Draining,
        errors.DeadlineExceeded,
        errors.InferenceFailed,
    ),
)
async def predict(request: Request, query: Annotated[PredictQuery, Query()], service: Service) -> Response:
    """Send one or several files as `multipart/form-data` in the field `file`, one picture's bytes as `image/*`, or
    `{"image": "<base64>"}` as JSON. One bad picture fails the whole request, and the problem names it.

    Unless `version` is given, a share of requests goes to the canary, where there is one: by the first picture, so that
    the same one always goes to the same version.

    Where `SICHTBAR_CACHE_BYTES` keeps answers, `X-Cache` is `hit` if all of these were kept from before; each that was
    has `cache` among its seconds.

    Each picture is kept for a while under its `image_id`, for calls that take one instead of a second upload.
    """
    version = service.repository.find(query.model, query.version)
    admit(request, version)
    pictures = await in_time(read_pictures(request, service.settings.max_images), service.settings.timeout)
    if query.version is None:
        version = service.repository.divert(version, lambda: pictures[0].image_id)
    with while_there(request):
        classified = await service.classify(pictures, version, query.top_k, keep=query.store)
    answer = PredictAnswer(
        model=version.manifest.name,
        version=version.manifest.version,
        images=[ImageAnswer.model_validate(picture, from_attributes=True) for picture in classified],
    )
    headers = {}
    if service.settings.cache_bytes:
        headers["x-cache"] = "hit" if all(picture.cached for picture in classified) else "miss"
    return Response(answer.model_dump_json(), headers=headers, media_type="application/json")


@router.head("/models", include_in_schema=False)
@router.get("/models", summary="All models", responses=responses(errors.InvalidRequest))
async def models(query: Nothing, service: Service) -> ModelList:
    """Every model on disk, what became of each of its versions, and what its labels name."""
    return ModelList(
        models=[_summary(service, name) for name in service.repository.models], default=service.repository.default
    )


@router.head("/models/{model}", include_in_schema=False)
@router.get("/models/{model}", summary="One model", responses=responses(errors.UnknownModel, errors.InvalidRequest))
async def model(model: str, query: Nothing, service: Service) -> ModelSummary:
    """What became of each of the model's versions, and what its labels name."""
    return _summary(service, model)


@router.head("/models/{model}/versions/{version}", include_in_schema=False)
@router.get(
    "/models/{model}/versions/{version}",
    summary="One version's card",
    responses=responses(errors.UnknownModel, errors.UnknownVersion, errors.ModelUnavailable, errors.InvalidRequest),
)
async def version(model: str, version: VersionNumber, query: Nothing, service: Service) -> VersionCard:
    """The manifest: labels, input, layers, what training measured, licence and attribution."""
    found = service.repository.find(model, version)
    return VersionCard(state="available", engine=found.engine, manifest=found.manifest)


def version_summary(state: VersionState) -> VersionSummary:
    """What is told of a version."""
    return VersionSummary(version=state.version, state=state.state, engine=state.engine, reason=state.reason)


def label_summary(service: Classifier, model: str) -> LabelSummary:
    """What is told of a model's labels."""
    labels = service.repository.serving(model).labels
    return LabelSummary(**labels.model_dump(), problem=service.repository.label_problem(model))


def _summary(service: Classifier, model: str) -> ModelSummary:
    return ModelSummary(
        name=model,
        labels=label_summary(service, model),
        versions=[version_summary(state) for state in service.repository.states(model)],
    )
