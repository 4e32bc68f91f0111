"""A graph as a tree of blocks: stages, CSP modules, residual blocks, dense layers, pooling pyramids, heads.

Nothing here reads names or comments of a cfg; blocks are found by structure. A *region* is what lies between a fork and
the layer that joins its branches again (the fork dominates the join); regions nest. What remains at the top is cut into
*stages*: chains of layers and regions at one resolution that pass one feature map on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import networkx as nx

from darknet_py.graph.graph import Graph
from darknet_py.graph.profile import has_weights
from darknet_py.layers.base import Node

INPUT = -1  # the network's input, as a leaf
_ROOT = -2  # precedes everything, for the dominators
_REGION_LIMIT = 200  # layers; a wider fork and join is the shape of the network, not a block of it

# The category of each section type; a type that is not listed is drawn as "other".
CATEGORIES = {
    "convolutional": "conv",
    "deconvolutional": "conv",
    "depthwise": "conv",
    "connected": "conv",
    "local": "conv",
    "rnn": "recurrent",
    "gru": "recurrent",
    "lstm": "recurrent",
    "crnn": "recurrent",
    "conv_lstm": "recurrent",
    "history": "recurrent",
    "maxpool": "pool",
    "avgpool": "pool",
    "local_avgpool": "pool",
    "route": "concat",
    "route_lhalf": "concat",
    "shortcut": "add",
    "implicit_add": "add",
    "shift_channels": "add",
    "scale_channels": "scale",
    "sam": "scale",
    "se": "scale",
    "implicit_mul": "scale",
    "control_channels": "scale",
    "upsample": "resample",
    "reorg": "resample",
    "reorg3d": "resample",
    "crop": "resample",
    "yolo": "head",
    "gaussian_yolo": "head",
    "region": "head",
    "detection": "head",
    "softmax": "head",
    "logistic": "head",
    "cost": "head",
    "contrastive": "head",
    "iseg": "head",
}


@dataclass(frozen=True)
class Leaf:
    """A layer, or the network's input (INPUT)."""

    index: int


@dataclass(frozen=True, eq=False)  # hashed by identity: as a node of networkx, quickly
class Block:
    """Layers that belong together. children: in an order in which they can be computed.

    kind: csp, residual, dense, pyramid (pooling at several sizes), attention, branches; chain (layers in a row);
    network (the root). output: the layer whose output leaves it.
    """

    number: int
    kind: str
    children: tuple[Item, ...]
    output: int


Item = Leaf | Block


def category(node: Node) -> str:
    """The category of a layer: conv, pool, concat, add, scale, resample, head, recurrent or other."""
    return CATEGORIES.get(node.type.lower(), "other")


def passes(node: Node) -> bool:
    """Whether it only hands on another layer's output ([route] of one layer)."""
    return category(node) == "concat" and len(node.sources) == 1 and node.output == node.inputs[0]


def leaves(item: Item) -> Iterator[int]:
    """The layers of an item, in the order of its children."""
    if isinstance(item, Leaf):
        yield item.index
    else:
        for child in item.children:
            yield from leaves(child)


def blocks(item: Item) -> Iterator[Block]:
    """The blocks of an item, itself first."""
    if isinstance(item, Block):
        yield item
        for child in item.children:
            yield from blocks(child)


def readers_of(graph: Graph) -> dict[int, list[int]]:
    """Layer (or INPUT) → the layers that read it, each once."""
    readers: dict[int, list[int]] = {index: [] for index in range(INPUT, len(graph.layers))}
    for node in graph.layers:
        for source in dict.fromkeys(node.sources):
            readers[source].append(node.index)
    return readers


def output_of(item: Item) -> int:
    return item.index if isinstance(item, Leaf) else item.output


def build_tree(graph: Graph, layers: Iterable[int] | None = None) -> Block:
    """The tree of a graph, or of some of its layers alone (the rest counts as outside).

    Linear in layers and inputs, but for regions: each looks at its own layers.
    """
    return _Builder(graph, layers).tree()


