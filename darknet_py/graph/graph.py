"""A document to a graph: typed layer specs with absolute indices, shapes and the last use of each output."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

from darknet_py.cfg.document import CfgDocument, CfgEdit
from darknet_py.cfg.net import NetSpec
from darknet_py.cfg.options import Options, did_you_mean
from darknet_py.cfg.sections import Problems, Section, unusual_characters
from darknet_py.counted import counted
from darknet_py.errors import SHOWN_PROBLEMS, CfgWarning, Problem
from darknet_py.layers import ALIASES, LAYERS
from darknet_py.layers.base import CommonOptions, DetectionHeadSpec, HeadSpec, Node, Shape, ShapeError
from darknet_py.layers.foreign import foreign_section

# No real network has more values than this in one layer or one weights file (32 GiB of float32). The limit keeps a
# typo from allocating terabytes.
VALUE_LIMIT = 1 << 33


@dataclass(frozen=True)
class Graph:
    """A network as its cfg describes it: `[net]` and the layers with their shapes. Iteration gives the layers.

    Attributes:
        document: the cfg, with its edits.
        net: the options of `[net]`, at the input size that the graph was built for.
        layers: the layers, in cfg order.
        warnings: what Darknet would ignore silently (unknown keys, options set twice).
    """

    document: CfgDocument
    net: NetSpec
    layers: tuple[Node, ...]
    warnings: tuple[Problem, ...] = ()

    @property
    def path(self) -> str:
        """The cfg file's path, as in messages."""
        return self.document.path

    @property
    def text(self) -> str:
        """The cfg's text with all edits applied."""
        return self.document.text

    @property
    def sized_text(self) -> str:
        """The text with the input size that the graph was built for: what a file of the network holds.

        Arrays of some layers ([connected], [local]) depend on that size.
        """
        section = self.document.sections[0]
        written = NetSpec.parse(Options(section, None, Problems(self.path)))
        sides = {"width": (written.width, self.net.width), "height": (written.height, self.net.height)}
        edits = [CfgEdit(0, key, str(used)) for key, (before, used) in sides.items() if before != used]
        return self.document.with_edits(edits).text

    @property
    def layers_hash(self) -> str:
        """A fingerprint of the layers' options: see `CfgDocument.layers_hash`."""
        return self.document.layers_hash

    @property
    def input(self) -> Shape:
        """The shape of one input image; (inputs, 1, 1) for a network without images."""
        return _input_shape(self.net)

    @property
    def parameters(self) -> int:
        """Number of floats in the weights file, without its header."""
        return sum(node.parameters for node in self.layers)

    @property
    def bflops(self) -> float:
        """Billions of operations for one image: the total of Darknet's table."""
        return sum(node.bflops for node in self.layers)

    @property
    def heads(self) -> list[Node]:
        """The layers with a loss, in cfg order."""
        return [node for node in self.layers if isinstance(node.spec, HeadSpec)]

    @property
    def detection_specs(self) -> list[DetectionHeadSpec]:
        """The specs of the detection layers, in cfg order."""
        return [node.spec for node in self.layers if isinstance(node.spec, DetectionHeadSpec)]

    @property
    def reads_text(self) -> bool:
        """Whether the input is one of `inputs` symbols at a time, not an image."""
        return self.input.c == self.input.size

    def __iter__(self) -> Iterator[Node]:
        return iter(self.layers)


def parse(path: str | Path, *, width: int | None = None, height: int | None = None, strict: bool = False) -> Graph:
    """Reads a cfg file.

    Warns (CfgWarning) about what Darknet would ignore silently.

    Args:
        path: the cfg file, or a shipped one by its bare name (`yolov4.cfg`).
        width: input width in pixels, instead of the cfg's.
        height: input height in pixels, instead of the cfg's.
        strict: whether an unknown key is an error.

    Returns:
        The network's graph.

    Raises:
        CfgError: the cfg is wrong; the error lists every problem.
        DataError: the file cannot be read.
    """
    return _warn(build_graph(CfgDocument.read(path), width=width, height=height, strict=strict))


