"""Requests made from the OpenAPI document, right and wrong ones, to a real service: each answer is one that it names.

`--times 20` makes more than 5,000 of them. With `-s` it says how many answers there were of each status.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import APIOperation, Case, GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from service.decode import FORMATS
from tests.conftest import SHAPES, draw, encode
from tests.reliability.conftest import KEY, Models
from tests.service.http.explaining import ended
from tests.service.http.test_openapi import CALLS

pytestmark = pytest.mark.skipif(sys.version_info < (3, 11), reason="Schemathesis for Python 3.10 can send no pictures")

CASES = 6
"""Of each call, right ones, and as many wrong ones where there can be any."""
CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
]
# Of the document's statuses of 5xx: too much is asked for, or too late. None is the service's own mistake.
UNAVAILABLE = {503, 504}
ADMIN = {"post /models/{model}/versions/{version}:load", "post /models/{model}/versions/{version}:unload"} | {
    "put /models/{model}/labels"
}
# Of these no request can be wrong: the name in their path may be any text, and there is nothing else to say.
NEVER_WRONG = {f"get /{place}" for place in ("explanations/{job}", "explanations/{job}/events", "models/{model}")} | {
    "get /models/{model}/layers",
    "delete /explanations/{job}",
}
MODES = {"right": GenerationMode.POSITIVE, "wrong": GenerationMode.NEGATIVE}


@dataclass
class Asked:
    """A service, its document, and what random values would not find there."""

    url: str
    document: dict[str, Any]
    real: dict[str, list[object]]
    statuses: Counter[int] = field(default_factory=Counter)
    session: requests.Session = field(default_factory=requests.Session)


@pytest.fixture(scope="session")
def asked(
    serve_models: Callable[..., Models], tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[Asked]:
    """Two models: `spare` is for admin calls."""
    keys = tmp_path_factory.mktemp("keys") / "keys.json"
    key = {"name": "all", "sha256": hashlib.sha256(KEY.encode()).hexdigest(), "scopes": ["predict", "explain", "admin"]}
    keys.write_text(json.dumps({"keys": [key]}))
    models = serve_models(SICHTBAR_KEYS=str(keys))
    models.publish("spare", 1)
    models.publish("spare", 2)
    client = models.client
    files = [("file", encode(draw(shape, 1))) for shape in SHAPES]
    ids = [image["image_id"] for image in client.post("/predict", files=files).json()["images"]]
    jobs = []
    for query in ({"samples": 32}, {"method": "gradcam"}, {"samples": 10_000, "superpixels": 200}):
        place = client.post("/explanations", params={"image_id": ids[0], **query}).headers["location"]
        if query.get("samples") == 10_000:
            client.delete(place)
        jobs.append(ended(client, place)["id"])
    card = client.get("/models/shapes/versions/1").json()["manifest"]
    report = models.folder / "shapes" / "1" / "report"
    asked = Asked(
        str(client.base_url),
        client.get("/openapi.json").json(),
        {
            "model": ["shapes", "spare"],
            "version": [1, 2],
            "image_id": ids,
            "job": jobs,
            "layer": [layer["name"] for layer in card["layers"]],
            "label": [*SHAPES],
            "channel": [0, 1, 7],
            "file": [str(path.relative_to(report)) for path in sorted(report.rglob("*")) if path.is_file()],
        },
    )
    asked.session.headers["authorization"] = f"Bearer {KEY}"
    yield asked
    told = dict(sorted(asked.statuses.items()))
    pytestconfig.get_terminal_writer().line(f"\n{asked.statuses.total()} requests made from the document: {told}")
    asked.session.close()


PICTURES = [encode(draw(shape, 2), kind) for kind in FORMATS for shape in SHAPES]


def cases(asked: Asked, operation: APIOperation, mode: GenerationMode, call: str) -> st.SearchStrategy[Case]:
    """What the document makes, here and there with values that are real, and pictures that are some."""
    is_right = mode is GenerationMode.POSITIVE
    real = {name: st.none() | st.sampled_from(values) for name, values in asked.real.items()}
    if call in ADMIN:
        real["model"] = st.just("spare")
    if is_right:
        # Others would only take time.
        real |= {"samples": st.sampled_from([16, 32]), "wait": st.sampled_from([0, 0.5])}
    picture = st.none() | st.sampled_from(PICTURES) if is_right else st.none()
    takes_wait = is_right and any(parameter.name == "wait" for parameter in operation.query)

    def with_real(made: tuple[Case, dict[str, object], bytes | None]) -> Case:
        case, values, data = made
        for place in (case.path_parameters, case.query):
            for name in place or ():
                if values.get(name) is not None:
                    place[name] = values[name]
        if takes_wait:
            case.query = {**(case.query or {}), "wait": values["wait"]}
        if data is not None and isinstance(case.body, bytes):
            case.body = data
        elif data is not None and isinstance(case.body, dict) and "file" in case.body:
            case.body["file"] = [data]
        return case

    return st.tuples(operation.as_strategy(generation_mode=mode), st.fixed_dictionaries(real), picture).map(with_real)


@pytest.mark.parametrize(
    ("call", "mode"),
    [
        pytest.param(call, mode, id=f"{call}-{name}")
        for call in sorted(f"{method} {path}" for method, path in CALLS)
        for name, mode in MODES.items()
        if not (name == "wrong" and call in NEVER_WRONG)
    ],
)
def test_every_answer_is_one_that_the_document_names(asked: Asked, call: str, mode: GenerationMode, times: int) -> None:
    method, _, path = call.partition(" ")
    operation = schemathesis.openapi.from_dict(asked.document)[path][method.upper()]

    @settings(
        max_examples=CASES * times,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases(asked, operation, mode, call))
    def ask(case: Case) -> None:
        response = case.call(base_url=asked.url, session=asked.session, timeout=60)
        asked.statuses[response.status_code] += 1
        case.validate_response(response, checks=CHECKS)
        assert response.status_code < 500 or response.status_code in UNAVAILABLE, response.text

    try:
        ask()
    except Unsatisfiable:
        assert mode is GenerationMode.NEGATIVE, "a call of which there is no right one"
