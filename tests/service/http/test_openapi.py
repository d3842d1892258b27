from __future__ import annotations

import re
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from service.http.errors import STATUS
from tests.conftest import draw, encode
from tests.service.http.test_native import problem

CALLS = {
    ("post", "/predict"),
    ("get", "/explain"),
    ("post", "/explain"),
    ("post", "/explanations"),
    ("get", "/explanations/{job}"),
    ("delete", "/explanations/{job}"),
    ("get", "/explanations/{job}/result"),
    ("get", "/explanations/{job}/preview"),
    ("get", "/explanations/{job}/events"),
    ("get", "/models"),
    ("get", "/models/{model}"),
    ("get", "/models/{model}/versions/{version}"),
    ("post", "/models/{model}/versions/{version}:load"),
    ("post", "/models/{model}/versions/{version}:unload"),
    ("put", "/models/{model}/labels"),
    ("get", "/models/{model}/versions/{version}/report"),
    ("get", "/models/{model}/versions/{version}/report/{file}"),
    ("get", "/images/{image_id}"),
    ("get", "/activations"),
    ("post", "/activations"),
    ("get", "/walk"),
    ("get", "/models/{model}/layers"),
    ("get", "/models/{model}/versions/{version}/layers"),
    ("get", "/models/{model}/filters"),
    ("get", "/models/{model}/graph"),
    ("get", "/health/live"),
    ("get", "/health/ready"),
    ("get", "/metrics"),
}


@pytest.fixture(scope="session")
def document(live: httpx.Client) -> dict[str, Any]:
    document: dict[str, Any] = live.get("/openapi.json").json()
    return document


def schema(document: dict[str, Any], part: dict[str, Any]) -> Draft202012Validator:
    return Draft202012Validator({**part, "components": document["components"]})


def test_the_document_is_valid_and_lists_every_call(document: dict[str, Any]) -> None:
    validate(document)
    assert {(method, path) for path, methods in document["paths"].items() for method in methods} == CALLS


# What monitoring reads takes any parameter.
PLACES = [(method, path) for method, path in sorted(CALLS) if not re.match("/health|/metrics", path)]
NAMES = {"job": "0" * 32, "model": "cats", "version": 1, "file": "report.json", "image_id": "0" * 64}


@pytest.mark.parametrize(("method", "path"), PLACES)
def test_a_parameter_that_is_given_twice_is_refused_by_every_call(live: httpx.Client, method: str, path: str) -> None:
    answer = live.request(method, path.format_map(NAMES) + "?label=a&model=b&label=c&label=d")
    assert "got label 3 times" in str(problem(answer, 422, "invalid_request")["detail"])


@pytest.mark.parametrize("path", [path for method, path in sorted(CALLS) if method == "get" and "/events" not in path])
def test_head_is_get_without_a_body_and_is_not_listed(live: httpx.Client, path: str) -> None:
    get, head = (live.request(method, path.format_map(NAMES)) for method in ("GET", "HEAD"))
    assert (head.status_code, head.headers["content-type"]) == (get.status_code, get.headers["content-type"])
    assert not head.content


def test_every_example_fits_its_schema(document: dict[str, Any]) -> None:
    checked = 0
    for methods in document["paths"].values():
        for call in methods.values():
            for response in (*call["responses"].values(), call.get("requestBody", {})):
                for media in response.get("content", {}).values():
                    for example in (e["value"] for e in media.get("examples", {}).values()):
                        schema(document, media["schema"]).validate(example)
                        checked += 1
    for component in document["components"]["schemas"].values():
        if "example" in component:
            schema(document, component).validate(component["example"])
            checked += 1
    assert checked > 20


def test_a_call_that_takes_one_picture_says_so(document: dict[str, Any]) -> None:
    for path in ("/explain", "/explanations", "/activations"):
        form = document["paths"][path]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
        assert form["properties"]["file"]["maxItems"] == 1
    for path in ("/activations", "/walk", "/explain"):
        problems = document["paths"][path]["get"]["responses"]["503"]["content"]["application/problem+json"]
        assert "store_unavailable" in problems["examples"]


