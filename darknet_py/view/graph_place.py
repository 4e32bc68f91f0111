"""Pixels: sizes and places of items and the paths of edges, for any choice of open blocks.

`graph_place.js` does the same in the page when a block is opened or closed; a test compares the two.
An item's axis is the line that edges enter and leave it by: x of its main column, y of its middle (closed) or header.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

from darknet_py.view.graph_layout import ENTRY, EXIT, Grid, Line, Wire

HEADER = 26  # of an open block
PAD = 10  # between a block's frame and its columns
GAP = 20  # between the rows of a block
TURN = 7  # edges leave a row and arrive at one this far into its gap, so that they do not meet
COLUMN_GAP = 14
LANE = 8  # half the width of a column that holds edges only
WIRE_GAP = 26  # between the rows and columns of the pyramid
WIRE_STEP = 8  # from lane to lane of its gutters
MARGIN = 16
LABELS = 74  # left of the pyramid, for the names of its rows
RADIUS = 6  # of a bend


class Size(NamedTuple):
    """Width, height, and the axis within it."""

    w: float
    h: float
    x: float
    y: float


class Placed(NamedTuple):
    """Children's corners within their block, the paths of its edges (in the order of the grid), the block's size.

    bands: top and height of each row of the pyramid.
    """

    corners: dict[str, tuple[float, float]]
    paths: tuple[str, ...]
    size: Size
    bands: tuple[tuple[float, float], ...] = ()


class Tree(NamedTuple):
    """What placing needs. closed: size of each item as a leaf or card. grids: of each block. root: its name."""

    closed: Mapping[str, tuple[float, float]]
    grids: Mapping[str, Grid]
    headers: Mapping[str, float]  # width that a block's header wants
    root: str


def place(tree: Tree, opened: Collection[str]) -> dict[str, Placed]:
    """Every open block that is visible, the root among them, by its name."""
    placed: dict[str, Placed] = {}

    def size(item: str) -> Size:
        if item in opened and item in tree.grids:
            placed[item] = _block(tree.grids[item], size, tree.headers[item])
            return placed[item].size
        w, h = tree.closed[item]
        return Size(w, h, w / 2, h / 2)

    grid = tree.grids[tree.root]
    placed[tree.root] = _pyramid(grid, size) if grid.wires else _block(grid, size, 0, header=0)
    return placed


def _block(grid: Grid, size: Callable[[str], Size], expected: float, header: float = HEADER) -> Placed:
    sizes = {child: size(child) for child in grid.rows}
    count = 1 + max([*grid.columns.values(), *(line.lane for line in grid.lines)])
    left, right = _extents(sizes, grid.columns, count, LANE)
    axes = [PAD + before + left[i] for i, before in enumerate(_sums(left, right, [COLUMN_GAP] * count))]
    width = max(axes[-1] + right[-1] + PAD, expected)
    heights = [0.0] * (1 + max(grid.rows.values()))
    for child, row in grid.rows.items():
        heights[row] = max(heights[row], sizes[child].h)
    tops = [header + GAP + before for before in _sums(heights, [0.0] * len(heights), [GAP] * len(heights))]
    bottom = tops[-1] + heights[-1] + GAP
    corners = {child: (axes[grid.columns[child]] - sizes[child].x, tops[row]) for child, row in grid.rows.items()}

    def path(line: Line) -> str:
        start = (axes[0], float(header))
        high = header + TURN
        if line.start != ENTRY:
            row = grid.rows[line.start]
            start = (axes[grid.columns[line.start]], corners[line.start][1] + sizes[line.start].h)
            high = tops[row] + heights[row] + TURN
        end = (axes[0], bottom) if line.end == EXIT else (axes[grid.columns[line.end]], corners[line.end][1])
        low = (bottom if line.end == EXIT else tops[grid.rows[line.end]]) - TURN
        lane = axes[line.lane]
        return rounded([start, (start[0], high), (lane, high), (lane, low), (end[0], low), end])

    return Placed(corners, tuple(path(line) for line in grid.lines), Size(width, bottom, axes[0], HEADER / 2))


def _pyramid(grid: Grid, size: Callable[[str], Size]) -> Placed:
    sizes = {child: size(child) for child in grid.rows}
    columns, rows = 1 + max(grid.columns.values()), 1 + max(grid.rows.values())
    lanes_x, lanes_y = _lanes(grid.wires, columns, rows)
    left, right = _extents(sizes, grid.columns, columns, 0)
    above, below = [0.0] * rows, [0.0] * rows
    for child, row in grid.rows.items():
        above[row] = max(above[row], sizes[child].y)
        below[row] = max(below[row], sizes[child].h - sizes[child].y)
    gaps_x = [WIRE_GAP + WIRE_STEP * count for count in lanes_x]
    gaps_y = [WIRE_GAP + WIRE_STEP * count for count in lanes_y]
    xs = [MARGIN + LABELS + before + left[i] for i, before in enumerate(_sums(left, right, gaps_x))]
    ys = [MARGIN + before + above[i] for i, before in enumerate(_sums(above, below, gaps_y))]
    corners = {
        child: (xs[grid.columns[child]] - sizes[child].x, ys[grid.rows[child]] - sizes[child].y) for child in grid.rows
    }

    def gutter_x(number: int, lane: int) -> float:
        return xs[number] + right[number] + WIRE_GAP / 2 + WIRE_STEP * lane

    def gutter_y(number: int, lane: int) -> float:
        return ys[number] + below[number] + WIRE_GAP / 2 + WIRE_STEP * lane

    def path(wire: Wire) -> str:
        (ax, ay), (bx, by) = corners[wire.start], corners[wire.end]
        a, b = sizes[wire.start], sizes[wire.end]
        leave, enter = (ax + a.w, ay + a.y), (bx, by + b.y)
        if wire.kind == "h":
            return rounded([leave, enter])
        top = (bx + b.x, by if wire.down else by + b.h)
        if wire.kind == "v":
            return rounded([(ax + a.x, ay + a.h if wire.down else ay), top])
        x = gutter_x(*wire.gutters[0])
        if wire.kind == "c":
            return rounded([leave, (x, leave[1]), (x, enter[1]), enter])
        y = gutter_y(*wire.gutters[1])
        if wire.kind == "t":
            return rounded([leave, (x, leave[1]), (x, y), (top[0], y), top])
        into = gutter_x(*wire.gutters[2])
        return rounded([leave, (x, leave[1]), (x, y), (into, y), (into, enter[1]), enter])

    width = xs[-1] + right[-1] + gaps_x[-1] - WIRE_GAP + MARGIN
    height = ys[-1] + below[-1] + gaps_y[-1] - WIRE_GAP + MARGIN
    bands = tuple((y - up, up + down) for y, up, down in zip(ys, above, below, strict=True))
    return Placed(corners, tuple(path(wire) for wire in grid.wires), Size(width, height, 0, 0), bands)


def _lanes(wires: Sequence[Wire], columns: int, rows: int) -> tuple[list[int], list[int]]:
    """Lanes in each column gutter and each row gutter."""
    x, y = [0] * columns, [0] * rows
    for wire in wires:
        for place, (number, lane) in enumerate(wire.gutters):
            counts = y if place == 1 else x
            counts[number] = max(counts[number], lane + 1)
    return x, y


def _extents(
    sizes: Mapping[str, Size], columns: Mapping[str, int], count: int, least: float
) -> tuple[list[float], list[float]]:
    """How far each column reaches to the left and the right of its axis."""
    left, right = [float(least)] * count, [float(least)] * count
    for child, column in columns.items():
        left[column] = max(left[column], sizes[child].x)
        right[column] = max(right[column], sizes[child].w - sizes[child].x)
    return left, right


def _sums(first: Sequence[float], second: Sequence[float], gaps: Sequence[float]) -> list[float]:
    """For each place, what the places before it take together."""
    steps = [a + b + gap for a, b, gap in zip(first, second, gaps, strict=True)]
    return [0.0, *accumulate(steps)][: len(steps)]


def rounded(points: Sequence[tuple[float, float]]) -> str:
    """An SVG path through points that differ in x or y only, with rounded bends."""
    corners = [points[0]]
    for x, y in points[1:]:
        if (x, y) == corners[-1]:
            continue
        if len(corners) > 1 and (corners[-2][0] == corners[-1][0] == x or corners[-2][1] == corners[-1][1] == y):
            corners[-1] = (x, y)
        else:
            corners.append((x, y))
    path = f"M{number(corners[0][0])} {number(corners[0][1])}"
    for (ax, ay), (bx, by), (cx, cy) in zip(corners, corners[1:], corners[2:], strict=False):
        radius = min(RADIUS, (abs(bx - ax) + abs(by - ay)) / 2, (abs(cx - bx) + abs(cy - by)) / 2)
        path += f"L{number(bx - radius * _sign(bx - ax))} {number(by - radius * _sign(by - ay))}"
        path += f"Q{number(bx)} {number(by)} "
        path += f"{number(bx + radius * _sign(cx - bx))} {number(by + radius * _sign(cy - by))}"
    return path + f"L{number(corners[-1][0])} {number(corners[-1][1])}"


def number(value: float) -> str:
    """With at most two decimals."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)
