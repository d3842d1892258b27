"""The documents say what the code does."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service import __version__
from service.app import create_app
from tests import documents
from tests.conftest import ROOT, LiveServer

STALE = "stale; run: python -m tests.documents"
README = documents.README.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def bundled() -> Iterator[httpx.Client]:
    """A live server with the bundled models."""
    with (
        LiveServer(create_app(documents.as_served())) as server,
        httpx.Client(base_url=server.url) as client,
    ):
        yield client


def without_timings(text: str) -> object:
    def drop(value: object) -> object:
        if isinstance(value, dict):
            return {key: drop(item) for key, item in value.items() if key != "seconds"}
        if isinstance(value, list):
            return [drop(item) for item in value]
        # Versions of Pillow round a pixel differently.
        return round(value, 2) if isinstance(value, float) else value

    return drop(json.loads(text.removeprefix("```json\n").removesuffix("```\n")))


@pytest.mark.parametrize("name", ["settings", "models"])
def test_generated_tables_are_up_to_date(bundled: httpx.Client, name: str) -> None:
    assert documents.section(name) == documents.contents(bundled)[name], STALE


@pytest.mark.parametrize("name", documents.tables())
def test_the_tables_of_metrics_are_up_to_date(name: str) -> None:
    assert documents.section(name, documents.METRICS) == documents.tables()[name], STALE


@pytest.mark.parametrize("name", ["answer", "problem"])
def test_shown_answers_are_the_service_s(bundled: httpx.Client, name: str) -> None:
    shown, given = documents.section(name), documents.contents(bundled)[name]
    assert without_timings(shown) == without_timings(given), STALE


@pytest.mark.skipif(not shutil.which("curl"), reason="no curl")
@pytest.mark.parametrize(
    "command", re.findall(r"^(?:curl|echo .*curl) .*$", README, re.MULTILINE), ids=lambda c: c[:50]
)
def test_every_curl_of_the_readme_works(bundled: httpx.Client, command: str, tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "README.md").symlink_to(documents.README)
    # The picture whose id the README shows.
    bundled.post("/predict", files={"file": (ROOT / "examples" / "lemon.png").read_bytes()})
    here = command.replace("http://127.0.0.1:8000", str(bundled.base_url).rstrip("/"))
    finished = subprocess.run(
        ["bash", "-c", here], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    if written := re.search(r"-o (\S+)", here):
        content = (tmp_path / written[1]).read_bytes()
        assert content.startswith(b"<svg" if written[1].endswith(".svg") else b"\x89PNG"), content[:500]
        return
    answer = json.loads(finished.stdout)
    if "README.md" in command:
        assert answer["status"] == 415
    elif ":predict" in command:
        labels = bundled.get("/models/fruit_vgg16/versions/1").json()["manifest"]["labels"]
        (prediction,) = answer["predictions"]
        assert labels[prediction["probabilities"].index(max(prediction["probabilities"]))] == "Lemon"
    elif ":classify" in command:
        assert answer["results"][0][0][0] == "Lemon"
    elif "/metadata" in command:
        assert answer["model_spec"]["name"] == "fruit_vgg16"
    elif "/stats" in command:
        assert answer["model_stats"][0]["inference_count"] >= 1
    elif "/walk" in command:
        assert [layer["name"] for layer in answer["layers"]][-1] == "logits"
    elif "/explanations" in command:
        assert answer["state"] in ("queued", "running")
        bundled.delete(answer["links"]["self"])
    elif "/explain" in command:
        assert answer["label"] == "Banana"
        assert answer["superpixels"]
    else:
        names = re.findall(r"examples/(\w+)\.png", command)
        assert len(answer["images"]) == len(names)
        for image, name in zip(answer["images"], names, strict=True):
            assert name in [prediction["label"].lower() for prediction in image["predictions"][:2]]


def rounded(printed: str) -> str:
    # Versions of Pillow round a pixel differently.
    return re.sub(r"\d+\.\d+", lambda number: f"{float(number[0]):.2f}", printed.strip())


PROGRAMS = re.findall(r"```python\n(.*?)```\n\nprints `(.*?)`", README, re.DOTALL)


@pytest.mark.parametrize(("program", "printed"), PROGRAMS, ids=[printed for _, printed in PROGRAMS])
def test_every_program_of_the_readme_prints_what_it_says(
    bundled: httpx.Client, tmp_path: Path, program: str, printed: str
) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    here = program.replace("127.0.0.1:8000", f"{bundled.base_url.host}:{bundled.base_url.port}")
    finished = subprocess.run(
        [sys.executable, "-c", here], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True
    )
    assert rounded(finished.stdout) == rounded(printed)


def test_the_readme_s_programs_are_all_run() -> None:
    assert len(PROGRAMS) == README.count("```python") == 3


COMMANDS = re.findall(
    r"^\.venv/bin/python (-m service predict .*|-m service explain .* --server .*)$", README, re.MULTILINE
)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[:50])
def test_every_command_of_the_readme_that_asks_a_service_works(
    bundled: httpx.Client, tmp_path: Path, command: str
) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    url = str(bundled.base_url).rstrip("/")
    arguments = command.replace("http://127.0.0.1:8000", url).split()
    if "--server" not in arguments:
        arguments += ["--server", url]
    finished = subprocess.run(
        [sys.executable, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert finished.returncode == 0, finished.stderr
    assert "Lemon" in finished.stdout or (tmp_path / "explained" / "lemon.png.lime.png").is_file()


def test_the_picture_that_the_readme_links_to_is_the_lemon(bundled: httpx.Client) -> None:
    (path,) = re.findall(r"<http://127\.0\.0\.1:8000(/images/\w+)>", README)
    lemon = (ROOT / "examples" / "lemon.png").read_bytes()
    bundled.post("/predict", files={"file": lemon})
    assert bundled.get(path).content == lemon


@pytest.mark.parametrize(("model", "places"), [("fruit_cnn", 1), ("fruit_vgg16", 2)])
def test_every_example_picture_gets_its_true_answer(bundled: httpx.Client, model: str, places: int) -> None:
    """`fruit_vgg16` takes the strawberry for a raspberry, and the avocado for a coconut."""
    pictures = sorted((ROOT / "examples").glob("*.png"))
    assert len(pictures) >= 4
    for picture in pictures:
        answer = bundled.post("/predict", params={"model": model}, files={"file": picture.read_bytes()}).json()
        said = [prediction["label"].lower() for prediction in answer["images"][0]["predictions"][:places]]
        assert picture.stem in said


def test_every_call_of_the_readme_s_table_is_there(bundled: httpx.Client) -> None:
    paths = bundled.get("/openapi.json").json()["paths"]
    listed = {(method.lower(), path) for method, path in re.findall(r"`(GET|POST|PUT|DELETE) (/[^`?]*)", README)}
    assert listed - {("get", "/docs"), ("get", "/openapi.json")} == {
        (m, path) for path, calls in paths.items() for m in calls
    }


def test_every_link_to_a_file_leads_somewhere() -> None:
    for document in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8")):
            assert target.startswith("https://") or (document.parent / target).exists(), (document.name, target)


def test_every_script_that_is_named_exists() -> None:
    for document in ROOT.glob("*.md"):
        for script in re.findall(r"\./(scripts/\w+)", document.read_text(encoding="utf-8")):
            assert (ROOT / script).stat().st_mode & 0o111, script


def test_the_changelog_s_top_version_is_the_project_s() -> None:
    top = re.search(r"^## (\d\S*)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    project = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert top
    assert project
    assert top[1] == project[1] == __version__


def test_pins_cover_every_dependency_and_name_no_address() -> None:
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert "//" not in pins
    names = set(re.findall(r"^([a-z0-9-]+)==", pins, re.MULTILINE))
    declared = set(re.findall(r'"([a-z0-9-]+)(?:\[[\w-]+\])?>=', (ROOT / "pyproject.toml").read_text(encoding="utf-8")))
    assert len(declared) > 15
    assert declared <= names