def test_every_call_has_an_example_of_its_answer(document: dict[str, Any]) -> None:
    for path, methods in document["paths"].items():
        for call in methods.values():
            if "307" in call["responses"]:
                assert "example" in call["responses"]["307"]["headers"]["Location"], path
                continue
            answer = call["responses"].get("200") or call["responses"]["202"]
            for kind, media in answer["content"].items():
                reference = media["schema"].get("$ref", "").rpartition("/")[2]
                shown = "example" in media or "example" in document["components"]["schemas"].get(reference, {})
                assert shown or kind.startswith("image/"), path


def test_a_result_that_will_never_come_is_documented_as_gone(document: dict[str, Any]) -> None:
    examples = document["paths"]["/explanations/{job}/result"]["get"]["responses"]["410"]["content"][
        "application/problem+json"
    ]["examples"]
    assert set(examples) >= {"explanation_cancelled", "explanation_interrupted", "deadline_exceeded", "explainer_died"}
    assert all(example["value"]["status"] == 410 for example in examples.values())


def test_predict_documents_every_error_but_those_of_other_calls_and_of_the_start(document: dict[str, Any]) -> None:
    responses = document["paths"]["/predict"]["post"]["responses"]
    documented = {
        (int(status), code)
        for status, response in responses.items()
        if int(status) >= 400
        for code in response["content"]["application/problem+json"]["examples"]
    }
    others = {
        "startup_failed",
        # Any call may answer it.
        "malformed_request",
        "labels_not_written",
        "unknown_report",
        "unknown_image",
        "unknown_label",
        "unknown_layer",
        "store_unavailable",
        "unknown_explanation",
        "no_preview",
        "explanation_cancelled",
        "explainer_died",
        "explanation_interrupted",
        "explanation_failed",
    }
    expected = {(status, kind.code) for kind, status in STATUS.items() if kind.code not in others}
    assert documented == expected | {(500, "internal_error")}


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param({"files": {"file": encode(draw("square", 5))}}, id="200"),
        pytest.param({"files": {"file": b"x"}}, id="415"),
        pytest.param({"files": {"file": b""}}, id="422"),
        pytest.param({"files": {"file": b"x"}, "params": {"model": "cats"}}, id="404"),
    ],
)
def test_answers_fit_the_documented_schema(
    live: httpx.Client, document: dict[str, Any], request_: dict[str, Any]
) -> None:
    answer = live.post("/predict", **request_)
    content = document["paths"]["/predict"]["post"]["responses"][str(answer.status_code)]["content"]
    schema(document, content[answer.headers["content-type"]]["schema"]).validate(answer.json())


def test_the_documented_example_body_is_a_picture(live: httpx.Client, document: dict[str, Any]) -> None:
    body = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]
    schema(document, body["schema"]).validate(body["example"])
    assert live.post("/predict", json=body["example"]).status_code == 200


@pytest.mark.parametrize(
    "params",
    [
        pytest.param({"format": "json", "samples": 32}, id="lime"),
        pytest.param({"format": "json", "method": "gradcam"}, id="gradcam"),
        pytest.param({"samples": 10_000, "wait": 0}, id="job"),
        pytest.param({"label": "cat"}, id="problem"),
    ],
)
def test_explanations_fit_the_documented_schema(
    live: httpx.Client, document: dict[str, Any], params: dict[str, Any]
) -> None:
    answer = live.post("/explain", params=params, files={"file": encode(draw("square", 6))}, timeout=60)
    content = document["paths"]["/explain"]["post"]["responses"][str(answer.status_code)]["content"]
    schema(document, content[answer.headers["content-type"]]["schema"]).validate(answer.json())
    if answer.status_code == 202:
        live.delete(answer.headers["location"])


def test_the_documented_example_of_an_explanation_s_json_parameters_is_read(
    live: httpx.Client, document: dict[str, Any]
) -> None:
    body = document["paths"]["/explanations"]["post"]["requestBody"]["content"]["application/json"]
    schema(document, body["schema"]).validate(body["example"])
    answer = live.post("/explanations", json=body["example"])
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_model")
