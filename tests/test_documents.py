"""The documents say what the code does."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import typer

from service import __version__
from service.app import create_app
from service.errors import Fault, Unavailable
from service.settings import table
from tests import documents
from tests.conftest import ROOT, LiveServer
from training.__main__ import app as training
from training.recipe import read_recipe

STALE = "stale; run: python -m tests.documents"
README = documents.README.read_text(encoding="utf-8")
TEXTS = {path: path.read_text(encoding="utf-8") for path in documents.ALL}
# What these show is for a service that is not the bundled one: other tests run it.
OTHERS = {documents.EXTEND, documents.TRAIN}
SHOWN = "\n".join(text for path, text in TEXTS.items() if path not in OTHERS)


def every(pattern: str, text: str = SHOWN) -> list[str]:
    """What the pattern finds, each once."""
    return list(dict.fromkeys(re.findall(pattern, text, re.MULTILINE)))


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


@pytest.fixture(scope="module")
def reference() -> dict[str, str]:
    return documents.reference()


@pytest.mark.parametrize("name", ["calls", "parameters", "codes", "protocols"])
def test_the_tables_of_the_api_are_up_to_date(reference: dict[str, str], name: str) -> None:
    assert documents.section(name, documents.API) == reference[name], STALE


@pytest.mark.parametrize("name", ["answer", "problem"])
def test_shown_answers_are_the_service_s(bundled: httpx.Client, name: str) -> None:
    shown, given = documents.section(name), documents.contents(bundled)[name]
    assert without_timings(shown) == without_timings(given), STALE


@pytest.mark.skipif(not shutil.which("curl"), reason="no curl")
@pytest.mark.parametrize("command", every(r"^(?:curl (?!-s --retry)|echo .*curl).*$"), ids=lambda c: c[:50])
def test_every_curl_of_the_documents_works(bundled: httpx.Client, command: str, tmp_path: Path) -> None:
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
    elif "/health/ready" in command:
        assert answer == {"status": "ready"}
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


@pytest.mark.skipif(not shutil.which("curl"), reason="no curl")
def test_what_the_readme_shows_of_keys_works_as_it_is_pasted(shapes_models: Path, tmp_path: Path) -> None:
    (shown,) = re.findall(r"```sh\n(key=.*?)```", README, re.DOTALL)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    here, programs = re.subn(
        r"\./scripts/serve|\.venv/bin/python -m service", f"{sys.executable} -m service", shown.replace("8001", port)
    )
    assert programs == 2
    # By lines, as a terminal takes them, so that the service's log may stand between.
    finished = subprocess.run(
        ["bash"],
        input=here,
        cwd=tmp_path,
        env={**os.environ, "SICHTBAR_MODELS": str(shapes_models), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    (answer,) = [line for line in finished.stdout.splitlines() if '"images"' in line]
    assert answer[answer.index('{"model":') :].startswith('{"model":"shapes","version":1,')


def rounded(printed: str) -> str:
    # Versions of Pillow round a pixel differently.
    return re.sub(r"\d+\.\d+", lambda number: f"{float(number[0]):.2f}", printed.strip())


PROGRAMS = re.findall(r"```python\n(.*?)```\n\nprints `(.*?)`", SHOWN, re.DOTALL)


@pytest.mark.parametrize(("program", "printed"), PROGRAMS, ids=[printed for _, printed in PROGRAMS])
def test_every_program_of_the_documents_prints_what_it_says(
    bundled: httpx.Client, tmp_path: Path, program: str, printed: str
) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    here = program.replace("127.0.0.1:8000", f"{bundled.base_url.host}:{bundled.base_url.port}")
    finished = subprocess.run(
        [sys.executable, "-c", here], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True
    )
    assert rounded(finished.stdout) == rounded(printed)


def test_the_documents_programs_are_all_run() -> None:
    assert len(PROGRAMS) == SHOWN.count("```python") == 4


COMMANDS = every(r"^\.venv/bin/python (-m service predict .*|-m service explain .* --server .*)$")


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[:50])
def test_every_command_of_the_documents_that_asks_a_service_works(
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


def test_every_call_that_is_named_is_there(bundled: httpx.Client) -> None:
    called = {(method, path) for method, path, _ in documents.calls(bundled.get("/openapi.json").json())}
    pages = {("GET", "/"), ("GET", "/docs"), ("GET", "/openapi.json")}
    for path, text in TEXTS.items():
        if path not in OTHERS:
            text = text.split("## Other protocols")[0] if path == documents.API else text
            named = set(re.findall(r"`(GET|POST|PUT|DELETE) (/[^`?\s]*)", text))
            assert named <= called | pages, path.name


@pytest.mark.parametrize("command", every(r"^\.venv/bin/python -m training (.*)$", "\n".join(TEXTS.values())))
def test_every_training_command_of_the_documents_is_one(command: str) -> None:
    group = typer.main.get_command(training)
    assert isinstance(group, typer.core.TyperGroup)
    name, *arguments = shlex.split(command, comments=True)
    # Parsed, and not run.
    group.commands[name].make_context(name, arguments)


def test_the_recipe_of_the_guide_is_one(tmp_path: Path) -> None:
    (recipe,) = re.findall(r"```toml\n(.*?)```", TEXTS[documents.TRAIN], re.DOTALL)
    (tmp_path / "things.toml").write_text(recipe)
    assert read_recipe(str(tmp_path / "things.toml")).name == "things"


OPERATE = TEXTS[documents.OPERATE]
LOUD = {"warning", "error", "exception", "log"}


def logged() -> dict[str, bool]:
    """Every line of the service's log by its event, and whether it may be a warning or worse."""
    events: dict[str, bool] = {}
    for path in (ROOT / "service").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("log."):
                said = [one.value for one in node.args if isinstance(one, ast.Constant) and isinstance(one.value, str)]
                for event in said:
                    events[event] = events.get(event, False) or ast.unparse(node.func).removeprefix("log.") in LOUD
    return events | {kind.code: True for kind in documents.STATUS if issubclass(kind, Fault)}


