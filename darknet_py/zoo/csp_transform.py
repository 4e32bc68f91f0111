"""A given plain cfg made cross stage partial: ResNet, ResNeXt, Darknet-53, DenseNet and what is built like them.

Its stages are found in the graph: runs of residual blocks of one shape, and runs of dense layers. Sections are put in
before and after a run; of its own sections only the channels of a block's output and the layers that are named change.
Everything else stays as it is written, comments too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from darknet_py.cfg.options import atoi
from darknet_py.cfg.sections import Problems, Section, parse_sections
from darknet_py.errors import DarknetError
from darknet_py.graph.graph import Graph, parse, reparse
from darknet_py.layers.base import Node
from darknet_py.layers.convolutional import ConvolutionalSpec
from darknet_py.layers.merge import RouteSpec, ShortcutSpec
from darknet_py.zoo.cfg_writer import CfgWriter
from darknet_py.zoo.residual import plural
from darknet_py.zoo.stages import Csp

_NAMING = ("layers", "from", "share_index")  # options that name layers
_BANNER = re.compile(r"^(# ---- Layers? )(\d+)(?:-(\d+))?", re.MULTILINE)


class Stage(NamedTuple):
    """A stage: layers after `reads`, up to `last`, that read each other and `reads`, and of which others read `last`.

    depth: how many blocks. source: the layer that the first block reads. If that is not `reads`, the layers between
    are what widened it: they give way to the split. bottleneck: a bottleneck opens it. dense: not residual.
    """

    reads: int
    source: int
    last: int
    depth: int
    bottleneck: bool = False
    dense: bool = False


class CspResult(NamedTuple):
    """text: of the new cfg. changes: a line for each stage, and one for the whole."""

    text: str
    changes: list[str]


def to_csp(path: str | Path, csp: Csp) -> CspResult:
    """The cross stage partial version of a plain cfg.

    Raises DarknetError where it has no such stages, CfgError where it is not a cfg.
    """
    graph = parse(path)
    runs = find_runs(graph)
    if not runs:
        expected = "residual blocks of one shape or dense layers, which nothing else reads"
        raise DarknetError(f"{path}: expected stages of {expected}, got none")
    text = _Rewriting(graph, csp, runs).text()
    new = reparse(text, f"{path}, cross stage partial")
    totals = (
        f"parameters {graph.parameters} -> {new.parameters} ({new.parameters / graph.parameters - 1:+.1%}), "
        f"BFLOPs {graph.bflops:.3f} -> {new.bflops:.3f} ({new.bflops / graph.bflops - 1:+.1%})"
    )
    return CspResult(text, [*(_change(graph, csp, run) for run in runs), totals])


def find_runs(graph: Graph) -> list[Stage]:
    """The stages that can be made cross stage partial, in cfg order."""
    residual = [_opened(graph, run) for run in _runs(graph, _residual_source)]
    dense = [run._replace(dense=True) for run in _runs(graph, _dense_source) if run.depth > 1]
    return sorted(run for run in residual + dense if _closed(graph, run) and not _divided(graph, run))


def _runs(graph: Graph, source_of: Callable[[Graph, Node], int | None]) -> Iterable[Stage]:
    """Blocks that follow each other, each from the output of the one before."""
    run: Stage | None = None
    for node in graph:
        source = source_of(graph, node)
        if source is None:
            continue
        if run and run.last == source:
            run = run._replace(last=node.index, depth=run.depth + 1)
            continue
        if run:
            yield run
        run = Stage(source, source, node.index, 1)
    if run:
        yield run


def _residual_source(graph: Graph, node: Node) -> int | None:
    """The input of the residual block that ends here: a chain from it with two convolutions, one of them the last, and
    the sum of both, all of one shape."""
    if not isinstance(node.spec, ShortcutSpec) or len(node.sources) != 2:
        return None
    before, source = node.sources
    same = node.inputs[0] == node.inputs[1] and node.output.c >= 16
    convolutions = [index for index in range(source + 1, before + 1) if _conv(graph, index)]
    block = len(convolutions) > 1 and convolutions[-1] == before and _chain(graph, source, before)
    return source if same and block else None


def _dense_source(graph: Graph, node: Node) -> int | None:
    """The input of the dense layer that ends here: a chain of layers from it, and both side by side."""
    if not isinstance(node.spec, RouteSpec) or len(node.sources) != 2 or node.spec.groups > 1:
        return None
    source, before = sorted(node.sources)
    grows = before == node.index - 1 and _conv(graph, before)
    return source if grows and _chain(graph, source, before) else None


def _opened(graph: Graph, run: Stage) -> Stage:
    """A run of residual blocks together with the bottleneck that opens its stage, if there is one.

    ResNet's first block of a stage widens, and most of them halve the resolution; what it adds is its input as it is
    (Darknet) or behind a 1x1 convolution.
    """
    opening = graph.layers[run.source]
    if not isinstance(opening.spec, ShortcutSpec) or len(opening.sources) != 2:
        return run
    widening = min(opening.sources)
    source = _input_of_projection(graph, opening)
    if source is None:
        widening, source = opening.sources
    spec = _conv(graph, widening)
    if spec is None or spec.size > 1 or widening - source < 3 or not _chain(graph, source, widening):
        return run
    if source == opening.sources[1] and opening.inputs[0][1:] == opening.inputs[1][1:]:  # it only widens
        return run._replace(reads=source, source=source, depth=run.depth + 1, bottleneck=True)
    return run._replace(reads=widening - 1, bottleneck=True)


def _input_of_projection(graph: Graph, opening: Node) -> int | None:
    """What is added to the block that ends here, if it is a 1x1 convolution: the layer that this reads."""
    projection = opening.index - 1
    spec, route = _conv(graph, projection), graph.layers[projection - 1]
    projected = spec is not None and spec.size == 1 and isinstance(route.spec, RouteSpec) and len(route.sources) == 1
    return route.sources[0] if projected and min(opening.sources) == route.index - 1 else None


def _conv(graph: Graph, index: int) -> ConvolutionalSpec | None:
    spec = graph.layers[index].spec
    return spec if isinstance(spec, ConvolutionalSpec) else None


def _chain(graph: Graph, source: int, last: int) -> bool:
    """Whether each layer after `source`, up to `last`, reads the one before it and nothing else."""
    return 0 <= source < last and all(
        graph.layers[index].sources == (index - 1,) for index in range(source + 1, last + 1)
    )


def _closed(graph: Graph, run: Stage) -> bool:
    """Whether of its layers only the last is read by others."""
    return not any(run.reads < source < run.last for node in graph.layers[run.last + 1 :] for source in node.sources)


def _divided(graph: Graph, run: Stage) -> bool:
    """Whether it is cross stage partial already: what it reads is one of two parts."""
    node = graph.layers[run.reads]
    spec = _conv(graph, run.reads)
    if spec and spec.size == 1 and node.sources[0] >= 0:
        node = graph.layers[node.sources[0]]
        return isinstance(node.spec, RouteSpec) and len(node.sources) == 1
    return isinstance(node.spec, RouteSpec) and node.spec.groups > 1


class _Rewriting:
    """One pass over the sections; layers keep their order, and new ones come between them."""

    def __init__(self, graph: Graph, csp: Csp, runs: list[Stage]):
        self.graph, self.csp = graph, csp
        self.opens = {run.reads: run for run in runs}
        self.narrowing = {run.reads - 1 for run in runs if run.reads < run.source}
        self.moved: dict[int, int] = {}  # old index → new index
        self.inside: dict[int, int] = {}  # the same within a run, where it differs
        problems = Problems(graph.path)
        net, *self.sections = parse_sections(graph.text, problems)
        self.lines = graph.text.removeprefix("\ufeff").splitlines()
        self.at = 0  # the first line that is not taken yet
        self.cfg = CfgWriter.verbatim(self._take(net))

    def text(self) -> str:
        run: Stage | None = None
        skipped, dropped = -1, -1
        for node, section in zip(self.graph, self.sections, strict=True):
            chunk = self._take(section)
            if node.index == dropped or (run and node.index <= run.source):
                self.moved[node.index] = self.cfg.last
                continue
            closing = run is not None and not run.dense and self._closes(node)
            width = self.csp.parts(node.output.c)[1] if closing else node.output.c
            self.cfg.raw(self._edited(section, node, chunk, width if closing else None), width)
            self.moved[node.index] = self.cfg.last
            if run and node.index == run.last:
                dropped = self._close(run, skipped)
                self.moved[run.last] = self.cfg.last
                self.inside = {}
                run = None
            if node.index in self.opens:
                run = self.opens[node.index]
                skipped = self._open(run)
        rest = "\n".join(self.lines[self.at :]).strip("\n")
        return _renumbered(self.cfg.text() + (f"\n{rest}\n" if rest else ""), self.moved)

    def _take(self, section: Section) -> str:
        """The lines from where the last section ended to the end of this one."""
        last = max((option.line for option in section.options), default=section.line)
        chunk, self.at = self.lines[self.at : last], last
        return "\n".join(chunk).strip("\n") + "\n"

    def _closes(self, node: Node) -> bool:
        """Whether its channels are those of a residual block: what is added to the block's input."""
        return isinstance(self.graph.layers[node.index + 1].spec, ShortcutSpec) or isinstance(node.spec, ShortcutSpec)

    def _first_conv(self, run: Stage) -> ConvolutionalSpec:
        return next(spec for index in range(run.source + 1, run.last) if (spec := _conv(self.graph, index)))

    def _open(self, run: Stage) -> int:
        """Splits what the run reads; gives the part that skips it."""
        graph = self.graph
        self.cfg.activation = self._first_conv(run).activation
        width = graph.layers[run.source if run.dense else run.last].output.c
        narrower = graph.layers[run.reads].output.c if run.reads == run.source and run.bottleneck else None
        skipped = self.csp.divide(self.cfg, width, through=narrower)
        self.inside = {run.source: self.cfg.last}
        return skipped

    def _close(self, run: Stage, skipped: int) -> int:
        """Joins both parts; gives the layer that is then to be left out, -1 for none."""
        csp, cfg = self.csp, self.cfg
        out = self.graph.layers[run.last].output.c
        skipping, going = csp.parts(self.graph.layers[run.source].output.c if run.dense else out)
        transition = self._transition(run)
        if transition is None:
            # As wide as the way into the next stage would be, if there is none: CSPResNet-50's last stage.
            inner = self._first_conv(run).filters
            csp.join(cfg, skipped, out - skipping, min(2 * inner, out) if run.bottleneck else out)
            return -1
        # The plain network's convolution is the last transition; with fusion "last" there is none.
        if csp.fusion != "first":
            cfg.note("Transition of that part")
            cfg.conv(transition.filters - skipping if run.dense and csp.fusion == "last" else going)
        cfg.note("Both are joined")
        cfg.route(cfg.last, skipped)
        return run.last + 1 if csp.fusion == "last" else -1

    def _transition(self, run: Stage) -> ConvolutionalSpec | None:
        """The 1x1 convolution that follows the run already: DenseNet's transition, or the way into ResNet's next
        stage."""
        index = run.last + 1
        spec = _conv(self.graph, index) if index < len(self.graph.layers) else None
        if spec is None or spec.size > 1 or self.graph.layers[index].sources != (run.last,):
            return None
        if run.dense:
            readers = sum(run.last in node.sources for node in self.graph)
            return spec if spec.batch_normalize and readers == 1 else None
        return spec if index in self.narrowing else None

    def _edited(self, section: Section, node: Node, chunk: str, filters: int | None) -> str:
        """The section with other filters (if given) and with the new numbers of the layers that it names."""
        lines = chunk.splitlines()
        first = self.at - len(lines)  # of the file, for the lines that are left of the chunk
        for option in section.options:
            value = option.value
            if option.key == "filters" and filters:
                value = str(filters)
            elif option.key in _NAMING:
                value = ",".join(self._renamed(name, node.index) for name in option.value.split(","))
            if value != option.value:
                lines[option.line - 1 - first] = f"{option.key}={value}"
        return "\n".join(lines) + "\n"

    def _renamed(self, name: str, index: int) -> str:
        number = atoi(name) or 0
        old = index + number if number < 0 else number
        new = self.inside.get(old, self.moved.get(old, old))
        return str(new - self.cfg.last - 1 if number < 0 else new)


def _renumbered(text: str, moved: dict[int, int]) -> str:
    """The zoo's banners with the new numbers of their layers."""

    def banner(match: re.Match[str]) -> str:
        first, last = int(match[2]), int(match[3] or match[2])
        start = moved.get(first - 1, -1) + 1
        end = moved.get(last, last)
        return f"# ---- Layers {start}-{end}" if end > start else f"# ---- Layer {end}"

    return _BANNER.sub(banner, text)


def _change(graph: Graph, csp: Csp, run: Stage) -> str:
    source, out = graph.layers[run.source].output, graph.layers[run.last].output
    skipping, going = csp.parts(source.c if run.dense else out.c)
    what = plural(run.depth, "dense layer" if run.dense else "residual block")
    opened = ", instead of the block that opened the stage" if run.reads < run.source else ""
    return (
        f"layers {run.reads + 1}-{run.last}, {what} at {out.w} x {out.h}: "
        f"{skipping} of {skipping + going} channels skip them, {going} go through{opened}"
    )
