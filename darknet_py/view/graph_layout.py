"""Where the items of a tree stand: rows, columns and lanes first, then pixels for any choice of open blocks.

Inside a block the rows are the ranks of a layered drawing, from its fork down to its join; branches get columns of
their own, edges that pass several rows get lanes beside them. The network as a whole is drawn as a pyramid, as papers
draw one: a row per resolution, layers that change it between the rows, time from left to right; so the backbone runs
down, a top-down path up, a bottom-up path down again, and the heads stand at the right.

Pixels depend on which blocks are open, and the page opens and closes them without Python. So a block's `Plan` holds
formulas over the sizes of its children: `Plan.place` evaluates them here, `place` in graph_canvas.js in the page.
An item's axis is the lines that edges enter and leave it by: x of its main column, y of its middle (closed) or header.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, count, islice, pairwise
from typing import NamedTuple

import networkx as nx

from darknet_py.graph.graph import Graph
from darknet_py.view.graph_tree import INPUT, Block, Item, Leaf, leaves, output_of

ENTRY, EXIT = "in", "out"  # the ends of a block's edges that lead outside

HEADER = 26  # height of an open block's header
PAD = 10  # between a block's frame and its columns
GAP = 20  # between the rows of a block
TURN = 7  # edges leave a row and arrive at one this far into its gap, so that they do not meet
COLUMN_GAP = 14
LANE = 8  # half the width of a column that holds edges only
GUTTER = 13  # between an item of the pyramid and the first lane beside it
GUTTER_LANE = 8  # from lane to lane of a gutter
MARGIN = 16
LABELS = 74  # left of the pyramid, for the names of its rows
RADIUS = 6  # of a bend


@dataclass(frozen=True)
class Edge:
    """An edge between two children of a block, or from its ENTRY, or to its EXIT.

    lane: in a block, the column that it runs down in where it passes rows. gutters: in the pyramid, (number, lane) of
    each gutter on the way: of columns, then of rows, then of columns again; two of them end at the top or bottom of
    `end`, one or three at its left side. Column gutter i is right of column i, row gutter i below row i.
    """

    start: str
    end: str
    lane: int = 0
    gutters: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class BlockGrid:
    """A block's children on rows and columns, with its edges.

    heights: of the pyramid's rows, the height of the feature maps; 0 between two resolutions. Empty for other blocks.
    """

    rows: Mapping[str, int]
    columns: Mapping[str, int]
    edges: tuple[Edge, ...]
    heights: tuple[int, ...] = ()


def name(item: Item) -> str:
    """The item's id in the drawing."""
    if isinstance(item, Block):
        return f"b{item.number}"
    return "input" if item.index == INPUT else f"n{item.index}"


# --- the inside of a block


def _links(graph: Graph, readers: Mapping[int, Sequence[int]], block: Block) -> nx.DiGraph:
    """Edges between the children of a block, from its ENTRY and to its EXIT."""
    owner = {index: name(child) for child in block.children for index in leaves(child)}
    links = nx.DiGraph()
    links.add_nodes_from([ENTRY, *(name(child) for child in block.children), EXIT])
    for index in sorted(owner):
        for source in graph.layers[index].sources if index != INPUT else ():
            if owner.get(source) != owner[index]:
                links.add_edge(owner.get(source, ENTRY), owner[index])
        if any(reader not in owner for reader in readers[index]):
            links.add_edge(owner[index], EXIT)
    return links


def _ranks(links: nx.DiGraph) -> dict[str, int]:
    """The length of the longest path to each node."""
    return {node: rank for rank, nodes in enumerate(nx.topological_generations(links)) for node in nodes}


