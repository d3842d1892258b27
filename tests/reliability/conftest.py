"""A real server process, and the folder of models below it, which tests change."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import SHAPES
from tests.service.http.explaining import until
from tests.service.test_main import Program

KEY = "open sesame"
SHOWN = {"authorization": f"Bearer {KEY}"}
SETTINGS = {
    "SICHTBAR_ENGINE": "openvino",
    "SICHTBAR_SETTLE_SECONDS": "0.3",
    "SICHTBAR_DEFAULT_MODEL": "shapes",
    "SICHTBAR_VERSIONS": "all newest=latest:1",
}
TURNED = [*SHAPES[1:], SHAPES[0]]


class Models:
    """The folder of models of a running service."""

    def __init__(self, folder: Path, source: Path, program: Program) -> None:
        self.folder = folder
        self.source = source
        self.program = program
        self.client = httpx.Client(base_url=str(program.wait_for("serving")["url"]), timeout=60, headers=SHOWN)

    def stage(self, model: str, number: int, labels: list[str] | None = None) -> Path:
        """A version in a folder that is none of a version."""
        new = shutil.copytree(self.source, self.folder / model / f".new-{number}")
        manifest = json.loads((new / "manifest.json").read_text())
        manifest |= {"name": model, "version": number, "labels": labels or manifest["labels"]}
        (new / "manifest.json").write_text(json.dumps(manifest))
        return new

    def publish(self, model: str, number: int, labels: list[str] | None = None) -> Path:
        """A version, whole at once; it answers."""
        folder = self.stage(model, number, labels).rename(self.folder / model / str(number))
        self.wait(model, number, "available")
        return folder

    def version(self, model: str, number: int) -> dict[str, Any] | None:
        """What the service says of a version."""
        for version in self.client.get(f"/models/{model}").json().get("versions", ()):
            if version["version"] == number:
                return dict(version)
        return None

    def wait(self, model: str, number: int, state: str, reason: str = "") -> dict[str, Any]:
        """A version, once it is in a state, for a reason that holds this text."""

        def found() -> dict[str, Any] | None:
            version = self.version(model, number) or {"state": None}
            return version if version["state"] == state and reason in (version["reason"] or "") else None

        return dict(until(found))

    def label(self, model: str, **labels: object) -> None:
        new = self.folder / model / ".labels"
        new.write_text(json.dumps(labels))
        new.replace(self.folder / model / "labels.json")

    def labels(self, model: str) -> dict[str, Any]:
        return dict(self.client.get(f"/models/{model}").json()["labels"])

    def answering(self, model: str, picture: bytes, **query: object) -> int:
        """The number of the version that answers."""
        answer = self.client.post("/predict", params={"model": model, **query}, files={"file": picture})
        assert answer.status_code == 200, answer.text
        return int(answer.json()["version"])


def sign(folder: Path, name: str) -> None:
    """Let the manifest promise a file as it is now."""
    from service.manifest import sha256

    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = sha256(folder / name)
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.fixture(scope="session")
def serve_models(shapes_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Models]]:
    """Start a service on a folder of its own, with `shapes/1`."""
    started: list[Models] = []

    def start(**settings: str) -> Models:
        folder = tmp_path_factory.mktemp("served")
        shutil.copytree(shapes_models / "shapes", folder / "shapes")
        program = Program(**{"SICHTBAR_MODELS": str(folder), **SETTINGS, **settings})
        started.append(Models(folder, shapes_models / "shapes" / "1", program))
        return started[-1]

    yield start
    for models in started:
        models.client.close()
        models.program.kill()


def keys_file(folder: Path) -> Path:
    """Keys with one for everything."""
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    file = folder / "keys.json"
    key = {"name": "all", "sha256": digest, "scopes": ["predict", "explain", "admin"]}
    file.write_text(json.dumps({"keys": [key]}))
    return file


@pytest.fixture(scope="session")
def models(serve_models: Callable[..., Models], tmp_path_factory: pytest.TempPathFactory) -> Models:
    """What most tests share; each with models of its own."""
    return serve_models(SICHTBAR_KEYS=str(keys_file(tmp_path_factory.mktemp("keys"))))