def parse_text(
    text: str,
    path: str = "<text>",
    *,
    width: int | None = None,
    height: int | None = None,
    strict: bool = False,
) -> Graph:
    """Reads the text of a cfg.

    Warns (CfgWarning) about what Darknet would ignore silently.

    Args:
        text: the cfg.
        path: what messages call it.
        width: input width in pixels, instead of the cfg's.
        height: input height in pixels, instead of the cfg's.
        strict: whether an unknown key is an error.

    Returns:
        The network's graph.

    Raises:
        CfgError: the cfg is wrong; the error lists every problem.
    """
    return _warn(build_graph(CfgDocument.from_text(text, path), width=width, height=height, strict=strict))


def build_graph(
    document: CfgDocument, *, width: int | None = None, height: int | None = None, strict: bool = False
) -> Graph:
    """Resolves a cfg: types, indices and shapes. It parses no text and gives no Python warnings.

    Args:
        document: the cfg, with its edits.
        width: input width in pixels, instead of the cfg's.
        height: input height in pixels, instead of the cfg's.
        strict: whether an unknown key is an error.

    Returns:
        The network's graph; `Graph.warnings` lists what Darknet would ignore silently.

    Raises:
        CfgError: the cfg is wrong; the error lists every problem.
    """
    problems = Problems(document.path, strict)
    problems.errors.extend(document.syntax_errors)
    (problems.errors if strict else problems.warnings).extend(document.syntax_warnings)
    sections = document.sections
    if not sections or ALIASES.get(sections[0].name, sections[0].name) != "net":
        line = sections[0].line if sections else 0
        hint = did_you_mean(sections[0].name, ["net", "network"]) if sections else ""
        got = f"[{sections[0].name}]{unusual_characters(sections[0].name)}{hint}" if sections else "no section"
        problems.error(line, "", f"expected [net] first, got {got}")
        problems.raise_errors()
    options = Options(sections[0], None, problems)
    net = NetSpec.parse(options)
    options.report_unknown()
    if width or height:
        net = net.resized(width, height)
    nodes = _resolve(sections[1:], net, problems)
    if _input_shape(net).size > VALUE_LIMIT:
        options.error(_too_many(_input_shape(net).size, "of input"))
    if len(sections) == 1:
        problems.error(sections[0].line, "[net]", "expected layers after it, got none")
    problems.raise_errors()
    graph = Graph(document, net, with_last_uses(nodes), tuple(problems.warnings))
    for node, values in zip(graph.layers, live_values(graph), strict=True):
        if values > VALUE_LIMIT:
            problems.error(node.line, f"[{node.type}] #{node.index}", _too_many(values, "in memory at once"))
            problems.raise_errors()
    return graph


def resized(graph: Graph, width: int | None, height: int | None) -> Graph:
    """The same network at another input size; None keeps a side. Raises CfgError where a layer does not fit it."""
    if (width or graph.net.width, height or graph.net.height) == (graph.net.width, graph.net.height):
        return graph
    return build_graph(graph.document, width=width, height=height)


def live_values(graph: Graph) -> list[int]:
    """Values in memory while each layer runs: every output from the layer that makes it to the last that reads it."""
    change = [0] * (len(graph.layers) + 1)
    input_readers = [node.index for node in graph.layers if -1 in node.sources]
    for size, first, last in [
        (graph.input.size, 0, max(input_readers, default=0)),
        *((node.output.size, node.index, node.last_use) for node in graph.layers),
    ]:
        change[first] += size
        change[last + 1] -= size
    return list(accumulate(change[:-1]))


