"""The picture of a network as SVG: cards for blocks, boxes for layers, edges between them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from html import escape
from pathlib import Path

from darknet_py.graph.graph import Graph
from darknet_py.graph.profile import LayerProfile, layer_profiles, network_profile
from darknet_py.view import graph_labels as labels
from darknet_py.view.graph_layout import EXIT, layered, name, pyramid
from darknet_py.view.graph_place import HEADER, MARGIN, Placed, Tree, number, place
from darknet_py.view.graph_tree import INPUT, Block, Item, Leaf, blocks, build, category, leaves, output_of, passes

CARD = (232, 64)
BOX = (172, 40)
PILL = (116, 24)
_GLYPH = (46, 46)
_CAPTION = 40  # above a picture that stands alone
_JOINS = ("concat", "add", "scale")
_LETTER = 0.56  # mean width of a letter, of its size

# Paper, ink and lines of the two themes; looks have the same colours in both.
_THEMES = {
    "light": {"page": "#f6f8fb", "sheet": "#ffffff", "line": "#d3dae6", "ink": "#18202c", "faint": "#5d6a80",
              "edge": "#93a0b5", "band": "#edf1f7", "inside": "#f8fafd"},
    "dark": {"page": "#10141b", "sheet": "#1a212c", "line": "#323d4f", "ink": "#e8edf5", "faint": "#95a3ba",
             "edge": "#66748c", "band": "#161c26", "inside": "#141a23"},
}  # fmt: skip


class Picture:
    """A graph, or some of its layers, ready to be drawn with any of its blocks open."""

    def __init__(self, graph: Graph, layers: Iterable[int] | None = None):
        self.graph = graph
        self.whole = layers is None
        self.root = build(graph, layers)
        self.rows: dict[int, LayerProfile] = {row.node.index: row for row in layer_profiles(graph)}
        self.items: dict[str, Item] = {}
        self.parents: dict[str, str] = {}
        for block in blocks(self.root):
            self.items[name(block)] = block
            for child in block.children:
                self.items[name(child)] = child
                self.parents[name(child)] = name(block)
        inner = [block for block in blocks(self.root) if block is not self.root]
        grids = {name(block): layered(graph, block) for block in inner}
        grids[name(self.root)] = pyramid(graph, self.root) if self.whole else layered(graph, self.root)
        titles = {name(block): labels.block_title(graph, block) for block in inner}
        headers = {key: float(round(44 + _LETTER * 12.5 * (len(title) + 14))) for key, title in titles.items()}
        self.tree = Tree({key: self._closed(item) for key, item in self.items.items()}, grids, headers, name(self.root))
        self.most = max([row.bflops for row in self.rows.values()], default=0)
        self.most_together = max(map(self.bflops, self.root.children), default=0)

    def _closed(self, item: Item) -> tuple[float, float]:
        if isinstance(item, Block):
            return CARD
        return PILL if item.index != INPUT and self.is_join(item.index) else BOX

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


def svg(graph: Graph, opened: str = "none", layers: Iterable[int] | None = None, theme: str = "auto") -> str:
    """A picture of its own, as SVG text.

    opened: "none" (stages as cards), "all" (every layer). layers: only these, every one shown. theme: "light", "dark"
    or "auto" (as the reader's system).
    """
    picture = Picture(graph, layers)
    shown = picture.everything() if opened == "all" or layers is not None else {picture.tree.root}
    placed = place(picture.tree, shown)
    size = placed[picture.tree.root].size
    total = network_profile(graph)
    title = Path(graph.path).stem
    facts = f"{total.layers} layers, {labels.short_number(total.parameters)} parameters, {total.bflops:.2f} BFLOPs"
    if layers is not None:
        title += f" · {labels.layers_text(picture.root)}"
        facts = labels.size_text(graph.layers[picture.root.output].output)
    width = max(size.w, 0.62 * (15 * len(title) + 12 * len(facts)) + 3 * MARGIN)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{number(width)}" height="{number(size.h + _CAPTION)}" '
            f'viewBox="0 0 {number(width)} {number(size.h + _CAPTION)}" role="img" class="graph">',
            f"<title>{escape(title)}</title>",
            f"<style>{style(theme)}</style>",
            definitions(),
            '<rect class="page" width="100%" height="100%"/>',
            f'<text class="t" x="{MARGIN}" y="27" font-size="15">{escape(title)}</text>',
            f'<text class="m" x="{number(width - MARGIN)}" y="27" font-size="12" text-anchor="end">{escape(facts)}'
            "</text>",
            f'<g transform="translate(0 {_CAPTION})">',
            draw(picture, shown, placed),
            "</g>",
            "</svg>\n",
        ]
    )


def definitions() -> str:
    """Arrow heads; `hot` ones are for edges of what is looked at."""
    return "<defs>" + "".join(
        f'<marker id="{key}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto" '
        f'markerUnits="userSpaceOnUse"><path class="{key}" d="M0 .8 7.5 4 0 7.2z"/></marker>'
        for key in ("arrow", "arrow-from", "arrow-to")
    ) + "</defs>"  # fmt: skip


def style(theme: str) -> str:
    """CSS of the picture. theme: light, dark, auto; "page" follows the page's data-theme."""
    shared = (
        ".graph text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'Liberation Sans',Arial,sans-serif}"
        ".graph .t{font-weight:600}.graph .sheet,.graph .frame{stroke-width:1}"
        ".graph .edge{fill:none;stroke-width:1.5}.graph .tint{fill-opacity:.13}.graph .glyph .line{stroke-width:1}"
        + "".join(
            f".graph .{look}>.stripe,.graph .{look}>.tint,.graph .{look}>.bar,.graph .{look}>.card>.stripe,"
            f".graph .{look}>.card>.tint,.graph .{look}>.card>.bar,.graph .{look}>.body>.stripe,.graph .g-{look}"
            f"{{fill:{colour}}}"
            for look, colour in labels.COLOURS.items()
        )
    )
    if theme in _THEMES:
        return shared + _colours("", theme)
    if theme == "page":
        return shared + _colours("", "light") + _colours('[data-theme="dark"] ', "dark")
    return shared + _colours("", "light") + "@media (prefers-color-scheme:dark){" + _colours("", "dark") + "}"


def _colours(before: str, theme: str) -> str:
    ink = _THEMES[theme]
    rules = {
        ".page": f"fill:{ink['page']}",
        ".sheet": f"fill:{ink['sheet']};stroke:{ink['line']}",
        ".frame": f"fill:{ink['inside']};stroke:{ink['line']}",
        ".t": f"fill:{ink['ink']}",
        ".m": f"fill:{ink['faint']}",
        ".edge,.glyph .line": f"stroke:{ink['edge']}",
        ".glyph .line": "fill:none",
        ".arrow": f"fill:{ink['edge']}",
        ".band": f"fill:{ink['band']}",
    }
    return "".join(
        ",".join(f"{before}.graph {part}" for part in selector.split(",")) + f"{{{rule}}}"
        for selector, rule in rules.items()
    )


def draw(picture: Picture, opened: Collection[str], placed: dict[str, Placed], hidden: bool = False) -> str:
    """The items and edges as they are placed. hidden: what closed blocks hold is drawn too, for the page to open."""
    return _Drawing(picture, opened, placed, hidden).root()


class _Drawing:
    def __init__(self, picture: Picture, opened: Collection[str], placed: dict[str, Placed], hidden: bool):
        self.picture = picture
        self.opened = opened
        self.placed = placed
        self.hidden = hidden

    def root(self) -> str:
        return self._bands() + self._inside(self.picture.root)

    def _bands(self) -> str:
        """The rows of the pyramid, with their resolution."""
        key = self.picture.tree.root
        place, heights = self.placed[key], self.picture.tree.grids[key].heights
        parts = []
        for at, ((top, high), height) in enumerate(zip(place.bands, heights, strict=True)):
            if height:
                y = top + high / 2
                texts = self._band_texts(height)
                parts.append(
                    f'<g class="row" data-row="{at}"><rect class="band" x="{MARGIN / 2}" y="{number(top - 8)}" rx="8" '
                    f'width="{number(place.size.w - MARGIN)}" height="{number(high + 16)}"/>'
                    f'<text class="t" x="{MARGIN + 4}" y="{number(y - 2)}" font-size="13">{texts[0]}</text>'
                    f'<text class="m" x="{MARGIN + 4}" y="{number(y + 13)}" font-size="11">{texts[1]}</text></g>'
                )
        return "".join(parts)

    def _band_texts(self, height: int) -> tuple[str, str]:
        graph = self.picture.graph
        widths = {node.output.w for node in graph.layers if node.output.h == height} or {graph.input.w}
        if height == 1:
            return "vector", ""
        return f"÷{number(graph.input.h / height)}", f"{max(widths)}×{height}"

    def _inside(self, block: Block) -> str:
        """Edges below, children above."""
        key = name(block)
        place = self.placed.get(key)
        if place is None and not self.hidden:
            return ""
        grid = self.picture.tree.grids[key]
        edges = []
        for at, end in enumerate([edge.end for edge in grid.lines] + [edge.end for edge in grid.wires]):
            head = "" if end == EXIT else ' marker-end="url(#arrow)"'
            path = f' d="{place.paths[at]}"' if place else ""
            edges.append(f'<path class="edge"{path}{head}/>')
        children = [self._item(child, place.corners[name(child)] if place else (0, 0)) for child in block.children]
        return f'<g class="edges">{"".join(edges)}</g>{"".join(children)}'

    def _item(self, item: Item, corner: tuple[float, float]) -> str:
        look = labels.look(self.picture.graph, item)
        key = name(item)
        kind = "leaf" if isinstance(item, Leaf) else "block open" if key in self.opened else "block"
        inner = self._leaf(item) if isinstance(item, Leaf) else self._block(item)
        return (
            f'<g id="{key}" class="item {kind} {look}" transform="translate({number(corner[0])} {number(corner[1])})">'
            f"{inner}</g>"
        )

    def _leaf(self, leaf: Leaf) -> str:
        picture = self.picture
        if leaf.index == INPUT:
            return self._box("input", labels.size_text(picture.graph.input), "", BOX, 0)
        node = picture.graph.layers[leaf.index]
        title = labels.leaf_title(node)
        if picture.is_join(leaf.index):
            width, height = PILL
            return (
                f'<rect class="sheet" width="{width}" height="{height}" rx="12"/>'
                f'<rect class="tint" width="{width}" height="{height}" rx="12"/>'
                f'<text class="t" x="12" y="16" font-size="11.5">{fitted(title, width - 46, 11.5)}</text>'
                f'<text class="m" x="{width - 10}" y="16" font-size="10" text-anchor="end">{leaf.index}</text>'
            )
        share = picture.rows[leaf.index].bflops / picture.most if picture.most else 0
        return self._box(title, labels.leaf_subtitle(node), str(leaf.index), BOX, share)

    def _box(self, title: str, subtitle: str, index: str, size: tuple[int, int], share: float) -> str:
        width, height = size
        return (
            f'<rect class="sheet" width="{width}" height="{height}" rx="6"/>'
            f'<rect class="tint" width="{width}" height="{height}" rx="6"/>'
            f'<rect class="stripe" width="4" height="{height}" rx="2"/>'
            f'<text class="t" x="12" y="17" font-size="12">{fitted(title, width - 44, 12)}</text>'
            f'<text class="m" x="{width - 8}" y="17" font-size="10" text-anchor="end">{index}</text>'
            f'<text class="m" x="12" y="32" font-size="11">{fitted(subtitle, width - 20, 11)}</text>'
            + self._bar(share, width, height)
        )

    def _bar(self, share: float, width: float, height: float) -> str:
        """Its share of the BFLOPs, against the largest of its kind, along the lower edge."""
        if share < 0.005:
            return ""
        return f'<rect class="bar" x="4" y="{height - 3}" width="{number(share * (width - 8))}" height="3" rx="1.5"/>'

    def _block(self, block: Block) -> str:
        picture = self.picture
        title = labels.block_title(picture.graph, block)
        parts = []
        if self.hidden or name(block) not in self.opened:
            parts.append(f'<g class="card">{self._card(block, title)}</g>')
        if self.hidden or name(block) in self.opened:
            place = self.placed.get(name(block))
            width, height = (place.size.w, place.size.h) if place else CARD
            parts.append(
                f'<g class="body"><rect class="frame" width="{number(width)}" height="{number(height)}" rx="8"/>'
                f'<rect class="stripe" width="4" height="{number(height)}" rx="2"/>'
                f'<g class="header"><text class="t" x="14" y="17" font-size="12.5">{escape(title)}'
                f'<tspan class="m" font-weight="400" font-size="11" dx="8">{labels.layers_text(block)}</tspan></text>'
                f"{self._knob(width - 16, HEADER / 2, 'M-4 0H4')}</g>{self._inside(block)}</g>"
            )
        return "".join(parts)

    def _card(self, block: Block, title: str) -> str:
        picture = self.picture
        width, height = CARD
        output = picture.graph.layers[output_of(block)].output
        parameters = picture.parameters(block)
        figures = f"{picture.bflops(block):.3g} BF" + (f" · {labels.short_number(parameters)}" if parameters else "")
        room = width - 14 - _GLYPH[0] - 32
        top = name(block) in picture.tree.grids[picture.tree.root].rows
        share = picture.bflops(block) / picture.most_together if top and picture.most_together else 0
        return (
            f'<rect class="sheet" width="{width}" height="{height}" rx="8"/>'
            f'<rect class="tint" width="{width}" height="{height}" rx="8"/>'
            f'<rect class="stripe" width="4" height="{height}" rx="2"/>'
            f'<text class="t" x="14" y="20" font-size="12.5">{fitted(title, room, 12.5)}</text>'
            f'<text class="m" x="14" y="37" font-size="11">{labels.size_text(output)}</text>'
            f'<text class="m" x="14" y="53" font-size="11">{escape(figures)}</text>'
            f'<g class="glyph" transform="translate({width - _GLYPH[0] - 26} 9)">{self._glyph(block)}</g>'
            + self._bar(share, width, height)
            + self._knob(width - 13, height - 14, "M-4 0H4M0-4V4")
        )

    def _knob(self, x: float, y: float, sign: str) -> str:
        """The button that opens or closes a block in the page."""
        if not self.hidden:
            return ""
        return f'<g class="knob" transform="translate({number(x)} {number(y)})"><circle r="7.5"/><path d="{sign}"/></g>'

    def _glyph(self, block: Block) -> str:
        """The inside of a closed block in small: its branches on their columns."""
        inner = [child for child in block.children if isinstance(child, Block)]
        if block.kind == "chain" and len(inner) == 1 and len(block.children) < 6:
            block = inner[0]
        grid = self.picture.tree.grids[name(block)]
        rows = 1 + max(grid.rows.values())
        columns = 1 + max([*grid.columns.values(), *(line.lane for line in grid.lines)])
        (width, height), across = _GLYPH, min(_GLYPH[0] / columns, 22)
        left, down = (width - across * columns) / 2, min(height / rows, 14)
        above = (height - down * rows) / 2

        def at(column: float, row: float) -> tuple[float, float]:
            return left + across * (column + 0.5), above + down * (row + 0.5)

        parts = []
        for line in grid.lines:
            x, y = at(grid.columns.get(line.start, 0), grid.rows.get(line.start, -0.9))
            u, v = at(grid.columns.get(line.end, 0), grid.rows.get(line.end, rows - 0.1))
            lane, _ = at(line.lane, 0)
            high, low = min(y + down / 2, v), max(v - down / 2, y)
            path = f"M{number(x)} {number(y)}V{number(high)}H{number(lane)}V{number(low)}H{number(u)}V{number(v)}"
            parts.append(f'<path class="line" d="{path}"/>')
        for child in block.children:
            wide, high = min(across * 0.72, 14), min(down * 0.62, 7)
            x, y = at(grid.columns[name(child)], grid.rows[name(child)])
            look = labels.look(self.picture.graph, child)
            parts.append(
                f'<rect class="g-{look}" x="{number(x - wide / 2)}" y="{number(y - high / 2)}" '
                f'width="{number(wide)}" height="{number(high)}" rx="{number(min(high / 2, 2))}"/>'
            )
        return "".join(parts)


def fitted(text: str, width: float, size: float) -> str:
    """Escaped, cut with an ellipsis where it would be wider."""
    most = int(width / (size * _LETTER))
    return escape(text if len(text) <= most else text[: most - 1] + "…")
