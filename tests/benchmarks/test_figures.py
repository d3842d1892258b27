"""Runs become medians, ratios and a document."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.comparison import NAMES, Part, Plan
from benchmarks.environments import REQUIREMENTS
from benchmarks.figures import write_json, write_markdown
from benchmarks.load import Load
from benchmarks.report import EngineRun, Machine, Run, engine_rates, engine_shares, ratios, summarise
from benchmarks.servers import PEERS

MACHINE = Machine(cpu="a processor", cores=2, load_average=0.5, python="3.12.1", wrk="4.2")


def run(server: str, rate: float, p50: float, number: int = 1, failures: int = 0, level: int = 8) -> Run:
    return Run(server, level, number, Load(int(rate * 10), 10.0, p50, p50 * 3, failures, 0), 5.0, 100 * 2**20)


@pytest.fixture
def part() -> Part:
    plan = Plan(Path("models"), "fruit_cnn", Path("a.png"), None, ("tutorial", "bentoml"), (8,), 3, 10, True)
    runs = [run("sichtbar", rate, 10, number) for number, rate in enumerate((600, 900, 610), start=1)]
    runs += [run("tutorial", 200, 40, number) for number in (1, 2, 3)]
    engine = [EngineRun(1, 1, 300.0), EngineRun(8, 1, 1220.0), EngineRun(32, 1, 5000.0)]
    return Part(
        plan, 3100, runs, engine, {"bentoml": "bentoml ended with status 1\nits log"}, {"sichtbar": {"numpy": "2.1"}}
    )


def test_ratios_are_of_medians(part: Part) -> None:
    ratio = ratios(summarise(part.runs), "sichtbar")["tutorial"][8]
    assert ratio.requests_per_second == pytest.approx(610 / 200)
    assert ratio.p50 == pytest.approx(10 / 40)


def test_a_peer_that_answered_nothing_has_no_ratio() -> None:
    rows = summarise([run("sichtbar", 100, 5), run("tutorial", 0, 0, failures=3)])
    ratio = ratios(rows, "sichtbar")["tutorial"][8]
    assert (ratio.requests_per_second, ratio.p50) == (None, None)


def test_the_engine_s_batch_is_no_larger_than_what_is_asked_for_at_once(part: Part) -> None:
    shares = engine_shares(summarise(part.runs), "sichtbar", engine_rates(part.engine))
    assert shares == {8: pytest.approx(610 / 1220)}


def test_the_document_keeps_what_is_around_the_figures(part: Part, tmp_path: Path) -> None:
    path = tmp_path / "performance.md"
    path.write_text("# Ours\n\nHow to read it.\n\n<!-- figures -->\nold\n<!-- /figures -->\n\nThe end.\n")
    for _ in range(2):
        write_markdown(path, [part], MACHINE)
        text = path.read_text()
        assert text.startswith("# Ours\n\nHow to read it.\n\n<!-- figures -->\n")
        assert text.endswith("<!-- /figures -->\n\nThe end.\n")
        assert "old" not in text
        assert text.count("| sichtbar | 8 | 610 | 600-900 | 10.0 | 30.0 |") == 1
        assert "| tutorial | 3.05 | 0.25 |" in text
        assert "50% at 8 at once" in text
        assert "Not (fully) measured: bentoml. bentoml ended with status 1\n" in text
        assert "its log" not in text


def test_a_new_document_has_the_figures(part: Part, tmp_path: Path) -> None:
    write_markdown(tmp_path / "new.md", [part], MACHINE)
    assert "a processor, 2 cores" in (tmp_path / "new.md").read_text()


def test_the_raw_figures_are_all_there(part: Part, tmp_path: Path) -> None:
    write_json(tmp_path / "figures.json", [part], MACHINE)
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert len(figures["parts"][0]["runs"]) == 6
    assert figures["parts"][0]["plan"]["model"] == "fruit_cnn"


def test_what_peers_need_is_pinned_and_names_no_address() -> None:
    files = {path.stem: path.read_text() for path in REQUIREMENTS.glob("*.txt")}
    assert set(files) == set(PEERS) - {"tutorial"} < set(NAMES)
    for text in files.values():
        assert "//" not in text
        assert all("==" in line for line in text.splitlines() if not line.startswith("#"))
