"""TensorFlow Serving's REST calls, under `/v1`: its paths, its bodies, its answers and its errors.

https://www.tensorflow.org/tfx/serving/api_rest
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Callable, Coroutine
from typing import Any, Literal, NamedTuple

from pydantic_core import from_json, to_json
from starlette.requests import Request
from starlette.responses import Response

from service.classifier import Picture, Pixels, rank
from service.engines.base import Outputs
from service.errors import InvalidRequest, UnknownVersion
from service.http.bodies import in_time
from service.http.disconnect import while_there
from service.http.routes import PlainRoute, admit, service_of, version_number, version_of
from service.http.tensors import INPUT, check_size, encoded_picture, input_shape, output_shapes, pixels
from service.labels import LABELS
from service.manifest import Input
from service.repository import Version, VersionState
from service.states import State

# Names by which trainers put a picture into an `Example`.
FEATURES = ("image", INPUT, "image/encoded")
SIGNATURE = "serving_default"
STATES: dict[State, str] = {
    "incomplete": "START",
    "loading": "LOADING",
    "available": "AVAILABLE",
    "unloading": "UNLOADING",
    "unloaded": "END",
    "failed": "END",
}

PARTS = {
    "model": r"(?P<model>[^/:]+)",
    "version": r"(?P<version>[0-9]+)",
    "label": r"(?P<label>[^/:]+)",
    "rest": r"(?P<rest>(/.*)?)",
}


class _Route(PlainRoute):
    """Its path is the same in any case, and a name in it ends before a colon."""

    def __init__(
        self, method: str | None, path: str, answer: Callable[[Request], Coroutine[Any, Any, Response]]
    ) -> None:
        super().__init__(path, answer, methods=[method or "GET"])
        if method is None:
            self.methods = None
        self.path_regex = re.compile(
            re.sub(r"{(\w+)}", lambda part: PARTS[part[1]], path) + r"\Z", re.IGNORECASE | re.DOTALL
        )


async def predict(request: Request) -> Response:
    """The model's three outputs, in rows or in columns as the pictures came."""
    version = _version(request)
    admit(request, version)
    service = service_of(request)
    body = await in_time(request.body(), service.settings.timeout)
    asked = await service.read(body, lambda: _read_tensors(body, service.settings.max_images, version.manifest.input))
    with while_there(request):
        outputs = await service.infer(asked.images, version)
    columns = {name: column.tolist() for name, column in zip(Outputs._fields, outputs, strict=True)}
    if asked.key == "inputs":
        return _json({"outputs": columns})
    return _json({"predictions": [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]})


async def classify(request: Request) -> Response:
    """Every class of each example, the most probable first."""
    version = _version(request)
    admit(request, version)
    service = service_of(request)
    body = await in_time(request.body(), service.settings.timeout)
    images = await service.read(body, lambda: _read_examples(body, service.settings.max_images, version.manifest.input))
    with while_there(request):
        outputs = await service.infer(images, version)
    labels = version.manifest.labels
    return _json(
        {
            "results": [
                [[prediction.label, prediction.probability] for prediction in rank(Outputs(*row), labels, len(labels))]
                for row in zip(*outputs, strict=True)
            ]
        }
    )


async def regress(request: Request) -> Response:
    """No model here does."""
    _version(request)
    raise InvalidRequest("expected predict or classify, got regress: a classifier has no such signature")


async def status(request: Request) -> Response:
    """What became of the model's versions, the newest first, or of the one that is named."""
    repository = service_of(request).repository
    states = repository.states(request.path_params["model"])
    if "label" in request.path_params:
        number = _version(request).manifest.version
    elif "version" in request.path_params:
        number = version_number(request.path_params["version"])
    else:
        return _json({"model_version_status": [_status(state) for state in reversed(states)]})
    found = [state for state in states if state.version == number]
    if not found:
        known = ", ".join(str(state.version) for state in states)
        raise UnknownVersion(f"expected version {known} of {request.path_params['model']}, got {number}")
    return _json({"model_version_status": [_status(state) for state in found]})


async def metadata(request: Request) -> Response:
    """The one signature that can be called."""
    manifest = _version(request).manifest
    outputs = output_shapes(len(manifest.labels))
    signature = {
        "inputs": {INPUT: _tensor(INPUT, "DT_UINT8", -1, *input_shape(manifest.input))},
        "outputs": {name: _tensor(name, "DT_FLOAT", *shape) for name, shape in outputs.items()},
        "method_name": "tensorflow/serving/predict",
    }
    return _json(
        {
            "model_spec": {"name": manifest.name, "signature_name": "", "version": str(manifest.version)},
            "metadata": {"signature_def": {"signature_def": {SIGNATURE: signature}}},
        }
    )


async def malformed(request: Request) -> Response:
    """Every other path, and every other method."""
    raise InvalidRequest(f"Malformed request: {request.method} {request.url.path}")


