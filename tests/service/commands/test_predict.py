"""`python -m service predict`, as its users start it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest

from service.app import create_app
from service.security import add_key
from service.settings import Settings
from tests.conftest import ROOT, LiveServer, draw, encode
from tests.service.client.scripted import Scripted, Step, answer, silence, unused_port
from tests.service.explain.test_folder import INTERRUPTIBLE


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    (folder / "below").mkdir(parents=True)
    (folder / "circle.png").write_bytes(encode(draw("circle", 1)))
    (folder / "below" / "square.jpg").write_bytes(encode(draw("square", 2), "JPEG"))
    (folder / "notes.txt").write_text("no picture")
    return folder


def predict(*arguments: object, command: str = "predict", **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "service", command, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_table_has_a_row_for_each_class_of_each_picture(live: httpx.Client, pictures: Path) -> None:
    done = predict(pictures, "--server", live.base_url, "--top-k", "2", COLUMNS="200")
    assert (done.returncode, done.stderr) == (0, "")
    rows = [[cell.strip() for cell in line.split("│")] for line in done.stdout.splitlines() if "│" in line]
    assert [row[:2] for row in rows if row[0]] == [
        [str(pictures / "below" / "square.jpg"), "square"],
        [str(pictures / "circle.png"), "circle"],
    ]
    assert len(rows) == 4
    assert all(row[3] in ("yes", "no", "-") and float(row[4]) >= 0 for row in rows if row[0])
    said = live.post("/predict", files={"file": (pictures / "circle.png").read_bytes()}).json()
    assert f"{said['images'][0]['predictions'][0]['probability']:.1%}" in done.stdout
    assert "by shapes/1" in done.stdout


def test_json_is_one_object_of_what_the_service_says(live: httpx.Client, pictures: Path) -> None:
    picture = pictures / "circle.png"
    done = predict(picture, "--server", live.base_url, "--json", "--no-store", "--version", "1")
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 1)
    answer = json.loads(done.stdout)
    assert answer["server"] == str(live.base_url)
    (one,) = answer["pictures"]
    said = live.post("/predict", params={"store": False}, files={"file": picture.read_bytes()}).json()
    del one["seconds"], said["images"][0]["seconds"], said["images"][0]["name"]
    assert one == {"picture": str(picture), "model": "shapes", "version": 1, **said["images"][0]}


def test_a_picture_at_an_address_is_fetched_here(live: httpx.Client, pictures: Path) -> None:
    kept = live.post("/predict", files={"file": (pictures / "circle.png").read_bytes()}).json()["images"][0]["image_id"]
    address = f"{live.base_url}/images/{kept}"
    done = predict(address, f"{live.base_url}/images/{'0' * 64}", "--server", live.base_url, "--json")
    there, missing = json.loads(done.stdout)["pictures"]
    assert (there["picture"], there["predictions"][0]["label"]) == (address, "circle")
    assert missing["problem"] == {"code": "no_image", "detail": "expected a picture there, got 404 Not Found"}
    assert done.returncode == 1


def test_a_picture_that_fails_is_named_and_the_others_are_answered(live: httpx.Client, pictures: Path) -> None:
    broken = pictures / "broken.png"
    broken.write_bytes(encode(draw("circle", 1))[:60])
    done = predict(pictures, "--server", live.base_url, "--json")
    assert done.returncode == 1
    square, failed, circle = json.loads(done.stdout)["pictures"]
    assert (failed["picture"], failed["problem"]["code"]) == (str(broken), "broken_image")
    assert [one["predictions"][0]["label"] for one in (square, circle)] == ["square", "circle"]
    shown = predict(pictures, "--server", live.base_url, COLUMNS="200")
    assert shown.returncode == 1
    assert "broken_image: broken.png: the picture is truncated or damaged" in shown.stdout


def test_where_no_service_answers_it_says_how_to_start_one(pictures: Path) -> None:
    server = f"http://127.0.0.1:{unused_port()}"
    finished = predict(pictures, "--server", server)
    assert finished.returncode == 1
    assert finished.stderr.startswith(f"no_service: no service answers at {server}")
    assert "start one with ./scripts/serve" in finished.stderr
    assert len(finished.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nowhere.png"], 1, "no_image: expected a picture, a folder with pictures or an http(s) address, found none"),
        (["ftp://x/y.png"], 1, "an http(s) address, found none at ftp://x/y.png"),
        (
            ["README.md", "--server", "nonsense"],
            1,
            "not_sent: server: expected an address such as http://127.0.0.1:8000",
        ),
        (["README.md", "--key", "ü€"], 1, "not_sent: key: expected visible ASCII characters"),
        (["http://127.0.0.1:port/a.png"], 1, "no_image: expected the address of a picture"),
        ([], 2, "Missing argument"),
        (["a.png", "--top-k", "0"], 2, "--top-k"),
    ],
)
def test_what_is_wrong_with_how_it_was_called_is_said(arguments: list[str], code: int, said: str) -> None:
    done = predict(*arguments)
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_question_that_no_picture_could_answer_is_told_for_each(live: httpx.Client, pictures: Path) -> None:
    done = predict(pictures, "--server", live.base_url, "--model", "shape", "--json")
    assert done.returncode == 1
    assert {one["problem"]["code"] for one in json.loads(done.stdout)["pictures"]} == {"unknown_model"}


def test_a_key_comes_from_the_environment(shapes_models: Path, pictures: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    key = add_key(keys, "shop", frozenset({"predict"}), None)
    settings = Settings(models=shapes_models, engine="openvino", keys=keys)
    with LiveServer(create_app(settings)) as server:
        refused = predict(pictures, "--server", server.url)
        assert (refused.returncode, refused.stderr.partition(":")[0]) == (1, "unauthenticated")
        assert predict(pictures, "--server", server.url, SICHTBAR_API_KEY=f"{key}\n").returncode == 0


def test_names_stay_whole_in_a_terminal_of_80_columns(live: httpx.Client, pictures: Path) -> None:
    picture = pictures.relative_to(pictures.parent) / "strawberry-1.png"
    (pictures.parent / picture).write_bytes((pictures / "circle.png").read_bytes())
    done = subprocess.run(
        [sys.executable, "-m", "service", "predict", picture, "--server", str(live.base_url)],
        cwd=pictures.parent,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert f"{picture} " in done.stdout, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80


LIVE = answer(200, b'{"status": "alive"}')


@pytest.fixture
def answered(live: httpx.Client, pictures: Path) -> Step:
    """What the service says of a picture, again and again."""
    said = live.post("/predict", files={"file": (pictures / "circle.png").read_bytes()})
    return answer(200, said.content)


def test_where_the_service_goes_away_what_was_answered_is_printed(answered: Step, pictures: Path) -> None:
    refused = answer(401, b'{"code": "unauthenticated", "detail": "expected a key"}')
    with Scripted(LIVE, answered, refused) as server:
        done = predict(pictures, "--server", server.url, "--json", "--at-once", "1")
    assert done.returncode == 1
    assert [one["picture"] for one in json.loads(done.stdout)["pictures"]] == [str(pictures / "below" / "square.jpg")]
    assert done.stderr == "1 of 2 answered: unauthenticated: expected a key\n"


def test_where_it_is_interrupted_what_was_answered_is_printed(answered: Step, pictures: Path) -> None:
    asked = threading.Event()

    def wait(connection: socket.socket) -> None:
        asked.set()
        silence(connection)

    with Scripted(LIVE, answered, wait) as server:
        arguments = ["predict", str(pictures), "--server", server.url, "--json", "--at-once", "1"]
        with subprocess.Popen(
            [sys.executable, "-c", INTERRUPTIBLE, *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert asked.wait(60)
            process.send_signal(signal.SIGINT)
            printed, told = process.communicate(timeout=30)
    assert process.returncode == 130
    assert len(json.loads(printed)["pictures"]) == 1
    assert told == "1 of 2 answered: interrupted\n"


@pytest.mark.parametrize("command", ["predict", "explain"])
def test_help_shows_examples(command: str) -> None:
    done = predict("--help", command=command)
    assert done.returncode == 0
    assert f"python -m service {command} " in done.stdout
    assert "--server URL" in done.stdout