class _Builder:
    def __init__(self, graph: Graph, layers: Iterable[int] | None):
        self.graph = graph
        self.whole = layers is None
        self.weighted = {node.index for node in graph.layers if has_weights(node)}
        flow = nx.DiGraph(readers_of(graph))  # source → layer
        self.flow = flow if layers is None else flow.subgraph(layers).copy()
        self.members = sorted(self.flow)
        self.flow.add_edges_from((_ROOT, index) for index in self.members if self._reads_outside(index))
        self.count = 0

    def tree(self) -> Block:
        items = self._nested(self._regions())
        if self.whole:
            items = self._chains(items)
        return self._block("network", items, self.members[-1])

    def _block(self, kind: str, children: Sequence[Item], output: int) -> Block:
        self.count += 1
        return Block(self.count, kind, tuple(children), output)

    def _reads_outside(self, index: int) -> bool:
        sources = () if index == INPUT else self.graph.layers[index].sources
        return not sources or any(source not in self.flow for source in sources)

    def _height(self, index: int) -> int:
        return self.graph.input.h if index == INPUT else self.graph.layers[index].output.h

    # --- regions

    def _regions(self) -> list[tuple[int, frozenset[int]]]:
        """(join, its layers), smallest first, any two nested or disjoint."""
        dominators = nx.immediate_dominators(self.flow, _ROOT)
        candidates = []
        for join in self.members:
            if self.flow.in_degree(join) > 1 and dominators[join] != _ROOT:
                layers = self._between(dominators[join], join)
                if layers:
                    candidates.append((join, layers))
        candidates.sort(key=lambda region: (len(region[1]), region[0]))
        outermost: dict[int, frozenset[int]] = {}
        regions = []
        for join, layers in candidates:
            nested = {id(region): region for index in layers if (region := outermost.get(index))}
            if all(region <= layers for region in nested.values()):
                regions.append((join, layers))
                outermost.update(dict.fromkeys(layers, layers))
        return regions

    def _between(self, fork: int, join: int) -> frozenset[int] | None:
        """The layers after `fork` up to `join`; None if they are no block.

        A block goes from the resolution of its fork to that of its join, never up: otherwise it is a feature pyramid.
        An octave down and up again is allowed where nothing else reads the layers (Elastic).
        """
        layers, pending = {join}, [join]  # not nx.ancestors, which does not stop at the fork: twice the calls
        while pending:
            sources = self.flow.pred[pending.pop()].keys() - layers - {fork}
            layers |= sources
            pending += sources
        if len(layers) > _REGION_LIMIT:
            return None
        ways = [(self._height(source), self._height(index)) for source, index in self.flow.in_edges(layers)]
        if any(1 < before < after for before, after in ways):
            closed = all(reader in layers for index in layers - {join} for reader in self.flow.succ[index])
            heights = [height for way in ways for height in way if height > 1]
            if not closed or min(heights) * 2 < self._height(join) or max(heights) > self._height(fork):
                return None
        transition = list(self.flow.succ[join])
        filters = not self.weighted.isdisjoint(layers)
        if filters and self._is(join, "concat") and len(transition) == 1 and self._is_transition(transition[0]):
            layers.add(transition[0])
        return frozenset(layers)

    def _is(self, index: int, kind: str) -> bool:
        return index >= 0 and category(self.graph.layers[index]) == kind

    def _is_transition(self, index: int) -> bool:
        """A 1 x 1 layer with weights after a concatenation: the last step of a CSP module."""
        node = self.graph.layers[index]
        return index in self.weighted and node.spec.kernel() == (1, 1, 1) and node.output[1:] == node.inputs[0][1:]

    def _nested(self, regions: list[tuple[int, frozenset[int]]]) -> list[Item]:
        """Layers and regions (with the regions in them) in computing order."""
        items: dict[int, Item] = {index: Leaf(index) for index in self.members}
        for join, layers in regions:
            inner = list({id(items[index]): items[index] for index in sorted(layers)}.values())
            block = self._block(self._kind(join, layers, inner), self._sorted(inner), max(layers))
            items.update(dict.fromkeys(layers, block))
        return self._sorted(list({id(item): item for item in items.values()}.values()))

    def _kind(self, join: int, layers: frozenset[int], children: list[Item]) -> str:
        nodes = self.graph.layers
        how = category(nodes[join])
        if how == "add":
            return "residual"
        if how == "scale":
            return "attention"
        pools = sum(category(nodes[index]) == "pool" for index in layers)
        filters = len(self.weighted & layers)
        if pools > 1 and not filters:
            return "pyramid"
        inner = any(isinstance(child, Block) for child in children)
        cut = any(nodes[index].spec.groups > 1 and index not in self.weighted for index in layers)
        direct = any(source not in layers for source in self.flow.pred[join])
        if direct and not inner and not cut:
            return "dense"
        ways = [self._depth(source, layers) for source in self.flow.pred[join]]
        crosses = min(ways) <= 1 and max(ways) > (min(ways) if cut else 1)  # one part (almost) skips the stage
        return "csp" if len(ways) == 2 and crosses else "branches"

    def _depth(self, index: int, layers: frozenset[int]) -> int:
        """Layers with weights on the longest path from the fork to `index`."""
        ways = nx.DiGraph(
            (source, layer, {"weights": int(layer in self.weighted)})
            for layer in layers
            for source in self.flow.pred[layer]
        )
        ways.remove_nodes_from(ways.nodes - nx.ancestors(ways, index) - {index})
        return int(nx.dag_longest_path_length(ways, weight="weights"))

    # --- stages

    def _links(self, items: Sequence[Item]) -> nx.DiGraph:
        """Which items read which."""
        owner = {index: item for item in items for index in leaves(item)}
        links = nx.DiGraph()
        links.add_nodes_from(items)
        links.add_edges_from(
            (owner[source], item)
            for index, item in owner.items()
            for source in self.flow.pred[index]
            if source in owner and owner[source] is not item
        )
        return links

    def _sorted(self, items: list[Item]) -> list[Item]:
        """Each item after those that it reads; otherwise in cfg order. (Taps inside a region can break cfg order.)"""
        return list(nx.lexicographical_topological_sort(self._links(items), key=lambda item: min(leaves(item))))

    def _chains(self, items: Sequence[Item]) -> list[Item]:
        """Groups consecutive items into blocks, see `_continues`."""
        links = self._links(items)
        rows: list[list[Item]] = []
        last: dict[Item, list[Item]] = {}  # a row's last item → the row
        for item in items:
            before = list(links.pred[item])
            row = last.pop(before[0], None) if len(before) == 1 and links.out_degree(before[0]) == 1 else None
            start = row[0] if row else item
            expands = row is not None and len(row) == 1 and any(isinstance(it, Block) for it in links.pred[start])
            if row is None or not self._continues(row, item, expands):
                row = []
                rows.append(row)
            row.append(item)
            last[item] = row
        several = sum(not links.out_degree(item) for item in items) > 1
        grouped: list[Item] = []
        for row in rows:
            # Of several heads the last often follows its neck alone; it is cut off to look like the others.
            cut = len(row) - 3 if several and len(row) > 4 and self._is_head(row) else len(row)
            for part in (row[:cut], row[cut:]):
                if part:
                    grouped.append(part[0] if len(part) == 1 else self._block("chain", part, output_of(part[-1])))
        return grouped

    def _is_head(self, row: Sequence[Item]) -> bool:
        *_, end = row
        return isinstance(end, Leaf) and self._is(end.index, "head")

    def _continues(self, row: Sequence[Item], item: Item, expands: bool) -> bool:
        """Whether `item`, alone after `row`, belongs to its stage.

        A stage keeps its resolution (an upsampling ends the row that prepares it) and holds blocks of one kind, with
        layers before but not after them. A [route] that only names a layer goes with what reads it, and a single layer
        after blocks (`expands`) with the downsampling that it prepares.
        """
        end = row[-1]
        if end == Leaf(INPUT):
            return False
        if isinstance(item, Leaf) and all(
            isinstance(other, Leaf) and passes(self.graph.layers[other.index]) for other in row
        ):
            return True
        before, after = self._height(output_of(end)), self._height(output_of(item))
        if isinstance(item, Leaf):
            if isinstance(end, Block):
                return False
            prepares = expands or (before < after and self._height(output_of(row[0])) == before)
            return before == after or prepares
        return before == after and (isinstance(end, Leaf) or end.kind == item.kind)