ROUTES = [
    _Route(method, f"/v1/models/{{model}}{which}{call}", answer)
    for which in ("", "/versions/{version}", "/labels/{label}")
    for method, call, answer in (
        ("POST", ":predict", predict),
        ("POST", ":classify", classify),
        ("POST", ":regress", regress),
        ("GET", "", status),
        ("GET", "/metadata", metadata),
    )
] + [_Route(None, "/v1{rest}", malformed)]


class _Tensors(NamedTuple):
    key: Literal["instances", "inputs"]
    images: list[Picture | Pixels]


def _version(request: Request) -> Version:
    """The version that the path names by number or by label, else the one that answers where none is named."""
    given = request.path_params.get("label")
    if given is None:
        return version_of(request)
    for label in LABELS:
        if label == given:
            return service_of(request).repository.find(request.path_params["model"], label)
    raise UnknownVersion(f"expected the label {' or '.join(LABELS)}, got {given[:40]!r}")


def _read_tensors(body: bytes, most: int, target: Input) -> _Tensors:
    document = _document(body, most, target)
    keys = [key for key in ("instances", "inputs") if key in document]
    if keys == ["instances"]:
        rows = document["instances"]
        if not isinstance(rows, list):
            raise InvalidRequest(f"expected a list as instances, got {reprlib.repr(rows)}")
        return _Tensors("instances", [_image(_named(row), target, f"instances[{n}]") for n, row in enumerate(rows)])
    if keys == ["inputs"]:
        tensor = _named(document["inputs"])
        rows = tensor if isinstance(tensor, list) else [tensor]
        return _Tensors("inputs", [_image(row, target, f"inputs[{n}]") for n, row in enumerate(rows)])
    raise InvalidRequest(f"expected either instances or inputs, got {' and '.join(keys) or 'neither'}")


def _read_examples(body: bytes, most: int, target: Input) -> list[Picture | Pixels]:
    document = _document(body, most, target)
    context, examples = document.get("context", {}), document.get("examples")
    if not isinstance(examples, list) or not all(isinstance(each, dict) for each in (context, *examples)):
        raise InvalidRequest(
            f"expected objects of features as examples and context, got {reprlib.repr(examples)} and "
            f"{reprlib.repr(context)}"
        )
    return [_feature(context | example, target, f"examples[{n}]") for n, example in enumerate(examples)]


def _document(body: bytes, most: int, target: Input) -> dict[str, Any]:
    check_size(body, most, target)
    try:
        document = from_json(body)
    except ValueError as error:
        raise InvalidRequest(f"expected JSON: {error}") from None
    if not isinstance(document, dict):
        raise InvalidRequest(f"expected a JSON object, got {reprlib.repr(document)}")
    # As TF Serving words it.
    if (name := document.get("signature_name", "")) not in ("", SIGNATURE):
        raise InvalidRequest(f"Serving signature name: {reprlib.repr(name)} not found in signature def")
    return document


def _named(value: object) -> object:
    """A tensor that may stand alone, or under the name of the only input."""
    if not isinstance(value, dict) or "b64" in value:
        return value
    if set(value) != {INPUT}:
        raise InvalidRequest(f"expected the input {INPUT}, got {reprlib.repr(list(value))}")
    return value[INPUT]


def _feature(example: dict[str, Any], target: Input, name: str) -> Picture | Pixels:
    for feature in FEATURES:
        if feature in example:
            value = example[feature]
            # A feature is a list of values.
            return _image(value[0] if isinstance(value, list) and len(value) == 1 else value, target, name)
    raise InvalidRequest(
        f"expected one of the features {', '.join(FEATURES)} in `{name}`, got {reprlib.repr(list(example))}"
    )


def _image(value: object, target: Input, name: str) -> Picture | Pixels:
    if isinstance(value, dict) and set(value) == {"b64"}:
        return encoded_picture(value["b64"], name)
    if isinstance(value, list):
        return pixels(value, input_shape(target), name)
    rows, columns, _ = input_shape(target)
    raise InvalidRequest(
        f'expected {{"b64": "<base64>"}} or {rows} x {columns} x 3 numbers as `{name}`, got {reprlib.repr(value)}'
    )


def _status(state: VersionState) -> dict[str, object]:
    code = "FAILED_PRECONDITION" if state.state == "failed" else "OK"
    return {
        "version": str(state.version),
        "state": STATES[state.state],
        "status": {"error_code": code, "error_message": state.reason or ""},
    }


def _tensor(name: str, dtype: str, *shape: int) -> dict[str, object]:
    dimensions = [{"size": str(size), "name": ""} for size in shape]
    return {"dtype": dtype, "tensor_shape": {"dim": dimensions, "unknown_rank": False}, "name": name}


def _json(value: object) -> Response:
    # NaN and Infinity are legal here.
    return Response(to_json(value, inf_nan_mode="constants"), media_type="application/json")
