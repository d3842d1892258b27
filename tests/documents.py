"""What documents show, made from the code: `python -m tests.documents` writes it, test_documents.py holds it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
import yaml
from prometheus_client.metrics import MetricWrapperBase

from service.app import create_app
from service.errors import Unavailable
from service.http import openinference, tfserving
from service.http.connections import TOO_LARGE, TOO_SLOW
from service.http.errors import BUG, FRAMEWORK_CODES, KEY_ERRORS, KINDS, PROBLEM_TYPE, PROTOCOL_STATUS, STATUS
from service.manifest import read_manifest
from service.metrics import LABELS, Metrics
from service.settings import Settings, table
from tests.conftest import ROOT, LiveServer

README = ROOT / "README.md"
METRICS = ROOT / "docs" / "metrics.md"
API = ROOT / "docs" / "api.md"
OPERATE = ROOT / "docs" / "operate.md"
EXTEND = ROOT / "docs" / "extend.md"
TRAIN = ROOT / "docs" / "train.md"
ALL = (README, *sorted((ROOT / "docs").glob("*.md")))
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
    heads = (TOO_SLOW.code, TOO_LARGE.code)
    codes = ", ".join(
        f"`{code}`" for code in sorted({*KINDS, *FRAMEWORK_CODES.values(), "http_error", BUG.code, *heads})
    )
    return "| label | what |\n|---|---|\n" + "".join(rows) + f"\nCodes: {codes}.\n"


def alerts() -> dict[str, dict[str, Any]]:
    """Every rule by its alert's name."""
    groups = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def alerts_table() -> str:
    rows = ["| alert | severity | when | what to do |\n", "|---|---|---|---|\n"]
    for name, rule in alerts().items():
        said = rule["annotations"]
        when, do = (re.sub(r"\{\{ \$(labels\.)?(\w+).*?\}\}", r"*\2*", said[key]) for key in ("summary", "runbook"))
        rows.append(f"| `{name}` | {rule['labels']['severity']} | {when} | {do} |\n")
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


# Each call may answer these.
ALWAYS = {BUG.code, *(kind.code for kind in KEY_ERRORS)}


def calls(document: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Method, path and description of every call of an OpenAPI document."""
    for path, methods in document["paths"].items():
        for method, call in methods.items():
            yield method.upper(), path, call


def calls_table(document: Mapping[str, Any]) -> str:
    tags = list(dict.fromkeys(call["tags"][0] for _, _, call in calls(document)))
    text = ""
    for tag in tags:
        text += f"### {tag}\n\n| call | what for | takes | answers | problems |\n|---|---|---|---|---|\n"
        for method, path, call in calls(document):
            if call["tags"][0] == tag:
                takes = [f"`{parameter['name']}`" for parameter in call.get("parameters", [])]
                takes += ["a body"] if "requestBody" in call else []
                cells = (f"`{method} {path}`", call["summary"], ", ".join(takes), _answers(call), _problems(call))
                text += f"| {' | '.join(cells)} |\n"
        text += "\n"
    return text


def _answers(call: Mapping[str, Any]) -> str:
    told = []
    for status, response in call["responses"].items():
        content = response.get("content", {})
        if PROBLEM_TYPE not in content:
            kinds = (f"{_schemas(media['schema'])} as `{kind}`".removeprefix(" as ") for kind, media in content.items())
            told.append(f"{status} {', '.join(kinds)}".strip())
    return "; ".join(told)


def _schemas(schema: Mapping[str, Any]) -> str:
    names = [one["$ref"].rpartition("/")[2] for one in schema.get("anyOf", [schema]) if "$ref" in one]
    return " or ".join(f"`{name}`" for name in names)


def _problems(call: Mapping[str, Any]) -> str:
    told = []
    for status, response in sorted(call["responses"].items()):
        examples = response.get("content", {}).get(PROBLEM_TYPE, {}).get("examples", {})
        if codes := [f"`{code}`" for code in examples if code not in ALWAYS]:
            told.append(f"{status} {', '.join(codes)}")
    return "; ".join(told)


def parameters_table(document: Mapping[str, Any]) -> str:
    """Each parameter once for each meaning that it has, but for those of a path that say it by their names."""
    found: set[tuple[str, str, str, str]] = set()
    for _, _, call in calls(document):
        for parameter in call.get("parameters", []):
            schema = parameter["schema"]
            told = (parameter, schema, *schema.get("anyOf", []))
            what = next((part["description"] for part in told if "description" in part), None)
            if what is not None:
                found.add((parameter["name"], parameter["in"], _values(schema), what))
    rows = [f"| `{name}` | {place} | {values} | {what} |\n" for name, place, values, what in sorted(found)]
    return "| parameter | in | values | what |\n|---|---|---|---|\n" + "".join(rows)


def _values(schema: Mapping[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_values(one) for one in schema["anyOf"] if one.get("type") != "null")
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum") or [schema["const"]])
    least, most, below = (schema.get(key) for key in ("minimum", "maximum", "exclusiveMaximum"))
    upper = f" to {most}" if most is not None else f", below {below}" if below is not None else ""
    limits = "" if least is None else f" {'' if upper.startswith(' to') else 'from '}{least}{upper}"
    default = f"; unset `{json.dumps(schema['default'])}`" if schema.get("default") is not None else ""
    return f"{schema['type']}{limits}{default}"


def protocols_table() -> str:
    """What OpenAPI does not describe: others' protocols."""
    rows = [
        f"| `{method} {route.path}` | {(route.endpoint._answer.__doc__ or '').splitlines()[0]} |\n"
        for route in (*tfserving.ROUTES, *openinference.ROUTES)
        for method in sorted((route.methods or set()) - {"HEAD"})
    ]
    return "| call | what |\n|---|---|\n" + "".join(rows)


def codes() -> dict[str, int]:
    """The status of every problem's code."""
    heads = {problem.code: problem.status for problem in (TOO_SLOW, TOO_LARGE, BUG)}
    framework = {code: status for status, code in FRAMEWORK_CODES.items()}
    return {kind.code: status for kind, status in STATUS.items()} | framework | heads


def codes_table() -> str:
    titles = {problem.code: problem.title for problem in (TOO_SLOW, TOO_LARGE, BUG)}
    rows = ["| code | status | under `/v1`, `/v2` | `Retry-After` | what |\n", "|---|---|---|---|---|\n"]
    for code, status in sorted(codes().items()):
        kind = KINDS.get(code)
        what = titles.get(code) or (kind.__doc__ if kind else None) or HTTPStatus(status).phrase
        again = "yes" if kind and issubclass(kind, Unavailable) else ""
        other = PROTOCOL_STATUS.get(code, "")
        rows.append(f"| `{code}` | {status} | {other} | {again} | {what.splitlines()[0].rstrip('.')} |\n")
    return "".join(rows)


def reference() -> dict[str, str]:
    """Every generated section of docs/api.md."""
    document = create_app(as_served()).openapi()
    return {
        "calls": calls_table(document),
        "parameters": parameters_table(document),
        "protocols": protocols_table(),
        "codes": codes_table(),
    }


def write() -> None:
    """Bring all up to date."""
    with (
        LiveServer(create_app(as_served())) as server,
        httpx.Client(base_url=server.url) as client,
    ):
        replace(README, contents(client))
    replace(METRICS, tables())
    replace(API, reference())


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
