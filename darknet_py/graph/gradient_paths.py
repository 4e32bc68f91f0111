"""Gradient paths: the ways that a gradient takes back through a network, counted exactly.

A path follows the connections of the graph. Its length is the number of layers with weights that it passes, the start
excluded: concatenating, adding and pooling layers cost no step. Gradients of paths with different lengths reach a layer
at different steps of the backward pass, which ELAN (Wang et al., 2022) calls timestamps. Two connections between the
same layers are two paths.

A *stage* is a run of consecutive layers of one resolution. A few layers of another one between them belong to it, as in
squeeze and excitation or Elastic. Its output is the last of its layers that other stages, or none, read.

The *sources* of a layer with weights are the layers whose outputs its input consists of, behind concatenations, sums
and poolings: layers with weights, slices (`[route] groups`) and the network's input. The gradient of its weights
combines what comes back for each of them, CSPNet's g_0, g_1, … (Wang et al., 2019, equations 2 and 4). A source that
several layers of a stage have in common is duplicated gradient information.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from darknet_py.graph.graph import Graph
from darknet_py.graph.profile import has_weights
from darknet_py.layers.base import Node

_EXCURSION = 9  # most layers of another resolution that do not end a stage
_DIGITS = 9  # of the longest number that is printed in full


@dataclass(frozen=True)
class Paths:
    """The paths from one place to another.

    Attributes:
        by_length: number of paths of length 0, 1, …; the last one is not 0. Empty: no paths.
    """

    by_length: tuple[int, ...]

    @property
    def count(self) -> int:
        """Number of paths."""
        return sum(self.by_length)

    @property
    def shortest(self) -> int | None:
        """Length of the shortest path; None without paths."""
        return next((length for length, count in enumerate(self.by_length) if count), None)

    @property
    def longest(self) -> int | None:
        """Length of the longest path; None without paths."""
        return len(self.by_length) - 1 if self.by_length else None

    @property
    def timestamps(self) -> int:
        """Number of distinct lengths."""
        return sum(count > 0 for count in self.by_length)


class StagePaths(NamedTuple):
    """The gradient paths of a stage.

    Attributes:
        first: index of its first layer.
        last: index of its last layer.
        output: index of the layer that other stages read.
        paths: the paths from outside the stage to its output.
        received: number of pairs of a layer with weights in the stage and one of its sources.
        sources: number of distinct sources of these layers.
    """

    first: int
    last: int
    output: int
    paths: Paths
    received: int
    sources: int

    @property
    def duplicated(self) -> float:
        """Share of the received gradients that another layer of the stage receives too; 0 without weights."""
        return 1 - self.sources / self.received if self.received else 0.0


class LayerPaths(NamedTuple):
    """The gradient paths of a layer.

    Attributes:
        node: the layer.
        stage: number of its stage, from 0.
        to_stage: the paths from its output to the output of its stage.
        to_heads: the paths from its output to the heads.
        from_input: the paths from the network's input to its output, its own step included.
        sources: the layers whose gradients the weights receive (-1: the network's input); empty without weights.
    """

    node: Node
    stage: int
    to_stage: Paths
    to_heads: Paths
    from_input: Paths
    sources: tuple[int, ...]


class GradientPaths(NamedTuple):
    """The gradient paths of a network.

    Attributes:
        layers: those of each layer.
        stages: those of each stage.
        total: the paths from the network's input to the heads.
    """

    layers: list[LayerPaths]
    stages: list[StagePaths]
    total: Paths

    @property
    def duplicated(self) -> float:
        """Share of the gradients received in all stages that another layer of the same stage receives too."""
        received = sum(stage.received for stage in self.stages)
        return 1 - sum(stage.sources for stage in self.stages) / received if received else 0.0


def gradient_paths(graph: Graph) -> GradientPaths:
    """Counts the gradient paths of a network. It takes time linear in the connections times the length of the paths.

    Args:
        graph: the network.

    Returns:
        The paths of every layer and stage, and those of the whole network. Without heads, the layers that nothing reads
        take their place.
    """
    ranges = _stages(graph)
    stage_of = {index: number for number, stage in enumerate(ranges) for index in stage}
    outputs = [_output(graph, stage) for stage in ranges]
    to_heads = _paths_to(graph, ends(graph))
    to_stage: list[Paths] = []
    for stage, output in zip(ranges, outputs, strict=True):
        to_stage += _paths_to(graph, [output], stage)
    from_input = _paths_from_input(graph)
    sources = gradient_sources(graph)
    layers = [
        LayerPaths(
            node,
            stage_of[node.index],
            to_stage[node.index],
            to_heads[node.index],
            from_input[node.index],
            sources[node.index] if has_weights(node) else (),
        )
        for node in graph
    ]
    stages = []
    for stage, output in zip(ranges, outputs, strict=True):
        entries = [
            _shift(to_stage[index].by_length, _step(graph.layers[index]))
            for index in stage
            for source in reads(graph.layers[index])
            if source not in stage
        ]
        received = [source for index in stage for source in layers[index].sources]
        paths = Paths(_sum(entries))
        stages.append(StagePaths(stage[0], stage[-1], output, paths, len(received), len(set(received))))
    entries = [_shift(to_heads[node.index].by_length, _step(node)) for node in graph for s in reads(node) if s < 0]
    return GradientPaths(layers, stages, Paths(_sum(entries)))


def paths_between(graph: Graph, start: int, end: int) -> Paths:
    """The paths from one layer to another.

    Args:
        graph: the network.
        start: index of a layer.
        end: index of a layer; with `end` equal to `start` there is one path of length 0.

    Returns:
        The paths from the output of `start` to the output of `end`.
    """
    return _paths_to(graph, [end])[start]


def gradient_sources(graph: Graph) -> list[tuple[int, ...]]:
    """The sources of each layer's input, in the order in which it reads them; -1 is the network's input.

    Args:
        graph: the network.

    Returns:
        For each layer the layers with weights, slices or input behind its input, without repetition.
    """
    found: list[tuple[int, ...]] = []
    for node in graph:
        behind: dict[int, None] = {}
        for read in reads(node):
            if read < 0 or has_weights(graph.layers[read]) or _slices(graph.layers[read]):
                behind[read] = None
            else:
                behind |= dict.fromkeys(found[read])
        found.append(tuple(behind))
    return found


def reads(node: Node) -> tuple[int, ...]:
    """The layers whose outputs the layer depends on, with repetitions; -1 is the network's input."""
    return node.sources if node.spec.reads_input else ()


def _step(node: Node) -> int:
    return int(has_weights(node))


def _slices(node: Node) -> bool:
    return node.spec.groups > 1 and not has_weights(node)


def ends(graph: Graph) -> list[int]:
    """The layers where the gradient starts: the heads or, without any, the layers that nothing reads."""
    heads = [node.index for node in graph.heads]
    read = {source for node in graph for source in reads(node)}
    return heads or [node.index for node in graph if node.index not in read]


def _stages(graph: Graph) -> list[range]:
    runs: list[range] = []  # of layers with one resolution
    for node in graph:
        if runs and node.output[1:] == graph.layers[node.index - 1].output[1:]:
            runs[-1] = range(runs[-1].start, node.index + 1)
        else:
            runs.append(range(node.index, node.index + 1))
    heads = {node.index for node in graph.heads}
    stages: list[range] = []
    while runs:
        stage = runs.pop(0)
        side = graph.layers[stage.start].output[1:]
        while (
            len(runs) > 1
            and len(runs[0]) <= _EXCURSION
            and heads.isdisjoint(runs[0])
            and graph.layers[runs[1].start].output[1:] == side
        ):
            stage = range(stage.start, runs[1].stop)
            del runs[:2]
        stages.append(stage)
    return stages


def _output(graph: Graph, stage: range) -> int:
    """The last layer of the stage that a layer outside of it reads, or that none reads."""
    inside = {source for index in stage for source in reads(graph.layers[index])}
    outside = {source for node in graph if node.index not in stage for source in reads(node)}
    return max(index for index in stage if index in outside or index not in inside)


def _paths_to(graph: Graph, targets: Iterable[int], within: range | None = None) -> list[Paths]:
    """The paths from each layer of `within` (default: all) to the targets, along layers of `within`."""
    layers = range(len(graph.layers)) if within is None else within
    counts: dict[int, list[int]] = {index: [] for index in layers}
    for target in targets:
        counts[target] = [1]
    for index in reversed(layers):
        node = graph.layers[index]
        longer = _shift(counts[index], _step(node))
        for source in reads(node):
            if source in counts:
                _add(counts[source], longer)
    return [Paths(tuple(counts[index])) for index in layers]


def _paths_from_input(graph: Graph) -> list[Paths]:
    found: list[tuple[int, ...]] = []
    for node in graph:
        before = [(1,) if source < 0 else found[source] for source in reads(node)]
        found.append(_shift(_sum(before), _step(node)))
    return [Paths(counts) for counts in found]


def _shift(counts: Sequence[int], steps: int) -> tuple[int, ...]:
    return (*(0,) * steps, *counts) if counts else ()


def _sum(terms: Iterable[Sequence[int]]) -> tuple[int, ...]:
    total: list[int] = []
    for counts in terms:
        _add(total, counts)
    return tuple(total)


def _add(total: list[int], counts: Sequence[int]) -> None:
    total.extend([0] * (len(counts) - len(total)))
    for length, count in enumerate(counts):
        total[length] += count


# --- as text and as plain values


def count_text(count: int) -> str:
    """A number of paths; with more than nine digits the first three and the power of ten."""
    digits = str(count)
    return digits if len(digits) <= _DIGITS else f"{digits[0]}.{digits[1:3]}e{len(digits) - 1}"


def paths_text(paths: Paths) -> str:
    """Number, lengths and timestamps of paths, as in `6561, lengths 1-25, 24 timestamps`."""
    if not paths.count:
        return "none"
    lengths = f"{paths.shortest}" if paths.shortest == paths.longest else f"{paths.shortest}-{paths.longest}"
    stamps = f"{paths.timestamps} timestamp{'' if paths.timestamps == 1 else 's'}"
    return f"{count_text(paths.count)}, length{'' if '-' not in lengths else 's'} {lengths}, {stamps}"


def paths_table(graph: Graph) -> str:
    """The gradient paths of every layer with weights, of every stage and of the network.

    Args:
        graph: the network.

    Returns:
        The table, without a newline at its end.
    """
    found = gradient_paths(graph)
    lines = [
        "layer stage  to the stage's output               to the heads                        weights receive from"
    ]
    lines += [
        f"{row.node.index:5d} {row.stage:5d}  {paths_text(row.to_stage):<35} {paths_text(row.to_heads):<35} "
        f"{' '.join(map(str, row.sources))}"
        for row in found.layers
        if has_weights(row.node)
    ]
    lines += ["", "stage  layers     size          output  from outside to its output          gradients received"]
    for number, stage in enumerate(found.stages):
        shape = graph.layers[stage.first].output
        lines.append(
            f"{number:5d}  {f'{stage.first}-{stage.last}':<9}  {f'{shape.w} x {shape.h}':<12}  {stage.output:6d}  "
            f"{paths_text(stage.paths):<35} {stage.received} from {stage.sources} sources, "
            f"{stage.duplicated:.0%} duplicated"
        )
    lines += ["", f"from the input to the heads: {paths_text(found.total)}"]
    return "\n".join(lines)


def paths_dict(graph: Graph) -> dict[str, object]:
    """The gradient paths as plain values, for JSON. Lists of paths are by length, from 0 on.

    Args:
        graph: the network.

    Returns:
        `total`, and per stage and layer the fields of `StagePaths` and `LayerPaths`.
    """
    found = gradient_paths(graph)
    return {
        "total": found.total.by_length,
        "stages": [
            {**stage._asdict(), "paths": stage.paths.by_length, "duplicated": stage.duplicated}
            for stage in found.stages
        ],
        "layers": [
            {
                "index": row.node.index,
                "stage": row.stage,
                "to_stage": row.to_stage.by_length,
                "to_heads": row.to_heads.by_length,
                "from_input": row.from_input.by_length,
                "sources": row.sources,
            }
            for row in found.layers
        ],
    }
