"""A run that is killed goes on where it was, and ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from service.manifest import Manifest, read_manifest
from tests.conftest import ROOT
from training.__main__ import app


def kill_after(line: str, *arguments: str | Path, by: signal.Signals = signal.SIGKILL) -> int:
    """Run a command of training, send it the signal when it says so, and give its exit status."""
    command = [sys.executable, "-m", "training", *map(str, arguments)]
    environ = {**os.environ, "TERM": "dumb", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout
        heard = next((said for said in process.stdout if said.startswith(line)), None)
        process.send_signal(by)
        process.stdout.read()
    assert heard, f"it never said {line!r}"
    return process.returncode


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory, drawn_folder: Path, recipe_file: Path) -> tuple[Path, str]:
    """The models folder of a run that was killed in its fourth epoch, and what the second half of it said."""
    folder = tmp_path_factory.mktemp("killed")
    places = ("--data", drawn_folder, "--models", folder / "models", "--runs", folder / "runs")
    assert kill_after("epoch 3 of 8", "fit", recipe_file, *places) == -signal.SIGKILL
    done = CliRunner().invoke(app, [str(part) for part in ("fit", recipe_file, *places, "--no-maximise", "--resume")])
    assert done.exit_code == 0, done.output
    return folder, done.stdout


def test_a_killed_run_resumes_and_publishes_the_same_weights(resumed: tuple[Path, str], shapes_models: Path):
    folder, said = resumed
    assert "resuming after epoch " in said
    assert "epoch 1 of 8" not in said
    assert "epoch 8 of 8" in said
    ours, uninterrupted = (models / "shapes" / "1" for models in (folder / "models", shapes_models))
    (ours_file,), (their_file,) = ((path / "variables").glob("variables.data*") for path in (ours, uninterrupted))
    assert ours_file.read_bytes() == their_file.read_bytes()
    assert read_manifest(ours).metrics == read_manifest(uninterrupted).metrics


def test_nothing_of_a_killed_run_stays_among_the_versions(resumed: tuple[Path, str]):
    folder, _ = resumed
    assert [path.name for path in (folder / "models" / "shapes").iterdir()] == ["1"]
    assert not list((folder / "runs").rglob("*.npz"))


def test_a_run_that_is_asked_to_end_leaves_only_what_resumes_it(tmp_path: Path, drawn_folder: Path, recipe_file: Path):
    places = ("--data", drawn_folder, "--models", tmp_path / "models", "--runs", tmp_path / "runs")
    assert kill_after("epoch 3 of 8", "fit", recipe_file, *places, by=signal.SIGTERM) == 128 + signal.SIGTERM
    assert list((tmp_path / "models" / "shapes").iterdir()) == []
    # With `--json` all that a person reads goes to standard error.
    arguments = ("fit", recipe_file, *places, "--no-maximise", "--resume", "--epochs", "8", "--json")
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.stderr
    assert "resuming after epoch " in done.stderr
    found = json.loads(done.stdout)
    assert Path(found["folder"]) == tmp_path / "models" / "shapes" / "1"
    assert Manifest.model_validate(found["manifest"]) == read_manifest(tmp_path / "models" / "shapes" / "1")
    assert found["seconds"]["fitting"] > 0
