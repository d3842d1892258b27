"""The page as files: what is served, under which rules, and whether its words are complete."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import httpx
import pytest

from service.app import create_app
from service.choices import Method
from service.errors import ServiceError, Unavailable
from service.http.errors import BUG, KINDS
from service.http.pages import FOLDER
from service.manifest import Manifest
from service.repository import State
from service.settings import Settings
from tests.conftest import ROOT, LiveServer

FILES = sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*") if path.is_file())
MODULES = sorted(FOLDER.glob("*.js"))
WORDS = {path.stem: json.loads(path.read_text()) for path in (FOLDER / "words").iterdir()}
# The page never causes these, or goes on without a word: they concern labels that are written, several files in one
# request, a start, a body of another kind, and an explanation that is gone, which it asks for anew.
UNSEEN = {
    "labels_not_written",
    "malformed_request",
    "no_image",
    "too_many_images",
    "no_preview",
    "unknown_report",
    "startup_failed",
    "unsupported_media_type",
    "unknown_explanation",
}
# To ask again is all that can be done.
ASKED_AGAIN = {"explanation_cancelled", "explanation_interrupted", "invalid_request"}


@pytest.fixture(scope="module")
def live(shapes_models: Path) -> Iterator[httpx.Client]:
    app = create_app(Settings(models=shapes_models, engine="openvino"))
    with LiveServer(app) as server, httpx.Client(base_url=server.url) as client:
        yield client


def test_the_start_is_the_page(live: httpx.Client) -> None:
    page = live.get("/?image_id=x&view=why")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.content == (FOLDER / "index.html").read_bytes()
    assert live.head("/").status_code == 200


@pytest.mark.parametrize("name", FILES)
def test_each_file_is_served_as_what_it_is(live: httpx.Client, name: str) -> None:
    file = live.get(f"/web/{name}")
    assert file.content == (FOLDER / name).read_bytes()
    kinds = {".js": "text/javascript", ".css": "text/css", ".json": "application/json", ".svg": "image/svg+xml"}
    kinds |= {".jpg": "image/jpeg", ".html": "text/html", ".GPL-2": "text/plain"}
    assert file.headers["content-type"].split(";")[0] == kinds[Path(name).suffix]
    again = live.get(f"/web/{name}", headers={"if-none-match": file.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_the_page_is_told_which_methods_explain_and_what_each_is(live: httpx.Client) -> None:
    told = live.get("/web/methods.json")
    assert told.headers["content-type"] == "application/json"
    assert list(told.json()) == list(get_args(Method))
    assert told.json()["gradcam"].startswith("Grad-CAM: where a layer's feature maps speak")


@pytest.mark.parametrize("name", ["", "none.js", "../pages.py", "..%2fapp.py", "words", "%2fetc%2fpasswd"])
def test_nothing_else_is(live: httpx.Client, name: str) -> None:
    found = live.get(f"/web/{name}")
    assert (found.status_code, found.json()["code"]) == (404, "not_found")


def test_the_page_may_run_and_ask_nothing_but_its_own(live: httpx.Client) -> None:
    rules = dict(
        rule.split(" ", 1) for rule in live.get("/").headers["content-security-policy"].split("; ") if " " in rule
    )
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == rules["frame-ancestors"] == "'none'"
    assert rules["script-src"] == rules["style-src"] == rules["connect-src"] == "'self'"


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith((".html", ".js", ".css"))])
def test_no_file_names_another_host_or_writes_html(name: str) -> None:
    text = (FOLDER / name).read_text().replace("http://www.w3.org/2000/svg", "")
    assert not re.findall(r"https?://", text)
    assert not re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|\bFunction\(", text)
    # Under the policy they would do nothing.
    assert not re.findall(r"\son\w+=\"|\sstyle=\"|<style", text)


def test_every_module_is_fetched_at_once() -> None:
    page = (FOLDER / "index.html").read_text()
    preloaded = set(re.findall(r'modulepreload" href="web/([^"]+)"', page))
    assert preloaded == {path.name for path in MODULES} - {"app.js", "theme.js"}


def test_both_languages_have_the_same_words() -> None:
    assert set(WORDS) == {"en", "de"}
    assert WORDS["en"].keys() == WORDS["de"].keys()
    for key in WORDS["en"]:
        names = [set(re.findall(r"\{(\w+)\}", WORDS[language][key])) for language in ("en", "de")]
        assert names[0] == names[1], key


def test_every_word_that_is_asked_for_is_there_and_no_other() -> None:
    texts = [path.read_text() for path in MODULES]
    page = (FOLDER / "index.html").read_text()
    quoted = set(re.findall(r'"([a-z]\w*)"', "\n".join(texts)))
    asked = set(re.findall(r'\bt\("(\w+)"', "\n".join(texts))) | set(re.findall(r'data-t(?:-label)?="(\w+)"', page))
    assert asked <= WORDS["en"].keys()
    # Of the rest the beginning stands in the code, or the end does: t(`view_${...}`); or it is of what can be chosen.
    made = [re.escape(key).replace("XX", r"\w+") for text in texts for key in _made(text) if key != "XX_XX"]
    chosen = {
        f"{name}_{value or 'auto'}"
        for name, values in re.findall(r"^  (\w+): \[(.*)\],$", (FOLDER / "place.js").read_text(), re.MULTILINE)
        for value in re.findall(r'"(\w*)"', values)
    }
    left = WORDS["en"].keys() - asked - quoted - chosen
    assert not [key for key in left if not any(re.fullmatch(pattern, key) for pattern in made)]


def _made(text: str) -> list[str]:
    return [re.sub(r"\$\{[^}]*\}", "XX", found) for found in re.findall(r"\b(?:t|maybe)\(`([^`]+)`", text)]


def test_every_problem_is_told_with_what_to_do() -> None:
    for code in {*KINDS, BUG.code} - UNSEEN:
        general = "advice_wait" if issubclass(KINDS.get(code, ServiceError), Unavailable) else "advice_other"
        assert f"problem_{code}" in WORDS["en"]
        assert f"advice_{code}" in WORDS["en"] or code in ASKED_AGAIN or general == "advice_wait"
        assert general in WORDS["en"]


def test_every_state_of_a_version_has_a_name() -> None:
    for state in State.__args__:
        assert f"state_{state}" in WORDS["en"]


def test_layers_of_the_bundled_models_are_told_in_words() -> None:
    for path in (ROOT / "models").glob("*/*/manifest.json"):
        for layer in Manifest.model_validate_json(path.read_bytes()).layers:
            assert f"layer_{layer.type}" in WORDS["en"], layer.type


def test_examples_have_their_licence_beside_them() -> None:
    assert (FOLDER / "examples" / "LICENSE.GPL-2").read_bytes() == (ROOT / "examples" / "LICENSE.GPL-2").read_bytes()
    assert {path.stem for path in FOLDER.glob("examples/*.jpg")} == {path.stem for path in ROOT.glob("examples/*.png")}
