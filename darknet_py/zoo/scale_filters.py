"""Makes a network narrower or wider: one factor for the filters of all layers but those that feed the heads."""

from __future__ import annotations

from darknet_py.cfg.document import CfgDocument, CfgEdit
from darknet_py.errors import DarknetError
from darknet_py.graph.graph import Graph, build_graph
from darknet_py.graph.set_num_classes import feeding_layers
from darknet_py.layers.base import HeadSpec, Node

_STEP = 8  # filters stay multiples of it from 32 on, as in `Csp.parts`; of 4 below
_KEYS = "filters", "output", "out_channels"


def scale_filters(graph: Graph, factor: float) -> CfgDocument:
    """The cfg of a network with `factor` times as many filters.

    Numbers of filters are rounded to multiples of 8 (below 32 filters of 4), of grouped convolutions also to multiples
    of their groups; depthwise convolutions stay depthwise. The layers that feed the heads keep their filters.

    Args:
        graph: The network.
        factor: Above 0; 1 changes nothing.

    Returns:
        The edited cfg.

    Raises:
        DarknetError: The factor is not positive, or after rounding the parts of a sum have different widths, which
            Darknet would add over the channels that both have.
        CfgError: The result is no valid network.
    """
    if not 0 < factor < float("inf"):
        raise DarknetError(f"scale: expected a positive number, got {factor:g}")
    kept = {index for index, _ in _head_layers(graph)}
    widths: list[int] = []
    edits: list[CfgEdit] = []
    for node in graph.layers:
        inputs = [widths[source] if source >= 0 else graph.input.c for source in node.sources]
        widths.append(_width(node, inputs))
        options = {option.key: option.value for option in graph.document.sections[node.index + 1].options}
        key = next((key for key in _KEYS if key in options), "")
        if not key or node.index in kept:
            continue
        filters, groups = node.output.c, node.spec.groups
        if 1 < groups == node.inputs[0].c:  # depthwise
            groups = inputs[0]
            widths[-1] = _rounded(filters * factor, groups)
        elif 1 < groups == filters:
            groups = widths[-1] = _rounded(filters * factor)
        else:
            widths[-1] = _rounded(filters * factor, groups)
        edits.append(CfgEdit(node.index + 1, key, str(widths[-1])))
        if groups != node.spec.groups:
            edits.append(CfgEdit(node.index + 1, "groups", str(groups)))
    scaled = build_graph(graph.document.with_edits(edits))
    for before, after in zip(graph.layers, scaled.layers, strict=True):
        if _is_sum(before) and len({shape.c for shape in after.inputs}) > 1:
            got = " and ".join(str(shape.c) for shape in after.inputs)
            raise DarknetError(
                f"scale={factor:g}: expected parts of one width for the sum in layer {before.index}, got {got} channels"
            )
    return scaled.document


def _head_layers(graph: Graph) -> list[tuple[int, str]]:
    """The layers whose filters the heads fix: of a network without heads those of its last layer."""
    heads = [node for node in graph.layers if isinstance(node.spec, HeadSpec)]
    fixed = [source for head in heads for source in head.sources] or [graph.layers[-1].index]
    return [layer for index in fixed for layer in feeding_layers(graph, index)]


def _is_sum(node: Node) -> bool:
    channels = {shape.c for shape in node.inputs}
    return len(node.inputs) > 1 and channels == {node.output.c}


def _width(node: Node, inputs: list[int]) -> int:
    """Channels of a layer that no option sets, from those of its inputs."""
    before = [shape.c for shape in node.inputs]
    if len(inputs) > 1 and sum(before) == node.output.c * node.spec.groups:
        return sum(inputs) // node.spec.groups
    return inputs[0] * node.output.c // max(before[0], 1) if inputs else node.output.c


def _rounded(channels: float, groups: int = 1) -> int:
    step = groups if groups > 1 else _STEP if channels >= 4 * _STEP else _STEP // 2
    return max(int(channels / step + 0.5), 1) * step
