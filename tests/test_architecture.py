"""The architecture is a test: who may import whom."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import ROOT

FILES = sorted(path for package in ("service", "training") for path in (ROOT / package).rglob("*.py"))

# Only these modules may import the package; `folder/*` stands for all in it.
ALLOWED = {
    "tensorflow": {
        "service/engines/tensorflow.py",
        "training/devices.py",
        "training/frozen.py",
        "training/train.py",
        "training/tensorboard.py",
        "training/export.py",
        "training/versions.py",
        "training/maximise.py",
        "training/thumbnails.py",
        "training/fit.py",
        "training/pretrained.py",
    },
    "keras": {
        "training/networks/*",
        "training/devices.py",
        "training/checkpoint.py",
        "training/events.py",
        "training/frozen.py",
        "training/train.py",
        "training/tensorboard.py",
        "training/export.py",
        "training/fit.py",
        "training/crossval.py",
        "training/progress.py",
        "training/pretrained.py",
        "training/run.py",
    },
    "sklearn": {"training/evaluate.py", "training/judge.py", "training/crossval.py"},
    "scipy": {"service/explain/*", "training/calibration.py", "training/compare.py"},
    "h5py": {"training/networks/applications.py"},
    "matplotlib": {
        "service/render.py",
        "training/figures.py",
        "training/thumbnails.py",
        "training/pages.py",
        "training/report.py",
        "training/exploration_report.py",
    },
    "jinja2": {"training/pages.py"},
    "rich": {
        "service/commands/*",
        "training/bars.py",
        "training/progress.py",
        "training/tables.py",
        "training/exploration_report.py",
        "training/__main__.py",
    },
    "typer": {"service/__main__.py", "service/commands/*", "training/__main__.py"},
    "fcntl": {
        "service/team.py",
        "service/security.py",
        "service/explain/records.py",
        "service/explain/turns.py",
        "service/engines/openvino.py",
        "training/cache.py",
        "training/publish.py",
    },
    "openvino": {"service/engines/openvino.py"},
    "simplejpeg": {"service/jpeg.py"},
    "skimage": {"service/explain/superpixels.py"},
    "lime": {"service/explain/lime.py"},
    "fastapi": {"service/app.py", "service/http/*", "service/server.py"},
    "fastapi_offline": {"service/app.py"},
    "starlette": {"service/app.py", "service/http/*"},
    "httpx": {"service/client/*", "service/commands/*"},
    "redis": {"service/images/connection.py"},
    "watchfiles": {"service/watch.py"},
    "uvicorn": {"service/server.py", "service/http/connections.py"},
    "PIL": {
        "service/decode.py",
        "service/render.py",
        "service/activations.py",
        "service/explain/*",
        "service/client/*",
        "training/augment.py",
        "training/explore.py",
        "training/likeness.py",
    },
    "prometheus_client": {"service/metrics.py", "service/sums.py", "service/http/health.py"},
    "opentelemetry": {"service/tracing.py"},
    "pydantic_settings": {"service/settings.py"},
}

# A module may import those before it, never one after it.
# From bytes to answer.
SERVICE = [
    "service",
    "service.errors",
    "service.problems",
    "service.inputs",
    "service.choices",
    "service.manifest",
    "service.policy",
    "service.settings",
    "service.address",
    "service.team",
    "service.supervisor",
    "service.sums",
    "service.metrics",
    "service.tracing",
    "service.logs",
    "service.security",
    "service.deadline",
    "service.jpeg",
    "service.avif",
    "service.decode",
    "service.pace",
    "service.crowd",
    "service.pool",
    "service.statistics",
    "service.images.store",
    "service.images.disk",
    "service.images.connection",
    "service.images.redis",
    "service.images",
    "service.batcher",
    "service.engines.base",
    "service.engines.tensorflow",
    "service.engines.openvino",
    "service.engines",
    "service.answers",
    "service.render",
    "service.labels",
    "service.states",
    "service.channels",
    "service.watch",
    "service.orders",
    "service.repository",
    "service.rollout",
    "service.explain",
    "service.explain.style",
    "service.explain.question",
    "service.explain.model",
    "service.explain.superpixels",
    "service.explain.heat",
    "service.explain.gradcam",
    "service.explain.surrogate",
    "service.explain.lime",
    "service.explain.methods",
    "service.explain.overlay",
    "service.explain.tasks",
    "service.explain.messages",
    "service.explain.process",
    "service.explain.worker",
    "service.explain.disk",
    "service.explain.results",
    "service.explain.disk_shelf",
    "service.explain.redis_shelf",
    "service.explain.turns",
    "service.explain.flights",
    "service.explain.records",
    "service.explain.explanations",
    "service.explain.jobs",
    "service.explain.folder",
    "service.explain.__main__",
    "service.explaining",
    "service.activations",
    "service.diagram",
    "service.classifier",
    "service.http",
    "service.http.schemas",
    "service.client.errors",
    "service.client.pictures",
    "service.client.exchange",
    "service.client.calls",
    "service.client.retries",
    "service.client.following",
    "service.client.connection",
    "service.client.sync",
    "service.client.asynchronous",
    "service.client",
    "service.http.headers",
    "service.http.errors",
    "service.http.inflate",
    "service.http.access",
    "service.http.limits",
    "service.http.disconnect",
    "service.http.door",
    "service.http.connections",
    "service.http.multipart",
    "service.http.bodies",
    "service.http.etags",
    "service.http.routes",
    "service.http.native",
    "service.http.images",
    "service.http.explain",
    "service.http.explanations",
    "service.http.admin",
    "service.http.reports",
    "service.http.inside",
    "service.http.tensors",
    "service.http.tfserving",
    "service.http.inference",
    "service.http.openinference",
    "service.http.health",
    "service.http.pages",
    "service.app",
    "service.commands",
    "service.commands.sources",
    "service.commands.asking",
    "service.commands.predict",
    "service.commands.explain_there",
    "service.commands.explain",
    "service.server",
    "service.__main__",
]
# From pictures to a version, and what is said of it.
TRAINING = [
    "training",
    "training.errors",
    "training.data",
    "training.download",
    "training.likeness",
    "training.explore",
    "training.augment",
    "training.recipe",
    "training.bars",
    "training.cache",
    "training.history",
    "training.clock",
    "training.checkpoint",
    "training.devices",
    "training.events",
    "training.networks.network",
    "training.networks.fruit_cnn",
    "training.networks.foreign",
    "training.networks.applications",
    "training.networks",
    "training.frozen",
    "training.train",
    "training.compose",
    "training.tensorboard",
    "training.run",
    "training.export",
    "training.calibration",
    "training.evaluate",
    "training.versions",
    "training.maximise",
    "training.figures",
    "training.thumbnails",
    "training.pages",
    "training.sheets",
    "training.report",
    "training.judge",
    "training.publish",
    "training.fit",
    "training.crossval",
    "training.pretrained",
    "training.filter_report",
    "training.exploration_report",
    "training.trial",
    "training.compare",
    "training.progress",
    "training.tables",
    "training.__main__",
]
ORDERS = {"service": SERVICE, "training": TRAINING}
FORBIDDEN_NAMES = {"utils", "util", "helpers", "common", "core", "manager"}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
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


@pytest.mark.parametrize("package", ORDERS)
def test_every_module_has_its_place_in_the_order(package: str) -> None:
    found = [module_name(path) for path in FILES if path.parts[len(ROOT.parts)] == package]
    assert sorted(found) == sorted(ORDERS[package])


@pytest.mark.parametrize("module", SERVICE + TRAINING)
def test_dependencies_point_one_way(module: str) -> None:
    order = ORDERS[module.split(".")[0]]
    path = ROOT / Path(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    later = set(order[order.index(module) + 1 :])
    assert not imports(path) & later


def test_the_service_never_imports_training() -> None:
    for path in FILES:
        if path.parts[len(ROOT.parts)] == "service":
            assert not [name for name in imports(path) if name.split(".")[0] == "training"], path


def test_training_takes_from_the_service_only_what_both_must_agree_on() -> None:
    shared = {"service.manifest", "service.decode", "service.errors", "service.problems", "service"}
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
