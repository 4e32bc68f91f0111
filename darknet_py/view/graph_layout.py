"""Where the items of a tree stand: rows, columns and the lanes of edges. Pixels come later, see `graph_place`.

Inside a block the rows are the ranks of a layered drawing, from its fork down to its join; branches get columns of
their own, edges that pass several rows get lanes beside them. The network as a whole is drawn as a pyramid, as papers
draw one: a row per resolution, layers that change it between the rows, time from left to right; so the backbone runs
down, a top-down path up, a bottom-up path down again, and the heads stand at the right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from darknet_py.graph.graph import Graph
from darknet_py.view.graph_tree import INPUT, Block, Item, Leaf, leaves, output_of

ENTRY, EXIT = "in", "out"  # the ends of a block's edges that lead outside


@dataclass(frozen=True)
class Line:
    """An edge inside a block. lane: the column that it runs down in where it passes rows."""

    start: str
    end: str
    lane: int


@dataclass(frozen=True)
class Wire:
    """An edge of the pyramid.

    kind: "h" straight within a row; "v" straight within a column; "c" right, along the column gutter, right; "s" the
    same with a row gutter in between; "t" ends at the top or bottom of `end`. down: `end` lies in a lower row. gutters:
    (number, lane) of each gutter on the way: column gutter i lies right of column i, row gutter i below row i.
    """

    start: str
    end: str
    kind: str
    down: bool
    gutters: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Grid:
    """A block's children on rows and columns, with its edges: lines in a block, wires in the pyramid.

    heights: of the pyramid's rows, the height of the feature maps; 0 between two resolutions.
    """

    rows: Mapping[str, int]
    columns: Mapping[str, int]
    lines: tuple[Line, ...] = ()
    wires: tuple[Wire, ...] = ()
    heights: tuple[int, ...] = ()


def name(item: Item) -> str:
    """The item's id in the picture."""
    if isinstance(item, Block):
        return f"b{item.number}"
    return "input" if item.index == INPUT else f"n{item.index}"


@dataclass(frozen=True)
class _Links:
    """Edges between the children of a block, each once, in the order of the children."""

    before: dict[str, list[str]]
    after: dict[str, list[str]]
    entries: list[str]  # children that read from outside
    exits: list[str]  # children that are read from outside


def _links(graph: Graph, block: Block) -> _Links:
    owner = {index: name(child) for child in block.children for index in leaves(child)}
    names = [name(child) for child in block.children]
    before: dict[str, list[str]] = {child: [] for child in names}
    after: dict[str, list[str]] = {child: [] for child in names}
    entries: dict[str, None] = {}
    exits: dict[str, None] = {}
    for node in graph.layers:
        child = owner.get(node.index)
        for source in node.sources:
            start = owner.get(source)
            if child is None and start is not None:
                exits[start] = None
            elif child is not None and start is None:
                entries[child] = None
            elif child is not None and start is not None and start != child and start not in before[child]:
                before[child].append(start)
                after[start].append(child)
    return _Links(before, after, list(entries), list(exits))


def layered(graph: Graph, block: Block) -> Grid:
    """The inside of a block, top to bottom."""
    links = _links(graph, block)
    names = [name(child) for child in block.children]
    rows: dict[str, int] = {}
    for child in names:
        rows[child] = 1 + max((rows[start] for start in links.before[child]), default=-1)
    columns = _columns(names, links, rows)
    edges = [(ENTRY, child) for child in links.entries]
    edges += [(start, child) for child in names for start in links.before[child]]
    edges += [(child, EXIT) for child in links.exits]
    bottom = max(rows.values()) + 1

    def passed(edge: tuple[str, str]) -> range:
        return range(rows.get(edge[0], -1) + 1, rows.get(edge[1], bottom))

    def cells(edge: tuple[str, str], lane: int) -> list[tuple[int, int]]:
        """What the edge runs through in a lane, and where it would look joined to what stands above or below."""
        ends = [(rows.get(end, -1 if end == ENTRY else bottom), columns.get(end)) for end in edge]
        return [(lane, row) for row in passed(edge)] + [(lane, row) for row, column in ends if column != lane]

    taken = {(columns[child], rows[child]): child for child in names}  # → the item, or the start of the edge, there
    lines = []
    for edge in sorted(edges, key=lambda edge: len(passed(edge))):
        start, end = edge
        near = [columns.get(end, 0), columns.get(start, 0)]
        if passed(edge):
            others = [*range(max(near) + 1, len(names) + len(edges) + 1), *range(max(near))]
            # Edges from one output may share a lane.
            free = (c for c in near + others if all(taken.get(cell, start) == start for cell in cells(edge, c)))
            near = [next(free)]
            taken.update(dict.fromkeys(cells(edge, near[0]), start))
        lines.append(Line(start, end, near[0]))
    return Grid(rows, columns, lines=tuple(lines))


