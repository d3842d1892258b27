"""The Open Inference Protocol's inference: a body in, pictures and what is wanted of them; outputs in, a body out.

Tensors are JSON or, by the binary tensor data extension, bytes behind the JSON.
"""

from __future__ import annotations

import math
import reprlib
import struct
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, StrictBool, StrictInt, ValidationError
from pydantic_core import to_json

from service.classifier import Picture, Pixels
from service.engines.base import Outputs
from service.errors import InvalidRequest, TooManyImages
from service.http.tensors import INPUT, check_size, encoded_picture, input_shape, pixels
from service.manifest import Input, Manifest

# Before each element of a binary BYTES tensor: how long it is.
LENGTH = struct.Struct("<I")


class _Parameters(BaseModel):
    shared_memory_region: str | None = None


class InputParameters(_Parameters):
    """How an input is sent."""

    binary_data_size: StrictInt | None = Field(default=None, ge=0)


class OutputParameters(_Parameters):
    """How an output is wanted."""

    binary_data: StrictBool | None = None
    classification: StrictInt | None = Field(default=None, ge=1)


class RequestParameters(BaseModel):
    """How all outputs are wanted."""

    binary_data_output: StrictBool = False


class InputTensor(BaseModel):
    """A tensor that a client sends."""

    name: str
    shape: list[StrictInt]
    datatype: str
    parameters: InputParameters = InputParameters()
    data: Any = None


class RequestedOutput(BaseModel):
    """An output that a client wants."""

    name: str
    parameters: OutputParameters = OutputParameters()


class InferenceRequest(BaseModel):
    """The JSON of a request; what it has beside this is ignored, as the protocol wants it."""

    id: str | None = None
    parameters: RequestParameters = RequestParameters()
    inputs: list[InputTensor]
    outputs: list[RequestedOutput] = []


class Wanted(NamedTuple):
    """An output, and its form."""

    name: str
    classes: int | None
    """Not the numbers, but so many classes of the highest."""
    binary: bool


class Question(NamedTuple):
    """What a client wants to know of which pictures."""

    id: str | None
    images: list[Picture | Pixels]
    outputs: list[Wanted]


class Answer(NamedTuple):
    """A body, and where its JSON ends if there are tensors behind it."""

    body: bytes
    header_length: int | None


def read_question(body: bytes, header_length: str | None, most: int, target: Input) -> Question:
    """Read a request.

    Raises:
        InvalidRequest: it is not of the protocol's form, or asks for what no model here takes or gives.
        TooManyImages: there are more than `most`.
    """
    end = len(body) if header_length is None else _header_end(header_length, len(body))
    header, binary = body[:end], memoryview(body)[end:]
    check_size(header, most, target)
    try:
        request = InferenceRequest.model_validate_json(header)
    except ValidationError as invalid:
        problem = invalid.errors(include_url=False)[0]
        where = ".".join(map(str, problem["loc"])) or "the body"
        raise InvalidRequest(f"{where}: {problem['msg']}, got {reprlib.repr(problem['input'])}") from None
    if [tensor.name for tensor in request.inputs] != [INPUT]:
        raise InvalidRequest(
            f"expected the one input {INPUT}, got {reprlib.repr([tensor.name for tensor in request.inputs])}"
        )
    (tensor,) = request.inputs
    _refuse_shared_memory([tensor, *request.outputs])
    if (tensor.parameters.binary_data_size or 0) != len(binary):
        raise InvalidRequest(
            f"expected {tensor.parameters.binary_data_size or 0} bytes behind the JSON, got {len(binary)}"
        )
    images = _pictures(tensor, binary, most) if tensor.datatype == "BYTES" else _pixels(tensor, binary, most, target)
    return Question(request.id, images, _wanted(request))


def write_answer(question: Question, outputs: Outputs, manifest: Manifest) -> Answer:
    """Put the outputs that were asked for into a body."""
    tensors: list[dict[str, object]] = []
    binary: list[bytes] = []
    for wanted in question.outputs:
        values: NDArray[Any] = getattr(outputs, wanted.name)
        if wanted.classes is not None:
            values = _classification(values, manifest.labels, wanted.classes)
        datatype = "FP32" if values.dtype == np.float32 else "BYTES"
        tensor: dict[str, object] = {"name": wanted.name, "datatype": datatype, "shape": list(values.shape)}
        if wanted.binary:
            data = _binary(values)
            tensor["parameters"] = {"binary_data_size": len(data)}
            binary.append(data)
        else:
            tensor["data"] = values.ravel().tolist()
        tensors.append(tensor)
    named = {} if question.id is None else {"id": question.id}
    header = to_json(
        {"model_name": manifest.name, "model_version": str(manifest.version), **named, "outputs": tensors},
        inf_nan_mode="constants",
    )
    return Answer(b"".join([header, *binary]), len(header) if binary else None)


