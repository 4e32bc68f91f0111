"""Changes the number of classes of a network: its heads and the layers that feed them."""

from __future__ import annotations

from darknet_py.cfg.document import CfgEdit
from darknet_py.counted import counted
from darknet_py.errors import CfgError, Problem
from darknet_py.graph.graph import Graph, build_graph
from darknet_py.layers.base import HeadSpec, Node


def set_num_classes(graph: Graph, classes: int) -> Graph:
    """The same network with another number of classes.

    Args:
        graph: the network.
        classes: the new number of classes.

    Returns:
        The graph of the edited document; `graph` itself where nothing changes.

    Raises:
        CfgError: a tree or map defines the classes, or no layer sets the number of channels that they need.
    """
    document = graph.document.with_edits(class_edits(graph, classes))
    return graph if document is graph.document else build_graph(document)


def class_edits(graph: Graph, classes: int) -> list[CfgEdit]:
    """The edits that give a network another number of classes.

    Detectors: `classes` of each head, and `filters` or `output` of the layers that feed it. Other networks: as many
    outputs. Per-class weights (`counters_per_class`) all become 1. Join them with other edits by
    `graph.document.with_edits`, so that one `build_graph` is enough.

    Args:
        graph: the network before the change.
        classes: the new number of classes.

    Returns:
        The edits, in cfg order of the heads; empty where the network has as many classes.

    Raises:
        CfgError: a tree or map defines the classes, or no layer sets the number of channels that they need.
    """
    edits: list[CfgEdit] = []
    is_detector = False
    reason = f"classes={classes}"
    for node in graph.layers:
        spec = node.spec
        if not isinstance(spec, HeadSpec) or not spec.classes:
            continue
        fixed = "tree" if spec.tree else "map" if spec.map else ""
        if fixed:
            raise _error(graph, node, f"{fixed}= defines the classes; remove it to change their number")
        if spec.classes != classes:
            edits.append(CfgEdit(node.index + 1, "classes", str(classes), reason))
        if spec.class_weights and spec.class_weights != (1.0,) * classes:
            edits.append(CfgEdit(node.index + 1, "counters_per_class", ",".join(["1"] * classes), reason))
        channels = spec.channels_for(classes)
        if channels is not None:
            is_detector = True
            edits += _channel_edits(graph, node, *_class_channels(graph, node, spec, classes, channels), reason)
    last = graph.layers[-1]
    if not is_detector:
        edits += _channel_edits(graph, last, last.index, classes, reason)
        if last.output.h * last.output.w != 1:
            size = classes * last.output.h * last.output.w
            raise _error(graph, last, f"expected a last layer of {counted(classes, 'value')}, got {size}")
    return edits


def feeding_layers(graph: Graph, index: int) -> list[tuple[int, str]]:
    """The layers that set the number of output channels of layer `index`, each with the key that does.

    That is the layer itself, or the layer before others that keep the channels (pooling, dropout, YOLOR's shifts, …);
    for a sum, all of its parts. Empty where no option sets the channels.
    """
    if index < 0:
        return []
    node = graph.layers[index]
    if node.spec.channels_key:
        return [(index, node.spec.channels_key)]
    if any(source.c != node.output.c for source in node.inputs):
        return []
    parts = [feeding_layers(graph, source) for source in node.sources]
    return list(dict.fromkeys(pair for part in parts for pair in part)) if all(parts) else []


def _class_channels(graph: Graph, head: Node, spec: HeadSpec, classes: int, channels: int) -> tuple[int, int]:
    """(layer, channels it must have) of what feeds a head.

    Where a `[route]` joins the outputs for boxes, objectness and classes, that is the part with the classes.
    """
    if head.sources[0] < 0:
        return head.sources[0], channels
    source = graph.layers[head.sources[0]]
    per_class = (spec.channels_for(2) or 0) - (spec.channels_for(1) or 0)
    class_channels = spec.classes * per_class
    parts = [index for index, shape in zip(source.sources, source.inputs, strict=True) if shape.c == class_channels]
    if len(parts) == 1 and len(source.inputs) > 1 and sum(shape.c for shape in source.inputs) == source.output.c:
        return parts[0], classes * per_class
    return head.sources[0], channels


def _channel_edits(graph: Graph, head: Node, index: int, channels: int, reason: str) -> list[CfgEdit]:
    """The edits that give layer `index` so many output channels. head: the layer that messages name."""
    layers = feeding_layers(graph, index)
    if not layers and index >= 0:
        node = graph.layers[index]
        if len(node.inputs) == 1 and node.inputs[0].size == node.output.size:
            # [reorg] and [reorg3d] move values from rows and columns into channels.
            factor, rest = divmod(node.output.c, node.inputs[0].c)
            if factor > 1 and not rest and not channels % factor:
                return _channel_edits(graph, head, node.sources[0], channels // factor, reason)
    if not layers:
        raise _error(graph, head, f"expected a layer before it whose filters= or output= can be {channels}, got none")
    return [
        CfgEdit(layer + 1, key, str(channels), reason)
        for layer, key in layers
        if graph.layers[layer].output.c != channels
    ]


def _error(graph: Graph, node: Node, message: str) -> CfgError:
    return CfgError([Problem(graph.path, node.line, f"[{node.type}] #{node.index}", f"classes: {message}")])
