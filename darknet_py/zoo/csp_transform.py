"""Converts a plain cfg to a cross stage partial one: ResNet, ResNeXt, Darknet-53, DenseNet and similar networks.

The stages are found in the graph: sequences of residual blocks of one shape, or of dense layers. Sections are inserted
before and after each stage. Within a stage only the output channels of its blocks and the layer numbers change; all
other text is kept, comments included.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import torch

from darknet_py.cfg.document import CfgDocument
from darknet_py.cfg.options import atoi
from darknet_py.cfg.sections import Section
from darknet_py.counted import counted
from darknet_py.errors import CfgError, DarknetError
from darknet_py.graph.graph import Graph, build_graph, parse
from darknet_py.layers.base import Node
from darknet_py.layers.convolutional import ConvolutionalSpec
from darknet_py.layers.merge import RouteSpec, ShortcutSpec
from darknet_py.model.network import Network
from darknet_py.zoo.cfg_writer import CfgWriter
from darknet_py.zoo.stages import Csp

_LAYER_KEYS = ("layers", "from", "share_index", "embedding_layer", "yolo_layer")  # options that name layers
_BANNER = re.compile(r"^(# ---- Layers? )(\d+)(?:-(\d+))?", re.MULTILINE)


class Stage(NamedTuple):
    """The layers after `reads`, up to `last`. They read only each other and `reads`; other layers read only `last`.

    depth: number of blocks. source: the layer that the first block reads. Where it is not `reads`, the layers in
    between widen it; the split replaces them. bottleneck: the first block is a bottleneck that changes the shape.
    dense: dense layers instead of residual blocks.
    """

    reads: int
    source: int
    last: int
    depth: int
    bottleneck: bool = False
    dense: bool = False


class CspResult(NamedTuple):
    """text: the new cfg. changes: one line per stage and one for the whole network."""

    text: str
    changes: list[str]


def to_csp(path: str | Path, csp: Csp) -> CspResult:
    """Converts a plain cfg to its cross stage partial version.

    Args:
        path: The cfg.
        csp: Gamma, fusion and split of the new stages.

    Returns:
        The text of the new cfg and a description of the changes.

    Raises:
        CfgError: The cfg is not valid.
        DarknetError: The cfg has no stages that can be converted, or the result is not a network.
    """
    graph = parse(path)
    found = find_stages(graph)
    kept = [*((stage, "are cross stage partial already") for stage in found.csp)]
    kept += [(stage, "share weights with other layers") for stage in found.shared]
    if not found.plain:
        raise DarknetError(f"{path}: {_why_none(graph, found)}")
    text = _CspRewriter(graph, csp, found.plain).text()
    try:
        new = build_graph(CfgDocument.from_text(text, f"{path}, cross stage partial"))
        with torch.device("meta"):  # checks what joins layers; no weights are needed
            Network(new)
    except CfgError as error:
        raise DarknetError(f"{path}: its cross stage partial version is not a network: {error}") from None
    changes = [_describe_stage(graph, csp, stage) for stage in found.plain]
    changes += [f"layers {stage.reads + 1}-{stage.last} stay as they are: they {why}" for stage, why in kept]
    changes.append(
        f"parameters {graph.parameters} -> {new.parameters} ({new.parameters / graph.parameters - 1:+.1%}), "
        f"BFLOPs {graph.bflops:.3f} -> {new.bflops:.3f} ({new.bflops / graph.bflops - 1:+.1%})"
    )
    larger = [
        what
        for what, before, after in (
            ("parameters", graph.parameters, new.parameters),
            ("BFLOPs", graph.bflops, new.bflops),
        )
        if after > before
    ]
    if larger:
        changes.append(f"the cross stage partial version has more {' and '.join(larger)} than the plain network")
    return CspResult(text, changes)


class FoundStages(NamedTuple):
    """Sequences of blocks of a cfg, in cfg order.

    plain: can be made cross stage partial. csp: are that already. shared: have weights in common with other layers.
    """

    plain: list[Stage]
    csp: list[Stage]
    shared: list[Stage]


def find_stages(graph: Graph) -> FoundStages:
    """The stages of residual blocks and dense layers that nothing else reads but their last layer."""
    residual = [_with_opening_block(graph, stage) for stage in _block_sequences(graph, _residual_source)]
    dense = [stage._replace(dense=True) for stage in _block_sequences(graph, _dense_source) if stage.depth > 1]
    stages = sorted(stage for stage in residual + dense if _is_self_contained(graph, stage))
    csp = [stage for stage in stages if _is_already_csp(graph, stage)]
    sharing = _sharing_layers(graph)
    shared = [
        stage for stage in stages if stage not in csp and any(stage.reads < layer <= stage.last for layer in sharing)
    ]
    return FoundStages([stage for stage in stages if stage not in csp and stage not in shared], csp, shared)


def _sharing_layers(graph: Graph) -> set[int]:
    """Layers with the weights of another one, and those others."""
    sharing: set[int] = set()
    for node in graph:
        spec = _conv(graph, node.index)
        if spec is not None and spec.share_index is not None:
            sharing |= {node.index, spec.share_index}
    return sharing


def _why_none(graph: Graph, found: FoundStages) -> str:
    """Why a cfg has no stages to convert."""
    if found.csp or any(isinstance(node.spec, RouteSpec) and node.spec.groups > 1 for node in graph):
        return "expected plain stages, got a network that is cross stage partial already"
    if found.shared:
        return "expected stages with weights of their own, got stages that share weights (share_index)"
    return "expected stages of residual blocks of one shape or dense layers, read by nothing else, got none"


def _block_sequences(graph: Graph, source_of: Callable[[Graph, Node], int | None]) -> Iterable[Stage]:
    """Sequences of blocks, each of which reads the output of the one before."""
    stage: Stage | None = None
    for node in graph:
        source = source_of(graph, node)
        if source is None:
            continue
        if stage and stage.last == source:
            stage = stage._replace(last=node.index, depth=stage.depth + 1)
            continue
        if stage:
            yield stage
        stage = Stage(source, source, node.index, 1)
    if stage:
        yield stage


def _residual_source(graph: Graph, node: Node) -> int | None:
    """The input of the residual block that ends at this shortcut, or None.

    The block is a chain of at least two convolutions, the last layer among them, with the shape of its input.
    """
    if not isinstance(node.spec, ShortcutSpec) or len(node.sources) != 2:
        return None
    before, source = node.sources
    same = node.inputs[0] == node.inputs[1] and node.output.c >= 16
    convolutions = [index for index in range(source + 1, before + 1) if _conv(graph, index)]
    block = len(convolutions) > 1 and convolutions[-1] == before and _is_chain(graph, source, before)
    return source if same and block else None


def _dense_source(graph: Graph, node: Node) -> int | None:
    """The input of the dense layer that ends at this route (a chain concatenated with its input), or None."""
    if not isinstance(node.spec, RouteSpec) or len(node.sources) != 2 or node.spec.groups > 1:
        return None
    source, before = sorted(node.sources)
    grows = before == node.index - 1 and _conv(graph, before)
    return source if grows and _is_chain(graph, source, before) else None


def _with_opening_block(graph: Graph, stage: Stage) -> Stage:
    """Extends a stage of residual blocks by the bottleneck that precedes them, if there is one.

    The first block of a ResNet stage widens the channels and usually halves the resolution. Its shortcut adds its
    input unchanged (Darknet) or after a 1x1 convolution. The block of ResNet-18 and -34 counts where it adds its input
    unchanged; its strided convolution stays.
    """
    opening = graph.layers[stage.source]
    if not isinstance(opening.spec, ShortcutSpec) or len(opening.sources) != 2:
        return stage
    widening = min(opening.sources)
    source = _input_of_projection(graph, opening)
    if source is None:
        widening, source = opening.sources
    spec = _conv(graph, widening)
    if spec is None or not _is_chain(graph, source, widening):
        return stage
    if widening - source == 2 and source == opening.sources[1] and opening.inputs[0] != opening.inputs[1]:
        # A basic block that adds outputs of different sizes, which AlexeyAB's Darknet refuses.
        return stage._replace(reads=widening - 1, bottleneck=True)
    if spec.size > 1 or widening - source < 3:
        return stage
    if source == opening.sources[1] and opening.inputs[0][1:] == opening.inputs[1][1:]:  # it only widens
        return stage._replace(reads=source, source=source, depth=stage.depth + 1, bottleneck=True)
    return stage._replace(reads=widening - 1, bottleneck=True)


def _input_of_projection(graph: Graph, opening: Node) -> int | None:
    """The layer that the 1x1 convolution on the shortcut of this block reads, or None."""
    projection = opening.index - 1
    spec, route = _conv(graph, projection), graph.layers[projection - 1]
    projected = spec is not None and spec.size == 1 and isinstance(route.spec, RouteSpec) and len(route.sources) == 1
    return route.sources[0] if projected and min(opening.sources) == route.index - 1 else None


def _conv(graph: Graph, index: int) -> ConvolutionalSpec | None:
    spec = graph.layers[index].spec
    return spec if isinstance(spec, ConvolutionalSpec) else None


def _is_chain(graph: Graph, source: int, last: int) -> bool:
    """Whether each layer after `source`, up to `last`, reads only the layer before it."""
    return 0 <= source < last and all(
        graph.layers[index].sources == (index - 1,) for index in range(source + 1, last + 1)
    )


def _is_self_contained(graph: Graph, stage: Stage) -> bool:
    """Whether other layers read only its last layer."""
    return not any(
        stage.reads < source < stage.last for node in graph.layers[stage.last + 1 :] for source in node.sources
    )


def _is_already_csp(graph: Graph, stage: Stage) -> bool:
    """Whether the stage is cross stage partial already, that is, reads one of two parts."""
    node = graph.layers[stage.reads]
    spec = _conv(graph, stage.reads)
    if spec and spec.size == 1 and node.sources[0] >= 0:
        node = graph.layers[node.sources[0]]
        return isinstance(node.spec, RouteSpec) and len(node.sources) == 1
    return isinstance(node.spec, RouteSpec) and node.spec.groups > 1


class _CspRewriter:
    """Rewrites the cfg in one pass over its sections; layers keep their order and new ones are inserted."""

    def __init__(self, graph: Graph, csp: Csp, stages: list[Stage]):
        self.graph, self.csp = graph, csp
        self.stages_by_input = {stage.reads: stage for stage in stages}
        self.narrowing = {stage.reads - 1 for stage in stages if stage.reads < stage.source}
        self.new_index: dict[int, int] = {}  # old index → new index
        self.new_index_in_stage: dict[int, int] = {}  # the same within a stage, where it differs
        net, *self.sections = graph.document.sections
        self.lines = graph.text.removeprefix("\ufeff").splitlines()
        self.next_line = 0  # the first line that has not been used yet
        self.cfg = CfgWriter.verbatim(self._take_lines(net))

    def text(self) -> str:
        stage: Stage | None = None
        skipped, dropped = -1, -1
        for node, section in zip(self.graph, self.sections, strict=True):
            chunk = self._take_lines(section)
            if node.index == dropped or (stage and node.index <= stage.source):
                self.new_index[node.index] = self.cfg.last
                continue
            closing = stage is not None and not stage.dense and self._has_block_output_channels(node)
            width = self.csp.parts(node.output.c)[1] if closing else node.output.c
            self.cfg.raw(self._rewrite_section(section, node, chunk, width if closing else None), width)
            self.new_index[node.index] = self.cfg.last
            if stage and node.index == stage.last:
                dropped = self._close(stage, skipped)
                self.new_index[stage.last] = self.cfg.last
                self.new_index_in_stage = {}
                stage = None
            if node.index in self.stages_by_input:
                stage = self.stages_by_input[node.index]
                skipped = self._open(stage)
        rest = "\n".join(self.lines[self.next_line :]).strip("\n")
        return _renumber_banners(self.cfg.text() + (f"\n{rest}\n" if rest else ""), self.new_index)

    def _take_lines(self, section: Section) -> str:
        """The lines from the end of the previous section to the end of this one."""
        last = max((option.line for option in section.options), default=section.line)
        chunk, self.next_line = self.lines[self.next_line : last], last
        return "\n".join(chunk).strip("\n") + "\n"

    def _has_block_output_channels(self, node: Node) -> bool:
        """Whether the layer is the output of a residual block or is added to the block's input."""
        following = self.graph.layers[node.index + 1 : node.index + 2]
        return any(isinstance(other.spec, ShortcutSpec) for other in (node, *following))

    def _first_conv(self, stage: Stage) -> ConvolutionalSpec:
        return next(spec for index in range(stage.source + 1, stage.last) if (spec := _conv(self.graph, index)))

    def _open(self, stage: Stage) -> int:
        """Writes the split of the stage's input; returns the layer of the part that skips the blocks."""
        graph = self.graph
        self.cfg.activation = self._first_conv(stage).activation
        width = graph.layers[stage.source if stage.dense else stage.last].output.c
        block_input_channels = (
            graph.layers[stage.reads].output.c if stage.reads == stage.source and stage.bottleneck else None
        )
        skipped = self.csp.divide(self.cfg, width, through=block_input_channels)
        self.new_index_in_stage = {stage.source: self.cfg.last}
        return skipped

    def _close(self, stage: Stage, skipped: int) -> int:
        """Writes the join of both parts; returns the layer to omit after it, or -1."""
        csp, cfg = self.csp, self.cfg
        out = self.graph.layers[stage.last].output.c
        skip_channels, block_channels = csp.parts(self.graph.layers[stage.source].output.c if stage.dense else out)
        transition = self._transition(stage)
        if transition is None:
            # Without a next stage: the channels that its first convolution would have (last stage of CSPResNet-50).
            inner = self._first_conv(stage).filters
            csp.join(cfg, skipped, out - skip_channels, min(2 * inner, out) if stage.bottleneck else out)
            return -1
        # The convolution of the plain network is the last transition; fusion "last" has none.
        if csp.fusion != "first":
            cfg.note("Transition of this part")
            cfg.conv(transition.filters - skip_channels if stage.dense and csp.fusion == "last" else block_channels)
        cfg.note("Concatenate both parts")
        cfg.route(cfg.last, skipped)
        return stage.last + 1 if csp.fusion == "last" else -1

    def _transition(self, stage: Stage) -> ConvolutionalSpec | None:
        """The 1x1 convolution after the stage: a DenseNet transition, or the first layer of the next ResNet stage."""
        index = stage.last + 1
        spec = _conv(self.graph, index) if index < len(self.graph.layers) else None
        if spec is None or spec.size > 1 or self.graph.layers[index].sources != (stage.last,):
            return None
        if stage.dense:
            readers = sum(stage.last in node.sources for node in self.graph)
            return spec if spec.batch_normalize and readers == 1 else None
        return spec if index in self.narrowing else None

    def _rewrite_section(self, section: Section, node: Node, chunk: str, filters: int | None) -> str:
        """The text of the section with new filters (if given) and new layer numbers."""
        lines = chunk.splitlines()
        first = self.next_line - len(lines)  # of the file, for the lines that are left of the chunk
        for option in section.options:
            value = option.value
            if option.key == "filters" and filters:
                value = str(filters)
            elif option.key in _LAYER_KEYS:
                value = ",".join(self._renumber(name, node.index) for name in option.value.split(","))
            if value != option.value:
                lines[option.line - 1 - first] = f"{option.key}={value}"
        return "\n".join(lines) + "\n"

    def _renumber(self, name: str, index: int) -> str:
        number = atoi(name) or 0
        old = index + number if number < 0 else number
        new = self.new_index_in_stage.get(old, self.new_index.get(old, old))
        return str(new - self.cfg.last - 1 if number < 0 else new)


def _renumber_banners(text: str, new_index: dict[int, int]) -> str:
    """Updates the layer numbers in the zoo's banner comments."""

    def banner(match: re.Match[str]) -> str:
        first, last = int(match[2]), int(match[3] or match[2])
        start = new_index.get(first - 1, -1) + 1
        end = new_index.get(last, last)
        return f"# ---- Layers {start}-{end}" if end > start else f"# ---- Layer {end}"

    return _BANNER.sub(banner, text)


def _describe_stage(graph: Graph, csp: Csp, stage: Stage) -> str:
    source, out = graph.layers[stage.source].output, graph.layers[stage.last].output
    skip_channels, block_channels = csp.parts(source.c if stage.dense else out.c)
    what = counted(stage.depth, "dense layer" if stage.dense else "residual block")
    opened = ", instead of the block that opened the stage" if stage.reads < stage.source else ""
    return (
        f"layers {stage.reads + 1}-{stage.last}, {what} at {out.w} x {out.h}: "
        f"{skip_channels} of {skip_channels + block_channels} channels skip them, {block_channels} go through{opened}"
    )
