"""The diagram of a network as SVG: cards for blocks, boxes for layers, edges between them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from darknet_py.counted import counted
from darknet_py.graph.graph import Graph
from darknet_py.graph.profile import LayerProfile, layer_profiles, network_profile
from darknet_py.view import graph_labels as labels
from darknet_py.view.graph_layout import (
    EXIT,
    MARGIN,
    Placed,
    Tree,
    layered,
    name,
    number,
    place,
    plan_block,
    plan_pyramid,
    pyramid,
)
from darknet_py.view.graph_tree import (
    INPUT,
    Block,
    Item,
    blocks,
    build_tree,
    category,
    leaves,
    output_of,
    passes,
    readers_of,
)

CARD = (232, 64)
BOX = (172, 40)
JOIN = (116, 24)
_GLYPH = 46  # width and height
_CAPTION = 40  # above a diagram in a file of its own
_JOINS = ("concat", "add", "scale")
_LETTER = 0.56  # mean width of a letter, relative to the font size
_SMALLEST = 0.75  # of a font size, to fit a long text

# The two themes; the colors of layers and blocks are the same in both. The page has them as CSS variables.
THEMES = {
    "light": {"page": "#f6f8fb", "sheet": "#ffffff", "line": "#d3dae6", "ink": "#18202c", "faint": "#5d6a80",
              "edge": "#93a0b5", "band": "#edf1f7", "inside": "#f8fafd",
              "accent": "#2563eb", "from": "#0f9aa8", "to": "#d9480f"},
    "dark": {"page": "#10141b", "sheet": "#1a212c", "line": "#323d4f", "ink": "#e8edf5", "faint": "#95a3ba",
             "edge": "#66748c", "band": "#161c26", "inside": "#141a23",
             "accent": "#6ea8ff", "from": "#35c4d0", "to": "#ff9a5c"},
}  # fmt: skip


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("darknet_py.view"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["number"] = number
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":")}
    environment.globals.update(
        asset=lambda file: (Path(__file__).with_name("templates") / file).read_text(encoding="utf-8"),
        looks=labels.COLORS,
        themes=THEMES,
        page_colors={key: f"var(--{key})" for key in THEMES["light"]},
        margin=MARGIN,
        caption=_CAPTION,
        glyph=_GLYPH,
    )
    return environment


def render(template: str, **values: object) -> str:
    """A template of the package with these values; texts are escaped."""
    return _environment().get_template(template).render(values)


class Diagram:
    """A graph, or some of its layers, ready to be drawn with any of its blocks open."""

    def __init__(self, graph: Graph, layers: Iterable[int] | None = None):
        self.graph = graph
        self.root = build_tree(graph, layers)
        self.readers = readers_of(graph)
        self.rows: dict[int, LayerProfile] = {row.node.index: row for row in layer_profiles(graph)}
        self.items: dict[str, Item] = {}
        self.parents: dict[str, str] = {}
        for block in blocks(self.root):
            self.items[name(block)] = block
            for child in block.children:
                self.items[name(child)] = child
                self.parents[name(child)] = name(block)
        closed = {key: self._closed(item) for key, item in self.items.items()}
        root = name(self.root)
        inner = [block for block in blocks(self.root) if block is not self.root]
        self.grids = {name(block): layered(graph, self.readers, block) for block in inner}
        plans = {name(block): plan_block(self.grids[name(block)], closed, self._title_width(block)) for block in inner}
        if layers is None:
            self.grids[root] = pyramid(graph, self.readers, self.root)
            plans[root] = plan_pyramid(self.grids[root], closed)
        else:
            self.grids[root] = layered(graph, self.readers, self.root)
            plans[root] = plan_block(self.grids[root], closed, 0, header=0)
        self.tree = Tree(closed, plans, root)
        # Of a layer and of a stage; 1 where there are none.
        self.most = max((row.bflops for row in self.rows.values()), default=0) or 1
        self.most_together = max(map(self.bflops, self.root.children), default=0) or 1

    def _closed(self, item: Item) -> tuple[int, int]:
        if isinstance(item, Block):
            return CARD
        return JOIN if item.index != INPUT and self.is_join(item.index) else BOX

    def _title_width(self, block: Block) -> int:
        """With the layers beside it."""
        return round(44 + _LETTER * 12.5 * (len(labels.block_title(self.graph, block)) + 14))

    def is_join(self, index: int) -> bool:
        node = self.graph.layers[index]
        return category(node) in _JOINS and (len(node.sources) > 1 or passes(node))

    def layers(self, item: Item) -> list[LayerProfile]:
        return [self.rows[index] for index in leaves(item) if index != INPUT]

    def bflops(self, item: Item) -> float:
        return sum(row.bflops for row in self.layers(item))

    def parameters(self, item: Item) -> int:
        return sum(row.parameters for row in self.layers(item))

    def everything(self) -> set[str]:
        """The names of all blocks: open, they show every layer."""
        return {name(block) for block in blocks(self.root)}


class Text(NamedTuple):
    text: str
    size: float


class DrawnItem(NamedTuple):
    """A leaf, or a block as its card. kind: the CSS classes that say what it is. number: of a layer."""

    id: str
    kind: str
    look: str
    size: tuple[int, int]
    title: Text
    output: Text
    share: float
    number: str = ""
    join: bool = False


@dataclass(frozen=True)
class Drawing:
    """A diagram with some blocks open, as the templates read it.

    foldable: include what closed blocks hold, for the page to open.
    """

    diagram: Diagram
    opened: Collection[str]
    placed: dict[str, Placed]
    foldable: bool = False

    def bands(self) -> list[tuple[int, float, float, str, str]]:
        """(number, top, height, ratio to the input, size) of each row of the pyramid that has a resolution."""
        graph, root = self.diagram.graph, self.diagram.tree.root
        bands = []
        for row, height in enumerate(self.diagram.grids[root].heights):
            if height:
                widths = {node.output.w for node in graph.layers if node.output.h == height} or {graph.input.w}
                texts = (
                    (f"÷{number(graph.input.h / height)}", f"{max(widths)}×{height}") if height > 1 else ("vector", "")
                )
                bands.append((row, *self.placed[root].bands[row], *texts))
        return bands

    def children(self, block: Block) -> list[tuple[Item, tuple[float, float]]]:
        """Each with its corner."""
        placed = self.placed.get(name(block))
        return [(child, placed.corners[name(child)] if placed else (0, 0)) for child in block.children]

    def edges(self, block: Block) -> list[tuple[str, bool]]:
        """(path, whether it ends in an arrow)."""
        placed, edges = self.placed.get(name(block)), self.diagram.grids[name(block)].edges
        paths = placed.paths if placed else [""] * len(edges)
        return [(path, edge.end != EXIT) for path, edge in zip(paths, edges, strict=True)]

    def item(self, item: Item) -> DrawnItem:
        diagram, graph, key = self.diagram, self.diagram.graph, name(item)
        look, (width, height) = labels.look(graph, item), diagram.tree.closed[key]
        if isinstance(item, Block):
            kind = "block open" if key in self.opened else "block"
            share = diagram.bflops(item) / diagram.most_together if key in diagram.grids[diagram.tree.root].rows else 0
            title = fitted(labels.block_title(graph, item), width - 14 - _GLYPH - 32, 12.5)
            output = Text(labels.size_text(graph.layers[output_of(item)].output), 11)
            return DrawnItem(key, kind, look, (width, height), title, output, share)
        if item.index == INPUT:
            output = Text(labels.size_text(graph.input), 11)
            return DrawnItem(key, "leaf", look, (width, height), Text("input", 12), output, 0)
        node = graph.layers[item.index]
        join = diagram.is_join(item.index)
        title = (
            fitted(labels.leaf_title(node), width - 46, 11.5)
            if join
            else fitted(labels.leaf_title(node), width - 44, 12)
        )
        output = fitted(labels.leaf_subtitle(node), width - 20, 11)
        share = diagram.bflops(item) / diagram.most
        return DrawnItem(key, "leaf", look, (width, height), title, output, share, str(item.index), join)

    def has_card(self, block: Block) -> bool:
        return self.foldable or name(block) not in self.opened

    def has_body(self, block: Block) -> bool:
        return self.foldable or name(block) in self.opened

    def body_size(self, block: Block) -> tuple[float, float]:
        placed = self.placed.get(name(block))
        return (placed.size.w, placed.size.h) if placed else CARD

    def header(self, block: Block) -> tuple[str, str]:
        return labels.block_title(self.diagram.graph, block), labels.layers_text(block)

    def cost(self, block: Block) -> str:
        parameters = self.diagram.parameters(block)
        return f"{self.diagram.bflops(block):.3g} BF" + (f" · {labels.short_number(parameters)}" if parameters else "")

    def glyph(self, block: Block) -> tuple[list[str], list[tuple[str, float, float]], float, float]:
        """The inside of a closed block in small, its branches on their columns.

        Returns paths of lines; look and corner of each child, and the width and height of all.
        """
        inner = [child for child in block.children if isinstance(child, Block)]
        if block.kind == "chain" and len(inner) == 1 and len(block.children) < 6:
            block = inner[0]
        grid = self.diagram.grids[name(block)]
        rows = 1 + max(grid.rows.values())
        columns = 1 + max([*grid.columns.values(), *(edge.lane for edge in grid.edges)])
        across, down = min(_GLYPH / columns, 22), min(_GLYPH / rows, 14)
        left, above = (_GLYPH - across * columns) / 2, (_GLYPH - down * rows) / 2

        def at(column: float, row: float) -> tuple[float, float]:
            return left + across * (column + 0.5), above + down * (row + 0.5)

        lines = []
        for edge in grid.edges:
            x, y = at(grid.columns.get(edge.start, 0), grid.rows.get(edge.start, -0.9))
            u, v = at(grid.columns.get(edge.end, 0), grid.rows.get(edge.end, rows - 0.1))
            lane, _ = at(edge.lane, 0)
            high, low = min(y + down / 2, v), max(v - down / 2, y)
            lines.append(
                f"M{number(x)} {number(y)}V{number(high)}H{number(lane)}V{number(low)}H{number(u)}V{number(v)}"
            )
        width, height = min(across * 0.72, 14), min(down * 0.62, 7)
        marks = []
        for child in block.children:
            x, y = at(grid.columns[name(child)], grid.rows[name(child)])
            marks.append((labels.look(self.diagram.graph, child), x - width / 2, y - height / 2))
        return lines, marks, width, height


def fitted(text: str, width: float, size: float) -> Text:
    """A smaller font where the text would be wider, and an ellipsis where that does not do."""
    size = max(min(size, width / (_LETTER * max(len(text), 1))), _SMALLEST * size)
    most = int(width / (size * _LETTER) + 1e-6)
    return Text(text if len(text) <= most else text[: most - 1] + "…", size)


def svg(graph: Graph, opened: str = "none", layers: Iterable[int] | None = None, theme: str = "auto") -> str:
    """A diagram as the text of an SVG file, see `svg_file`."""
    return svg_file(graph, opened, layers, theme).text


class SvgFile(NamedTuple):
    """The text of an SVG file, and its width and height."""

    text: str
    size: tuple[float, float]


def svg_file(graph: Graph, opened: str = "none", layers: Iterable[int] | None = None, theme: str = "auto") -> SvgFile:
    """A diagram as an SVG file.

    Args:
        graph: The network.
        opened: "none" draws blocks closed, "all" draws every layer.
        layers: Draw only these, every one of them. None: the whole network.
        theme: "light", "dark", or "auto" for the reader's system setting.
    """
    diagram = Diagram(graph, layers)
    shown = diagram.everything() if opened == "all" or layers is not None else {diagram.tree.root}
    placed = place(diagram.tree, shown)
    size = placed[diagram.tree.root].size
    total = network_profile(graph)
    title = Path(graph.path).stem
    parameters = labels.short_number(total.parameters)
    summary = f"{counted(total.layers, 'layer')}, {parameters} parameters, {total.bflops:.2f} BFLOPs"
    if layers is not None:
        title += f" · {labels.layers_text(diagram.root)}"
        summary = labels.size_text(graph.layers[diagram.root.output].output)
    width = max(size.w, 0.62 * (15 * len(title) + 12 * len(summary)) + 3 * MARGIN)
    height = size.h + _CAPTION
    drawing = Drawing(diagram, shown, placed)
    text = render(
        "graph.svg.jinja", title=title, summary=summary, theme=theme, width=width, height=height, drawing=drawing
    )
    return SvgFile(text, (width, height))