def _header_end(text: str, size: int) -> int:
    if not text.isdecimal() or len(text) > len(str(size)) or int(text) > size:
        raise InvalidRequest(f"expected an Inference-Header-Content-Length of at most {size}, got {text[:40]!r}")
    return int(text)


def _refuse_shared_memory(tensors: list[InputTensor | RequestedOutput]) -> None:
    for tensor in tensors:
        if tensor.parameters.shared_memory_region is not None:
            raise InvalidRequest(f"expected {tensor.name[:40]} in the body, got it in shared memory: not supported")


def _pictures(tensor: InputTensor, binary: memoryview, most: int) -> list[Picture | Pixels]:
    if len(tensor.shape) not in (1, 2) or tensor.shape[1:] not in ([], [1]):
        raise InvalidRequest(f"expected BYTES of shape [N] or [N, 1], got {reprlib.repr(tensor.shape)}")
    count = tensor.shape[0]
    if count > most:
        raise TooManyImages(f"expected at most {most} pictures, got {count}")
    names = [f"{INPUT}[{n}]" for n in range(count)]
    if tensor.parameters.binary_data_size is not None:
        return [Picture(data, name) for data, name in zip(_elements(binary, count), names, strict=True)]
    if not isinstance(tensor.data, list) or len(tensor.data) != count:
        raise InvalidRequest(f"expected {count} pictures in base64 as data of {INPUT}, got {reprlib.repr(tensor.data)}")
    listed = [each[0] if isinstance(each, list) and len(each) == 1 else each for each in tensor.data]
    return [encoded_picture(text, name) for text, name in zip(listed, names, strict=True)]


def _elements(binary: memoryview, count: int) -> list[bytes]:
    elements = []
    at = 0
    for _ in range(count):
        start = at + LENGTH.size
        if start > len(binary):
            break
        at = start + LENGTH.unpack_from(binary, at)[0]
        elements.append(bytes(binary[start:at]))
    if len(elements) != count or at != len(binary):
        raise InvalidRequest(
            f"expected {count} elements of BYTES, each behind its length, got {len(binary)} other bytes"
        )
    return elements


def _pixels(tensor: InputTensor, binary: memoryview, most: int, target: Input) -> list[Picture | Pixels]:
    if tensor.datatype != "UINT8":
        raise InvalidRequest(f"expected {INPUT} as UINT8 or BYTES, got {tensor.datatype[:40]}")
    rows = input_shape(target)
    if not tensor.shape or tensor.shape != [tensor.shape[0], *rows] or tensor.shape[0] < 1:
        raise InvalidRequest(f"expected {INPUT} of shape {[-1, *rows]}, got {reprlib.repr(tensor.shape)}")
    if tensor.shape[0] > most:
        raise TooManyImages(f"expected at most {most} pictures, got {tensor.shape[0]}")
    size = math.prod(tensor.shape)
    if tensor.parameters.binary_data_size is None:
        nested = isinstance(tensor.data, list) and tensor.data and isinstance(tensor.data[0], list)
        found = pixels(tensor.data, tuple(tensor.shape) if nested else (size,), INPUT)
    elif len(binary) == size:
        found = np.frombuffer(binary, np.uint8)
    else:
        raise InvalidRequest(f"expected {size} bytes as {INPUT} of shape {tensor.shape}, got {len(binary)}")
    return [*found.reshape(tensor.shape)]


def _wanted(request: InferenceRequest) -> list[Wanted]:
    binary = request.parameters.binary_data_output
    if not request.outputs:
        return [Wanted(name, None, binary) for name in Outputs._fields]
    names = [output.name for output in request.outputs]
    if unknown := set(names) - set(Outputs._fields):
        raise InvalidRequest(f"expected outputs {', '.join(Outputs._fields)}, got {reprlib.repr(sorted(unknown))}")
    if len(set(names)) != len(names):
        raise InvalidRequest(f"expected each output once, got {reprlib.repr(names)}")
    wanted = []
    for output in request.outputs:
        how = output.parameters
        if how.classification is not None and output.name == "recognition":
            raise InvalidRequest("expected classification of probabilities or logits, got it of recognition")
        wanted.append(Wanted(output.name, how.classification, binary if how.binary_data is None else how.binary_data))
    return wanted


def _classification(values: NDArray[np.float32], labels: list[str], count: int) -> NDArray[np.object_]:
    """[N, count] of `value:index:label`, the highest value first; ties keep the labels' order."""
    order = np.argsort(-values, axis=1, kind="stable")[:, :count]
    return np.array(
        [[f"{row[i]}:{i}:{labels[i]}" for i in best] for row, best in zip(values, order, strict=True)], dtype=object
    )


def _binary(values: NDArray[Any]) -> bytes:
    if values.dtype == np.float32:
        return values.astype("<f4").tobytes()
    elements = [text.encode() for text in values.ravel()]
    return b"".join(LENGTH.pack(len(element)) + element for element in elements)