def layered(graph: Graph, readers: Mapping[int, Sequence[int]], block: Block) -> BlockGrid:
    """The inside of a block, top to bottom. readers: see `readers_of`."""
    links = _links(graph, readers, block)
    names = [name(child) for child in block.children]
    inner = links.copy()
    inner.remove_nodes_from([ENTRY, EXIT])
    rows, remaining = _ranks(inner), _ranks(inner.reverse(copy=False))
    columns = _columns(names, links, rows, remaining)
    bottom = max(rows.values()) + 1

    def passed(edge: tuple[str, str]) -> range:
        return range(rows.get(edge[0], -1) + 1, rows.get(edge[1], bottom))

    def cells(edge: tuple[str, str], lane: int) -> list[tuple[int, int]]:
        """What the edge runs through in a lane, and where it would look joined to what stands above or below."""
        ends = [(rows.get(end, -1 if end == ENTRY else bottom), columns.get(end)) for end in edge]
        return [(lane, row) for row in passed(edge)] + [(lane, row) for row, column in ends if column != lane]

    taken = {(columns[child], rows[child]): child for child in names}  # → the item, or the start of the edge, there
    edges = []
    links_by_end = [(start, end) for end in [*names, EXIT] for start in links.pred[end]]
    for edge in sorted(links_by_end, key=lambda edge: (len(passed(edge)), edge[0] != ENTRY)):
        start, end = edge
        near = [columns.get(end, 0), columns.get(start, 0)]
        if passed(edge):
            others = [*range(max(near) + 1, len(names) + links.size() + 1), *range(max(near))]
            # Edges from one output may share a lane.
            free = (c for c in near + others if all(taken.get(cell, start) == start for cell in cells(edge, c)))
            near = [next(free)]
            taken.update(dict.fromkeys(cells(edge, near[0]), start))
        edges.append(Edge(start, end, lane=near[0]))
    return BlockGrid(rows, columns, tuple(edges))


def _columns(
    names: Sequence[str], links: nx.DiGraph, rows: Mapping[str, int], remaining: Mapping[str, int]
) -> dict[str, int]:
    """The longest path through a block keeps to one column; other branches go to the right.

    remaining: how many edges follow each child, on the longest path.
    """
    heirs = {
        start: max((end for end in ends if end != EXIT), key=remaining.__getitem__, default=EXIT)
        for start, ends in links.succ.items()
    }
    columns: dict[str, int] = {}
    taken: set[tuple[int, int]] = set()
    for child in names:
        starts = sorted(links.pred[child], key=ENTRY.__eq__)
        inherited = sorted(columns.get(start, 0) for start in starts if heirs[start] == child)
        base = columns.get(starts[0], 0) if starts else 0
        right = range(base + bool(starts), len(names) + base + 1)
        column = next(column for column in [*inherited, *right] if (column, rows[child]) not in taken)
        taken.add((column, rows[child]))
        columns[child] = column
    return columns


# --- the pyramid

Cell = tuple[int, int]  # column, row


def pyramid(graph: Graph, readers: Mapping[int, Sequence[int]], root: Block) -> BlockGrid:
    """The whole network, a row per resolution. readers: see `readers_of`."""
    links = _links(graph, readers, root)
    links.remove_nodes_from([ENTRY, EXIT])
    rows, heights = _levels(graph, root, links)
    columns: dict[str, int] = {}
    taken: set[Cell] = set()  # cells with an item, or that a straight edge crosses
    heads = [child for child in links if not links.out_degree(child)]
    for child in [child for child in links if child not in heads] + heads:
        column = max((columns[start] + (rows[start] == rows[child]) for start in links.pred[child]), default=0)
        if child in heads:
            column = max([column, *(columns[head] for head in heads if head in columns)])
        while (column, rows[child]) in taken:
            column += 1
        columns[child] = column
        taken.add((column, rows[child]))
        for start in links.pred[child]:
            taken.update(_crossed((columns[start], rows[start]), (column, rows[child])))
    for child, row in rows.items():  # what leads up or down stands at its reader
        reader = next(iter(links.succ[child])) if heights.get(row) is None else child
        if columns[reader] > columns[child] and (columns[reader], row) not in taken:
            columns[child] = columns[reader]
            taken.add((columns[child], row))
    if len({rows[head] for head in heads}) == len(heads):  # the heads stand below each other
        last = max(columns.values())
        others = {(columns[child], rows[child]) for child in columns if child not in heads}
        columns.update(dict.fromkeys(heads, last + any((last, rows[head]) in others for head in heads)))
    used = sorted(set(rows.values()))
    rows = {child: used.index(row) for child, row in rows.items()}
    shown = tuple(heights.get(row, 0) for row in used)
    return BlockGrid(rows, columns, _routed(links, rows, columns), heights=shown)


