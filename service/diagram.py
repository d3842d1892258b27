"""A manifest in, its network as a diagram out: an SVG with a box for each layer and an arrow for each that it takes.

Layers stand in rows by how many are before them. The longest way runs down the first lane, each branch has a lane of
its own beside it, and an arrow that passes others by runs on a track to the left. What is long is folded into columns.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from xml.sax.saxutils import escape, quoteattr

from service.activations import INPUT, input_layer, sources
from service.manifest import Layer, Manifest

BOX_HEIGHT, ROW_GAP, LANE_GAP, COLUMN_GAP = 42, 26, 34, 52
TRACK, MARGIN, HEADER = 14, 24, 74
MIN_WIDTH, MAX_WIDTH = 150, 270
# Of DejaVu Sans, the widest that a reader may have: pixels a letter.
NAME_LETTER, DETAIL_LETTER = 7.6, 6.2
TIMES = "\u00d7"
# Wide screens are about this; shorter ways are not folded.
ASPECT, FOLDED_ROWS = 1.6, 14
# A column may be as many rows longer or shorter so that it ends with a block.
SPLIT_BLOCK = 6
# Two layers of one block are framed together.
BLOCK = re.compile(
    r"^((?:[a-z]+\d*_)?block_?\d+[a-z]?|(?:expanded|inverted_res)_\w+?(?:_\d+)?|mixed\d+)_", re.IGNORECASE
)

KINDS: dict[str, tuple[str, str]] = {
    "convolution": ("Convolution", r"Conv\dD|Conv\dDTranspose"),
    "dense": ("Dense", r"^(Dense|EinsumDense)$"),
    "pooling": ("Pooling", r"Pooling"),
    "normalisation": ("Normalisation", r"Normalization"),
    "activation": ("Activation", r"Activation|ReLU|ELU|Softmax|Swish|Sigmoid|GELU"),
    "merge": ("Merging", r"^(Add|Concatenate|Multiply|Average|Maximum|Minimum|Subtract|Dot)$"),
    "other": ("Other", r""),
}
# Fill and outline, in light and in dark.
COLOURS = {
    "input": ("#ffffff", "#57606a", "#161b22", "#8b949e"),
    "convolution": ("#dbeafe", "#2f6fbb", "#16304f", "#6aa5e8"),
    "dense": ("#eadcf8", "#7b4bb0", "#34214d", "#b48be6"),
    "pooling": ("#fde4cf", "#b9601a", "#4a2a12", "#ea9a5c"),
    "normalisation": ("#eceff1", "#78838c", "#262c33", "#8e99a4"),
    "activation": ("#d8f0df", "#2f8050", "#15351f", "#6cc08b"),
    "merge": ("#fdf3c0", "#96780a", "#3f350c", "#d9bb4a"),
    "other": ("#f6f6f6", "#8a8a8a", "#1f1f1f", "#9a9a9a"),
}


@dataclass
class _Node:
    """A layer, or where a folded column goes on from the one before."""

    layer: Layer
    kind: str
    parents: list[int]
    row: int = 0
    lane: int = 0
    goes_on: bool = False


class _Edge(NamedTuple):
    start: int
    end: int


@dataclass
class _Column:
    """The rows from `first` on, drawn beneath each other."""

    first: int
    last: int
    nodes: list[int] = field(default_factory=list)
    # The node whose arrows come in from the column before.
    carried: int | None = None
    left: float = 0
    lanes: int = 1
    tracks: dict[_Edge, int] = field(default_factory=dict)


def diagram(manifest: Manifest) -> str:
    """The network of a version."""
    return _Drawing(manifest).svg()


class _Drawing:
    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.nodes = _nodes(manifest)
        self.edges = [_Edge(parent, end) for end, node in enumerate(self.nodes) for parent in node.parents]
        _set_rows(self.nodes)
        _set_lanes(self.nodes, self.edges)
        self.width = _box_width(self.nodes)
        self.columns = self._fold()
        self._place()

    def svg(self) -> str:
        manifest = self.manifest
        layers = len(manifest.layers)
        title = f"The network of {manifest.name}, version {manifest.version}"
        about = (
            f"{layers} layers with {manifest.parameters:,} parameters. "
            "Each box names a layer, its type, its shape and its parameters."
        )
        last = self.columns[-1]
        width = math.ceil(max(last.left + self._lanes_width(last) + MARGIN, self._legend_width() + 2 * MARGIN))
        rows = max(c.last - c.first + 1 + (c.carried is not None) for c in self.columns)
        height = math.ceil(HEADER + rows * (BOX_HEIGHT + ROW_GAP) - ROW_GAP + 2 * MARGIN)
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" role="graphics-document document" aria-labelledby="title about">',
            f'<title id="title">{escape(title)}</title>',
            f'<desc id="about">{escape(about)}</desc>',
            f"<style>{_style()}</style>",
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
            'orient="auto"><path class="tip" d="M0 0.5 8 4 0 7.5z"/></marker></defs>',
            f'<rect class="paper" width="{width}" height="{height}"/>',
            f'<text class="heading" x="{MARGIN}" y="{MARGIN + 8}">{escape(f"{manifest.name} / {manifest.version}")}'
            f'<tspan class="muted" dx="10">{layers} layers, {manifest.parameters:,} parameters</tspan></text>',
            *self._legend(),
        ]
        for column in self.columns:
            parts += self._frames(column)
        for before, column in zip(self.columns, self.columns[1:], strict=False):
            parts.append(self._turn(before, column))
        parts += [self._arrow(edge) for edge in self.edges]
        for column in self.columns:
            if column.carried is not None:
                parts.append(self._stub(column))
            parts += [self._box(index, column) for index in column.nodes]
        return "\n".join([*parts, "</svg>\n"])

    # Where things are.

    def _fold(self) -> list[_Column]:
        """Columns of about so many rows that the whole has a screen's aspect, parted where one node feeds all below."""
        rows = max(node.row for node in self.nodes) + 1
        lanes = max(node.lane for node in self.nodes) + 1
        row, lane = BOX_HEIGHT + ROW_GAP, self.width + LANE_GAP
        count = round(math.sqrt(ASPECT * rows * row / (lanes * lane + COLUMN_GAP)))
        count = max(1, min(count, math.ceil(rows / FOLDED_ROWS)))
        columns: list[_Column] = []
        first, carried = 0, None
        cuts = self._cuts(rows)
        while len(columns) < count - 1:
            wanted = first + (rows - first) / (count - len(columns)) - 1
            ahead = [cut for cut in cuts if cut >= first + 2]
            if not ahead:
                break
            best = min(ahead, key=lambda cut: (abs(cut - wanted) + (SPLIT_BLOCK if self._splits(cut) else 0), cut))
            if best >= rows - 2:
                break
            columns.append(_Column(first, best, carried=carried))
            first, carried = best + 1, cuts[best]
        columns.append(_Column(first, rows - 1, carried=carried))
        for column in columns:
            column.nodes = [i for i, node in enumerate(self.nodes) if column.first <= node.row <= column.last]
        return columns

    def _splits(self, row: int) -> bool:
        """Whether a block goes on in the next row."""
        above, below = ({_block(n.layer.name) for n in self.nodes if n.row == r} - {None} for r in (row, row + 1))
        return bool(above & below)

    def _cuts(self, rows: int) -> dict[int, int]:
        """Rows after which only one node's arrows go on, and that node."""
        cuts = {}
        for row in range(rows - 1):
            crossing = {
                edge.start for edge in self.edges if self.nodes[edge.start].row <= row < self.nodes[edge.end].row
            }
            if len(crossing) == 1:
                cuts[row] = crossing.pop()
        return cuts

    def _place(self) -> None:
        left = float(MARGIN)
        for column in self.columns:
            column.lanes = max(self.nodes[index].lane for index in column.nodes) + 1
            column.tracks = self._tracks(column)
            room = (max(column.tracks.values()) + 1) * TRACK + 6 if column.tracks else 0
            column.left = left + room
            left = column.left + self._lanes_width(column) + COLUMN_GAP

    def _lanes_width(self, column: _Column) -> float:
        return column.lanes * (self.width + LANE_GAP) - LANE_GAP

    def _tracks(self, column: _Column) -> dict[_Edge, int]:
        """The arrows that pass others by, each on the nearest track that is free all along."""
        taken: list[list[tuple[int, int]]] = []
        found: dict[_Edge, int] = {}
        passing = [edge for edge in self.edges if edge.end in column.nodes and self._passes(edge, column)]
        for edge in sorted(passing, key=lambda e: (self._rows(e, column)[1] - self._rows(e, column)[0], e)):
            top, bottom = self._rows(edge, column)
            for track in range(len(taken) + 1):
                if track == len(taken):
                    taken.append([])
                if all(bottom <= t or top >= b for t, b in taken[track]):
                    taken[track].append((top, bottom))
                    found[edge] = track
                    break
        return found

    def _rows(self, edge: _Edge, column: _Column) -> tuple[int, int]:
        start = column.first - 1 if edge.start == column.carried else self.nodes[edge.start].row
        return start, self.nodes[edge.end].row

    def _passes(self, edge: _Edge, column: _Column) -> bool:
        """Whether neither lane of an arrow is free between its ends."""
        return self._free_lane(edge, column) is None

    def _free_lane(self, edge: _Edge, column: _Column) -> int | None:
        top, bottom = self._rows(edge, column)
        start = 0 if edge.start == column.carried else self.nodes[edge.start].lane
        for lane in (start, self.nodes[edge.end].lane):
            if not any(node.lane == lane and top < node.row < bottom for node in (self.nodes[i] for i in column.nodes)):
                return lane
        return None

    def _x(self, lane: int, column: _Column) -> float:
        return column.left + lane * (self.width + LANE_GAP)

    def _y(self, row: int, column: _Column) -> float:
        place = row - column.first + (column.carried is not None)
        return HEADER + MARGIN + place * (BOX_HEIGHT + ROW_GAP)

    def _column_of(self, index: int) -> _Column:
        return next(column for column in self.columns if column.first <= self.nodes[index].row <= column.last)

    # What is drawn there.

    def _box(self, index: int, column: _Column) -> str:
        node = self.nodes[index]
        layer = node.layer
        x, y = self._x(node.lane, column), self._y(node.row, column)
        shape = f" {TIMES} ".join(map(str, layer.shape)) or "1"
        about = f"{layer.name}: {layer.type}, {shape}, {layer.parameters:,} parameters"
        kind = "picture" if layer.name == INPUT and not index else layer.type
        count = f"{layer.parameters:,}" if layer.parameters else ""
        room = self.width - 20
        return "\n".join(
            [
                f'<g class="{"input" if not index else "layer"} {node.kind}" data-name={quoteattr(layer.name)}>'
                f"<title>{escape(about)}</title>",
                f'<rect x="{x:g}" y="{y:g}" width="{self.width}" height="{BOX_HEIGHT}" rx="6"/>',
                f'<text class="name" x="{x + 10:g}" y="{y + 17:g}">'
                f"{escape(_cut(layer.name, room - len(count) * DETAIL_LETTER, NAME_LETTER))}</text>",
                f'<text class="count" x="{x + self.width - 10:g}" y="{y + 17:g}">{count}</text>',
                f'<text class="detail" x="{x + 10:g}" y="{y + 33:g}">'
                f"{escape(_cut(kind, room - len(shape) * DETAIL_LETTER - 8, DETAIL_LETTER))}</text>",
                f'<text class="detail shape" x="{x + self.width - 10:g}" y="{y + 33:g}">{escape(shape)}</text></g>',
            ]
        )

    def _stub(self, column: _Column) -> str:
        assert column.carried is not None
        name = self.nodes[column.carried].layer.name
        x, y = self._x(0, column), self._y(column.first - 1, column)
        return (
            f'<g class="stub"><rect x="{x:g}" y="{y + 12:g}" width="{self.width}" height="{BOX_HEIGHT - 12}" rx="15"/>'
            f'<text class="detail" x="{x + self.width / 2:g}" y="{y + 31:g}">'
            f"from {escape(_cut(name, self.width - 60, DETAIL_LETTER))}</text></g>"
        )

    def _turn(self, before: _Column, column: _Column) -> str:
        """The way from one column's foot to the next one's head."""
        assert column.carried is not None
        node = self.nodes[column.carried]
        x = self._x(node.lane, before) + self.width / 2
        y = self._y(node.row, before) + BOX_HEIGHT
        foot = self._y(before.last, before) + BOX_HEIGHT + ROW_GAP / 2
        gutter = before.left + self._lanes_width(before) + COLUMN_GAP / 2
        head = self._y(column.first - 1, column)
        to = self._x(0, column) + self.width / 2
        path = _rounded([(x, y), (x, foot), (gutter, foot), (gutter, head), (to, head), (to, head + 12)])
        return f'<path class="turn" d="{path}"/>'

    def _arrow(self, edge: _Edge) -> str:
        column = self._column_of(edge.end)
        end = self.nodes[edge.end]
        carried = edge.start == column.carried
        start_lane, start_row = (
            (0, column.first - 1) if carried else (self.nodes[edge.start].lane, self.nodes[edge.start].row)
        )
        half = self.width / 2
        x, y = self._x(start_lane, column) + half, self._y(start_row, column) + BOX_HEIGHT
        to_x, to_y = self._x(end.lane, column) + half, self._y(end.row, column)
        below, above = y + ROW_GAP / 2, to_y - ROW_GAP / 2
        if edge in column.tracks:
            track = self._x(0, column) - 12 - column.tracks[edge] * TRACK
            start = [(x - half, y - BOX_HEIGHT / 2 + 6)] if start_lane == 0 else [(x, y), (x, below)]
            stop = [(to_x - half, to_y + BOX_HEIGHT / 2)] if end.lane == 0 else [(to_x, above), (to_x, to_y)]
            points = [*start, (track, start[-1][1]), (track, stop[0][1]), *stop]
        elif self._free_lane(edge, column) == start_lane:
            points = [(x, y), (x, above), (to_x, above), (to_x, to_y)]
        else:
            points = [(x, y), (x, below), (to_x, below), (to_x, to_y)]
        names = (self.nodes[edge.start].layer.name, end.layer.name)
        return (
            f'<path class="arrow" data-from={quoteattr(names[0])} data-to={quoteattr(names[1])} '
            f'd="{_rounded(points)}" marker-end="url(#tip)"/>'
        )

    def _frames(self, column: _Column) -> Iterator[str]:
        """A frame around each run of rows whose layers all belong to one block."""
        rows: dict[int, set[str | None]] = {}
        for index in column.nodes:
            rows.setdefault(self.nodes[index].row, set()).add(_block(self.nodes[index].layer.name))
        runs: list[tuple[str, int, int]] = []
        for row in sorted(rows):
            (block, *others) = rows[row]
            if block is None or others:
                continue
            if runs and runs[-1][0] == block and runs[-1][2] == row - 1:
                runs[-1] = (block, runs[-1][1], row)
            else:
                runs.append((block, row, row))
        for block, top, bottom in runs:
            if top == bottom:
                continue
            inside = [self.nodes[i] for i in column.nodes if top <= self.nodes[i].row <= bottom]
            left = self._x(0, column) - 7
            right = self._x(max(node.lane for node in inside), column) + self.width + 20
            y, foot = self._y(top, column) - 7, self._y(bottom, column) + BOX_HEIGHT + 7
            middle = (y + foot) / 2
            name = escape(_cut(block, foot - y, DETAIL_LETTER))
            yield (
                f'<rect class="block" x="{left:g}" y="{y:g}" width="{right - left:g}" height="{foot - y:g}" rx="9"/>'
                f'<text class="block-name" x="{right - 6:g}" y="{middle:g}" '
                f'transform="rotate(-90 {right - 6:g} {middle:g})">{name}</text>'
            )

    def _kinds(self) -> list[str]:
        return [kind for kind in KINDS if any(node.kind == kind for node in self.nodes)]

    def _legend_width(self) -> float:
        return sum(30 + len(KINDS[kind][0]) * DETAIL_LETTER + 14 for kind in self._kinds())

    def _legend(self) -> Iterator[str]:
        x = float(MARGIN)
        for kind in self._kinds():
            text = KINDS[kind][0]
            yield (
                f'<g class="key {kind}"><rect x="{x:g}" y="{MARGIN + 24}" width="20" height="14" rx="3"/>'
                f'<text class="detail" x="{x + 26:g}" y="{MARGIN + 35}">{text}</text></g>'
            )
            x += 30 + len(text) * DETAIL_LETTER + 14


