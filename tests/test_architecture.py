"""The architecture is a test: who may import whom."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.conftest import ROOT

FILES = sorted(path for package in ("service", "training") for path in (ROOT / package).rglob("*.py"))

# Only these modules may import the package; `folder/*` stands for all in it.
ALLOWED = {
    "tensorflow": {"service/engines/tensorflow.py", "training/*", "training/networks/*"},
    "keras": {"training/*", "training/networks/*"},
    "sklearn": {"training/*"},
    "openvino": {"service/engines/openvino.py"},
    "fastapi": {"service/app.py", "service/http/*", "service/__main__.py"},
    "fastapi_offline": {"service/app.py"},
    "starlette": {"service/app.py", "service/http/*"},
    "uvicorn": {"service/__main__.py"},
    "PIL": {"service/decode.py"},
    "prometheus_client": {"service/metrics.py", "service/http/health.py"},
    "pydantic_settings": {"service/settings.py"},
}

# From bytes to answer: a module may import those before it, never one after it.
ORDER = [
    "service",
    "service.errors",
    "service.manifest",
    "service.settings",
    "service.metrics",
    "service.logs",
    "service.decode",
    "service.pool",
    "service.batcher",
    "service.engines.base",
    "service.engines.tensorflow",
    "service.engines.openvino",
    "service.engines",
    "service.repository",
    "service.classifier",
    "service.http",
    "service.http.schemas",
    "service.http.errors",
    "service.http.limits",
    "service.http.multipart",
    "service.http.bodies",
    "service.http.native",
    "service.http.health",
    "service.http.pages",
    "service.app",
    "service.__main__",
]
FORBIDDEN_NAMES = {"utils", "util", "helpers", "common", "core", "manager"}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("package", ALLOWED)
def test_only_these_modules_import(package: str) -> None:
    importers = {
        path.relative_to(ROOT)
        for path in FILES
        if any(name == package or name.startswith(f"{package}.") for name in imports(path))
    }
    assert importers, "nobody imports it: the rule is stale"
    assert not [path for path in importers if not any(path.match(pattern) for pattern in ALLOWED[package])]


def test_every_module_of_the_service_has_its_place_in_the_order() -> None:
    assert {module_name(path) for path in FILES if path.parts[len(ROOT.parts)] == "service"} == set(ORDER)


@pytest.mark.parametrize("module", ORDER)
def test_dependencies_point_one_way(module: str) -> None:
    path = ROOT / Path(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    later = set(ORDER[ORDER.index(module) + 1 :])
    assert not imports(path) & later


def test_the_service_never_imports_training() -> None:
    for path in FILES:
        if path.parts[len(ROOT.parts)] == "service":
            assert not [name for name in imports(path) if name.split(".")[0] == "training"], path


def test_training_takes_from_the_service_only_what_both_must_agree_on() -> None:
    shared = {"service.manifest", "service.decode", "service.errors", "service"}
    for path in FILES:
        if path.parts[len(ROOT.parts)] == "training":
            used = {name for name in imports(path) if name.split(".")[0] == "service"}
            assert {".".join(name.split(".")[:2]) for name in used} - {"service.__version__"} <= shared, path


def test_no_module_has_a_name_that_says_nothing() -> None:
    assert not [path for path in FILES if path.stem in FORBIDDEN_NAMES]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_says_what_it_is_for(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert docstring
    assert docstring.splitlines()[0].rstrip("`").endswith((".", ":", "`"))
