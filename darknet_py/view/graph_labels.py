"""The titles, texts and colors of items in the diagram."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from darknet_py.counted import counted
from darknet_py.graph.graph import Graph
from darknet_py.graph.profile import has_weights, printed_name
from darknet_py.layers.base import Node, Shape
from darknet_py.view.graph_tree import INPUT, Block, Item, Leaf, category, leaves, passes

# Colors by look, the same in both themes: of layers by category, of blocks by kind.
COLORS = {
    "conv": "#3f7ee8",
    "recurrent": "#5b6bd6",
    "pool": "#e08a1e",
    "pyramid": "#e08a1e",
    "concat": "#8a5bd6",
    "csp": "#8a5bd6",
    "add": "#2f9e5b",
    "residual": "#2f9e5b",
    "scale": "#0f9aa8",
    "attention": "#0f9aa8",
    "dense": "#0f9aa8",
    "branches": "#c2549d",
    "resample": "#c2549d",
    "head": "#dc4b4b",
    "other": "#7b8794",
    "input": "#7b8794",
}

_KINDS = {
    "csp": "CSP",
    "residual": "residual",
    "dense": "dense layer",
    "pyramid": "SPP",
    "attention": "attention",
    "branches": "branches",
}


def size_text(shape: Shape) -> str:
    """Width × height × channels; channels alone for a vector."""
    return f"{shape.w}×{shape.h}×{shape.c}" if shape.h > 1 or shape.w > 1 else counted(shape.c, "value")


def short_number(value: float) -> str:
    """`1.2 M`, `870 k`: three digits or fewer, with a unit."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit * 0.9995:
            return f"{value / limit:.3g} {unit}"
    return f"{value:.3g}"


def leaf_title(node: Node) -> str:
    """`conv 3×3/2 g32`, `concat ×4`, `part 2 of 2`, `add`, …"""
    kind, count = category(node), len(node.sources)
    groups = node.spec.groups
    if kind == "concat":
        if groups > 1:
            part = f"part {node.spec.group_id + 1} of {groups}"
            return part if count == 1 else f"concat ×{count}, {part}"
        return "route" if passes(node) else f"concat ×{count}"
    if kind == "add" and count > 1:
        return "add" if count == 2 else f"add ×{count}"
    if kind == "resample" and node.output.h != node.inputs[0].h:
        return f"{printed_name(node)} {scale_text(node.inputs[0].h, node.output.h)}"
    text = printed_name(node)
    size, stride, dilation = node.spec.kernel()
    if (size, stride) != (1, 1) or (has_weights(node) and node.output.h * node.output.w > 1):
        text += f" {size}×{size}" + (f"/{stride}" if stride > 1 else "") + (f" d{dilation}" if dilation > 1 else "")
    if groups > 1:
        text += " depthwise" if groups == node.inputs[0].c else f" g{groups}"
    return text


def leaf_subtitle(node: Node) -> str:
    """Its output and, where it has one that matters, its activation."""
    activation = node.spec.activation
    return size_text(node.output) + ("" if activation == "linear" else f" {activation}")


def scale_text(before: int, after: int) -> str:
    """`×2` upwards, `÷2` downwards."""
    return f"×{after / before:.3g}" if after >= before else f"÷{before / after:.3g}"


def block_title(graph: Graph, block: Block) -> str:
    """`CSP · 8 × residual`, `4 × residual`, `SPP 5 9 13`, `5 × conv`, `head yolo`, …"""
    inner = Counter(_KINDS.get(child.kind, child.kind) for child in block.children if isinstance(child, Block))
    if block.kind == "chain":
        parts = [child for child in block.children if isinstance(child, Block)]
        if len(parts) == 1:
            return block_title(graph, parts[0])
        return _counted(inner) if parts else _row_title([graph.layers[index] for index in leaves(block)])
    if block.kind == "pyramid":
        nodes = (graph.layers[index] for index in sorted(leaves(block)))
        sizes = dict.fromkeys(node.spec.kernel()[0] for node in nodes if category(node) == "pool")
        return "SPP " + " ".join(map(str, sorted(sizes)))
    if block.kind == "branches":
        return f"{_ways(graph, block)} branches"
    return _KINDS.get(block.kind, block.kind) + (f" · {_counted(inner)}" if inner else "")


def _ways(graph: Graph, block: Block) -> int:
    """How many outputs the block's join reads."""
    return max(len(graph.layers[index].sources) for index in leaves(block))


def _counted(kinds: Counter[str]) -> str:
    return ", ".join(kind if count == 1 else f"{count} × {kind}" for kind, count in kinds.items())


def _row_title(nodes: Sequence[Node]) -> str:
    """Of layers in a row: the head or upsampling that they lead to, or what they are."""
    last = nodes[-1]
    if category(last) == "head":
        return f"head · {printed_name(last)}"
    if category(last) == "resample":
        return leaf_title(last)
    shown = [node for node in nodes if not passes(node)]
    if len(shown) == 1:
        return leaf_title(shown[0])
    return _counted(Counter(printed_name(node) if category(node) != "concat" else "concat" for node in shown))


def look(graph: Graph, item: Item) -> str:
    """A key of COLORS."""
    if isinstance(item, Leaf):
        return "input" if item.index == INPUT else category(graph.layers[item.index])
    if item.kind != "chain":
        return item.kind
    parts = [child for child in item.children if isinstance(child, Block)]
    if parts:
        return parts[-1].kind
    kinds = [category(graph.layers[index]) for index in leaves(item)]
    if kinds[-1] in ("head", "resample"):
        return kinds[-1]
    return next((kind for kind in ("conv", "recurrent", "pool") if kind in kinds), kinds[-1])


def layers_text(block: Block) -> str:
    """`layers 24–54`, or their number where others lie between."""
    indices = sorted(leaves(block))
    if indices[-1] - indices[0] + 1 != len(indices):
        return f"{counted(len(indices), 'layer')}, {indices[0]}…{indices[-1]}"
    return f"layers {indices[0]}–{indices[-1]}"
