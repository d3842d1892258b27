from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from service.explain.model import Model
from tests.conftest import ROOT


def test_two_who_need_the_network_at_once_load_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[Path] = []

    class Inspector:
        def __init__(self, folder: Path, *, threads: int) -> None:
            loads.append(folder)
            time.sleep(0.2)

        def weights(self) -> dict[str, object]:
            return {}

    stand_in = SimpleNamespace(TensorFlowInspector=Inspector)
    monkeypatch.setitem(sys.modules, "service.engines.tensorflow", stand_in)
    model = Model(ROOT / "models" / "fruit_cnn" / "1", "openvino", threads=1)
    with ThreadPoolExecutor(2) as lanes:
        for lane in [lanes.submit(model.weights) for _ in range(2)]:
            lane.result()
    assert len(loads) == 1
