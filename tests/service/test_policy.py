from __future__ import annotations

import pytest
from pydantic import ValidationError

from service.policy import rule_for, takes
from service.settings import Settings


@pytest.mark.parametrize(
    ("rule", "taken"),
    [("all", [4, 3, 2, 1]), ("latest:1", [4]), ("latest:3", [4, 3, 2]), ("1,3", [3, 1]), ("9", [])],
)
def test_a_rule_takes_versions_from_the_newest_on(rule: str, taken: list[int]) -> None:
    chosen: list[int] = []
    for version in (4, 3, 2, 1):
        if takes(rule, version, len(chosen)):
            chosen.append(version)
    assert chosen == taken


def test_a_model_may_have_a_rule_of_its_own() -> None:
    versions = "latest:1 fruit_cnn=all a.b-c=1,3"
    assert [rule_for(versions, model) for model in ("fruit_cnn", "a.b-c", "other")] == ["all", "1,3", "latest:1"]


@pytest.mark.parametrize("text", ["", "latest", "latest:0", "1,", "0", "fruit_cnn=all", "all fruit_cnn", "all  a=1"])
def test_what_is_no_rule_is_refused(text: str) -> None:
    with pytest.raises(ValidationError, match=r"versions\n.*expected `all`, `latest:N` or numbers"):
        Settings(versions=text)