def _warn(graph: Graph) -> Graph:
    for warning in graph.warnings[:SHOWN_PROBLEMS]:
        warnings.warn(str(warning), CfgWarning, stacklevel=3)
    more = len(graph.warnings) - SHOWN_PROBLEMS
    if more > 0:
        warnings.warn(f"{graph.path}: and {more} more warnings", CfgWarning, stacklevel=3)
    return graph


def _too_many(values: int, what: str = "in a layer or in all weights") -> str:
    return f"expected at most {counted(VALUE_LIMIT, 'value')} {what}, got {values}"


def _input_shape(net: NetSpec) -> Shape:
    if net.width and net.height and net.channels:
        return Shape(net.channels, net.height, net.width)
    return Shape(net.inputs, 1, 1)


def _resolve(sections: Sequence[Section], net: NetSpec, problems: Problems) -> list[Node]:
    """Typed nodes with shapes. A faulty layer has no shape (None), and layers that depend on it are only parsed."""
    nodes: list[Node] = []
    shapes: list[Shape | None] = []
    heads: list[tuple[Options, DetectionHeadSpec]] = []
    parameters = 0
    for index, section in enumerate(sections):
        options = Options(section, index, problems)
        name = ALIASES.get(section.name, section.name)
        spec_type = LAYERS.get(name)
        if spec_type is None:
            hint = foreign_section(options) or (_section_hint(section.name) if problems.hints else "")
            options.error(f"expected a known section, got [{section.name}]{hint}")
            shapes.append(None)
            continue
        errors_before = len(problems.errors)
        spec = spec_type.parse(options, net, index)
        common = CommonOptions.parse(options)
        options.report_unknown()
        if isinstance(spec, DetectionHeadSpec):
            heads.append((options, spec))
        sources = spec.inputs(index)
        inputs = [_input_shape(net) if source < 0 else shapes[source] for source in sources]
        known = [shape for shape in inputs if shape is not None]
        if len(problems.errors) > errors_before or len(known) < len(inputs):
            shapes.append(None)
            continue
        try:
            spec = spec.resolve(known)
            output = spec.infer(known)
            node = Node(index, name, section.line, spec, common, sources, tuple(known), output, net=net)
            parameters += node.parameters
            largest = max(output.size, parameters, spec.workspace(known))
            if largest > VALUE_LIMIT:
                raise ShapeError(_too_many(largest))
        except ShapeError as error:
            options.error(str(error))
            shapes.append(None)
            continue
        nodes.append(node)
        shapes.append(output)
    _check_classes(heads)
    return nodes


def _section_hint(name: str) -> str:
    hint = did_you_mean(name, [*LAYERS, *ALIASES]) or f"; known: {', '.join(sorted(LAYERS))}"
    return unusual_characters(name) + hint


def _check_classes(heads: Sequence[tuple[Options, DetectionHeadSpec]]) -> None:
    """Detection heads predict the same classes: C gives every box as many scores as the last head has classes.

    The heads that differ from most others are at fault; of a draw, those that differ from the first.
    """
    numbers = [spec.classes for _, spec in heads]
    if len(set(numbers)) < 2:
        return
    ((expected, _),) = Counter(numbers).most_common(1)  # of equal counts the first
    other = heads[numbers.index(expected)][0]
    for options, spec in heads:
        if spec.classes != expected:
            options.error(
                f"classes: expected one number for all heads, got {spec.classes}"
                f"{'' if 'classes' in options else ' (the default)'} and {expected} in {other.where} "
                f"(line {other.line('classes')})",
                "classes",
            )


def with_last_uses(nodes: Sequence[Node]) -> tuple[Node, ...]:
    """The nodes, with `last_use` and `frees` as their sources tell."""
    last_use = {node.index: node.index for node in nodes}
    for node in nodes:
        for source in node.sources:
            last_use[source] = node.index
    return tuple(
        replace(
            node,
            last_use=last_use[node.index],
            frees=tuple(sorted({s for s in node.sources if s >= 0 and last_use[s] == node.index})),
        )
        for node in nodes
    )
