"""The folder that the workers of one service share, and those of services that were killed."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from service.team import PREFIX, Place, shared_folder


def test_folders_of_services_that_were_killed_are_removed_and_those_of_others_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left, new, others = (tmp_path / name for name in (f"{PREFIX}left", f"{PREFIX}new", "others"))
    for folder in (left, new, others):
        folder.mkdir()
    Place(left).make()
    (others / "file").touch()
    # Whoever may write there may lay one that leads elsewhere.
    link = tmp_path / f"{PREFIX}link"
    link.symlink_to(others)
    with shared_folder() as first:
        Place(first).make()
        assert set(tmp_path.iterdir()) == {first, new, others, link}
        with shared_folder() as second:
            assert set(tmp_path.iterdir()) == {first, second, new, others, link}
    assert set(tmp_path.iterdir()) == {new, others, link}
    assert (others / "file").exists()
