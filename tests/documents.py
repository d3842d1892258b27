"""What the README shows, made from the code: `python -m tests.documents` writes it, test_documents.py holds it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import httpx

from service.app import create_app
from service.manifest import read_manifest
from service.settings import Settings, table
from tests.conftest import ROOT, LiveServer

README = ROOT / "README.md"


def as_served() -> Settings:
    """What `./scripts/serve` serves: the bundled models, with its default."""
    script = (ROOT / "scripts" / "serve").read_text(encoding="utf-8")
    match = re.search(r"SICHTBAR_DEFAULT_MODEL:-(\w+)", script)
    assert match, "scripts/serve sets no default model"
    return Settings(models=ROOT / "models", default_model=match[1], engine="openvino")


def section(name: str) -> str:
    """The README's text between `<!-- name -->` and `<!-- /name -->`."""
    match = re.search(rf"<!-- {name} -->\n(.*?)<!-- /{name} -->", README.read_text(encoding="utf-8"), re.DOTALL)
    assert match, f"README.md has no section {name}"
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


def write() -> None:
    """Bring the README up to date."""
    with (
        LiveServer(create_app(as_served())) as server,
        httpx.Client(base_url=server.url) as client,
    ):
        text = README.read_text(encoding="utf-8")
        for name, content in contents(client).items():
            text = text.replace(
                f"<!-- {name} -->\n{section(name)}<!-- /{name} -->", f"<!-- {name} -->\n{content}<!-- /{name} -->"
            )
    README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write()
