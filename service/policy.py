"""Which of a model's versions are loaded: the text of `SICHTBAR_VERSIONS` in, yes or no out."""

from __future__ import annotations

import re

_RULE = r"(?:all|latest:[1-9][0-9]{0,3}|[1-9][0-9]{0,17}(?:,[1-9][0-9]{0,17})*)"
_RULES = re.compile(rf"{_RULE}(?: [A-Za-z0-9][A-Za-z0-9_.-]{{0,63}}={_RULE})*")


def checked(versions: str) -> str:
    """The text, if it is a rule for every model, and then others for some, as in `latest:1 fruit_cnn=1,3`.

    Raises:
        ValueError: it is not.
    """
    if not _RULES.fullmatch(versions):
        raise ValueError("expected `all`, `latest:N` or numbers such as `1,3`, then `<model>=<one of these>` for some")
    return versions


def rule_for(versions: str, model: str) -> str:
    """The model's own rule, or that of every model."""
    everyone, *own = versions.split(" ")
    return dict(rule.split("=") for rule in own).get(model, everyone)


def takes(rule: str, version: int, newer: int) -> bool:
    """Whether the rule takes a version, of which `newer` ones are loaded already."""
    if rule == "all":
        return True
    if rule.startswith("latest:"):
        return newer < int(rule.removeprefix("latest:"))
    return str(version) in rule.split(",")