def _nodes(manifest: Manifest) -> list[_Node]:
    """The picture first, then each layer in the manifest's order, which has each after those that it takes."""
    takes = sources(manifest.layers)
    places = {layer.name: index for index, layer in enumerate(manifest.layers, 1)}
    return [
        _Node(input_layer(manifest.input), "input", []),
        *(_Node(layer, _kind(layer), [places[name] for name in takes[layer.name]] or [0]) for layer in manifest.layers),
    ]


def _kind(layer: Layer) -> str:
    return next(kind for kind, (_, pattern) in KINDS.items() if re.search(pattern, layer.type))


def _block(name: str) -> str | None:
    match = BLOCK.match(name)
    return match[1] if match else None


def _set_rows(nodes: Sequence[_Node]) -> None:
    for node in nodes:
        node.row = 1 + max((nodes[parent].row for parent in node.parents), default=-1)


def _set_lanes(nodes: Sequence[_Node], edges: Sequence[_Edge]) -> None:
    """Lane 0 for the longest way; each chain beside it gets the first lane that is free until it joins again."""
    children: dict[int, list[int]] = {}
    for start, end in edges:
        children.setdefault(start, []).append(end)
    spine = [max(range(len(nodes)), key=lambda index: (nodes[index].row, index))]
    while parents := nodes[spine[-1]].parents:
        spine.append(max(parents, key=lambda parent: nodes[parent].row))
    placed = set(spine)
    taken: list[list[tuple[int, int]]] = [[]]
    for index in range(len(nodes)):
        if index in placed:
            continue
        chain = [index]
        while following := [
            c for c in children.get(chain[-1], []) if c not in placed and nodes[c].parents[0] == chain[-1]
        ]:
            chain.append(following[0])
            placed.add(following[0])
        placed.add(index)
        ends = [nodes[child].row - 1 for child in children.get(chain[-1], [])]
        top, bottom = nodes[index].row, max([nodes[chain[-1]].row, *ends])
        lane = next(
            (lane for lane in range(1, len(taken)) if all(bottom < t or top > b for t, b in taken[lane])), len(taken)
        )
        if lane == len(taken):
            taken.append([])
        taken[lane].append((top, bottom))
        for member in chain:
            nodes[member].lane = lane


