"""Looking inside: what each layer makes of a picture, the kernels that it was trained to, the network as a diagram."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated, Any
from urllib.parse import quote, urlencode

import anyio
from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel

from service import __version__, activations, errors
from service.activations import INPUT
from service.classifier import Classifier, is_recognised, rank
from service.diagram import diagram
from service.http.bodies import BINARY, BODY_ERRORS, IMAGE_ERRORS, PICTURE_BODY, read_picture
from service.http.disconnect import until_gone
from service.http.errors import responses
from service.http.etags import ETAG, IfNoneMatch, unless_held
from service.http.native import Nothing, Service, address
from service.http.schemas import (
    ActivationsBodyQuery,
    ActivationsQuery,
    FiltersQuery,
    FilterStatistics,
    GraphQuery,
    LayerCard,
    LayerList,
    LayerStatistics,
    Walk,
    WalkClass,
    WalkInput,
    WalkLayer,
    WalkQuery,
)
from service.repository import Version

router = APIRouter()

PNG, NPY, SVG, JSON = "image/png", "application/x-npy", "image/svg+xml", "application/json"
# Names come from manifests; the diagram runs nothing and asks no other host.
SAFE = {"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'"}
# Kept by browsers, but asked for again: a folder of the same version may be replaced, a picture forgotten.
CACHE = {"cache-control": "private, no-cache"}

NAMED_ERRORS = (errors.UnknownModel, errors.UnknownVersion, errors.ModelUnavailable, errors.InvalidRequest)
VERSION_ERRORS = (errors.ModelRequired, *NAMED_ERRORS)
KEPT_ERRORS = (errors.UnknownImage, errors.StoreUnavailable)
WORK_ERRORS = (
    errors.BodyTooLarge,
    errors.Overloaded,
    errors.DeadlineExceeded,
    errors.ExplainerDied,
    errors.ExplanationFailed,
)


def _found(*kinds: str, schema: type | None = None, kept: bool = True) -> dict[int | str, dict[str, Any]]:
    contents: dict[str, Any] = {kind: {"schema": BINARY} for kind in kinds}
    if NPY in contents:
        contents[NPY]["example"] = "NumPy's format, float32"
    if SVG in contents:
        contents[SVG] = {"schema": {"type": "string"}, "example": '<svg xmlns="http://www.w3.org/2000/svg"></svg>'}
    answer: dict[str, Any] = {"description": "As asked.", "content": contents}
    if schema is not None:
        answer["model"] = schema
    if not kept:
        return {200: answer}
    return {200: answer | {"headers": ETAG}, 304: {"description": "The client's copy is still right.", "headers": ETAG}}


@router.head("/activations", include_in_schema=False)
@router.get(
    "/activations",
    summary="What a layer makes of a picture",
    response_class=Response,
    responses=_found(PNG, NPY, schema=LayerStatistics)
    | responses(*VERSION_ERRORS, *KEPT_ERRORS, errors.UnknownLayer, *IMAGE_ERRORS, *WORK_ERRORS),
)
async def maps(
    request: Request,
    query: Annotated[ActivationsQuery, Query()],
    service: Service,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """The layer's feature maps side by side with their channels' numbers, each scaled by itself, dead ones crossed out;
    one of them large, or over the picture; statistics; or the numbers. For a layer without places, a cell for each.
    """
    version = service.repository.find(query.model, query.version, query.image_id)
    _check(version, query)
    answer = _of_kept_picture(service, version, query, if_none_match, partial(_maps, service, version, query))
    return await until_gone(request, answer)


@router.post(
    "/activations",
    summary="What a layer makes of the picture in the body",
    response_class=Response,
    openapi_extra={"requestBody": PICTURE_BODY},
    responses=_found(PNG, NPY, schema=LayerStatistics, kept=False)
    | responses(*VERSION_ERRORS, errors.UnknownLayer, *IMAGE_ERRORS, *WORK_ERRORS, *BODY_ERRORS, errors.Draining),
)
async def maps_of_body(request: Request, query: Annotated[ActivationsBodyQuery, Query()], service: Service) -> Response:
    """The same for one picture that is sent along, in any of the ways that `/predict` takes."""
    version = service.repository.find(query.model, query.version)
    _check(version, query)
    picture = await read_picture(request, service.settings.timeout)
    if query.version is None:
        version = service.repository.divert(version, lambda: picture.image_id)
        _check(version, query)
    return await until_gone(request, _maps(service, version, query, picture.data))


@router.head("/walk", include_in_schema=False)
@router.get(
    "/walk",
    summary="A picture's way to the answer",
    response_model=Walk,
    responses=_found(schema=Walk) | responses(*VERSION_ERRORS, *KEPT_ERRORS, *IMAGE_ERRORS, *WORK_ERRORS),
)
async def walk(
    request: Request, query: Annotated[WalkQuery, Query()], service: Service, if_none_match: IfNoneMatch = None
) -> Response:
    """What the model sees, each layer with statistics and the addresses of its pictures, then logits and
    probabilities. All layers come from one inference.
    """
    version = service.repository.find(query.model, query.version, query.image_id)
    answer = _of_kept_picture(service, version, query, if_none_match, partial(_walk, request, service, version, query))
    return await until_gone(request, answer)


@router.head("/models/{model}/layers", include_in_schema=False)
@router.get(
    "/models/{model}/layers",
    summary="A model's layers",
    responses=responses(errors.UnknownModel, errors.ModelUnavailable, errors.InvalidRequest),
)
async def layers(model: str, query: Nothing, service: Service) -> LayerList:
    """Of the stable version, else the highest: what each is, what it takes, and whether its kernels can be shown."""
    return _layers(service.repository.find(model, None))


@router.head("/models/{model}/versions/{version}/layers", include_in_schema=False)
@router.get(
    "/models/{model}/versions/{version}/layers",
    summary="One version's layers",
    responses=responses(*NAMED_ERRORS),
)
async def version_layers(
    model: str, version: Annotated[int, Path(ge=1)], query: Nothing, service: Service
) -> LayerList:
    """From picture to answer: what each is, what it takes, and whether its kernels can be shown."""
    return _layers(service.repository.find(model, version))


@router.head("/models/{model}/filters", include_in_schema=False)
@router.get(
    "/models/{model}/filters",
    summary="The kernels of a convolution",
    response_class=Response,
    responses=_found(PNG, NPY, schema=FilterStatistics) | responses(*NAMED_ERRORS, errors.UnknownLayer, *WORK_ERRORS),
)
async def filters(
    request: Request,
    model: str,
    query: Annotated[FiltersQuery, Query()],
    service: Service,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """Kernels that look at the picture's colours, as pictures in these colours: grey is zero. Of deeper ones, how long
    each place's vector over the inputs is: red where its sum adds, blue where it takes away. With `channel`, that
    channel's kernel, a cell for each input.
    """
    version = service.repository.find(model, query.version)
    layer = activations.find_filtered(version.manifest, query.layer)
    activations.check_channel(layer, query.channel)
    return await until_gone(request, _kept(if_none_match, version, query, lambda: _filters(service, version, query)))


@router.head("/models/{model}/graph", include_in_schema=False)
@router.get(
    "/models/{model}/graph",
    summary="The network as a diagram",
    response_class=Response,
    responses=_found(SVG) | responses(*NAMED_ERRORS),
)
async def graph(
    model: str, query: Annotated[GraphQuery, Query()], service: Service, if_none_match: IfNoneMatch = None
) -> Response:
    """A box for each layer, an arrow for each that takes what another gives. SVG; light or dark, as the reader is."""
    version = service.repository.find(model, query.version)

    async def draw() -> Response:
        drawn = await anyio.to_thread.run_sync(diagram, version.manifest)
        return Response(drawn, media_type=SVG, headers=SAFE)

    return await _kept(if_none_match, version, query, draw)


def _check(version: Version, query: ActivationsBodyQuery) -> None:
    layer = activations.find_layer(version.manifest, query.layer)
    activations.check_channel(layer, query.channel)
    if not query.over:
        return
    if query.channel is None or query.format != "png":
        came = "no channel" if query.channel is None else f"format={query.format}"
        raise errors.InvalidRequest(f"expected over=true with one `channel`, and with format=png, got {came}")
    if not activations.has_places(layer):
        raise errors.InvalidRequest(
            f"expected `over` of a layer that has rows and columns, got {layer.name} of shape {layer.shape}"
        )


async def _maps(service: Classifier, version: Version, query: ActivationsBodyQuery, data: bytes) -> Response:
    layer, channel, most = query.layer, query.channel, service.settings.max_pixels
    if query.format == "npy":
        return _npy(await service.look(activations.map_array, version, data, layer, channel, most))
    if query.format == "json":
        channels, grid = await service.look(activations.map_statistics, version, data, layer, channel, most)
        found = activations.find_layer(version.manifest, layer)
        return _json(
            LayerStatistics(
                **_named(version),
                image_id=hashlib.sha256(data).hexdigest(),
                layer=layer,
                type=found.type,
                shape=found.shape,
                grid=grid,
                channels=channels,
            )
        )
    if channel is None:
        return _png(await service.look(activations.map_grid, version, data, layer, most))
    draw = activations.map_over if query.over else activations.map_alone
    return _png(await service.look(draw, version, data, layer, channel, most))


async def _filters(service: Classifier, version: Version, query: FiltersQuery) -> Response:
    layer, channel = query.layer, query.channel
    if query.format == "npy":
        return _npy(await service.look(activations.filter_array, version, layer, channel))
    if query.format == "json":
        shape, channels, grid = await service.look(activations.filter_statistics, version, layer, channel)
        found = activations.find_layer(version.manifest, layer)
        return _json(
            FilterStatistics(**_named(version), layer=layer, type=found.type, shape=shape, grid=grid, channels=channels)
        )
    if channel is None:
        return _png(await service.look(activations.filter_grid, version, layer))
    return _png(await service.look(activations.filter_alone, version, layer, channel))


async def _walk(request: Request, service: Classifier, version: Version, query: WalkQuery, data: bytes) -> Response:
    walked = await service.look(activations.walk, version, data, service.settings.max_pixels)
    manifest = version.manifest
    named = {"version": manifest.version}

    def maps_at(layer: str) -> str:
        asked = {"image_id": query.image_id, "model": manifest.name, **named, "layer": layer}
        return address(request, f"/activations?{urlencode(asked)}")

    def filters_at(layer: str) -> str:
        return address(request, f"/models/{quote(manifest.name)}/filters?{urlencode({**named, 'layer': layer})}")

    return _json(
        Walk(
            **_named(version),
            image_id=query.image_id,
            input=WalkInput(
                height=manifest.input.height,
                width=manifest.input.width,
                resize=manifest.input.resize,
                picture=maps_at(INPUT),
            ),
            layers=[
                WalkLayer(
                    **card.model_dump(),
                    mean=summary.mean,
                    max=summary.max,
                    min=summary.min,
                    sparsity=summary.sparsity,
                    dead_channels=summary.dead_channels,
                    picture=maps_at(card.name),
                    filter_picture=filters_at(card.name) if card.filters else None,
                )
                for card, summary in zip(_layers(version).layers, walked.layers, strict=True)
            ],
            logits=[float(logit) for logit in walked.answer.logits],
            predictions=[
                WalkClass(
                    label=found.label,
                    index=found.index,
                    probability=found.probability,
                    logit=float(walked.answer.logits[found.index]),
                )
                for found in rank(walked.answer, manifest.labels, query.top_k)
            ],
            recognised=is_recognised(float(walked.answer.recognition), manifest.recognition_threshold),
        )
    )


def _layers(version: Version) -> LayerList:
    manifest = version.manifest
    takes = activations.sources(manifest.layers)
    return LayerList(
        **_named(version),
        input=manifest.input,
        layers=[
            LayerCard(
                name=layer.name,
                type=layer.type,
                shape=layer.shape,
                parameters=layer.parameters,
                inputs=takes[layer.name],
                filters=activations.has_filters(layer),
                none_channel=activations.none_channel(manifest, layer),
            )
            for layer in manifest.layers
        ],
    )


def _named(version: Version) -> dict[str, Any]:
    return {"model": version.manifest.name, "version": version.manifest.version}


def _png(content: bytes) -> Response:
    return Response(content, media_type=PNG)


def _npy(content: bytes) -> Response:
    return Response(content, media_type=NPY, headers={"content-disposition": 'attachment; filename="layer.npy"'})


def _json(answer: LayerStatistics | FilterStatistics | Walk) -> Response:
    return Response(answer.model_dump_json(), media_type=JSON)


async def _of_kept_picture(
    service: Classifier,
    version: Version,
    query: ActivationsQuery | WalkQuery,
    if_none_match: str | None,
    make: Callable[[bytes], Awaitable[Response]],
) -> Response:
    async with service.picture(query.image_id) as data:
        return await _kept(if_none_match, version, query, lambda: make(data))


async def _kept(
    if_none_match: str | None, version: Version, query: BaseModel, make: Callable[[], Awaitable[Response]]
) -> Response:
    """What `make` gives, unless the client has it: it is decided by the version and the parameters."""
    manifest = version.manifest
    decides = (manifest.name, manifest.version, version.digest, version.engine, query.model_dump(), __version__)
    digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()
    headers = {**CACHE, "etag": f'"{digest}"'}

    async def send() -> Response:
        response = await make()
        response.headers.update(headers)
        return response

    return await unless_held(headers, if_none_match, send)
