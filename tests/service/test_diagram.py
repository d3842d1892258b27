"""Boxes and arrows as a reader sees them: none covers another, none runs through another."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from itertools import combinations, pairwise
from typing import Any

import pytest

from service.diagram import diagram
from service.manifest import Manifest
from tests.conftest import ROOT

SVG = "{http://www.w3.org/2000/svg}"
CARD = json.loads((ROOT / "models" / "fruit_cnn" / "1" / "manifest.json").read_bytes())

Layers = list[tuple[str, list[str] | None]]


def chain(length: int) -> Layers:
    return [(f"layer_{index}", None) for index in range(length)]


def residual(blocks: int) -> Layers:
    """As in ResNet: every third block has a convolution in its shortcut."""
    layers: Layers = [("stem", [])]
    last = "stem"
    for block in range(blocks):
        name = f"conv2_block{block}"
        main = [f"{name}_{part}" for part in ("1_conv", "1_bn", "2_conv", "2_bn")]
        layers += [(part, [before]) for before, part in zip([last, *main], main, strict=False)]
        shortcut = last
        if block % 3 == 0:
            shortcut = f"{name}_0_conv"
            layers.append((shortcut, [last]))
        last = f"{name}_add"
        layers.append((last, [shortcut, main[-1]]))
    return [*layers, ("logits", [last])]


def branches(blocks: int) -> Layers:
    """As in Inception: four branches of different lengths."""
    layers: Layers = []
    last: list[str] = []
    for block in range(blocks):
        ends = []
        for branch in range(4):
            before = last
            for step in range(branch + 1):
                layers.append((f"b{block}_{branch}_{step}", before))
                before = [f"b{block}_{branch}_{step}"]
            ends += before
        layers.append((f"mixed{block}", ends))
        last = [f"mixed{block}"]
    return layers


def dense(length: int) -> Layers:
    """As in DenseNet: each takes all before it."""
    return [(f"d{index}", [f"d{before}" for before in range(index)]) for index in range(length)]


def drawn(layers: Layers) -> ET.Element:
    card: dict[str, Any] = CARD | {
        "layers": [
            {"name": name, "type": "Conv2D", "shape": [4, 4, 8], "parameters": 1234, "inputs": inputs}
            for name, inputs in layers
        ],
        "gradcam_layer": layers[0][0],
    }
    return ET.fromstring(diagram(Manifest.model_validate(card)))


def boxes(root: ET.Element) -> dict[str, tuple[float, float, float, float]]:
    found = {}
    for group in root.iter(f"{SVG}g"):
        if group.get("data-name") is not None:
            rect = group.find(f"{SVG}rect")
            x, y, width, height = (float(rect.get(key)) for key in ("x", "y", "width", "height"))
            found[group.get("data-name")] = (x, y, x + width, y + height)
    return found


def arrows(root: ET.Element) -> dict[tuple[str, str], list[tuple[float, float]]]:
    return {
        (path.get("data-from"), path.get("data-to")): [
            (float(x), float(y)) for x, y in re.findall(r"(-?[\d.]+) (-?[\d.]+)", path.get("d"))
        ]
        for path in root.iter(f"{SVG}path")
        if path.get("class") == "arrow"
    }


NETWORKS = {
    "chain": chain(9),
    "long-chain": chain(60),
    "residual": residual(4),
    "many-residual": residual(24),
    "branches": branches(3),
    "many-branches": branches(12),
    "dense": dense(9),
}


@pytest.mark.parametrize("layers", NETWORKS.values(), ids=NETWORKS)
def test_every_layer_has_a_box_of_its_own_on_the_sheet(layers: Layers) -> None:
    root = drawn(layers)
    found = boxes(root)
    assert set(found) == {"input", *(name for name, _ in layers)}
    width, height = float(root.get("width")), float(root.get("height"))
    for x, y, right, bottom in found.values():
        assert 0 <= x < right <= width
        assert 0 <= y < bottom <= height
    for one, other in combinations(found.values(), 2):
        apart = one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
        assert apart


@pytest.mark.parametrize("layers", NETWORKS.values(), ids=NETWORKS)
def test_every_arrow_leads_to_its_layer_and_through_no_other(layers: Layers) -> None:
    root = drawn(layers)
    found, paths = boxes(root), arrows(root)
    expected = set()
    for before, (name, inputs) in zip([None, *layers], layers, strict=False):
        taken = inputs if inputs is not None else [before[0]] if before else []
        expected |= {(source, name) for source in taken or ["input"]}
    assert set(paths) == expected
    for (_, target), points in paths.items():
        x, y, right, bottom = found[target]
        assert x <= points[-1][0] <= right
        assert y <= points[-1][1] <= bottom
        assert all(coordinate >= 0 for point in points for coordinate in point)
        for (x1, y1), (x2, y2) in pairwise(points):
            for left, top, end, foot in found.values():
                inside = max(x1, x2) > left and min(x1, x2) < end and max(y1, y2) > top and min(y1, y2) < foot
                assert not inside


def test_long_ways_are_folded_and_blocks_are_framed() -> None:
    root = drawn(residual(24))
    assert 0.7 < float(root.get("width")) / float(root.get("height")) < 3
    assert [path for path in root.iter(f"{SVG}path") if path.get("class") == "turn"]
    names = {text.text for text in root.iter(f"{SVG}text") if text.get("class") == "block-name"}
    assert {"conv2_block1", "conv2_block23"} <= names
    assert not [path for path in drawn(chain(9)).iter(f"{SVG}path") if path.get("class") == "turn"]


def test_names_cannot_leave_their_place() -> None:
    hostile = 'a"><script>alert(1)</script>&'
    root = drawn([(hostile, []), ("x" * 300, None)])
    assert hostile in boxes(root)
    assert not list(root.iter(f"{SVG}script"))
    shown = [text.text for text in root.iter(f"{SVG}text") if text.get("class") == "name"]
    assert shown[2].endswith("\u2026")
    assert len(shown[2]) < 60
