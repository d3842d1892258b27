from __future__ import annotations

from pathlib import Path

import pytest

from service.errors import LabelsNotWritten
from service.labels import InvalidLabels, Labels, read_labels, write_labels


def test_what_is_written_is_read_again_and_nothing_else_is_left(tmp_path: Path) -> None:
    labels = Labels(stable=1, canary=3, canary_weight=0.25)
    write_labels(tmp_path, Labels(stable=9))
    write_labels(tmp_path, labels)
    assert read_labels(tmp_path) == labels
    assert [path.name for path in tmp_path.iterdir()] == ["labels.json"]


def test_without_a_file_nothing_is_labelled(tmp_path: Path) -> None:
    assert read_labels(tmp_path) == Labels(stable=None, canary=None, canary_weight=0)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param("", "labels.json: Invalid JSON", id="empty"),
        pytest.param('{"stable": 0}', "labels.json: stable: .*, got 0", id="no-version"),
        pytest.param('{"stable": "1"}', 'labels.json: stable: .* valid integer, got "1"', id="text"),
        pytest.param('{"stable": true}', "labels.json: stable: .* valid integer, got true", id="truth"),
        pytest.param('{"canary_weight": "0.5"}', "labels.json: canary_weight: .* valid number", id="text-for-weight"),
        pytest.param('{"latest": 1}', "nothing but stable, canary, canary_weight, got latest", id="unknown"),
        pytest.param('{"canary": 1, "canary_weight": 1.5}', "labels.json: canary_weight: ", id="weight"),
    ],
)
def test_an_invalid_file_says_what_is_wrong(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "labels.json").write_text(text)
    with pytest.raises(InvalidLabels, match=problem):
        read_labels(tmp_path)


def test_a_file_that_cannot_be_read_or_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "labels.json").mkdir()
    with pytest.raises(InvalidLabels, match=r"labels\.json cannot be read: "):
        read_labels(tmp_path)
    with pytest.raises(LabelsNotWritten, match=rf"labels\.json of {tmp_path.name} cannot be written: "):
        write_labels(tmp_path, Labels())
    assert [path.name for path in tmp_path.iterdir()] == ["labels.json"]
