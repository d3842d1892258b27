"""`python -m training maximise`: its page, and a published version whose report it renews."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from service.manifest import hash_files, read_manifest, verify_files
from tests.conftest import ROOT
from tests.training.test_command_line import here, run
from tests.training.test_report import Page
from training.errors import PublishError, VersionError
from training.filter_report import publish_filters
from training.publish import renew
from training.report import Report
from training.versions import load_version

FEW = ("--channels", "2", "--steps", "2")


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_fit_shows_in_the_report_what_filters_look_for(shapes_models: Path):
    folder = shapes_models / "shapes" / "1"
    page = Page(folder / "report" / "index.html")
    shown = [name for name in page.pictures if name.startswith("filters-")]
    assert shown == ["filters-1.jpg", "filters-2.jpg", "filters-3.jpg"]
    report = Report.model_validate_json((folder / "report" / "report.json").read_bytes())
    assert [sheet.layer for sheet in report.filters] == ["conv_1", "conv_2", "logits"]
    assert report.filters[-1].labels == ["circle", "square", "stripes"]
    assert all(sheet.medians[1] > sheet.medians[0] for sheet in report.filters)
    assert {f"report/{name}" for name in shown} < set(read_manifest(folder).files)


def test_a_page_of_its_own_and_json(own_models: Path, tmp_path: Path):
    out = tmp_path / "look"
    before = content(own_models)
    arguments = ("maximise", own_models / "shapes" / "1", "--layers", "conv_2, logits", *FEW, "--seed", "7")
    done = here(*arguments, "--out", out, "--json")
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert [(one["layer"], one["labels"]) for one in said["layers"]] == [
        ("conv_2", None),
        ("logits", ["circle", "square", "stripes"]),
    ]
    assert said["page"] == str(out / "index.html")
    assert "maximising conv_2: 2 steps" in done.stderr.splitlines()
    page = Page(out / "index.html")
    assert page.pictures == ["filters-1.jpg", "filters-2.jpg"]
    assert "What the layer conv_2 looks for, 2 of 16 channels: 0, 15" in (out / "index.html").read_text()
    with Image.open(out / "filters-1.jpg") as sheet:
        assert sheet.width > 800
    assert content(own_models) == before
    first = content(out)
    assert here(*arguments, "--out", out).exit_code == 0
    assert content(out) == first


def test_publishing_renews_the_report_and_leaves_all_else(own_models: Path):
    folder = own_models / "shapes" / "1"
    before, inode = content(folder), (folder / "saved_model.pb").stat().st_ino
    done = here("maximise", folder, "--layers", "conv_1", *FEW, "--publish")
    assert done.exit_code == 0, done.output
    assert f"wrote {folder / 'report' / 'index.html'}" in done.stdout.splitlines()
    manifest = read_manifest(folder)
    verify_files(folder, manifest)
    after = content(folder)
    assert before.keys() - after.keys() == {"report/filters-2.jpg", "report/filters-3.jpg"}
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {"manifest.json", "report/filters-1.jpg", "report/index.html", "report/report.json"}
    assert (folder / "saved_model.pb").stat().st_ino == inode
    assert [path.name for path in folder.parent.iterdir()] == ["1"]
    old = json.loads(before["report/report.json"])
    new = json.loads(after["report/report.json"])
    assert [sheet["layer"] for sheet in new.pop("filters")] == ["conv_1"]
    del old["filters"]
    assert new == old


def test_a_version_without_a_report_gets_one(own_models: Path):
    folder = own_models / "shapes" / "1"
    shutil.rmtree(folder / "report")
    manifest = read_manifest(folder).model_copy(update={"files": hash_files(folder)})
    (folder / "manifest.json").write_text(manifest.model_dump_json())
    done = here("maximise", folder, "--layers", "logits", *FEW, "--publish")
    assert done.exit_code == 0, done.output
    verify_files(folder, read_manifest(folder))
    assert Page(folder / "report" / "index.html").pictures == ["filters-1.jpg"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("{", "found at its start: Invalid JSON", id="no-json"),
        pytest.param('{"title": 3}', "found at title: Input should be a valid string", id="number"),
    ],
)
def test_a_report_that_cannot_be_read_is_left_alone(own_models: Path, text: str, said: str):
    version = load_version(own_models / "shapes" / "1")
    document = version.folder / "report" / "report.json"
    document.write_text(text)
    with pytest.raises(VersionError, match=said):
        publish_filters(version, [], steps=1, seed=0)
    assert document.read_text() == text


def test_a_change_that_fails_leaves_the_version_as_it_was(own_models: Path):
    folder = own_models / "shapes" / "1"
    before = content(folder)

    def fail(report: Path) -> None:
        (report / "index.html").write_text("half")
        raise PermissionError(13, "Permission denied")

    with pytest.raises(PublishError, match="cannot be renewed: Permission denied"):
        renew(folder, fail)
    assert content(folder) == before
    assert [path.name for path in folder.parent.iterdir()] == ["1"]


def test_without_links_files_are_copied(own_models: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(source: str, target: str) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    folder = own_models / "shapes" / "1"
    before = content(folder)
    renew(folder, lambda report: None)
    verify_files(folder, read_manifest(folder))
    assert content(folder).keys() == before.keys()


def test_a_wrong_layer_is_one_clear_line_that_names_the_layers(own_models: Path, tmp_path: Path):
    done = here("maximise", own_models / "shapes" / "1", "--layers", "conv_9", "--out", tmp_path / "look")
    assert done.exit_code == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "layers: expected some of rescaling, conv_1, relu_1, conv_2" in line
    assert line.endswith("found 'conv_9'")


def test_help_shows_examples():
    done = run("maximise", "--help")
    assert done.returncode == 0
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert "python -m training maximise models/fruit_vgg16/1" in lines


@pytest.mark.parametrize("name", ["fruit_cnn", "fruit_vgg16"])
def test_the_bundled_versions_show_what_they_look_for(name: str):
    folder = ROOT / "models" / name / "1"
    report = Report.model_validate_json((folder / "report" / "report.json").read_bytes())
    assert set(Page(folder / "report" / "index.html").pictures) >= {sheet.picture for sheet in report.filters}
    assert report.filters[-1].labels == read_manifest(folder).labels
    assert sum((folder / "report" / sheet.picture).stat().st_size for sheet in report.filters) < 750_000
    layers = read_manifest(folder).layers
    assert [layer.name for layer in layers if not layer.inputs] == [layers[0].name]