def _levels(graph: Graph, root: Block, links: nx.DiGraph) -> tuple[dict[str, int], dict[int, int]]:
    """The input in row 0, each resolution in an even row, what leads from one to another in the row between.

    Returns child → row, and row → height of its feature maps.
    """
    heights = {
        name(child): graph.input.h if output_of(child) == INPUT else graph.layers[output_of(child)].output.h
        for child in root.children
    }
    inputs = {"input"} & set(heights)
    levels = sorted({height for child, height in heights.items() if child not in inputs}, reverse=True)
    row = {height: 2 * k + 2 for k, height in enumerate(levels)}
    rows = {child: 0 if child in inputs else row[height] for child, height in heights.items()}
    for child in root.children:
        before, after = list(links.pred[name(child)]), list(links.succ[name(child)])
        if len(before) != 1 or len(after) != 1 or links.in_degree(after[0]) < 2 or before[0] in inputs:
            continue
        source_row, own_row = row[heights[before[0]]], row[heights[name(child)]]
        parts = child.children if isinstance(child, Block) else (child,)
        if source_row != own_row and all(isinstance(part, Leaf) for part in parts):
            rows[name(child)] = own_row + (1 if own_row < source_row else -1)
    return rows, {0: graph.input.h, **{place: height for height, place in row.items()}}


def _crossed(start: Cell, end: Cell) -> list[Cell]:
    """The cells between two cells of one row or column; none for others."""
    (x, y), (u, v) = start, end
    if y == v:
        return [(column, y) for column in range(min(x, u) + 1, max(x, u))]
    if x == u:
        return [(x, row) for row in range(min(y, v) + 1, max(y, v))]
    return []


class _Stretch(NamedTuple):
    """What an edge takes of a gutter ("column" or "row"), from one row or column to another."""

    gutter: tuple[str, int]
    edge: tuple[str, str]
    low: int
    high: int

    def meets(self, other: _Stretch) -> bool:
        """Two stretches that overlap, but edges of the same output may share a lane."""
        return self.edge[0] != other.edge[0] and self.low <= other.high and other.low <= self.high


def _routed(links: nx.DiGraph, rows: Mapping[str, int], columns: Mapping[str, int]) -> tuple[Edge, ...]:
    items = {(columns[child], rows[child]) for child in rows}
    ways: dict[tuple[str, str], list[_Stretch]] = {}
    for edge in [(start, child) for child in links for start in links.pred[child]]:
        (x, y), (u, v) = ((columns[child], rows[child]) for child in edge)
        beside = v - 1 if v > y else v  # the row gutter beside the end
        way = [
            _Stretch(("column", x), edge, min(y, v), max(y, v)),
            _Stretch(("row", beside), edge, min(x, u), max(x, u)),
            _Stretch(("column", u - 1), edge, min(beside, v), max(beside, v)),
        ]
        if (x == u or y == v) and not items.intersection(_crossed((x, y), (u, v))):
            count = 0
        elif u > x and y != v and not items.intersection(_crossed((x, v), (u, v))):
            count = 1
        else:
            count = 3 if u > x else 2
        ways[edge] = way[:count]
    lanes = _lanes(stretch for way in ways.values() for stretch in way)
    return tuple(
        Edge(*edge, gutters=tuple((stretch.gutter[1], lanes[stretch]) for stretch in way)) for edge, way in ways.items()
    )


