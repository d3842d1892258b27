"""`python -m service explain`, as its users start it."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote_to_bytes

import httpx
import pytest
from PIL import Image

from tests.conftest import ROOT, draw, encode
from tests.service.http.explaining import metric, until


def explain(models: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "service", "explain", *arguments],
        cwd=ROOT,
        env={**os.environ, "SICHTBAR_MODELS": str(models)},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    (folder / "more & more").mkdir(parents=True)
    (folder / "circle.png").write_bytes(encode(draw("circle", 1, (90, 60))))
    (folder / "more & more" / "square #2.jpg").write_bytes(encode(draw("square", 2, (50, 80)), "JPEG"))
    (folder / "notes.txt").write_text("no picture")
    return folder


class Sheet(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.images: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.images.append(dict(attrs)["src"] or "")


def test_overlays_numbers_and_a_page(shapes_models: Path, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    finished = explain(shapes_models, str(pictures), "--out", str(out), "--method", "both", "--samples", "64")
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.startswith("4 of 4 explained")
    sheet = Sheet()
    sheet.feed((out / "index.html").read_text())
    assert sheet.images == [
        "circle.png.lime.png",
        "circle.png.gradcam.png",
        "more%20%26%20more/square%20%232.jpg.lime.png",
        "more%20%26%20more/square%20%232.jpg.gradcam.png",
    ]
    with Image.open(io.BytesIO((out / "circle.png.lime.png").read_bytes())) as overlay:
        assert overlay.width / overlay.height == pytest.approx(1.5, abs=0.01)
    numbers = json.loads((out / "explanations.json").read_text())
    assert [(one["picture"], one["method"], one["label"]) for one in numbers][:2] == [
        ("circle.png", "lime", "circle"),
        ("circle.png", "gradcam", "circle"),
    ]
    assert numbers[0]["samples"] == 64


def test_a_second_run_gives_the_same_bytes_and_does_not_explain_its_own_overlays(
    shapes_models: Path, pictures: Path
) -> None:
    out = pictures / "out"
    arguments = (str(pictures), "--out", str(out), "--samples", "64")
    assert explain(shapes_models, *arguments).returncode == 0
    first = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert explain(shapes_models, *arguments).returncode == 0
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == first


def test_a_name_that_is_no_text_is_linked(shapes_models: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "pictures", tmp_path / "out"
    folder.mkdir()
    (folder / os.fsdecode(b"caf\xe9.png")).write_bytes(encode(draw("circle", 1)))
    finished = explain(shapes_models, str(folder), "--out", str(out), "--samples", "32")
    assert finished.returncode == 0, finished.stderr
    sheet = Sheet()
    sheet.feed((out / "index.html").read_text())
    assert sheet.images == ["caf%E9.png.lime.png"]
    assert (out / os.fsdecode(unquote_to_bytes(sheet.images[0]))).exists()


# Where the tests run in the background, their shell has the signal ignored.
INTERRUPTIBLE = """
import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("service", run_name="__main__", alter_sys=True)
"""


def test_what_was_done_before_it_was_interrupted_is_kept(shapes_models: Path, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for number in range(50):
        (pictures / f"{number}.png").write_bytes(encode(draw("circle", number)))
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTIBLE, "explain", str(pictures), "--out", str(out), "--samples", "2000"],
        cwd=ROOT,
        env={**os.environ, "SICHTBAR_MODELS": str(shapes_models)},
        stderr=subprocess.DEVNULL,
    ) as process:
        until(lambda: (out / "1.png.lime.png").exists())
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    numbers = json.loads((out / "explanations.json").read_text())
    assert numbers[0]["picture"] == "0.png"
    assert len(numbers) < 50
    sheet = Sheet()
    sheet.feed((out / "index.html").read_text())
    assert sheet.images[0] == "0.png.lime.png"


def test_a_picture_that_cannot_be_read_is_named_and_the_others_are_explained(
    shapes_models: Path, pictures: Path, tmp_path: Path
) -> None:
    (pictures / "broken.png").write_bytes(encode(draw("circle", 1))[:60])
    finished = explain(shapes_models, str(pictures), "--out", str(tmp_path / "out"), "--samples", "64")
    assert finished.returncode == 1
    assert "broken.png: the picture is truncated or damaged" in finished.stderr
    assert finished.stdout.startswith("2 of 3 explained")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--label", "cirle"], "unknown_label: expected a class of shapes/1, such as circle"),
        (["--model", "shape"], "unknown_model: expected one of shapes, got 'shape'"),
        (["--version", "7"], "unknown_version: expected version 1 of shapes, got 7"),
    ],
)
def test_what_is_not_there_is_said(
    shapes_models: Path, pictures: Path, tmp_path: Path, arguments: list[str], said: str
) -> None:
    finished = explain(shapes_models, str(pictures), "--out", str(tmp_path / "out"), *arguments)
    assert finished.returncode == 1
    assert said in finished.stderr
    assert "Traceback" not in finished.stderr


def test_a_folder_without_pictures_is_said(shapes_models: Path, tmp_path: Path) -> None:
    # Before a model that is not there, either.
    finished = explain(shapes_models, str(tmp_path / "nowhere"), "--out", str(tmp_path / "out"), "--model", "shape")
    assert finished.returncode == 1
    assert "expected a folder with pictures, found none" in finished.stderr


@pytest.mark.parametrize("options", [(), ("--polarity", "both", "--label", "SQUARE", "--method", "both")])
def test_a_service_explains_to_the_same_bytes(
    live: httpx.Client, shapes_models: Path, pictures: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    (pictures / "broken.png").write_bytes(encode(draw("circle", 1))[:60])
    here, there = tmp_path / "here", tmp_path / "there"
    arguments = (str(pictures), "--samples", "64", *options)
    alone = explain(shapes_models, *arguments, "--out", str(here))
    asked = explain(Path("nowhere"), *arguments, "--out", str(there), "--server", str(live.base_url))
    assert (alone.returncode, asked.returncode) == (1, 1), asked.stderr
    assert asked.stdout.replace(str(there), str(here)) == alone.stdout
    written, same = ({path.relative_to(out): path for path in out.rglob("*.png")} for out in (here, there))
    assert len(written) == (4 if options else 2)
    assert {name: path.read_bytes() for name, path in written.items()} == {
        name: path.read_bytes() for name, path in same.items()
    }
    # The service calls a picture by its name.
    numbers, told = (json.loads((out / "explanations.json").read_text()) for out in (here, there))
    assert [one for one in numbers if "problem" not in one] == [one for one in told if "problem" not in one]
    assert [one["picture"] for one in told if "problem" in one] == ["broken.png"] * (2 if options else 1)


def test_a_service_explains_files_and_pictures_at_addresses(live: httpx.Client, pictures: Path, tmp_path: Path) -> None:
    circle = pictures / "circle.png"
    image_id = live.post("/predict", files={"file": circle.read_bytes()}).json()["images"][0]["image_id"]
    given = (str(circle), f"{live.base_url}/images/{image_id}", str(pictures))
    finished = explain(
        Path("nowhere"), *given, "--out", str(tmp_path / "out"), "--method", "gradcam", "--server", str(live.base_url)
    )
    assert finished.returncode == 0, finished.stderr
    overlays = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.png")}
    assert overlays == {
        "circle.png.gradcam.png",
        f"{image_id}.gradcam.png",
        "circle-2.png.gradcam.png",
        "more & more/square #2.jpg.gradcam.png",
    }


def test_an_explanation_that_is_interrupted_here_is_cancelled_there(
    live: httpx.Client, pictures: Path, tmp_path: Path
) -> None:
    before = metric(live, "sichtbar_explanations_total", outcome="cancelled")
    arguments = [str(pictures / "circle.png"), "--out", str(tmp_path / "out"), "--samples", "10000"]
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTIBLE, "explain", *arguments, "--server", str(live.base_url)],
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
    ) as process:
        until(lambda: metric(live, "sichtbar_explanation_jobs", state="running"))
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    until(lambda: metric(live, "sichtbar_explanations_total", outcome="cancelled") == before + 1)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--label", "cirle"], 1, "unknown_label: expected a class of shapes/1, such as circle"),
        (["--model", "shape"], 1, "unknown_model: expected one of shapes, got 'shape'"),
        (["--version", "7"], 1, "unknown_version: expected version 1 of shapes, got 7"),
        (["--key", "ü€"], 1, "not_sent: key: expected visible ASCII characters"),
        (["--out", "README.md"], 1, "not_written: expected a folder that can be written, got README.md: File exists"),
        (["--out", "/proc/x"], 1, "not_written: expected a folder that can be written, got /proc/x: "),
        (["--server", "http://127.0.0.1:1"], 1, "no_service: no service answers at http://127.0.0.1:1"),
    ],
)
def test_what_is_not_there_at_a_service_is_said(
    live: httpx.Client, pictures: Path, tmp_path: Path, arguments: list[str], code: int, said: str
) -> None:
    server = ("--server", str(live.base_url))
    finished = explain(Path("nowhere"), str(pictures), *server, "--out", str(tmp_path / "out"), *arguments)
    assert finished.returncode == code
    assert said in finished.stderr
    assert "Traceback" not in finished.stderr


def test_several_pictures_need_a_service(shapes_models: Path, pictures: Path, tmp_path: Path) -> None:
    finished = explain(shapes_models, str(pictures), str(pictures), "--out", str(tmp_path / "out"))
    assert finished.returncode == 2
    assert "expected one folder, or --server with several" in finished.stderr
