"""A peer's requirements in, a Python that has them out: each in an environment of its own, made on first use."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from zlib import crc32

from benchmarks.errors import BenchmarkFailed

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = Path(__file__).parent / "peers"
# Beside the project's own `.venv`.
ENVIRONMENTS = ROOT / ".bench"
LOG_TAIL = 15
PACKAGES = (
    "litserve",
    "bentoml",
    "ray",
    "mlserver",
    "fastapi",
    "starlette",
    "uvicorn",
    "tensorflow",
    "tensorflow-cpu",
    "openvino",
    "pillow",
    "numpy",
)
VERSIONS = """
import importlib.metadata, json, sys
installed = {}
for name in sys.argv[1:]:
    try:
        installed[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pass
print(json.dumps(installed))
"""


def environment(peer: str, tell: Callable[[str], None]) -> Path:
    """The Python for a peer; `tell` hears how its installation goes.

    Raises:
        BenchmarkFailed: it cannot be installed; the end of pip's words says why.
    """
    requirements = REQUIREMENTS / f"{peer}.txt"
    if not requirements.exists():
        return Path(sys.executable)
    folder = ENVIRONMENTS / peer
    python = folder / "bin" / "python"
    stamp = folder / "installed"
    # A moved environment is broken: its scripts name their Python in full.
    wanted = f"{crc32(requirements.read_bytes())} {python} {sys.version_info[:2]}"
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return python
    shutil.rmtree(folder, ignore_errors=True)
    tell(f"installing {peer} into {folder.relative_to(ROOT)} (a few minutes, once)")
    _run([sys.executable, "-m", "venv", str(folder)], peer, tell)
    _run([str(python), "-m", "pip", "install", "--progress-bar=off", f"--requirement={requirements}"], peer, tell)
    stamp.write_text(wanted, encoding="utf-8")
    return python


def versions(python: Path) -> dict[str, str]:
    """What of `PACKAGES` is installed there."""
    command = [str(python), "-c", VERSIONS, *PACKAGES]
    installed: dict[str, str] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return installed


def _run(command: list[str], peer: str, tell: Callable[[str], None]) -> None:
    lines: deque[str] = deque(maxlen=LOG_TAIL)
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout
        for line in process.stdout:
            lines.append(line)
            if step := re.match(r"(Collecting|Downloading|Installing) (\S+)", line):
                tell(f"installing {peer}: {step[1].lower()} {step[2].rpartition('/')[2]}")
    if process.returncode:
        raise BenchmarkFailed(f"{peer} cannot be installed (status {process.returncode}):\n{''.join(lines)}")
