from __future__ import annotations

import json
import os
import subprocess
import sys

SPEAKS = """
import structlog
from pathlib import Path
from service.logs import configure_logging
configure_logging("info", worker=3)
structlog.get_logger().info("told", folder="caf\\udce9", path=Path("x"), seconds=0.25, data=b"\\xff")
"""


def test_no_path_makes_two_lines_of_one_or_speaks_to_a_terminal() -> None:
    says = "structlog.get_logger().info('told', path='/\u2028{}\x85\x9b31m\x7f')"
    code = f"import structlog\nfrom service.logs import configure_logging\nconfigure_logging('info')\n{says}"
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, env={**os.environ, "PYTHONIOENCODING": "ascii"}
    ).stdout.decode("ascii")
    assert len(told.splitlines()) == 1
    assert told.rstrip("\n").isprintable()
    assert json.loads(told)["path"] == "/\u2028{}\x85\x9b31m\x7f"


def test_a_line_is_json_whatever_it_tells() -> None:
    told = subprocess.run([sys.executable, "-c", SPEAKS], capture_output=True, text=True, check=True).stdout
    (line,) = map(json.loads, told.splitlines())
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "told",
        "level": "info",
        "worker": 3,
        "folder": "caf\udce9",
        "path": line["path"],
        "seconds": 0.25,
        "data": line["data"],
    }
    assert "x" in line["path"]
