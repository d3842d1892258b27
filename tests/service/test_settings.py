from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from service.errors import StartupFailed
from service.settings import Settings, table


def test_the_environment_overrides_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SICHTBAR_PORT", "9000")
    monkeypatch.setenv("SICHTBAR_MODELS", "/srv/models")
    settings = Settings.from_environ()
    assert (settings.port, settings.models, settings.host) == (9000, Path("/srv/models"), "127.0.0.1")


def test_an_unknown_variable_is_an_error_that_names_it_and_the_known_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SICHTBAR_PROT", "9000")
    with pytest.raises(StartupFailed, match=r"unknown settings: SICHTBAR_PROT; expected any of .*SICHTBAR_PORT"):
        Settings.from_environ()


def test_a_lower_case_typo_is_found_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("sichtbar_prot", "9000")
    with pytest.raises(StartupFailed, match="unknown settings: sichtbar_prot"):
        Settings.from_environ()


def test_the_variables_of_tests_and_training_are_no_settings_and_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SICHTBAR_DATA", "/data")
    monkeypatch.setenv("SICHTBAR_WEIGHTS", "/weights")
    Settings.from_environ()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "high"),
        ("PORT", "65536"),
        ("PORT", "8_000"),
        ("EXPLAIN_WAIT", "1_0"),
        ("CORS_ORIGINS", "https://example.org/"),
        ("CORS_ORIGINS", "example.org"),
        ("ENGINE", "onnx"),
        ("MAX_QUEUE", "0"),
        ("TIMEOUT", "0"),
        ("DRAIN_SECONDS", "inf"),
        ("HANG_SECONDS", "0.9"),
        ("SHUTDOWN_DELAY", "-1"),
        ("SETTLE_SECONDS", "-1"),
        ("EXPLAIN_WAIT", "-1"),
        ("EXPLAIN_WAIT", "3601"),
        ("ROOT_PATH", "sichtbar"),
        ("ROOT_PATH", "/sichtbar/"),
        ("ROOT_PATH", "/a//b"),
        ("STORE_MAX_SECONDS", "315360001"),
        ("EXPLAIN_KEEP_SECONDS", "70000000000"),
    ],
)
def test_a_wrong_value_is_an_error_that_names_variable_and_value(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"SICHTBAR_{name}", value)
    with pytest.raises(StartupFailed, match=f"SICHTBAR_{name}='{value}'"):
        Settings.from_environ()


def test_of_a_wrong_value_what_was_expected_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SICHTBAR_ENGINE", "onnx")
    with pytest.raises(StartupFailed) as told:
        Settings.from_environ()
    assert str(told.value) == "SICHTBAR_ENGINE='onnx': Input should be 'auto', 'openvino' or 'tensorflow'"


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        Settings().port = 1


def test_every_setting_is_described() -> None:
    assert all(name.startswith("SICHTBAR_") and description.endswith(".") for name, _, description in table())