def _lanes(stretches: Iterable[_Stretch]) -> dict[_Stretch, int]:
    """A lane for each, different ones where two meet in a gutter; the first ones get the first lanes."""
    conflicts = nx.Graph()
    conflicts.add_nodes_from(stretches)
    conflicts.add_edges_from((a, b) for a, b in combinations(conflicts, 2) if a.gutter == b.gutter and a.meets(b))
    lanes: dict[_Stretch, int] = nx.greedy_color(conflicts, strategy=lambda graph, colors: list(graph))
    return lanes


# --- pixels


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


@dataclass(frozen=True)
class Sum:
    """A formula: a constant, plus variables, minus those given as ~variable."""

    constant: float
    variables: tuple[int, ...] = ()

    def __add__(self, other: Sum | float) -> Sum:
        if isinstance(other, Sum):
            return Sum(self.constant + other.constant, self.variables + other.variables)
        return Sum(self.constant + other, self.variables) if other else self

    def __sub__(self, other: Sum | float) -> Sum:
        if isinstance(other, Sum):
            return Sum(self.constant - other.constant, self.variables + tuple(~at for at in other.variables))
        return self + -other

    def value(self, values: Sequence[float]) -> float:
        total = self.constant
        for at in self.variables:
            total += values[at] if at >= 0 else -values[~at]
        return total


class SizeFormula(NamedTuple):
    """A `Size` as formulas."""

    w: Sum
    h: Sum
    x: Sum
    y: Sum


Point = tuple[Sum, Sum]
Command = tuple[str, tuple[Sum, ...]]  # of an SVG path, with its coordinates


@dataclass(frozen=True)
class Plan:
    """How to place a block's children and edges, whatever is open in it.

    The first variables are width, height, x and y of the children's sizes, in order; each of `maxima` adds one, the
    largest of its formulas. The rest is what `Placed` holds, as formulas.
    """

    children: tuple[str, ...]
    maxima: tuple[tuple[Sum, ...], ...]
    corners: tuple[Point, ...]
    paths: tuple[tuple[Command, ...], ...]
    size: SizeFormula
    bands: tuple[Point, ...] = ()

    def place(self, sizes: Iterable[Size]) -> Placed:
        """sizes: of the children, in order."""
        values = [value for size in sizes for value in size]
        for formulas in self.maxima:
            values.append(max(formula.value(values) for formula in formulas))

        def pair(formulas: Point) -> tuple[float, float]:
            return formulas[0].value(values), formulas[1].value(values)

        return Placed(
            {child: pair(corner) for child, corner in zip(self.children, self.corners, strict=True)},
            tuple(path_text(path, values) for path in self.paths),
            Size(*(formula.value(values) for formula in self.size)),
            tuple(map(pair, self.bands)),
        )


class Tree(NamedTuple):
    """What placing needs. closed: width and height of each item as a leaf or card. root: the name of a block."""

    closed: Mapping[str, tuple[int, int]]
    plans: Mapping[str, Plan]
    root: str


def place(tree: Tree, opened: Collection[str]) -> dict[str, Placed]:
    """Every open block that is visible, the root among them, by its name."""
    placed: dict[str, Placed] = {}

    def size(item: str) -> Size:
        if item == tree.root or (item in opened and item in tree.plans):
            plan = tree.plans[item]
            placed[item] = plan.place(map(size, plan.children))
            return placed[item].size
        return closed_size(tree.closed[item])

    size(tree.root)
    return placed


def closed_size(closed: tuple[int, int]) -> Size:
    w, h = closed
    return Size(w, h, w / 2, h / 2)


class _Track(NamedTuple):
    """A column or row: where it starts and ends, and the axis that its children are on."""

    start: Sum
    axis: Sum
    end: Sum


Reach = tuple[Sum, Sum]  # of a child, before and behind its axis


