"""The Open Inference Protocol, version 2, under `/v2`: as KServe, Triton and OpenVINO Model Server speak it.

https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol
"""

from __future__ import annotations

import reprlib

from pydantic import BaseModel, StrictBool, ValidationError
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from service import __version__
from service.errors import InvalidRequest, ModelUnavailable, UnknownVersion
from service.http.bodies import in_time
from service.http.disconnect import while_there
from service.http.inference import read_question, write_answer
from service.http.routes import PlainRoute, admit, service_of, version_of
from service.http.tensors import INPUT, input_shape, output_shapes
from service.repository import Version
from service.settings import Settings
from service.statistics import Duration

EXTENSIONS = ["binary_tensor_data", "classification", "model_repository", "statistics"]
HEADER_LENGTH = "inference-header-content-length"
# Answers to many pictures are large; smaller ones are not worth a client's and the service's time.
COMPRESSED_FROM, COMPRESSION = 4096, 1


class IndexRequest(BaseModel):
    """Which versions of the repository are asked for."""

    ready: StrictBool = False


async def server(request: Request) -> Response:
    """The server, and the extensions that it has."""
    return JSONResponse({"name": "sichtbar", "version": __version__, "extensions": EXTENSIONS})


async def live(request: Request) -> Response:
    """Whether the process answers."""
    return JSONResponse({"live": True})


async def ready(request: Request) -> Response:
    """Whether to send pictures here."""
    is_ready = service_of(request).ready
    return JSONResponse({"ready": is_ready}, 200 if is_ready else 400)


async def model(request: Request) -> Response:
    """A model's inputs and outputs."""
    manifest = version_of(request).manifest
    available = [
        str(state.version)
        for state in service_of(request).repository.states(manifest.name)
        if state.state == "available"
    ]
    return JSONResponse(
        {
            "name": manifest.name,
            "versions": available,
            "platform": "tensorflow_savedmodel",
            "inputs": [{"name": INPUT, "datatype": "UINT8", "shape": [-1, *input_shape(manifest.input)]}],
            "outputs": [
                {"name": name, "datatype": "FP32", "shape": shape}
                for name, shape in output_shapes(len(manifest.labels)).items()
            ],
        }
    )


async def model_ready(request: Request) -> Response:
    """Whether a version takes pictures; one that could not be loaded does not."""
    service, name = service_of(request), request.path_params["model"]
    service.repository.states(name)
    try:
        is_ready = version_of(request).batcher.alive and not service.draining
    except (ModelUnavailable, UnknownVersion):
        is_ready = False
    return JSONResponse({"name": name, "ready": is_ready}, 200 if is_ready else 400)


async def infer(request: Request) -> Response:
    """What a model gives for pictures."""
    version = version_of(request)
    admit(request, version)
    service = service_of(request)
    manifest, settings = version.manifest, service.settings
    body = await in_time(request.body(), settings.timeout)
    header_length = request.headers.get(HEADER_LENGTH)
    question = await service.read(body, lambda: read_question(body, header_length, settings.max_images, manifest.input))
    with while_there(request):
        outputs = await service.infer(question.images, version)
    answer = write_answer(question, outputs, manifest)
    if answer.header_length is None:
        return Response(answer.body, media_type="application/json")
    headers = {HEADER_LENGTH: str(answer.header_length)}
    return Response(answer.body, headers=headers, media_type="application/octet-stream")


async def index(request: Request) -> Response:
    """Every version on disk, loaded or not."""
    service = service_of(request)
    body = await in_time(request.body(), service.settings.timeout)
    try:
        asked = IndexRequest.model_validate_json(body or b"{}")
    except ValidationError:
        raise InvalidRequest(f'expected {{"ready": true}}, false or nothing, got {reprlib.repr(body)}') from None
    repository = service.repository
    return JSONResponse(
        [
            {
                "name": state.model,
                "version": str(state.version),
                "state": "READY" if state.state == "available" else "UNAVAILABLE",
                "reason": state.reason or "",
            }
            for name in repository.models
            for state in repository.states(name)
            if state.state == "available" or not asked.ready
        ]
    )


async def load(request: Request) -> Response:
    """Nobody loads or unloads a model from afar."""
    raise InvalidRequest("models are loaded from the service's own folder; no request loads or unloads one")


async def statistics(request: Request) -> Response:
    """What versions have done since they were loaded: all, a model's, or one."""
    service = service_of(request)
    repository = service.repository
    if "version" in request.path_params:
        versions = [version_of(request)]
    elif "model" in request.path_params:
        name = version_of(request).manifest.name
        versions = [version for version in repository.versions if version.manifest.name == name]
    else:
        versions = repository.versions
    return JSONResponse({"model_stats": [_statistics(version, service.settings) for version in versions]})


COMPRESS = [Middleware(GZipMiddleware, minimum_size=COMPRESSED_FROM, compresslevel=COMPRESSION)]
ROUTES = [
    PlainRoute("/v2", server, methods=["GET"]),
    PlainRoute("/v2/health/live", live, methods=["GET"]),
    PlainRoute("/v2/health/ready", ready, methods=["GET"]),
    PlainRoute("/v2/models/stats", statistics, methods=["GET"]),
    PlainRoute("/v2/repository/index", index, methods=["POST"]),
    PlainRoute("/v2/repository/models/{model}/load", load, methods=["POST"]),
    PlainRoute("/v2/repository/models/{model}/unload", load, methods=["POST"]),
]
for which in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
    ROUTES += [
        PlainRoute(which, model, methods=["GET"]),
        PlainRoute(f"{which}/ready", model_ready, methods=["GET"]),
        PlainRoute(f"{which}/stats", statistics, methods=["GET"]),
        PlainRoute(f"{which}/infer", infer, methods=["POST"], middleware=COMPRESS),
    ]


def _statistics(version: Version, settings: Settings) -> dict[str, object]:
    did, stages = version.statistics, version.statistics.stages
    missed = stages["decode"].count if settings.cache_bytes else 0
    executions = version.batcher.executions
    return {
        "name": version.manifest.name,
        "version": str(version.manifest.version),
        "last_inference": round((did.last or 0) * 1000),
        "inference_count": did.pictures,
        "execution_count": sum(ran.count for ran in executions.values()),
        "inference_stats": {
            "success": _duration(did.succeeded),
            "fail": _duration(did.failed),
            "queue": _duration(stages["queue"]),
            "compute_input": _duration(stages["decode"]),
            "compute_infer": _duration(stages["inference"]),
            "compute_output": _duration(Duration()),
            "cache_hit": _duration(stages["cache"]),
            "cache_miss": _duration(Duration(missed)),
        },
        "batch_stats": [
            {
                "batch_size": size,
                "compute_input": _duration(Duration()),
                "compute_infer": _duration(ran),
                "compute_output": _duration(Duration()),
            }
            for size, ran in sorted(executions.items())
        ],
    }


def _duration(duration: Duration) -> dict[str, int]:
    return {"count": duration.count, "ns": round(duration.seconds * 1e9)}
