from __future__ import annotations

import json
import os
import shutil
import threading
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest

from service import rollout as rollout_module
from service.engines.base import Engine
from service.errors import StartupFailed, UnknownModel, UnknownVersion
from service.metrics import Metrics
from service.repository import Repository, VersionState
from service.rollout import Rollout
from service.settings import Settings
from tests.conftest import until

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def repository(models: Path, **settings: object) -> AsyncIterator[Repository]:
    async with Rollout(Settings(models=models, engine="openvino", **settings), Metrics()) as rollout:
        yield rollout.repository


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


async def test_predictions_are_computed_in_bfloat16_where_that_is_set_and_the_processor_can(own_models: Path) -> None:
    pixels = np.random.default_rng(5).integers(0, 256, (16, 12, 3), dtype=np.uint8)
    answers = []
    for precision in ("float32", "bfloat16"):
        async with repository(own_models, precision=precision) as loaded:
            answers.append((await loaded.find(None, None).batcher.submit(pixels)).value.probabilities)
    np.testing.assert_allclose(*answers, atol=0.05)
    differ = bool((answers[0] != answers[1]).any())
    assert differ == ("BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


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
    with pytest.raises(StartupFailed, match="SICHTBAR_DEFAULT_MODEL: expected one of shapes, got 'cats'"):
        await repository(own_models, default_model="cats").__aenter__()


@asynccontextmanager
async def changing(models: Path, **settings: object) -> AsyncIterator[Rollout]:
    quick = {"settle_seconds": 0.0, "versions": "latest:1", **settings}
    async with Rollout(Settings(models=models, engine="openvino", **quick), Metrics()) as rollout:
        yield rollout


def publish(models: Path, number: int) -> None:
    new = shutil.copytree(models / "shapes" / "1", models / "shapes" / ".new")
    manifest = new / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"version": 1', f'"version": {number}', 1))
    new.rename(models / "shapes" / str(number))


async def swapped(rollout: Rollout, models: Path) -> None:
    publish(models, 2)
    await until(lambda: rollout.repository.find("shapes", None).manifest.version == 2)


async def test_whoever_has_a_version_may_ask_it_until_he_lets_go_and_then_it_is_freed(own_models: Path) -> None:
    async with changing(own_models) as rollout:
        old = rollout.repository.find("shapes", None)
        target = old.manifest.input
        await swapped(rollout, own_models)
        picture = np.zeros((target.height, target.width, 3), np.uint8)
        assert (await old.batcher.submit(picture)).value.probabilities.shape == (3,)
        assert [state.state for state in rollout.repository.states("shapes")] == ["unloading", "available"]
        batcher, network = old.batcher, weakref.ref(old.batcher._run)
        del old
        await until(lambda: rollout.repository.states("shapes")[0].state == "unloaded")
        assert not batcher.alive
        assert network() is None
        with pytest.raises(
            UnknownVersion, match="expected version 2 of shapes, got 1, which is unloaded: SICHTBAR_VERSI"
        ):
            rollout.repository.find("shapes", 1)


async def test_a_version_that_is_never_let_go_is_closed_when_no_request_can_need_it(own_models: Path) -> None:
    released: list[Path] = []
    settings = Settings(models=own_models, engine="openvino", settle_seconds=0.0, versions="latest:1", timeout=0.1)
    async with Rollout(settings, Metrics(), on_released=lambda folder, digest: released.append(folder)) as rollout:
        old = rollout.repository.find("shapes", None)
        await swapped(rollout, own_models)
        await until(lambda: rollout.repository.states("shapes")[0].state == "unloaded")
        assert not old.batcher.alive
        assert released == []
        del old
        await until(lambda: released == [own_models / "shapes" / "1"])


async def test_shared_weights_go_with_their_version_and_of_one_that_fails_none_stay(
    own_models: Path, tmp_path: Path
) -> None:
    publish(own_models, 2)
    manifest = own_models / "shapes" / "2" / "manifest.json"
    promised = json.loads(manifest.read_text())
    promised["probe"]["probabilities"].reverse()
    manifest.write_text(json.dumps(promised))
    weights = tmp_path / "weights"
    weights.mkdir()
    settings = Settings(models=own_models, engine="openvino", settle_seconds=0.0, timeout=0.1)
    async with Rollout(settings, Metrics(), weights=weights) as rollout:
        reason = rollout.repository.states("shapes")[1].reason
        assert reason is not None
        assert reason.startswith("probe: probabilities differ")
        digest = rollout.repository.find("shapes", 1).digest
        assert [path.name.partition("-")[0] for path in weights.iterdir()] == [digest]
        await rollout.order("shapes", 1, "unload")
        await until(lambda: not list(weights.iterdir()))


async def test_a_version_s_metrics_go_with_it(own_models: Path) -> None:
    async with changing(own_models) as rollout:
        publish(own_models, 2)
        await until(lambda: rollout.repository.find("shapes", None).manifest.version == 2)
        shutil.rmtree(own_models / "shapes" / "1")
        await until(lambda: len(rollout.repository.states("shapes")) == 1)
        text = rollout.repository._metrics.exposition().decode()
    lines = [line for line in text.splitlines() if "queue_length{" in line or "version_state{" in line]
    assert lines == [
        'sichtbar_queue_length{model="shapes",version="2"} 0.0',
        'sichtbar_model_version_state{engine="openvino",model="shapes",state="available",version="2"} 1.0',
    ]


async def test_where_changes_are_not_watched_only_an_admin_loads(own_models: Path) -> None:
    async with changing(own_models, watch="off") as rollout:
        publish(own_models, 2)
        state = await rollout.order("shapes", 1, "load")
        assert state.state == "available"
        await until(lambda: rollout.repository.find("shapes", None).manifest.version == 2)


async def test_a_touched_file_is_read_again_and_nothing_else_happens(own_models: Path) -> None:
    async with changing(own_models, watch="off") as rollout:
        before = rollout.repository.find("shapes", None)
        (own_models / "shapes" / "1" / "saved_model.pb").touch()
        state = await rollout.order("shapes", 1, "load")
        assert (state.state, state.reason) == ("available", None)
        assert rollout.repository.find("shapes", None) is before


class Held:
    """Opens versions as ever, but none to the end while its gate is shut; but for what the start opens."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.opened: list[str] = []
        self._open = rollout_module._open

    def __call__(self, folder: Path, *arguments: Any) -> Engine:
        self.opened.append(folder.name)
        engine = self._open(folder, *arguments)
        assert folder.name == "1" or self.gate.wait(10)
        return engine


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    held = Held()
    monkeypatch.setattr(rollout_module, "_open", held)
    yield held
    held.gate.set()


async def test_while_a_version_is_loaded_the_one_before_answers(own_models: Path, held: Held) -> None:
    async with changing(own_models) as rollout:
        publish(own_models, 2)
        await until(lambda: rollout.repository.told("shapes", 2))
        assert [state.state for state in rollout.repository.states("shapes")] == ["available", "loading"]
        assert rollout.repository.find("shapes", None).manifest.version == 1
        with pytest.raises(UnknownVersion, match="expected version 1 of shapes, got 2, which is loading"):
            rollout.repository.find("shapes", 2)
        held.gate.set()
        await until(lambda: rollout.repository.find("shapes", None).manifest.version == 2)


async def test_files_that_change_while_they_are_read_are_read_again(own_models: Path, held: Held) -> None:
    async with changing(own_models) as rollout:
        publish(own_models, 2)
        await until(lambda: rollout.repository.told("shapes", 2))
        (own_models / "shapes" / "2" / "saved_model.pb").touch()
        held.gate.set()
        await until(lambda: rollout.repository.find("shapes", None).manifest.version == 2)
        assert held.opened == ["1", "2", "2"]


async def test_a_stop_waits_for_no_load(own_models: Path, held: Held) -> None:
    async with changing(own_models) as rollout:
        publish(own_models, 2)
        await until(lambda: rollout.repository.told("shapes", 2))
    assert not held.gate.is_set()


async def test_a_folder_that_was_away_for_a_moment_is_the_same_again(own_models: Path) -> None:
    async with changing(own_models, settle_seconds=0.3, watch="poll", watch_seconds=0.01) as rollout:
        before = rollout.repository.find("shapes", None)
        away = (own_models / "shapes" / "1").rename(own_models / "shapes" / "away")
        await until(lambda: rollout.repository.state("shapes", 1).reason is not None)
        assert rollout.repository.find("shapes", None) is before
        away.rename(own_models / "shapes" / "1")
        await until(lambda: rollout.repository.state("shapes", 1).reason is None)
        assert rollout.repository.find("shapes", None) is before