def _box_width(nodes: Sequence[_Node]) -> int:
    def wanted(layer: Layer) -> float:
        count = f"{layer.parameters:,}" if layer.parameters else ""
        name = len(layer.name) * NAME_LETTER + len(count) * DETAIL_LETTER
        detail = (len(layer.type) + len(f" {TIMES} ".join(map(str, layer.shape)))) * DETAIL_LETTER
        return 34 + max(name, detail)

    return math.ceil(min(MAX_WIDTH, max(MIN_WIDTH, *(wanted(node.layer) for node in nodes))))


def _cut(text: str, room: float, letter: float) -> str:
    fits = max(3, int(room / letter))
    return text if len(text) <= fits else text[: fits - 1] + "…"


def _rounded(points: Sequence[tuple[float, float]], radius: float = 7) -> str:
    """A path along `points` whose corners are round."""
    points = [point for before, point in zip([None, *points], points, strict=False) if point != before]
    path = [f"M{points[0][0]:g} {points[0][1]:g}"]
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        start, end = (_towards(corner, other, radius) for other in (before, after))
        path.append(f"L{start[0]:g} {start[1]:g}Q{corner[0]:g} {corner[1]:g} {end[0]:g} {end[1]:g}")
    return "".join([*path, f"L{points[-1][0]:g} {points[-1][1]:g}"])


