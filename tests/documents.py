"""What documents show, made from the code: `python -m tests.documents` writes it, test_documents.py holds it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import httpx
import yaml
from prometheus_client.metrics import MetricWrapperBase

from service.app import create_app
from service.http.errors import BUG, FRAMEWORK_CODES, KINDS
from service.manifest import read_manifest
from service.metrics import LABELS, Metrics
from service.settings import Settings, table
from tests.conftest import ROOT, LiveServer

README = ROOT / "README.md"
METRICS = ROOT / "docs" / "metrics.md"
ALERTS = ROOT / "docker" / "prometheus" / "alerts.yml"


def as_served() -> Settings:
    """What `./scripts/serve` serves: the bundled models, with its default."""
    script = (ROOT / "scripts" / "serve").read_text(encoding="utf-8")
    match = re.search(r"SICHTBAR_DEFAULT_MODEL:-(\w+)", script)
    assert match, "scripts/serve sets no default model"
    return Settings(models=ROOT / "models", default_model=match[1], engine="openvino")


def section(name: str, document: Path = README) -> str:
    """A document's text between `<!-- name -->` and `<!-- /name -->`."""
    match = re.search(rf"<!-- {name} -->\n(.*?)<!-- /{name} -->", document.read_text(encoding="utf-8"), re.DOTALL)
    assert match, f"{document.name} has no section {name}"
    return match[1]


def settings_table() -> str:
    rows = [f"| `{name}` | {f'`{default}`' if default else ''} | {text} |\n" for name, default, text in table()]
    return "| variable | default | what |\n|---|---|---|\n" + "".join(rows)


def models_table(models: Path = ROOT / "models") -> str:
    rows = [
        "| model | version | classes | input | parameters | accuracy | held-out pictures |\n",
        "|---|---|---|---|---|---|---|\n",
    ]
    for path in sorted(models.glob("*/*/manifest.json")):
        card = read_manifest(path.parent)
        rows.append(
            f"| `{card.name}` | {card.version} | {len(card.labels)} | {card.input.width} x {card.input.height} "
            f"| {card.parameters:,} | {card.metrics.accuracy:.2%} | {card.metrics.images:,} |\n"
        )
    return "".join(rows)


def family(name: str) -> str:
    """What the code calls a metric that is scraped by this name."""
    return re.sub("_(total|info|bucket|sum|count)$", "", name)


def label_values(metric: str, label: str) -> tuple[str, ...] | str:
    """What a metric's label may be: all of it, or in words."""
    return LABELS[f"{metric}.{label}"] if f"{metric}.{label}" in LABELS else LABELS[label]


def scraped() -> list[tuple[str, str, tuple[str, ...], str]]:
    """Name as it is scraped, type, labels and meaning of every metric of ours."""
    found = []
    for metric in vars(Metrics()).values():
        if isinstance(metric, MetricWrapperBase):
            (family,) = metric.collect()
            suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
            labels = metric._labelnames or [label for sample in family.samples for label in sample.labels]
            found.append((family.name + suffix, family.type, tuple(labels), family.documentation))
    return found


def metrics_table() -> str:
    rows = ["| metric | type | unit | labels | what |\n", "|---|---|---|---|---|\n"]
    for name, kind, labels, text in scraped():
        unit = next((unit for unit in ("seconds", "bytes") if name.endswith(f"_{unit}")), "")
        told = [
            f"`{label}`: {', '.join(value or 'none' for value in values)}"
            if isinstance(values, tuple)
            else f"`{label}`"
            for label in labels
            if (values := label_values(family(name), label))
        ]
        rows.append(f"| `{name}` | {kind} | {unit or 'number'} | {'; '.join(told)} | {text} |\n")
    return "".join(rows)


def labels_table() -> str:
    """The labels whose values are not in the table of metrics."""
    rows = [f"| `{label}` | {values} |\n" for label, values in LABELS.items() if isinstance(values, str)]
    codes = ", ".join(f"`{code}`" for code in sorted({*KINDS, *FRAMEWORK_CODES.values(), "http_error", BUG.code}))
    return "| label | what |\n|---|---|\n" + "".join(rows) + f"\nCodes: {codes}.\n"


def alerts_table() -> str:
    rows = ["| alert | severity | when | what to do |\n", "|---|---|---|---|\n"]
    for group in yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]:
        for rule in group["rules"]:
            said = rule["annotations"]
            when, do = (re.sub(r"\{\{ \$(labels\.)?(\w+).*?\}\}", r"*\2*", said[key]) for key in ("summary", "runbook"))
            rows.append(f"| `{rule['alert']}` | {rule['labels']['severity']} | {when} | {do} |\n")
    return "".join(rows)


def fenced(value: object) -> str:
    return f"```json\n{json.dumps(value, indent=2, ensure_ascii=False)}\n```\n"


def contents(client: httpx.Client) -> dict[str, str]:
    """Every generated section; `client` asks a service with the bundled models."""

    def ask(path: str, **options: object) -> object:
        with (ROOT / path).open("rb") as file:
            return client.post("/predict", files={"file": file}, **options).json()

    return {
        "answer": fenced(ask("examples/lemon.png", params={"top_k": 2})),
        "problem": fenced(ask("README.md")),
        "models": models_table(),
        "settings": settings_table(),
    }


def tables() -> dict[str, str]:
    """Every generated section of docs/metrics.md."""
    return {"metrics": metrics_table(), "labels": labels_table(), "alerts": alerts_table()}


def write() -> None:
    """Bring all up to date."""
    with (
        LiveServer(create_app(as_served())) as server,
        httpx.Client(base_url=server.url) as client,
    ):
        replace(README, contents(client))
    replace(METRICS, tables())


def replace(document: Path, sections: dict[str, str]) -> None:
    text = document.read_text(encoding="utf-8")
    for name, content in sections.items():
        text = text.replace(
            f"<!-- {name} -->\n{section(name, document)}<!-- /{name} -->",
            f"<!-- {name} -->\n{content}<!-- /{name} -->",
        )
    document.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write()
