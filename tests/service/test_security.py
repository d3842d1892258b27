from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from service import security
from service.errors import RateLimited, StartupFailed
from service.security import Key, Keys, add_key

BOTH = frozenset({"predict", "explain"})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def opened(path: Path, per_minute: float | None) -> tuple[Keys, Key]:
    shown = add_key(path, "shop", BOTH, per_minute)
    keys = Keys(path)
    key = keys.find(shown)
    assert key is not None
    return keys, key


def test_a_key_is_known_by_its_digest_alone(path: Path) -> None:
    shown = add_key(path, "shop", BOTH, None)
    assert shown not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    found = Keys(path).find(shown)
    assert found is not None
    assert (found.name, found.scopes) == ("shop", BOTH)


@pytest.mark.parametrize("shown", ["", "x", "shop", "ü"], ids=repr)
def test_another_is_no_key(path: Path, shown: str) -> None:
    add_key(path, "shop", BOTH, None)
    assert Keys(path).find(shown) is None


def test_a_digest_shown_as_a_key_is_none(path: Path) -> None:
    add_key(path, "shop", BOTH, None)
    assert Keys(path).find(json.loads(path.read_text())["keys"][0]["sha256"]) is None


def test_keys_come_and_go_while_they_are_in_use(path: Path) -> None:
    first = add_key(path, "first", BOTH, None)
    keys = Keys(path)
    second = add_key(path, "second", frozenset({"predict"}), None)
    assert keys.find(second) is not None
    held = json.loads(path.read_text())
    held["keys"] = held["keys"][1:]
    path.write_text(json.dumps(held))
    assert keys.find(first) is None
    assert keys.find(second) is not None


@pytest.mark.parametrize("broken", ["", "{", '{"keys": 1}', '{"keys": [{"name": "a"}]}'])
def test_a_file_that_breaks_changes_nothing_and_is_told_once(path: Path, broken: str) -> None:
    shown = add_key(path, "shop", BOTH, None)
    keys = Keys(path)
    path.write_text(broken)
    with capture_logs() as logs:
        assert keys.find(shown) is not None
        assert keys.find(shown) is not None
    assert [entry["event"] for entry in logs] == ["keys_not_read"]
    path.unlink()
    assert keys.find(shown) is not None


@pytest.mark.parametrize("broken", ["", '{"keys": [{"name": "a", "sha256": "b", "scopes": []}]}', None])
def test_without_valid_keys_nothing_starts(path: Path, broken: str | None) -> None:
    if broken is not None:
        path.write_text(broken)
    with pytest.raises(StartupFailed, match="expected keys as JSON"):
        Keys(path)


def test_what_is_wrong_with_the_file_is_said_without_what_might_be_a_key(path: Path) -> None:
    path.write_text('{"keys": [{"name": "a", "sha256": "my-secret", "scopes": ["predict"]}]}')
    with pytest.raises(StartupFailed, match=r"SICHTBAR_KEYS=.*keys\.0\.sha256: String should match") as told:
        Keys(path)
    assert "my-secret" not in str(told.value)


def test_a_name_is_given_once(path: Path) -> None:
    add_key(path, "shop", BOTH, None)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="found again: shop"):
        add_key(path, "shop", BOTH, None)
    assert path.read_bytes() == before


def test_a_key_asks_no_more_often_than_it_may(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(security, "monotonic", lambda: now)
    keys, limited = opened(path, 30)
    for _ in range(30):
        keys.take(limited)
    with pytest.raises(RateLimited) as refused:
        keys.take(limited)
    assert refused.value.retry_after == pytest.approx(2)
    now += 2
    keys.take(limited)
    with pytest.raises(RateLimited):
        keys.take(limited)
    # A changed limit counts anew.
    keys.take(limited.model_copy(update={"requests_per_minute": 60.0}))


def test_workers_count_a_key_s_requests_together(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(security, "monotonic", lambda: now)
    shown = add_key(path, "shop", BOTH, 30)
    workers = [Keys(path, tmp_path) for _ in range(3)]
    key = workers[0].find(shown)
    assert key is not None
    for number in range(30):
        workers[number % 3].take(key)
    for keys in (*workers, Keys(path, tmp_path)):
        with pytest.raises(RateLimited) as refused:
            keys.take(key)
        assert refused.value.retry_after == pytest.approx(2)
    now += 4
    workers[0].take(key)
    workers[1].take(key)
    with pytest.raises(RateLimited):
        workers[2].take(key)


def test_a_key_without_a_limit_asks_as_often_as_it_likes(path: Path) -> None:
    keys, key = opened(path, None)
    for _ in range(1000):
        keys.take(key)