def _towards(corner: tuple[float, float], other: tuple[float, float], radius: float) -> tuple[float, float]:
    length = math.dist(corner, other)
    share = min(radius, length / 2) / length
    return (corner[0] + (other[0] - corner[0]) * share, corner[1] + (other[1] - corner[1]) * share)


def _style() -> str:
    light = "".join(f".{kind} rect{{fill:{c[0]};stroke:{c[1]}}}" for kind, c in COLOURS.items())
    dark = "".join(f".{kind} rect{{fill:{c[2]};stroke:{c[3]}}}" for kind, c in COLOURS.items())
    return (
        "svg{color-scheme:light dark}"
        "text{font-family:system-ui,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;fill:#1f2328}"
        ".paper{fill:#fff}.heading{font-size:17px;font-weight:600}.muted{font-size:13px;font-weight:400;fill:#57606a}"
        ".name{font-size:12px;font-weight:600}.detail{font-size:10.5px;fill:#424a53}"
        ".count{font-size:10.5px;fill:#57606a;text-anchor:end}.shape{text-anchor:end}"
        ".arrow,.turn{fill:none;stroke:#57606a;stroke-width:1.3}.turn{stroke-dasharray:4 4}.tip{fill:#57606a}"
        ".stub rect{fill:none;stroke:#57606a;stroke-dasharray:4 4}.stub text{text-anchor:middle}"
        ".block{fill:#8080801a;stroke:#80808066}.block-name{font-size:10.5px;fill:#57606a;text-anchor:middle}"
        f"{light}"
        "@media (prefers-color-scheme:dark){text{fill:#e6edf3}.paper{fill:#0d1117}"
        ".muted,.count,.block-name{fill:#9da7b1}"
        ".detail{fill:#c3ccd5}.arrow,.turn,.stub rect{stroke:#9da7b1}.tip{fill:#9da7b1}"
        f"{dark}}}"
    )
