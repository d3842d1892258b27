"""What a version's channels look for in, a page of sheets out: in a folder of its own, or in the version's report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from service.manifest import Manifest
from service.problems import first_problem
from training import report
from training.errors import VersionError
from training.maximise import Maximised
from training.pages import make_folder, write_page
from training.publish import renew
from training.sheets import Sheet, write_sheets
from training.versions import Version

DOCUMENT, PAGE = "filters.json", "index.html"


class Filters(BaseModel):
    """All that the page shows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    steps: int
    seed: int
    sheets: list[Sheet]


def write_filters(folder: Path, title: str, maximised: Sequence[Maximised], *, steps: int, seed: int) -> Filters:
    """Write `index.html`, `filters.json` and a JPEG a layer into `folder`, which is made where there is none.

    Raises:
        TrainingError: the folder cannot be written.
    """
    make_folder(folder)
    found = Filters(title=title, steps=steps, seed=seed, sheets=write_sheets(folder, maximised))
    (folder / DOCUMENT).write_text(found.model_dump_json(indent=2) + "\n", encoding="utf-8")
    write_page(folder / PAGE, "filters.html", findings=found)
    return found


def publish_filters(version: Version, maximised: Sequence[Maximised], *, steps: int, seed: int) -> Manifest:
    """Show them in the version's report, instead of those that it showed before; all but the report stays as it is.

    Where there is no report, the page of `write_filters` becomes it.

    Raises:
        VersionError: the report is none that this version of Sichtbar reads.
        PublishError: the version's folder cannot be written.
    """
    document = version.folder / "report" / report.DOCUMENT
    target = version.manifest.input
    measured = _read(document) if document.is_file() else None

    def change(folder: Path) -> None:
        if measured is None:
            write_filters(folder, version.name, maximised, steps=steps, seed=seed)
            return
        renewed = measured.model_copy(update={"filters": write_sheets(folder, maximised)})
        report.write_document(folder, renewed, small=report.is_small(target.height, target.width))

    return renew(version.folder, change)


def _read(document: Path) -> report.Report:
    try:
        return report.Report.model_validate_json(document.read_bytes())
    except ValidationError as invalid:
        raise VersionError(
            f"{document}: expected a report as `fit` writes it, found at {first_problem(invalid, 'its start')}"
        ) from None
