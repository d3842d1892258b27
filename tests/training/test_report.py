"""A report from made-up findings, opened as a browser opens it."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from training.calibration import softmax
from training.errors import TrainingError
from training.figures import Epoch
from training.report import PART_OF_MATRIX, SHOWN_LOSSES, WHOLE_MATRIX, Composed, Findings, Report, write_report

LARGEST_BYTES = 3_000_000


def corner(images: NDArray[np.uint8], class_index: NDArray[np.int32]) -> NDArray[np.float32]:
    """Heat in one pixel."""
    maps = np.zeros((len(images), 2, 2), np.float32)
    maps[:, 0, 0] = class_index + 1
    return maps


def findings(classes: NDArray[np.int32], predicted: NDArray[np.int32], labels: list[str], side: int = 8) -> Findings:
    """Pictures of noise; the right class is the second choice where it is not the first."""
    logits = np.zeros((len(classes), len(labels)), np.float32)
    logits[np.arange(len(classes)), classes] = 1
    # The later, the surer.
    logits[np.arange(len(classes)), predicted] = 2 + np.arange(len(classes)) / len(classes)
    return Findings(
        title="shapes/1",
        labels=labels,
        classes=classes,
        logits=logits,
        probabilities=softmax(logits).astype(np.float32),
        recognition=logits.max(axis=1),
        images=np.random.default_rng(1).integers(0, 256, (len(classes), side, side, 3)).astype(np.uint8),
        names=[f"{labels[number]}/{i}.png" for i, number in enumerate(classes)],
        gradcam=corner,
    )


LABELS = ["circle", "<b>square</b>", "$stripes_$"]
CLASSES = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2, 2], np.int32)
PREDICTED = np.array([0, 0, 1, 2, 1, 1, 0, 0, 2, 2], np.int32)


class Page(HTMLParser):
    """What a page asks a browser to load, and the text that it shows."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.pictures: list[str] = []
        self.tags: set[str] = set()
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        values = dict(attributes)
        if tag == "img":
            assert values["alt"]
            self.pictures.append(values["src"] or "")

    def handle_data(self, data: str) -> None:
        self.text += f"{data} "


@pytest.fixture(scope="module")
def full() -> Findings:
    """Findings of a run that knows all there is to know."""
    return replace(
        findings(CLASSES, PREDICTED, LABELS),
        strangers=np.array([0.5, 1.5, 2.5], np.float32),
        threshold=2.05,
        history=[Epoch(1, 1, 1.0, 0.5, 1.1, 0.4, 2.0), Epoch(2, 2, 0.5, 0.75, 0.6, 0.7, 2.0)],
        timings={"fitting": 12.34},
        data={"pictures": 10, "digest": "sha256:0"},
        recipe={"name": "shapes", "fitting": {"stages": [{"epochs": 1}, {"epochs": 2}], "smoothing": None}},
        limitations="Knows <i>shapes</i>.",
    )