class _Planner:
    """Collects the formulas of a block.

    values: of the variables while every child is closed. An edge turns the same way whatever is open, and opening
    a child leaves no less room for the bends, so they are made for this state.
    """

    def __init__(self, grid: BlockGrid, closed: Mapping[str, tuple[int, int]]):
        self.grid = grid
        variables = (Sum(0, (at,)) for at in count())
        self.sizes = {child: SizeFormula(*islice(variables, 4)) for child in grid.rows}
        self.values = [float(value) for child in grid.rows for value in closed_size(closed[child])]
        self.maxima: list[tuple[Sum, ...]] = []

    def largest(self, *formulas: Sum) -> Sum:
        if len(formulas) == 1 and not formulas[0].variables:
            return formulas[0]
        self.maxima.append(formulas)
        self.values.append(max(formula.value(self.values) for formula in formulas))
        return Sum(0, (len(self.values) - 1,))

    def columns(self, start: int, gaps: Sequence[int], minimum: int = 0) -> list[_Track]:
        reaches = {child: (size.x, size.w - size.x) for child, size in self.sizes.items()}
        return self.tracks(self.grid.columns, reaches, start, gaps, minimum)

    def tracks(
        self, tracks: Mapping[str, int], reaches: Mapping[str, Reach], start: int, gaps: Sequence[int], minimum: int = 0
    ) -> list[_Track]:
        """Columns or rows one after another. gaps: after each. minimum: reach of a track without children."""
        members: list[list[Reach]] = [[(Sum(minimum), Sum(minimum))] for _ in gaps]
        for child, track in tracks.items():
            members[track].append(reaches[child])
        placed = []
        at = Sum(start)
        for reach, gap in zip(members, gaps, strict=True):
            before, behind = (self.largest(*dict.fromkeys(side)) for side in zip(*reach, strict=True))
            axis = self.largest(at + before)
            placed.append(_Track(at, axis, axis + behind))
            at = placed[-1].end + gap
        return placed

    def plan(
        self, corners: Iterable[Point], paths: Iterable[Sequence[Point]], size: SizeFormula, bands: Iterable[Point] = ()
    ) -> Plan:
        drawn = tuple(rounded(path, self.values) for path in paths)
        return Plan(tuple(self.grid.rows), tuple(self.maxima), tuple(corners), drawn, size, tuple(bands))