def test_what_operating_names_exists() -> None:
    known = documents.codes()
    for status, code in re.findall(r"(\d{3}) `(\w+)`", OPERATE):
        ended = status == "410" and issubclass(documents.KINDS[code], Unavailable)
        assert known[code] == int(status) or ended, (status, code)
    metrics = {documents.family(name): labels for name, _, labels, _ in documents.scraped()}
    for name, _, given in re.findall(r"`(sichtbar_\w+)({([^}]*)})?`", OPERATE):
        labels = metrics[documents.family(name)]
        for label, _, value in (part.partition("=") for part in given.split(",") if part):
            assert label in labels, (name, label)
            values = documents.label_values(documents.family(name), label)
            assert not value or not isinstance(values, tuple) or value.strip('"') in values, (name, label, value)
            assert label != "code" or not value or value.strip('"') in known, value
    assert set(re.findall(r"`(Sichtbar[A-Z]\w+)`", OPERATE)) == set(documents.alerts())
    assert set(re.findall(r"SICHTBAR_\w+", OPERATE)) <= {name for name, _, _ in table()}


def test_operating_says_what_every_warning_is_and_no_line_that_is_never_logged() -> None:
    events = logged()
    named = {
        event
        for row in re.findall(r"^\| .* \|$", OPERATE, re.MULTILINE)
        if len(cells := row.strip("|").split("|")) == 5
        for event in re.findall(r"`([a-z]+(?:_[a-z]+)*)`", cells[2])
    }
    assert named - {"incomplete"} <= events.keys()
    assert {event for event, loud in events.items() if loud} <= named


def test_operating_names_every_problem_that_is_not_its_client_s_fault() -> None:
    codes = {kind.code for kind in documents.STATUS if issubclass(kind, (Fault, Unavailable))}
    assert codes <= set(re.findall(r"`(\w+)`", OPERATE))


def test_every_link_to_a_file_leads_somewhere() -> None:
    for document in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8")):
            assert target.startswith("https://") or (document.parent / target).exists(), (document.name, target)


def test_every_link_to_a_heading_leads_to_one() -> None:
    for document in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")):
        for target, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", document.read_text(encoding="utf-8")):
            text = (document.parent / target if target else document).read_text(encoding="utf-8")
            # As GitHub makes them.
            anchors = {
                re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
                for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)
            }
            assert anchor in anchors, (document.name, target, anchor)


def test_every_script_that_is_named_exists() -> None:
    for document in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")):
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
