from __future__ import annotations

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


def test_a_thousand_mutated_pictures_get_an_answer_or_a_4xx(live: httpx.Client) -> None:
    chance = random.Random(2026)
    originals = [encode(draw(shape, 1), kind) for kind in FORMATS for shape in SHAPES]
    statuses = Counter(
        live.post("/predict", files={"file": mutate(chance.choice(originals), chance)}).status_code for _ in range(1000)
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
