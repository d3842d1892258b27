from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from service.errors import StartupFailed, UnknownModel, UnknownVersion
from service.metrics import Metrics
from service.repository import Repository, VersionState
from service.settings import Settings

pytestmark = pytest.mark.anyio


def repository(models: Path, **settings: object) -> Repository:
    return Repository(Settings(models=models, engine="openvino", **settings), Metrics())


def damage(folder: Path) -> None:
    with (folder / "variables" / "variables.data-00000-of-00001").open("r+b") as file:
        file.truncate(1000)


async def test_every_valid_version_is_loaded_and_the_highest_answers(own_models: Path) -> None:
    second = shutil.copytree(own_models / "shapes" / "1", own_models / "shapes" / "10")
    manifest = second / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"version": 1', '"version": 10', 1))
    async with repository(own_models) as loaded:
        assert [state.version for state in loaded.states("shapes")] == [1, 10]
        assert loaded.find(None, None).manifest.version == 10
        assert loaded.find("shapes", 1).manifest.version == 1
        assert loaded.alive
    assert not loaded.alive


async def test_a_damaged_version_is_kept_out_and_the_others_serve(own_models: Path) -> None:
    damage(shutil.copytree(own_models / "shapes" / "1", own_models / "shapes" / "2"))
    manifest = own_models / "shapes" / "2" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"version": 1', '"version": 2', 1))
    async with repository(own_models) as loaded:
        first, second = loaded.states("shapes")
        assert first == VersionState("shapes", 1, "available", engine="openvino")
        assert (second.state, second.engine) == ("failed", None)
        assert second.reason is not None
        assert second.reason.startswith("variables/variables.data-00000-of-00001 differs from the manifest")
        assert loaded.find(None, None).manifest.version == 1
        with pytest.raises(UnknownVersion, match=r"expected version 1 of shapes, got 2, which failed: variables/"):
            loaded.find("shapes", 2)


async def test_folders_that_are_no_versions_are_ignored(own_models: Path) -> None:
    (own_models / "shapes" / ".publishing-abc").mkdir()
    (own_models / "shapes" / "notes").mkdir()
    (own_models / "shapes" / "01").mkdir()
    (own_models / "no\nname" / "1").mkdir(parents=True)
    Path(os.fsdecode(os.fsencode(own_models) + b"/no\xffname/1")).mkdir(parents=True)
    (own_models / "README.md").write_text("About these models.")
    async with repository(own_models) as loaded:
        assert loaded.models == ["shapes"]
        assert len(loaded.states("shapes")) == 1
        with pytest.raises(UnknownModel):
            loaded.states("notes")


async def test_a_graph_that_no_engine_reads_says_so_without_its_insides(own_models: Path) -> None:
    folder = own_models / "shapes" / "1"
    import hashlib

    old = hashlib.sha256((folder / "saved_model.pb").read_bytes()).hexdigest()
    (folder / "saved_model.pb").write_bytes(b"no graph at all")
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace(old, hashlib.sha256(b"no graph at all").hexdigest()))
    with pytest.raises(StartupFailed, match=r"shapes/1: the engine cannot load it \(\w+\)$"):
        await repository(own_models).__aenter__()


async def test_no_models_folder_fails_the_start(tmp_path: Path) -> None:
    with pytest.raises(
        StartupFailed, match=r"expected a folder of models at .*missing, found none; set SICHTBAR_MODELS"
    ):
        await repository(tmp_path / "missing").__aenter__()


async def test_an_empty_models_folder_fails_the_start(tmp_path: Path) -> None:
    with pytest.raises(StartupFailed, match=r"expected <model>/<version>/manifest\.json, found none"):
        await repository(tmp_path).__aenter__()


async def test_only_damaged_versions_fail_the_start_and_each_is_named(own_models: Path) -> None:
    damage(own_models / "shapes" / "1")
    with pytest.raises(StartupFailed, match=r"no valid model under .*: shapes/1: variables/variables\.data"):
        await repository(own_models).__aenter__()


async def test_a_default_model_that_is_not_there_fails_the_start(own_models: Path) -> None:
    with pytest.raises(StartupFailed, match="the default model 'cats' is none of shapes"):
        await repository(own_models, default_model="cats").__aenter__()
