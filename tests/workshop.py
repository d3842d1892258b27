"""The notebook that retells the workshop, run as it is in a clone: `python -m tests.workshop` renews what it shows."""

from __future__ import annotations

import copy
import os
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

from tests.conftest import ROOT

NOTEBOOK = ROOT / "docs" / "workshop.ipynb"
# Without them it makes do with what is in the repository; what it shows then may be.
UNSET = ("SICHTBAR_DATA", "SICHTBAR_WEIGHTS")
FORMAT = 4


def read() -> NotebookNode:
    """As it is in the repository."""
    return nbformat.read(NOTEBOOK, as_version=FORMAT)


def run(folder: Path) -> NotebookNode:
    """The notebook after a run of all of its cells in an empty folder, by a kernel that knows no other."""
    notebook = read()
    metadata = copy.deepcopy(notebook.metadata)
    environ = {name: value for name, value in os.environ.items() if name not in UNSET}
    client = NotebookClient(notebook, timeout=300, record_timing=False, resources={"metadata": {"path": str(folder)}})
    client.execute(env={**environ, "IPYTHONDIR": str(folder / "ipython")})
    # Nothing of the kernel that happened to run it.
    notebook.metadata = metadata
    return notebook


def write() -> None:
    """Let it show what it shows now, but for what TensorFlow says of itself on standard error."""
    with tempfile.TemporaryDirectory() as folder:
        notebook = run(Path(folder))
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    nbformat.write(notebook, NOTEBOOK)


if __name__ == "__main__":
    write()
