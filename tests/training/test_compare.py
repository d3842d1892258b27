"""Which of two versions is better: the tests worked by hand, and two real versions on the same pictures."""

from __future__ import annotations

import io
import shutil
from math import comb, erfc, sqrt
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from service.manifest import Manifest, read_manifest
from tests.training.conftest import FRUITS
from tests.training.test_report import Page
from training.bars import Bars
from training.compare import Comparison, compare, mcnemar, paired_difference
from training.data import gather, list_classes
from training.errors import DataError
from training.versions import Version, load_version


def bars() -> Bars:
    return Bars(Console(file=io.StringIO()))


@pytest.mark.parametrize(
    ("only_first", "only_second", "expected"),
    [
        pytest.param(0, 0, 1, id="never-differ"),
        pytest.param(1, 5, 2 * (comb(6, 0) + comb(6, 1)) / 2**6, id="six"),
        pytest.param(12, 12, 1, id="level"),
        pytest.param(0, 24, 2 / 2**24, id="largest-exact"),
    ],
)
def test_of_few_discordant_pictures_the_test_is_exact(only_first: int, only_second: int, expected: float):
    found = mcnemar(only_first, only_second)
    assert found.test == "exact binomial"
    assert found.p_value == pytest.approx(expected)
    assert mcnemar(only_second, only_first).p_value == pytest.approx(found.p_value)


@pytest.mark.parametrize(
    ("only_first", "only_second", "statistic"),
    [
        pytest.param(5, 20, 14**2 / 25, id="smallest"),
        pytest.param(30, 5, 24**2 / 35, id="thirty-five"),
        pytest.param(20, 20, 0, id="level"),
    ],
)
def test_of_many_the_test_is_chi_square_with_continuity_correction(only_first: int, only_second: int, statistic: float):
    found = mcnemar(only_first, only_second)
    assert found.test == "chi-square with continuity correction"
    # A chi-square of one degree of freedom is the square of a standard normal.
    assert found.p_value == pytest.approx(erfc(sqrt(statistic / 2)))


def test_the_interval_is_the_one_worked_by_hand():
    found = paired_difference(2, 6, 98)
    # 100 pictures after one is added to the agreeing and one to the differing outcomes: (6 - 2) / 100.
    reach = 1.959964 * sqrt(9 - 16 / 100) / 100
    assert found.value == pytest.approx(4 / 98)
    assert found.low == pytest.approx(0.04 - reach, rel=1e-5)
    assert found.high == pytest.approx(0.04 + reach, rel=1e-5)


def test_equal_answers_on_few_pictures_leave_much_open_and_on_many_little():
    few, many = paired_difference(0, 0, 10), paired_difference(0, 0, 10_000)
    assert few.low == -few.high < -0.1
    assert -0.001 < many.low == -many.high < 0


def test_an_interval_does_not_leave_what_is_possible():
    assert paired_difference(0, 1, 1).low >= -1
    assert paired_difference(0, 300, 300).high == 1


@pytest.fixture(scope="module")
def versions(fruit_models: Path) -> tuple[Version, Version]:
    return load_version(fruit_models / "fruit_cnn" / "1"), load_version(fruit_models / "fruit_cnn" / "2")


