from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from service.http.schemas import JobQuery
from service.labels import Labels
from service.manifest import Input
from service.problems import described, first_problem


def invalid(kind: type[BaseModel], document: Any) -> ValidationError:
    with pytest.raises(ValidationError) as refused:
        kind.model_validate(document)
    return refused.value


def test_it_says_where_what_was_expected_and_what_came() -> None:
    problem = invalid(Labels, {"stable": 0})
    assert first_problem(problem) == "stable: Input should be greater than or equal to 1, got 0"
    assert first_problem(problem, show=False) == "stable: Input should be greater than or equal to 1"
    assert [described(one) for one in problem.errors()] == [first_problem(problem)]


def test_a_document_as_a_whole_may_have_a_name() -> None:
    problem = invalid(Labels, [1])
    assert first_problem(problem, "the body").startswith("the body: Input should be a valid dictionary")
    assert first_problem(problem).startswith("Input should be a valid dictionary")


def test_of_what_came_no_more_than_a_line_is_shown() -> None:
    assert len(first_problem(invalid(JobQuery, {"image_id": "a" * 9000}))) < 200


@pytest.mark.parametrize(
    ("kind", "document", "said"),
    [
        (Labels, {"stabel": 1}, "expected nothing but stable, canary, canary_weight, got stabel"),
        (
            Input,
            {"height": 2, "width": 2, "resize": "pad", "crop_share": 0.5},
            "expected crop_share with crop alone, found it with pad",
        ),
    ],
)
def test_where_the_service_says_itself_what_came_it_is_said_once(
    kind: type[BaseModel], document: dict[str, object], said: str
) -> None:
    assert first_problem(invalid(kind, document)) == said


def test_what_came_may_read_like_an_answer() -> None:
    problem = first_problem(invalid(JobQuery, {"samples": "5, got 6"}))
    assert problem == 'samples: expected a whole number in digits, such as 5, got "5, got 6"'