def _columns(names: Sequence[str], links: _Links, rows: Mapping[str, int]) -> dict[str, int]:
    """The longest way through a block keeps to one column; other branches go to the right."""
    reach: dict[str, int] = {}
    for child in reversed(names):
        reach[child] = 1 + max((reach[end] for end in links.after[child]), default=0)
    heirs = {start: max(ends, key=reach.__getitem__) for start, ends in links.after.items() if ends}
    if links.entries:
        heirs[ENTRY] = max(links.entries, key=reach.__getitem__)
    columns: dict[str, int] = {}
    taken: set[tuple[int, int]] = set()
    for child in names:
        starts = links.before[child] + ([ENTRY] if child in links.entries else [])
        inherited = sorted(columns.get(start, 0) for start in starts if heirs[start] == child)
        base = columns.get(starts[0], 0) if starts else 0
        right = range(base + bool(starts), len(names) + base + 1)
        column = next(column for column in [*inherited, *right] if (column, rows[child]) not in taken)
        taken.add((column, rows[child]))
        columns[child] = column
    return columns


def pyramid(graph: Graph, root: Block) -> Grid:
    """The whole network, a row per resolution."""
    links = _links(graph, root)
    rows, heights = _levels(graph, root, links)
    columns: dict[str, int] = {}
    taken: set[tuple[int, int]] = set()  # cells with an item, or that a straight edge crosses
    heads = [child for child, ends in links.after.items() if not ends]
    for child in [child for child in links.after if child not in heads] + heads:
        column = max((columns[start] + (rows[start] == rows[child]) for start in links.before[child]), default=0)
        if child in heads:
            column = max([column, *(columns[head] for head in heads if head in columns)])
        while (column, rows[child]) in taken:
            column += 1
        columns[child] = column
        taken.add((column, rows[child]))
        for start in links.before[child]:
            taken.update(_crossed((columns[start], rows[start]), (column, rows[child])))
    for child, row in rows.items():  # what leads up or down stands at its reader
        reader = links.after[child][0] if heights.get(row) is None else child
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
    return Grid(rows, columns, wires=_wires(links, rows, columns), heights=shown)


def _levels(graph: Graph, root: Block, links: _Links) -> tuple[dict[str, int], dict[int, int]]:
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
        before, after = links.before[name(child)], links.after[name(child)]
        if len(before) != 1 or len(after) != 1 or len(links.before[after[0]]) < 2 or before[0] in inputs:
            continue
        here, there = row[heights[before[0]]], row[heights[name(child)]]
        if here != there and all(isinstance(part, Leaf) for part in getattr(child, "children", [child])):
            rows[name(child)] = there + (1 if there < here else -1)
    return rows, {0: graph.input.h, **{place: height for height, place in row.items()}}


Cell = tuple[int, int]  # column, row


def _crossed(start: Cell, end: Cell) -> list[Cell]:
    """The cells between two cells of one row or column; none for others."""
    (x, y), (u, v) = start, end
    if y == v:
        return [(column, y) for column in range(min(x, u) + 1, max(x, u))]
    if x == u:
        return [(x, row) for row in range(min(y, v) + 1, max(y, v))]
    return []


class _Gutter:
    """Lanes of a gutter: edges from different outputs that overlap in it get different ones."""

    def __init__(self) -> None:
        self.lanes: list[list[tuple[int, int, str]]] = []

    def lane(self, start: str, low: int, high: int) -> int:
        for number, lane in enumerate(self.lanes):
            if all(other == start or high < first or last < low for first, last, other in lane):
                lane.append((low, high, start))
                return number
        self.lanes.append([(low, high, start)])
        return len(self.lanes) - 1


def _wires(links: _Links, rows: Mapping[str, int], columns: Mapping[str, int]) -> tuple[Wire, ...]:
    items = {(columns[child], rows[child]) for child in rows}
    vertical: dict[int, _Gutter] = {}
    horizontal: dict[int, _Gutter] = {}

    def free(start: Cell, end: Cell) -> bool:
        return not items.intersection(_crossed(start, end))

    wires = []
    for end, starts in links.before.items():
        for start in starts:
            a, b = (columns[start], rows[start]), (columns[end], rows[end])
            down = b[1] > a[1]
            straight = "h" if a[1] == b[1] else "v" if a[0] == b[0] else ""
            if straight and free(a, b):
                wires.append(Wire(start, end, straight, down))
                continue
            side = vertical.setdefault(a[0], _Gutter())
            out = (a[0], side.lane(start, min(a[1], b[1]), max(a[1], b[1])))
            if b[0] > a[0] and a[1] != b[1] and free((a[0], b[1]), b):
                wires.append(Wire(start, end, "c", down, (out,)))
                continue
            number = b[1] - 1 if down else b[1]
            across = (number, horizontal.setdefault(number, _Gutter()).lane(start, *sorted((a[0], b[0]))))
            if b[0] > a[0]:
                into = vertical.setdefault(b[0] - 1, _Gutter())
                last = (b[0] - 1, into.lane(start, *sorted((number, b[1]))))
                wires.append(Wire(start, end, "s", down, (out, across, last)))
            else:
                wires.append(Wire(start, end, "t", down, (out, across)))
    return tuple(wires)
