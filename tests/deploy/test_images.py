"""What the Dockerfiles say fits what is in the repository. Building them is scripts/image's: it takes minutes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from service.app import create_app
from service.settings import PREFIX, Settings, variable
from tests.conftest import ROOT

DOCKER = ROOT / "docker"
FILES = {path.name: path.read_text(encoding="utf-8") for path in sorted(DOCKER.glob("Dockerfile*"))}
KNOWN = {variable(name) for name in Settings.model_fields}


def stage(file: str, name: str) -> str:
    """The instructions of one stage, each on a line."""
    joined = FILES[file].replace("\\\n", " ")
    (found,) = re.findall(rf"^FROM \S+ AS {name}$(.*?)(?=^FROM |\Z)", joined, re.MULTILINE | re.DOTALL)
    return str(found)


def instruction(text: str, name: str) -> str:
    (found,) = re.findall(rf"^{name} (.*)$", text, re.MULTILINE)
    return str(found)


def environment(text: str) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in instruction(text, "ENV").split())


@pytest.mark.parametrize("file", FILES)
def test_an_image_is_served_by_the_same_command_as_no_user_of_the_host_s(file: str) -> None:
    service = stage(file, "service")
    assert re.search(r'^CMD \["python", "-m", "service"\]$', service, re.MULTILINE)
    assert instruction(service, "USER") == "10001:10001"
    assert instruction(service, "STOPSIGNAL") == "SIGTERM"
    assert instruction(service, "EXPOSE") == environment(service)["SICHTBAR_PORT"]


@pytest.mark.parametrize("file", FILES)
def test_an_image_sets_known_settings(file: str) -> None:
    given = {name: value for name, value in environment(stage(file, "service")).items() if name.startswith(PREFIX)}
    assert set(given) == {"SICHTBAR_HOST", "SICHTBAR_PORT", "SICHTBAR_MODELS"} <= KNOWN


@pytest.mark.parametrize("file", FILES)
def test_what_an_image_copies_is_there_and_not_ignored(file: str) -> None:
    let_in = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = re.findall(r"^COPY (?!--from)(?:--\S+ )?(.*) \S+$", FILES[file].replace("\\\n", " "), re.MULTILINE)
    assert copied
    for source in " ".join(copied).split():
        assert (ROOT / source).exists(), source
        assert any(Path(source).match(pattern) for pattern in let_in), source


def check(**settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, DOCKER / "healthy.py"],
        env={"PATH": os.environ["PATH"], **settings},
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_the_health_check_says_whether_the_service_is_ready(
    shapes_models: Path, serve: Callable[[FastAPI], httpx.Client]
) -> None:
    app = create_app(Settings(models=shapes_models, engine="openvino"))
    port = str(serve(app).base_url.port)
    assert check(SICHTBAR_PORT=port).returncode == 0
    app.state.classifier.draining = True
    draining = check(SICHTBAR_PORT=port)
    assert (draining.returncode, draining.stderr) == (1, "not ready: 503\n")


def test_the_health_check_fails_where_nobody_listens() -> None:
    nobody = check(SICHTBAR_PORT="1")
    assert nobody.returncode == 1
    assert nobody.stderr.startswith("no answer: ")


@pytest.mark.skipif(sys.version_info < (3, 11), reason="images have Python 3.11 or newer")
def test_what_is_installed_is_what_the_project_says() -> None:
    listed = subprocess.run(
        [sys.executable, DOCKER / "requirements.py", "cpu", "redis"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert {"fastapi>=0.115", "redis>=5.2"} <= set(listed)
    assert any(line.startswith("tensorflow-cpu>=") for line in listed)
    assert not any(line.startswith("pytest") for line in listed)


@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0 or not shutil.which("ldd"),
    reason="only Linux' root may change the root",
)
def test_python_runs_on_what_is_copied_of_the_system_and_nothing_else_does(tmp_path: Path) -> None:
    environment, root = tmp_path / "venv", tmp_path / "system"
    venv.create(environment, symlinks=True)
    runtime = [environment / "bin" / "python", DOCKER / "runtime.py", environment, root]
    subprocess.run(runtime, check=True, timeout=100)
    shutil.copytree(environment, root / environment.relative_to("/"), symlinks=True)
    program = "import ctypes, hashlib, lzma, ssl, sqlite3, sys, threading; print(sys.prefix)"

    def inside(*command: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["chroot", root, *command], capture_output=True, text=True, timeout=60)

    ran = inside(environment / "bin" / "python", "-c", program)
    assert ran.stdout == f"{environment}\n", ran.stderr
    assert inside("/bin/sh", "-c", "true").returncode == 127
    assert {path.name for path in root.rglob("bin/*") if not path.name.lower().startswith(("python", "activate"))} <= {
        "𝜋thon"
    }
