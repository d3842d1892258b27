"""Values and figures in, HTML pages with pictures beside them out."""

from __future__ import annotations

import tempfile
from pathlib import Path

import jinja2
from matplotlib.figure import Figure

from training.errors import TrainingError

DPI = 100
JPEG_QUALITY = 88

_TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("training"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters["percent"] = lambda share, digits=2: f"{share:.{digits}%}"


def write_page(path: Path, template: str, **values: object) -> None:
    """Fill one of training/templates; texts are escaped, a value that the template wants and has not is an error."""
    path.write_text(_TEMPLATES.get_template(template).render(values), encoding="utf-8")


def write_figure(path: Path, figure: Figure) -> None:
    """Save as PNG, or as JPEG where it is named .jpg, without the margins; the same figure gives the same bytes."""
    if path.suffix == ".jpg":
        figure.savefig(path, dpi=DPI, bbox_inches="tight", pil_kwargs={"quality": JPEG_QUALITY})
    else:
        figure.savefig(path, dpi=DPI, bbox_inches="tight", metadata={"Software": None})


def make_folder(folder: Path) -> None:
    """See that pages can be written there.

    Raises:
        TrainingError: it is a file, or may not be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise TrainingError(f"{folder}: expected a folder to write to: {error.strerror}") from None
