"""Sections to a graph: typed specs with absolute indices, shapes and the last use of each output."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from darknet_py.cfg.net import NetSpec
from darknet_py.cfg.options import Options, did_you_mean
from darknet_py.cfg.sections import Problems, Section, parse_sections
from darknet_py.errors import CfgWarning, Problem
from darknet_py.files import read_text
from darknet_py.layers import ALIASES, LAYERS
from darknet_py.layers.base import CommonOptions, Node, Shape, ShapeError

# Nobody has a network with more values than this in one layer or one weights file (32 GiB of float32). Refusing it
# here keeps a typo from asking the machine for terabytes.
VALUE_LIMIT = 1 << 33


@dataclass(frozen=True)
class Graph:
    """A cfg, understood: `net` and the layers in cfg order."""

    path: str
    text: str
    net: NetSpec
    layers: tuple[Node, ...]
    warnings: tuple[Problem, ...] = ()

    @property
    def input(self) -> Shape:
        return _input_shape(self.net)

    @property
    def parameters(self) -> int:
        """Floats in the weights file after its header."""
        return sum(node.parameters for node in self.layers)

    @property
    def bflops(self) -> float:
        """Billions of operations for one image, as Darknet's table adds them up."""
        return sum(node.bflops for node in self.layers)

    @property
    def detection_specs(self) -> list[Any]:
        """The specs of the detection layers."""
        return [node.spec for node in self.layers if node.spec.detects]

    @property
    def reads_text(self) -> bool:
        """Whether it takes one of `inputs` symbols at a time, and no images."""
        return self.input.c == self.input.size

    def __iter__(self) -> Iterator[Node]:
        return iter(self.layers)


def parse(path: str | Path, *, width: int | None = None, height: int | None = None, strict: bool = False) -> Graph:
    """Reads a cfg file. width, height: another input size than the file's. strict: unknown keys are errors.

    Raises CfgError with every problem found; warns (CfgWarning) about what Darknet would ignore silently.
    """
    return parse_text(read_text(path, "cfg"), str(path), width=width, height=height, strict=strict)


def parse_text(
    text: str,
    path: str = "<text>",
    *,
    width: int | None = None,
    height: int | None = None,
    strict: bool = False,
) -> Graph:
    """As `parse`, from cfg text; `path` is used in messages."""
    problems = Problems(path, strict)
    sections = parse_sections(text, problems)
    if not sections or ALIASES.get(sections[0].name, sections[0].name) != "net":
        line = sections[0].line if sections else 0
        problems.error(line, "", f"expected [net] first, got {f'[{sections[0].name}]' if sections else 'no section'}")
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
    for warning in problems.warnings:
        warnings.warn(str(warning), CfgWarning, stacklevel=3)
    graph = Graph(path, text, net, _with_last_use(nodes), tuple(problems.warnings))
    for node, values in zip(graph.layers, values_held(graph), strict=True):
        if values > VALUE_LIMIT:
            problems.error(node.line, f"[{node.type}] #{node.index}", _too_many(values, "held at once"))
            problems.raise_errors()
    return graph


def values_held(graph: Graph) -> list[int]:
    """Values held while each layer runs: every output from the layer that makes it to the last that reads it."""
    change = [0] * (len(graph.layers) + 1)
    readers = [node.index for node in graph.layers if -1 in node.sources]
    for size, first, last in [
        (graph.input.size, 0, max(readers, default=0)),
        *((node.output.size, node.index, node.last_use) for node in graph.layers),
    ]:
        change[first] += size
        change[last + 1] -= size
    total = 0
    return [total := total + step for step in change[:-1]]


def _too_many(values: int, what: str = "in a layer or in all weights") -> str:
    return f"expected at most {VALUE_LIMIT} values {what}, got {values}"


def resized(graph: Graph, width: int | None, height: int | None) -> Graph:
    """The same network at another input size. Raises CfgError where a layer does not fit it."""
    if (width or graph.net.width, height or graph.net.height) == (graph.net.width, graph.net.height):
        return graph
    return reparse(graph.text, graph.path, width=width, height=height)


def reparse(text: str, path: str, *, width: int | None = None, height: int | None = None) -> Graph:
    """`parse_text` without CfgWarnings, for what became of a cfg whose warnings were given when its file was read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CfgWarning)
        return parse_text(text, path, width=width, height=height)


def _input_shape(net: NetSpec) -> Shape:
    if net.width and net.height and net.channels:
        return Shape(net.channels, net.height, net.width)
    return Shape(net.inputs, 1, 1)


def _resolve(sections: list[Section], net: NetSpec, problems: Problems) -> list[Node]:
    """Typed nodes with shapes. After a fault the shape is unknown (None) and what depends on it is only parsed."""
    nodes: list[Node] = []
    shapes: list[Shape | None] = []
    total = 0
    for index, section in enumerate(sections):
        options = Options(section, index, problems)
        name = ALIASES.get(section.name, section.name)
        kind = LAYERS.get(name)
        if kind is None:
            hint = did_you_mean(section.name, [*LAYERS, *ALIASES]) or f"; known: {', '.join(sorted(LAYERS))}"
            options.error(f"expected a known section, got [{section.name}]{hint}")
            shapes.append(None)
            continue
        faults = len(problems.errors)
        spec = kind.parse(options, net, index)
        common = CommonOptions.parse(options)
        options.report_unknown()
        sources = spec.inputs(index)
        inputs = [_input_shape(net) if source < 0 else shapes[source] for source in sources]
        known = [shape for shape in inputs if shape is not None]
        if len(problems.errors) > faults or len(known) < len(inputs):
            shapes.append(None)
            continue
        try:
            output = spec.infer(known)
            node = Node(index, name, section.line, spec, common, sources, tuple(known), output, net=net)
            total += node.parameters
            most = max(output.size, total, spec.workspace(known))
            if most > VALUE_LIMIT:
                raise ShapeError(_too_many(most))
        except ShapeError as error:
            options.error(str(error))
            shapes.append(None)
            continue
        nodes.append(node)
        shapes.append(output)
    return nodes


def _with_last_use(nodes: list[Node]) -> tuple[Node, ...]:
    last = {node.index: node.index for node in nodes}
    for node in nodes:
        for source in node.sources:
            last[source] = node.index
    return tuple(replace(node, last_use=last[node.index]) for node in nodes)
