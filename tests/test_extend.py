"""The examples of docs/extend.md as they stand there, in a service that is changed as it says."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from service.engines import open_engine
from service.engines.base import Outputs, probe, warm_up
from service.manifest import read_manifest
from tests import documents
from tests.conftest import PATIENCE, ROOT
from tests.service.http.explaining import metric
from tests.service.test_main import Program

TEXT = documents.EXTEND.read_text(encoding="utf-8")
FILES = re.findall(r"^`(service/[\w/]+\.py)`:\n\n```python\n(.*?)```", TEXT, re.DOTALL | re.MULTILINE)
CHANGES = re.findall(r"^`(service/[\w/]+\.py)`:\n\n```diff\n(.*?)```", TEXT, re.DOTALL | re.MULTILINE)
CURLS = re.findall(r"^curl .*$", TEXT, re.MULTILINE)
LEMON = (ROOT / "examples" / "lemon.png").read_bytes()
FRUITS = ROOT / "models" / "fruit_cnn" / "1"


def changed(text: str, diff: str) -> str:
    for hunk in diff.split("@@\n"):
        before, after = (
            "\n".join(line[1:] for line in hunk.splitlines() if not line.startswith(mark)) for mark in "+-"
        )
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    return text


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the service, changed as the document says, and the model that its engine is for."""
    folder = tmp_path_factory.mktemp("extended")
    shutil.copytree(ROOT / "service", folder / "service", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(FRUITS, folder / "models" / "fruit_cnn" / "1")
    (folder / "examples").symlink_to(ROOT / "examples")
    for name, text in FILES:
        assert not (folder / name).exists()
        (folder / name).write_text(text, encoding="utf-8")
    for name, diff in CHANGES:
        (folder / name).write_text(changed((folder / name).read_text(encoding="utf-8"), diff), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def client(extended: Path) -> Iterator[httpx.Client]:
    """Of that service."""
    program = Program(cwd=extended, SICHTBAR_ENGINE="openvino")
    with httpx.Client(base_url=str(program.wait_for("serving")["url"]), timeout=PATIENCE) as client:
        yield client
    program.kill()


def asked(command: str, client: httpx.Client, folder: Path) -> bytes:
    """What a `curl` of the document gives."""
    here = command.replace("http://127.0.0.1:8000", str(client.base_url).rstrip("/"))
    finished = subprocess.run(["bash", "-c", here], cwd=folder, capture_output=True, timeout=60, check=True)
    written = re.search(r"-o (\S+)", here)
    return (folder / written[1]).read_bytes() if written else finished.stdout


def test_there_is_one_of_each() -> None:
    assert [Path(name).parent.name for name, _ in FILES] == ["explain", "engines", "http"]
    assert len(CHANGES) == 3
    assert len(CURLS) == 2


def test_they_are_written_as_the_service_is(extended: Path) -> None:
    for check in (["check"], ["format", "--check"]):
        subprocess.run(
            [sys.executable, "-m", "ruff", *check, "--config", ROOT / "pyproject.toml", *(name for name, _ in FILES)],
            cwd=extended,
            check=True,
        )


def test_the_engine_is_one_and_answers_as_the_others_do(extended: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = "from service.settings import Settings; print(Settings(engine='numpy').engine)"
    assert subprocess.check_output([sys.executable, "-c", chosen], cwd=extended, text=True) == "numpy\n"
    spec = spec_from_file_location("service.engines.numpy", extended / "service" / "engines" / "numpy.py")
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(sys.modules, spec.name, module)
    engine: Any = open_engine("numpy", FRUITS, threads=1)  # type: ignore[arg-type]
    manifest = read_manifest(FRUITS)
    warm_up(engine, manifest, 32)
    probe(engine, manifest)
    images = np.random.default_rng(1).integers(0, 256, (20, 20, 20, 3), dtype=np.uint8)
    found, expected = (each.predict(images) for each in (engine, open_engine("openvino", FRUITS, threads=1)))
    for name, output, other in zip(Outputs._fields, found, expected, strict=True):
        assert np.abs(output - other).max() < 1e-4, name


@pytest.mark.skipif(not shutil.which("curl"), reason="no curl")
def test_the_method_draws_what_the_document_asks(client: httpx.Client, extended: Path) -> None:
    assert asked(CURLS[0], client, extended).startswith(b"\x89PNG")
    query = {"method": "occlusion", "format": "json"}
    first, second = (client.post("/explain", params=query, files={"file": LEMON}) for _ in range(2))
    assert first.content == second.content
    answer = first.json()
    heat = np.array(answer["heatmap"])
    assert (answer["method"], answer["label"], answer["layer"]) == ("occlusion", "Lemon", "input")
    assert heat.shape == (10, 10)
    assert (heat.min(), heat.max()) == (0, 1)
    assert metric(client, "sichtbar_explanations_total", method="occlusion", outcome="done") == 1
    assert client.post("/explain", params={**query, "samples": 32}, files={"file": LEMON}).status_code == 422


def test_the_method_is_asked_for_on_the_command_line(client: httpx.Client, extended: Path) -> None:
    command = ["-m", "service", "explain", "examples/lemon.png", "--out", "out", "--method", "occlusion"]
    subprocess.run([sys.executable, *command, "--server", str(client.base_url)], cwd=extended, check=True)
    assert (extended / "out" / "lemon.png.occlusion.png").read_bytes().startswith(b"\x89PNG")
    (numbers,) = json.loads((extended / "out" / "explanations.json").read_text())
    assert (numbers["method"], numbers["label"], numbers["layer"]) == ("occlusion", "Lemon", "input")


@pytest.mark.skipif(not shutil.which("curl"), reason="no curl")
def test_the_protocol_answers_and_has_the_service_s_limits_and_errors(client: httpx.Client, extended: Path) -> None:
    assert asked(CURLS[1], client, extended) == b"Lemon\n"
    damaged = client.post("/word/fruit_cnn", content=LEMON[:-500], headers={"content-type": "image/png"})
    assert (damaged.status_code, damaged.json()["code"]) == (422, "broken_image")
    assert client.post("/word/cats", content=LEMON).json()["code"] == "unknown_model"
    assert metric(client, "sichtbar_http_requests_total", route="/word/{model}", status="200") == 1
