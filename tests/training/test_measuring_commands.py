"""`evaluate` and `compare` as a person at a terminal, or a script, meets them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import ROOT, draw
from tests.training.test_command_line import here, run
from tests.training.test_report import Page
from training.compare import Comparison
from training.report import Report

BUNDLED = ROOT / "models" / "fruit_cnn" / "1"


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of no fruit, one of them in a folder below."""
    folder = tmp_path_factory.mktemp("strangers")
    (folder / "below").mkdir()
    draw("stripes", 1).save(folder / "1.png")
    draw("square", 2).save(folder / "below" / "2.png")
    return folder


@pytest.mark.parametrize("command", ["evaluate", "compare"])
def test_help_shows_examples(command: str):
    done = run(command, "--help")
    assert done.returncode == 0
    assert f"python -m training {command} models/fruit_cnn/1" in done.stdout
    assert "--json" in done.stdout


def test_evaluate_prints_a_table_and_where_the_page_is(
    fruit_folder: Path, strangers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    done = here("evaluate", BUNDLED, "--data", fruit_folder, "--negatives", strangers)
    assert done.exit_code == 0, done.output
    report = Report.model_validate_json((tmp_path / "report-fruit_cnn-1" / "report.json").read_bytes())
    assert (report.metrics.images, report.recognition.strangers) == (24, 2)
    assert [figures.label for figures in report.metrics.classes] == ["Avocado", "Banana", "Lemon", "Strawberry"]
    assert f"accuracy {report.metrics.accuracy:.2%}, top 3 {report.metrics.top3_accuracy:.2%}" in done.stdout
    assert f"recognition AUROC {report.recognition.auroc:.4f}" in done.stdout
    assert f"wrote {Path('report-fruit_cnn-1') / 'index.html'}" in done.stdout.splitlines()


def test_evaluate_json_is_the_document_and_nothing_else_stands_on_stdout(fruit_folder: Path, tmp_path: Path):
    done = run("evaluate", BUNDLED, "--data", fruit_folder, "--out", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads((tmp_path / "out" / "report.json").read_text())
    assert len(done.stdout.splitlines()) == 1
    assert "reading pictures" in done.stderr


def test_a_published_report_names_no_folder_of_this_machine(fruit_folder: Path, strangers: Path, tmp_path: Path):
    done = here(
        "evaluate", BUNDLED, "--data", fruit_folder, "--negatives", strangers, "--out", tmp_path / "out", "--json"
    )
    assert done.exit_code == 0, done.output
    for path in (tmp_path / "out").iterdir():
        content = path.read_bytes()
        for folder in (fruit_folder, strangers, tmp_path, ROOT, Path.home() / "x"):
            assert str(folder).encode() not in content, path.name
    page = Page(tmp_path / "out" / "index.html")
    assert len(page.pictures) == 3 + 2 * 12
    assert all((tmp_path / "out" / name).is_file() for name in page.pictures)


def test_of_a_split_folder_only_test_is_measured(fruit_folder: Path, tmp_path: Path):
    shutil.copytree(fruit_folder / "Banana", tmp_path / "data" / "Test" / "Banana")
    shutil.copytree(fruit_folder / "Lemon", tmp_path / "data" / "Training" / "Lemon")
    done = here("evaluate", BUNDLED, "--data", tmp_path / "data", "--out", tmp_path / "out", "--json")
    assert done.exit_code == 0, done.output
    report = Report.model_validate_json(done.stdout)
    assert [figures.label for figures in report.metrics.classes] == ["Banana"]
    assert report.data["split"] == "the folder Test"
    assert report.data["pictures"] == 6


def test_the_bundled_model_knows_the_examples(tmp_path: Path):
    (tmp_path / "data" / "Banana").mkdir(parents=True)
    shutil.copy(ROOT / "examples" / "banana.png", tmp_path / "data" / "Banana")
    done = here("evaluate", BUNDLED, "--data", tmp_path / "data", "--out", tmp_path / "out", "--json")
    assert Report.model_validate_json(done.stdout).metrics.accuracy == 1


def test_compare_prints_a_table_and_json(fruit_models: Path, fruit_folder: Path, tmp_path: Path):
    versions = fruit_models / "fruit_cnn" / "1", fruit_models / "fruit_cnn" / "2"
    done = here("compare", *versions, "--data", fruit_folder, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    document = (tmp_path / "out" / "comparison.json").read_bytes()
    comparison = Comparison.model_validate_json(document)
    assert f"{comparison.mcnemar.only_first} right by fruit_cnn/1 alone" in done.stdout
    assert f"{comparison.first.accuracy:.2%}" in done.stdout
    assert f"wrote {tmp_path / 'out' / 'index.html'}" in done.stdout.splitlines()
    done = here("compare", *versions, "--data", fruit_folder, "--out", tmp_path / "out", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == json.loads((tmp_path / "out" / "comparison.json").read_bytes())


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        pytest.param(["{models}/fruit_cnn/7", "--data", "{data}"], "expected a published version", id="no-version"),
        pytest.param([str(BUNDLED), "--data", "{data}/nowhere"], "expected a folder of pictures", id="no-data"),
        pytest.param(
            [str(BUNDLED), "--data", "{data}", "--negatives", "{data}/nowhere"], "expected a folder", id="no-negatives"
        ),
        pytest.param([str(BUNDLED), "--data", "{models}"], "found fruit_cnn", id="folders-of-no-class"),
        pytest.param([str(BUNDLED), "--data", "{data}", "--out", "{file}"], "expected a folder to write to", id="out"),
    ],
)
def test_what_a_person_can_mend_is_one_line_and_status_1(
    arguments: list[str], problem: str, fruit_models: Path, fruit_folder: Path, tmp_path: Path
):
    models = shutil.copytree(fruit_models, tmp_path / "models")
    draw("circle", 1).save(models / "fruit_cnn" / "picture.png")
    file = tmp_path / "file"
    file.touch()
    filled = [argument.format(models=models, data=fruit_folder, file=file) for argument in arguments]
    done = here("evaluate", *(filled if "--out" in filled else [*filled, "--out", tmp_path / "out"]))
    assert done.exit_code == 1
    assert done.stdout == ""
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert problem in line
    assert "Traceback" not in done.output
    # Before any work is done.
    assert "asking" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(["evaluate"], "MODEL_DIR", id="no-model"),
        pytest.param(["evaluate", "x"], "--data", id="no-data"),
        pytest.param(["compare", "x", "--data", "y"], "MODEL_B", id="one-version"),
        pytest.param(["compare", "x", "y", "--data", "z", "--jsn"], "--jsn", id="unknown-option"),
    ],
)
def test_wrong_usage_has_exit_status_2(arguments: list[str], said: str):
    done = here(*arguments)
    assert done.exit_code == 2
    assert said in done.stderr


@pytest.mark.realdata
def test_the_bundled_model_reaches_on_the_real_pictures_what_its_manifest_promises(data_folder: Path, tmp_path: Path):
    negatives = data_folder / "imagenet-samples"
    arguments = ("--data", data_folder / "fruits-360", "--negatives", negatives, "--out", tmp_path, "--json")
    report = Report.model_validate_json(here("evaluate", BUNDLED, *arguments).stdout)
    assert report.metrics.images == 2592
    assert report.metrics.accuracy >= 0.999
    # Every picture is right: no temperature can be fitted.
    assert report.calibration.error_cross_fitted == pytest.approx(report.calibration.error, rel=1e-4)
    assert report.recognition.auroc > 0.95
