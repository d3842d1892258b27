"""A version is there whole or not at all."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import pytest

from service.manifest import InvalidVersion, Manifest, hash_files, read_manifest, verify_files
from training.errors import PublishError
from training.publish import next_version, numbered, publish, staging_folder


@pytest.fixture
def manifest(shapes_models: Path) -> Manifest:
    return read_manifest(shapes_models / "shapes" / "1")


def stage(folder: Path, manifest: Manifest, version: int = 1) -> Manifest:
    """Some files, and the manifest that promises them."""
    (folder / "variables").mkdir()
    (folder / "saved_model.pb").write_bytes(b"graph")
    (folder / "variables" / "variables.index").write_bytes(b"index")
    return manifest.model_copy(update={"version": version, "files": hash_files(folder)})


def published(models: Path, manifest: Manifest, version: int = 1) -> Path:
    with staging_folder(models, "shapes") as staged:
        return publish(staged, stage(staged, manifest, version), models)


def contents(folder: Path) -> dict[str, bytes | None]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")
    }


def test_a_published_version_keeps_what_its_manifest_promises(tmp_path: Path, manifest: Manifest):
    folder = published(tmp_path, manifest)
    assert folder == tmp_path / "shapes" / "1"
    found = read_manifest(folder)
    assert set(found.files) == {"saved_model.pb", "variables/variables.index"}
    verify_files(folder, found)
    (folder / "variables" / "variables.index").write_bytes(b"indes")
    with pytest.raises(InvalidVersion, match=r"variables/variables\.index differs"):
        verify_files(folder, found)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_another_user_may_read_a_published_version(tmp_path: Path, manifest: Manifest):
    assert stat.S_IMODE(published(tmp_path, manifest).stat().st_mode) == 0o755


def test_nothing_is_visible_before_it_is_published(tmp_path: Path, manifest: Manifest):
    with staging_folder(tmp_path, "shapes") as staged:
        ready = stage(staged, manifest)
        assert staged.parent == tmp_path / "shapes"
        assert [path.name[0] for path in (tmp_path / "shapes").iterdir()] == ["."]
        assert next_version(tmp_path, "shapes") == 1
        publish(staged, ready, tmp_path)
        assert [path.name for path in (tmp_path / "shapes").iterdir()] == ["1"]
    assert [path.name for path in (tmp_path / "shapes").iterdir()] == ["1"]


def test_after_an_exception_nothing_is_left(tmp_path: Path, manifest: Manifest):
    def fail() -> None:
        with staging_folder(tmp_path, "shapes") as staged:
            stage(staged, manifest)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list((tmp_path / "shapes").iterdir()) == []


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        pytest.param([], 1, id="none"),
        pytest.param(["1"], 2, id="one"),
        pytest.param(["2", "10", "9"], 11, id="highest-by-number"),
        pytest.param(["1", ".publishing-7", "old", "3.bak", "-4", "²"], 2, id="others-ignored"),
    ],
)
def test_the_next_version_is_one_more_than_the_highest(tmp_path: Path, names: list[str], expected: int):
    for name in names:
        (tmp_path / "shapes" / name).mkdir(parents=True)
    (tmp_path / "other" / "77").mkdir(parents=True)
    assert next_version(tmp_path, "shapes") == expected


def test_versions_are_published_side_by_side(tmp_path: Path, manifest: Manifest):
    for _ in range(2):
        published(tmp_path, manifest, next_version(tmp_path, "shapes"))
    assert sorted(path.name for path in (tmp_path / "shapes").iterdir()) == ["1", "2"]
    assert [read_manifest(tmp_path / "shapes" / name).version for name in "12"] == [1, 2]


def test_a_version_that_is_there_is_left_byte_for_byte(own_models: Path, manifest: Manifest):
    before = contents(own_models)
    with pytest.raises(PublishError, match="expected a free version number, found a version; nothing was overwritten"):
        published(own_models, manifest)
    assert contents(own_models) == before


@pytest.mark.parametrize(
    "occupy",
    [
        # A rename would replace this one silently.
        pytest.param(lambda path: path.mkdir(), id="empty-folder"),
        pytest.param(lambda path: path.write_bytes(b"mine"), id="file"),
        pytest.param(lambda path: path.symlink_to(path.parent / "nowhere"), id="link-to-nowhere"),
    ],
)
def test_whatever_has_the_versions_name_stays(tmp_path: Path, manifest: Manifest, occupy: object):
    path = tmp_path / "shapes" / "1"
    path.parent.mkdir()
    assert callable(occupy)
    occupy(path)
    before = contents(tmp_path), path.is_symlink()
    with pytest.raises(PublishError) as raised:
        published(tmp_path, manifest)
    assert str(raised.value).startswith(f"{path}: ")
    assert (contents(tmp_path), path.is_symlink()) == before


@pytest.mark.parametrize("name", ["models", "models/shapes"])
def test_a_file_in_the_place_of_the_models_folder_is_said(tmp_path: Path, name: str):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"mine")
    with pytest.raises(PublishError, match=re.escape(str(path))), staging_folder(tmp_path / "models", "shapes"):
        pytest.fail("nothing can be staged there")


def test_two_runs_at_once_leave_each_others_folder(tmp_path: Path, manifest: Manifest):
    with staging_folder(tmp_path, "shapes") as first:
        with staging_folder(tmp_path, "shapes") as second:
            assert first.is_dir()
            publish(second, stage(second, manifest, 2), tmp_path)
        publish(first, stage(first, manifest, 1), tmp_path)
    assert sorted(path.name for path in (tmp_path / "shapes").iterdir()) == ["1", "2"]


@pytest.mark.parametrize(
    "leave",
    [
        pytest.param(lambda path: (path / "variables").mkdir(parents=True), id="of-a-killed-run"),
        # As one that was removed by its own run after it was listed here.
        pytest.param(lambda path: path.symlink_to(path.parent / "nowhere"), id="gone-meanwhile"),
    ],
)
def test_what_another_run_left_is_no_hindrance(tmp_path: Path, leave: Callable[[Path], object]):
    (tmp_path / "shapes").mkdir()
    left = tmp_path / "shapes" / ".publishing-left"
    leave(left)
    with staging_folder(tmp_path, "shapes") as staged:
        assert staged.is_dir()
        assert not left.exists()


def test_a_number_is_nobody_else_s_until_it_is_published(tmp_path: Path):
    (tmp_path / "shapes").mkdir()
    got: list[int] = []

    def second() -> None:
        with numbered(tmp_path, "shapes", None) as number:
            got.append(number)

    with numbered(tmp_path, "shapes", None) as number:
        thread = Thread(target=second)
        thread.start()
        (tmp_path / "shapes" / str(number)).mkdir()
    thread.join()
    assert (number, got) == (1, [2])