@pytest.fixture(scope="module")
def folder(versions: tuple[Version, Version], fruit_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("comparison")
    compare(*versions, fruit_folder, folder, bars())
    return folder


@pytest.fixture(scope="module")
def comparison(folder: Path) -> Comparison:
    return Comparison.model_validate_json((folder / "comparison.json").read_bytes())


def right(version: Version, folder: Path) -> dict[str, bool]:
    """Whether the version is right, by the picture's name."""
    labels = version.manifest.labels
    pictures = gather(folder, list_classes(folder, labels), version.manifest.input)
    said = version.serve(pictures.images)["probabilities"].argmax(axis=1)
    return {name: name.startswith(labels[number]) for name, number in zip(pictures.names, said, strict=True)}


def test_each_is_measured_at_its_own_size_and_by_its_own_labels(
    comparison: Comparison, versions: tuple[Version, Version], fruit_folder: Path
):
    first, second = (right(version, fruit_folder) for version in versions)
    assert comparison.pictures == 24
    assert (comparison.first.right, comparison.second.right) == (sum(first.values()), sum(second.values()))
    assert comparison.first.accuracy == pytest.approx(sum(first.values()) / 24)
    only_first = {name for name in first if first[name] and not second[name]}
    only_second = {name for name in first if second[name] and not first[name]}
    assert (comparison.mcnemar.only_first, comparison.mcnemar.only_second) == (len(only_first), len(only_second))
    assert {one.name for one in comparison.only_first} <= only_first
    assert {one.name for one in comparison.only_second} <= only_second
    assert comparison.difference == paired_difference(len(only_first), len(only_second), 24)


def test_a_trained_version_is_better_than_an_untrained_one(comparison: Comparison):
    assert comparison.difference.high < 0
    assert comparison.mcnemar.p_value < 0.05
    assert [change.label for change in comparison.classes] == sorted(FRUITS)
    assert sum(change.first * change.pictures for change in comparison.classes) == pytest.approx(comparison.first.right)


def test_the_surest_picture_of_every_class_comes_first(comparison: Comparison):
    labels = [one.label for one in comparison.only_first]
    assert len(set(labels[: len(set(labels))])) == len(set(labels))
    assert all(one.mistaken_for != one.label for one in comparison.only_first)


def test_cost_is_told(comparison: Comparison, fruit_models: Path):
    for side in (comparison.first, comparison.second):
        folder = fruit_models / side.name
        assert side.bytes == sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        assert side.parameters == read_manifest(folder).parameters
        assert sorted(side.milliseconds) == [1, 32]
        assert min(side.milliseconds.values()) > 0


def test_the_page_s_pictures_are_there_and_of_the_larger_input(folder: Path, comparison: Comparison):
    page = Page(folder / "index.html")
    assert sorted(page.pictures) == sorted(path.name for path in folder.glob("*.png"))
    assert "classes.png" in page.pictures
    with Image.open(folder / comparison.only_first[0].picture) as image:
        assert image.size == (24, 28)
    assert "script" not in page.tags
    assert str(folder.parent) not in (folder / "index.html").read_text() + (folder / "comparison.json").read_text()


def test_a_version_does_not_differ_from_itself(versions: tuple[Version, Version], fruit_folder: Path, tmp_path: Path):
    found = compare(versions[0], versions[0], fruit_folder, tmp_path, bars())
    assert found.difference.value == 0
    assert found.mcnemar.p_value == 1
    page = Page(tmp_path / "index.html")
    assert page.pictures == []
    assert page.text.count("None.") == 2


def test_two_of_the_same_name_and_number_are_told_by_their_folders(
    versions: tuple[Version, Version], fruit_folder: Path, tmp_path: Path
):
    copy = shutil.copytree(versions[0].folder, tmp_path / "newer" / "fruit_cnn" / "1")
    found = compare(versions[0], load_version(copy), fruit_folder, tmp_path / "out", bars())
    assert found.first.name != found.second.name
    assert found.second.name.endswith("newer/fruit_cnn/1")
    assert versions[0].folder.as_posix().endswith(f"/{found.first.name}")
    page = Page(tmp_path / "out" / "index.html")
    assert found.first.name in page.text
    assert found.second.name in page.text


def relabelled(version: Version, **names: str) -> Version:
    """The same graph for classes of other names."""
    labels = [names.get(label, label) for label in version.manifest.labels]
    manifest = Manifest.model_validate({**version.manifest.model_dump(), "labels": labels})
    return Version(version.serve, version.gradcam, version.folder, manifest)


def test_versions_of_other_classes_are_compared_on_those_they_share(
    versions: tuple[Version, Version], fruit_folder: Path, tmp_path: Path
):
    other = relabelled(versions[1], Banana="Plantain")
    pictures = shutil.copytree(fruit_folder, tmp_path / "pictures")
    shutil.copytree(pictures / "Banana", pictures / "Plantain")
    found = compare(versions[0], other, pictures, tmp_path / "out", bars())
    assert found.pictures == 18
    assert found.left_out == ["Banana", "Plantain"]
    assert "Banana" not in {change.label for change in found.classes}
    assert "Left out: Banana, Plantain." in Page(tmp_path / "out" / "index.html").text


def test_versions_that_share_no_pictured_class_cannot_be_compared(
    versions: tuple[Version, Version], fruit_folder: Path, tmp_path: Path
):
    other = relabelled(versions[1], **{label: f"other {label}" for label in FRUITS})
    with pytest.raises(DataError, match="expected pictures of a class that both fruit_cnn/1 and fruit_cnn/2 know"):
        compare(versions[0], other, fruit_folder, tmp_path, bars())


def test_a_folder_of_no_class_of_either_is_named(versions: tuple[Version, Version], fruit_folder: Path, tmp_path: Path):
    pictures = shutil.copytree(fruit_folder, tmp_path / "pictures")
    (pictures / "Banana").rename(pictures / "Durian")
    with pytest.raises(DataError, match=r"found Durian$"):
        compare(*versions, pictures, tmp_path / "out", bars())


def test_the_pictures_are_those_of_the_names(folder: Path, comparison: Comparison, versions, fruit_folder: Path):
    for one in comparison.only_first:
        target = versions[1].manifest.input
        pictures = gather(fruit_folder, list_classes(fruit_folder, versions[1].manifest.labels), target)
        with Image.open(folder / one.picture) as image:
            shown = np.asarray(image.convert("RGB"))
        np.testing.assert_array_equal(shown, pictures.images[pictures.names.index(one.name)])
