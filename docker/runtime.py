"""Copy to a folder what a virtual environment opens of its system: Python and libraries, but no shell and no packages.

`python runtime.py /venv /system`, while an image is built, by the environment's Python.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

# Of Python's own modules.
UNUSED = ("config-*", "dist-packages", "ensurepip", "idlelib", "site-packages", "test", "tkinter", "turtledemo")
DESCRIPTIONS = ("/etc/debian_version", "/etc/ld.so.cache", "/etc/nsswitch.conf", "/etc/os-release")
USERS = {
    "passwd": "root:x:0:0:root:/:\nsichtbar:x:10001:10001:Sichtbar:/:\n",
    "group": "root:x:0:\nsichtbar:x:10001:\n",
}


def libraries(files: list[Path]) -> set[Path]:
    """What the system's loader opens for these files, itself included."""
    # Its status is 1 where one of them is no library, or lacks one, such as the drivers of a GPU.
    listed = subprocess.run(["ldd", *files], capture_output=True, text=True, check=False).stdout
    return {Path(path) for path in re.findall(r"(/\S+) \(0x", listed)}


def copy(path: Path, out: Path) -> None:
    """Copy a file, and the links that lead to it."""
    path = path.parent.resolve() / path.name
    to = out / path.relative_to("/")
    if to.is_symlink() or to.exists():
        return
    to.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink():
        to.symlink_to(path.readlink())
        copy(path.parent / path.readlink(), out)
    else:
        shutil.copy2(path, to)


def main(venv: Path, out: Path) -> None:
    """Fill the folder `out`, which becomes the root of an image."""
    python, modules = venv / "bin" / "python", Path(sysconfig.get_path("stdlib"))
    while python.is_relative_to(venv):
        python = python.parent / python.readlink()
    for name in ("bin", "lib", "lib64"):
        if Path("/", name).is_symlink():
            out.mkdir(exist_ok=True)
            (out / name).symlink_to(Path("/", name).readlink())
    shutil.copytree(modules, out / modules.relative_to("/"), symlinks=True, ignore=shutil.ignore_patterns(*UNUSED))
    binaries = [python, *modules.rglob("*.so"), *venv.rglob("*.so"), *venv.rglob("*.so.*")]
    opened = {library for library in libraries(binaries) if not library.is_relative_to(venv)}
    # The C library opens it by name when a thread is ended.
    opened |= {path.with_name("libgcc_s.so.1") for path in opened if path.name == "libc.so.6"}
    for path in (python, *opened, *map(Path, DESCRIPTIONS)):
        if path.exists():
            copy(path, out)
    for name, lines in USERS.items():
        (out / "etc" / name).write_text(lines)
    (out / "tmp").mkdir()
    (out / "tmp").chmod(0o1777)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
