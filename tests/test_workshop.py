"""The notebook that retells the workshop does all that it tells, on what a clone holds, and shows such a run."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from nbformat import NotebookNode

from tests.conftest import ROOT
from tests.workshop import NOTEBOOK, read, run

# What code hosts show at once.
MOST_BYTES = 1_000_000
MODELS = ("fruit_cnn", "fruit_vgg16", "fruit_vgg16_finetune")


def code(notebook: NotebookNode) -> dict[str, NotebookNode]:
    """Its code cells by name."""
    return {cell.id: cell for cell in notebook.cells if cell.cell_type == "code"}


def text(cell: NotebookNode) -> str:
    """What a cell printed and displayed, but for pictures."""
    found = [output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in cell.outputs]
    return re.sub(r"\x1b\[[\d;]*m", "", "\n".join(found))


def test_it_trains_serves_and_asks_from_the_first_cell_to_the_last(tmp_path: Path) -> None:
    said = {name: text(cell) for name, cell in code(run(tmp_path)).items()}
    alike, tests = re.search(r"(\d+) of (\d+) test pictures are nearly", said["see-pictures"]).groups()
    assert 0 < int(alike) <= int(tests) == 48
    assert "fruit_vgg16: 14,986,065 parameters" in said["ask-pretrained"]
    assert "epoch 4 of 4" in said["finetune"]
    assert "published workshop/models/fruit_cnn/1" in said["own-fit"]
    assert re.search(r"\w+: logit [\d.-]+, probability [\d.]+%", said["see-walk"])
    assert len(re.findall(r"stability \d\.\d\d, deletion -?\d\.\d\d", said["see-trust"])) == 2
    assert len(re.findall(r"[\d.]+% ± [\d.]+%", said["see-crossval"])) == 2
    for name in MODELS:
        assert f"{name} [(1, 'available', 'openvino')]" in said["see-served"]
    (bundled,) = (line for line in said["see-answers"].splitlines() if line.startswith("fruit_vgg16 "))
    assert "lemon: Lemon" in bundled
    assert said["stop"].strip() == "ended with status 0"


def test_it_shows_one_run_of_it_and_nothing_of_the_machine() -> None:
    cells = list(code(read()).values())
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert {output.output_type for output in outputs} <= {"stream", "display_data"}
    assert {output.name for output in outputs if output.output_type == "stream"} == {"stdout"}
    assert sum("image/jpeg" in output.get("data", {}) for output in outputs) > 10
    shown = NOTEBOOK.read_text(encoding="utf-8")
    assert len(shown.encode()) < MOST_BYTES
    assert [place for place in (str(ROOT), str(Path.home()), tempfile.gettempdir()) if place in shown] == []


def test_its_links_lead_somewhere() -> None:
    prose = "\n".join(cell.source for cell in read().cells if cell.cell_type == "markdown")
    targets = re.findall(r"\]\(([^)#]+)\)", prose)
    assert targets
    assert [target for target in targets if not (NOTEBOOK.parent / target).exists()] == []