@pytest.fixture(scope="module")
def folder(full: Findings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "below" / "report"
    write_report(folder, full)
    return folder


@pytest.fixture(scope="module")
def report(folder: Path) -> Report:
    return Report.model_validate_json((folder / "report.json").read_bytes())


def test_every_picture_of_the_page_is_there_and_every_picture_there_is_on_the_page(folder: Path):
    page = Page(folder / "index.html")
    assert len(page.pictures) == 4 + 2 * len(CLASSES)
    for name in page.pictures:
        assert Path(name).name == name
        with Image.open(folder / name) as image:
            image.load()
            assert image.format == "PNG"
    assert sorted(page.pictures) == sorted(path.name for path in folder.glob("*.png"))


def test_the_page_has_no_script_and_escapes_what_it_is_told(folder: Path):
    page = Page(folder / "index.html")
    assert not page.tags & {"script", "link", "iframe", "i", "b"}
    assert "<b>square</b>" in page.text
    assert "Knows <i>shapes</i>." in page.text


def test_the_page_shows_recipe_data_and_times(folder: Path):
    text = " ".join(Page(folder / "index.html").text.split())
    for shown in ("fitting.stages.2.epochs 2", "fitting.smoothing none", "digest sha256:0", "fitting 12.3 s"):
        assert shown in text


def test_nothing_tells_where_it_was_written(folder: Path):
    for path in folder.iterdir():
        content = path.read_bytes()
        assert str(folder.parent).encode() not in content
        assert str(Path.cwd()).encode() not in content


def test_the_document_s_figures_are_the_findings(report: Report):
    assert report.metrics.accuracy == 6 / 10
    assert report.confusion.labels == LABELS
    assert report.confusion.counts == [[2, 1, 1], [2, 2, 0], [0, 0, 2]]
    assert report.confusion.pictures == [4, 4, 2]
    assert [(pair.true, pair.predicted, pair.count, pair.share) for pair in report.confused_pairs] == [
        (LABELS[1], LABELS[0], 2, 0.5),
        (LABELS[0], LABELS[1], 1, 0.25),
        (LABELS[0], LABELS[2], 1, 0.25),
    ]
    assert [epoch.stage for epoch in report.history] == [1, 2]


def test_the_highest_losses_come_first_with_what_was_said(report: Report, full: Findings):
    # Of the wrong ones the surest first.
    assert [loss.name for loss in report.losses[:4]] == [full.names[i] for i in (7, 6, 3, 2)]
    first = report.losses[0]
    assert (first.true, first.predicted) == (LABELS[1], LABELS[0])
    assert first.probability == pytest.approx(full.probabilities[7, 0])
    assert first.loss == pytest.approx(-np.log(full.probabilities[7, 1]))
    assert first.loss == max(loss.loss for loss in report.losses)


def test_the_picture_is_the_model_s_input_and_the_overlay_is_hot_where_the_map_is(
    folder: Path, report: Report, full: Findings
):
    with Image.open(folder / report.losses[0].picture) as image:
        picture = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(picture, full.images[7])
    with Image.open(folder / report.losses[0].overlay) as image:
        change = np.abs(np.asarray(image.convert("RGB")).astype(int) - picture).sum(axis=-1)
    assert change[:4, :4].mean() > 10
    # A linear enlargement of one hot pixel of four leaves the opposite corner cold.
    assert change[-1, -1] <= 3


def test_recognition_is_told_by_threshold_and_by_order(report: Report):
    assert report.recognition.recognised == 0.9
    assert report.recognition.strangers == 3
    assert report.recognition.strangers_recognised == pytest.approx(1 / 3)
    # Of 30 pairs the stranger of 2.5 is above the first five, 2.0 to 2.4, and level with the sixth.
    assert report.recognition.auroc == pytest.approx((30 - 5.5) / 30)
    assert report.metrics.recognition_auroc == report.recognition.auroc


def test_without_history_strangers_and_threshold_there_is_a_page_without_them(tmp_path: Path):
    report = write_report(tmp_path, findings(CLASSES, PREDICTED, LABELS))
    page = Page(tmp_path / "index.html")
    assert "learning-curves.png" not in page.pictures
    assert "Learning curves" not in page.text
    assert report.recognition.auroc is report.recognition.recognised is report.metrics.recognition_auroc is None


def test_one_picture_is_enough(tmp_path: Path):
    report = write_report(tmp_path, findings(CLASSES[:1], PREDICTED[:1], LABELS))
    assert report.calibration.error_cross_fitted is None
    assert report.confused_pairs == []
    assert "No picture was taken for another class." in Page(tmp_path / "index.html").text


def test_a_picture_and_its_composite_are_in_the_same_half(tmp_path: Path):
    """Nearly all plain pictures are right and most composites wrong: halves of one kind each would fit badly."""
    chance = np.random.default_rng(1)
    classes = np.repeat(np.arange(3, dtype=np.int32), 200)

    def logits(right: float) -> NDArray[np.float32]:
        said = np.where(chance.random(600) < right, classes, (classes + 1) % 3)
        return (4 * np.eye(3)[said]).astype(np.float32)

    full = findings(classes, classes, LABELS)
    plain, composed = logits(0.99), Composed(classes, logits(0.35), np.ones(600, np.float32))
    report = write_report(tmp_path, replace(full, logits=plain, composed=composed, temperature_fitted_here=True))
    assert report.metrics.calibration_error == report.calibration.error_cross_fitted < 0.2


def test_a_temperature_fitted_on_these_pictures_is_not_flattered(tmp_path: Path, full: Findings):
    seen = write_report(tmp_path, replace(full, temperature=2.0, temperature_fitted_here=True))
    assert seen.metrics.calibration_error == seen.calibration.error_cross_fitted != seen.calibration.error
    assert "the second figure flatters" in Page(tmp_path / "index.html").text
    unseen = write_report(tmp_path, full)
    assert unseen.metrics.calibration_error == unseen.calibration.error
    assert unseen.calibration.error == pytest.approx(unseen.calibration.error_before, rel=1e-5)
    assert "flatters" not in Page(tmp_path / "index.html").text


def test_of_very_many_classes_only_the_most_confused_are_drawn(tmp_path: Path):
    labels = [f"class {number}" for number in range(WHOLE_MATRIX + 40)]
    classes = np.arange(len(labels), dtype=np.int32).repeat(2)
    predicted = classes.copy()
    # The classes 10, 12, ... 68 are once taken for the next.
    predicted[20:140:4] += 1
    report = write_report(tmp_path, findings(classes, predicted, labels, side=2))
    assert len(report.confusion.labels) == PART_OF_MATRIX
    assert report.confusion.labels[:3] == ["class 10", "class 11", "class 12"]
    assert report.confusion.counts[0][:2] == [1, 1]
    assert (
        f"The {PART_OF_MATRIX} classes that are confused most, of {len(labels)}" in Page(tmp_path / "index.html").text
    )


def test_very_many_classes_without_an_error_need_no_matrix(tmp_path: Path):
    labels = [f"class {number}" for number in range(WHOLE_MATRIX + 1)]
    classes = np.arange(len(labels), dtype=np.int32)
    report = write_report(tmp_path, findings(classes, classes, labels, side=2))
    assert report.confusion.labels == []
    assert "confusion.png" not in Page(tmp_path / "index.html").pictures


def test_a_thousand_classes_of_large_noise_weigh_little(tmp_path: Path):
    labels = [f"class {number}" for number in range(1000)]
    classes = np.arange(1000, dtype=np.int32)
    noise = np.random.default_rng(1).integers(0, 256, (320, 320, 3)).astype(np.uint8)
    many = replace(
        findings(classes, np.roll(classes, 7), labels, side=1), images=np.broadcast_to(noise, (1000, *noise.shape))
    )
    report = write_report(tmp_path, many)
    assert len(report.losses) == SHOWN_LOSSES
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < LARGEST_BYTES


def test_a_file_in_the_folder_s_place_is_an_error(tmp_path: Path):
    (tmp_path / "report").write_text("mine")
    with pytest.raises(TrainingError, match="report: expected a folder to write to: File exists"):
        write_report(tmp_path / "report", findings(CLASSES, PREDICTED, LABELS))