def plan_block(grid: BlockGrid, closed: Mapping[str, tuple[int, int]], title_width: int, header: int = HEADER) -> Plan:
    """title_width: what the header needs."""
    planner = _Planner(grid, closed)
    sizes = planner.sizes
    lanes = 1 + max([*grid.columns.values(), *(edge.lane for edge in grid.edges)])
    columns = planner.columns(PAD, [COLUMN_GAP] * lanes, LANE)
    gaps = [GAP] * (1 + max(grid.rows.values()))
    rows = planner.tracks(grid.rows, {child: (Sum(0), sizes[child].h) for child in sizes}, header + GAP, gaps)
    width = planner.largest(columns[-1].end + PAD, Sum(title_width))
    bottom = planner.largest(rows[-1].end + GAP)
    axes = {ENTRY: columns[0].axis, EXIT: columns[0].axis}
    axes.update({child: columns[column].axis for child, column in grid.columns.items()})
    tops = {EXIT: bottom, **{child: rows[row].axis for child, row in grid.rows.items()}}

    def path(edge: Edge) -> list[Point]:
        x, u, lane = axes[edge.start], axes[edge.end], columns[edge.lane].axis
        y, high = Sum(header), Sum(header + TURN)
        if edge.start != ENTRY:
            y, high = tops[edge.start] + sizes[edge.start].h, rows[grid.rows[edge.start]].end + TURN
        low = tops[edge.end] - TURN
        return [(x, y), (x, high), (lane, high), (lane, low), (u, low), (u, tops[edge.end])]

    corners = ((axes[child] - sizes[child].x, tops[child]) for child in sizes)
    size = SizeFormula(width, bottom, columns[0].axis, Sum(HEADER // 2))
    return planner.plan(corners, map(path, grid.edges), size)


def plan_pyramid(grid: BlockGrid, closed: Mapping[str, tuple[int, int]]) -> Plan:
    planner = _Planner(grid, closed)
    sizes = planner.sizes
    lanes_x, lanes_y = [0] * (1 + max(grid.columns.values())), [0] * (1 + max(grid.rows.values()))
    for edge in grid.edges:
        for lanes, (number, lane) in zip((lanes_x, lanes_y, lanes_x), edge.gutters, strict=False):
            lanes[number] = max(lanes[number], lane + 1)
    gaps_x, gaps_y = ([2 * GUTTER + GUTTER_LANE * number for number in lanes] for lanes in (lanes_x, lanes_y))
    columns = planner.columns(MARGIN + LABELS, gaps_x)
    rows = planner.tracks(
        grid.rows, {child: (size.y, size.h - size.y) for child, size in sizes.items()}, MARGIN, gaps_y
    )
    axes = {child: (columns[grid.columns[child]].axis, rows[row].axis) for child, row in grid.rows.items()}
    corners = {child: (x - sizes[child].x, y - sizes[child].y) for child, (x, y) in axes.items()}

    def path(edge: Edge) -> list[Point]:
        start, end = edge.start, edge.end
        down = grid.rows[end] > grid.rows[start]
        top = (axes[end][0], corners[end][1] + (0 if down else sizes[end].h))
        if not edge.gutters and grid.rows[end] != grid.rows[start]:
            return [(axes[start][0], corners[start][1] + (sizes[start].h if down else 0)), top]
        points = [(corners[start][0] + sizes[start].w, axes[start][1])]
        for tracks, (number, lane) in zip((columns, rows, columns), edge.gutters, strict=False):
            turn = tracks[number].end + (GUTTER + GUTTER_LANE * lane)
            points.append((turn, points[-1][1]) if tracks is columns else (points[-1][0], turn))
        if len(edge.gutters) == 2:
            return [*points, (top[0], points[-1][1]), top]
        return [*points, (points[-1][0], axes[end][1]), (corners[end][0], axes[end][1])]

    width = columns[-1].end + (gaps_x[-1] - 2 * GUTTER + MARGIN)
    height = rows[-1].end + (gaps_y[-1] - 2 * GUTTER + MARGIN)
    bands = ((row.start, row.end - row.start) for row in rows)
    return planner.plan(corners.values(), map(path, grid.edges), SizeFormula(width, height, Sum(0), Sum(0)), bands)


def rounded(points: Sequence[Point], values: Sequence[float]) -> tuple[Command, ...]:
    """An SVG path through points that differ in x or y only, with rounded bends.

    values: of the variables in the points, for the direction and radius of each bend.
    """
    corners = [points[0]]
    for x, y in points[1:]:
        if (x, y) == corners[-1]:
            continue
        if len(corners) > 1 and (corners[-2][0] == corners[-1][0] == x or corners[-2][1] == corners[-1][1] == y):
            corners[-1] = (x, y)
        else:
            corners.append((x, y))
    path: list[Command] = [("M", corners[0])]
    steps = [((u - x).value(values), (v - y).value(values)) for (x, y), (u, v) in pairwise(corners)]
    for (x, y), (ax, ay), (bx, by) in zip(corners[1:], steps, steps[1:], strict=False):
        radius = min(RADIUS, (abs(ax) + abs(ay)) / 2, (abs(bx) + abs(by)) / 2)
        path.append(("L", (x - radius * _sign(ax), y - radius * _sign(ay))))
        path.append(("Q", (x, y, x + radius * _sign(bx), y + radius * _sign(by))))
    return (*path, ("L", corners[-1]))


def path_text(path: Sequence[Command], values: Sequence[float]) -> str:
    """The `d` of an SVG path."""
    return "".join(command + " ".join(number(at.value(values)) for at in places) for command, places in path)


def number(value: float) -> str:
    """With at most two decimals."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)
