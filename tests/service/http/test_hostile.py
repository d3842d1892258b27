from __future__ import annotations

import json
import random
from collections import Counter

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.decode import FORMATS
from tests.conftest import SHAPES, draw, encode

EXPECTED = {200, 413, 415, 422}
TYPES = [
    "image/png",
    "application/json",
    "multipart/form-data; boundary=b",
    "application/octet-stream",
    "text/html",
    "",
]
quick = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def mutate(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.choice((1, 3, 10, 50))):
        changed[chance.randrange(len(changed))] = chance.randrange(256)
    if chance.random() < 0.3:
        del changed[chance.randrange(len(changed)) :]
    if chance.random() < 0.2:
        at = chance.randrange(len(changed) + 1)
        changed[at:at] = chance.randbytes(chance.randrange(64))
    return bytes(changed)


def test_a_thousand_mutated_pictures_get_an_answer_or_a_4xx(live: httpx.Client, times: int) -> None:
    chance = random.Random(2026)
    originals = [encode(draw(shape, 1), kind) for kind in FORMATS for shape in SHAPES]
    statuses = Counter(
        live.post("/predict", files={"file": mutate(chance.choice(originals), chance)}).status_code
        for _ in range(1000 * times)
    )
    assert set(statuses) <= EXPECTED
    assert statuses[200]
    assert statuses[422]


@quick
@given(body=st.binary(max_size=300), kind=st.sampled_from(TYPES))
def test_no_bytes_of_any_type_make_predict_answer_5xx(live: httpx.Client, body: bytes, kind: str) -> None:
    assert live.post("/predict", content=body, headers={"content-type": kind}).status_code in EXPECTED


@quick
@given(head=st.sampled_from([encode(draw("circle", 1), kind)[:40] for kind in FORMATS]), tail=st.binary(max_size=400))
def test_no_bytes_behind_a_real_header_make_predict_answer_5xx(live: httpx.Client, head: bytes, tail: bytes) -> None:
    assert live.post("/predict", files={"file": head + tail}).status_code in EXPECTED


@quick
@given(query=st.dictionaries(st.sampled_from(["model", "version", "top_k", "x"]), st.text(max_size=8), max_size=3))
def test_no_query_makes_predict_answer_5xx(live: httpx.Client, query: dict[str, str]) -> None:
    answer = live.post("/predict", params=query, files={"file": encode(draw("circle", 1))})
    assert answer.status_code in EXPECTED | {404}


OTHERS = ["/v1/models/shapes:predict", "/v1/models/shapes:classify", "/v2/models/shapes/infer", "/v2/repository/index"]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["b64", "images", "x"]), inner),
    max_leaves=12,
)
KEYS = st.sampled_from(
    ["instances", "inputs", "examples", "context", "signature_name", "outputs", "parameters", "id", "ready"]
)


@quick
@given(path=st.sampled_from(OTHERS), body=st.binary(max_size=300), length=st.sampled_from(["", "0", "7", "300", "x"]))
def test_no_bytes_make_the_other_protocols_answer_5xx(live: httpx.Client, path: str, body: bytes, length: str) -> None:
    headers = {"inference-header-content-length": length} if length else {}
    assert live.post(path, content=body, headers=headers).status_code in {200, 400}


@quick
@given(path=st.sampled_from(OTHERS), body=st.dictionaries(KEYS, VALUES, max_size=4))
def test_no_json_makes_the_other_protocols_answer_5xx(live: httpx.Client, path: str, body: object) -> None:
    assert live.post(path, content=json.dumps(body)).status_code in {200, 400}


TENSOR = st.fixed_dictionaries(
    {},
    optional={
        "name": st.just("images"),
        "datatype": st.sampled_from(["UINT8", "BYTES", "FP32"]),
        "shape": st.lists(st.integers(-1, 20), max_size=4) | st.just([1, 16, 12, 3]),
        "data": VALUES,
        "parameters": st.dictionaries(st.sampled_from(["binary_data_size", "binary_data"]), VALUES, max_size=2),
    },
)


@quick
@given(tensors=st.lists(TENSOR, max_size=2), outputs=st.lists(TENSOR, max_size=2))
def test_no_tensor_makes_infer_answer_5xx(live: httpx.Client, tensors: object, outputs: object) -> None:
    body = json.dumps({"inputs": tensors, "outputs": outputs})
    assert live.post("/v2/models/shapes/infer", content=body).status_code in {200, 400}
