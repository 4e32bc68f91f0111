"""A cfg for another number of classes: its heads and the layers that feed them; comments and all else stay."""

from __future__ import annotations

from darknet_py.cfg.document import CfgEdit, edited_text
from darknet_py.errors import CfgError, Problem
from darknet_py.graph.graph import Graph, reparse
from darknet_py.layers.base import Node

_WIDTHS = ("filters", "output")  # what a layer calls the channels that it makes
_FIXED = ("tree", "map")  # files that say what the classes are


def set_num_classes(graph: Graph, classes: int) -> Graph:
    """The same network for so many classes; the graph itself where it has as many.

    Detectors: `classes` of each head, and `filters` or `output` of what feeds it. Others: as many outputs. Weights of
    single classes (`counters_per_class`) all become 1. Raises CfgError where a tree or map says what the classes are,
    or where no layer is found whose width decides about them.
    """
    changes, detects = [], False
    for node in graph.layers:
        if not hasattr(node.spec, "classes"):
            continue
        fixed = next((key for key in _FIXED if getattr(node.spec, key, "")), None)
        if fixed:
            raise _error(graph, node, f"{fixed}= says what its classes are: remove it to set their number")
        changes.append(CfgEdit(node.index + 1, "classes", str(classes)))
        if getattr(node.spec, "class_weights", ()):
            changes.append(CfgEdit(node.index + 1, "counters_per_class", ",".join(["1"] * classes)))
        channels = node.spec.channels_for(classes)
        if channels is not None:
            detects = True
            changes += _fed(graph, node, *_with_the_classes(graph, node, classes, channels))
    last = graph.layers[-1]
    if not detects:
        changes += _fed(graph, last, last.index, classes)
    changed = reparse(edited_text(graph.text, changes), graph.path)
    if not detects and changed.layers[-1].output.size != classes:
        raise _error(graph, last, f"expected a last layer of {classes} values, got {changed.layers[-1].output.size}")
    same = [node.spec for node in changed.layers] == [node.spec for node in graph.layers]
    return graph if same else changed


def feeding(graph: Graph, index: int) -> list[tuple[int, str]]:
    """The layers whose width is that of layer `index`: (index, the key that sets it).

    The layer itself, or what lies before layers that keep the channels (pooling, dropout, YOLOR's shifts, …); of a
    sum, all of its parts. Empty where the width is not decided like that.
    """
    if index < 0:
        return []
    node = graph.layers[index]
    key = next((key for key in _WIDTHS if hasattr(node.spec, key)), None)
    if key:
        return [(index, key)]
    if any(source.c != node.output.c for source in node.inputs):
        return []
    parts = [feeding(graph, source) for source in node.sources]
    return list(dict.fromkeys(pair for part in parts for pair in part)) if all(parts) else []


def _with_the_classes(graph: Graph, head: Node, classes: int, channels: int) -> tuple[int, int]:
    """(layer, channels it must have) of what feeds a head: of a [route] that joins several, the part of the classes."""
    if head.sources[0] < 0:
        return head.sources[0], channels
    source = graph.layers[head.sources[0]]
    each = (head.spec.channels_for(2) or 0) - (head.spec.channels_for(1) or 0)
    found: int = head.spec.classes * each  # type: ignore[attr-defined]
    parts = [at for at, shape in zip(source.sources, source.inputs, strict=True) if shape.c == found]
    if len(parts) == 1 and len(source.inputs) > 1 and sum(shape.c for shape in source.inputs) == source.output.c:
        return parts[0], classes * each
    return head.sources[0], channels


def _fed(graph: Graph, head: Node, index: int, channels: int) -> list[CfgEdit]:
    layers = feeding(graph, index)
    if not layers and index >= 0:
        node = graph.layers[index]
        if len(node.inputs) == 1 and node.inputs[0].size == node.output.size:
            # [reorg] and [reorg3d] only move values, of the picture's rows and columns into channels.
            factor, rest = divmod(node.output.c, node.inputs[0].c)
            if factor > 1 and not rest and not channels % factor:
                return _fed(graph, head, node.sources[0], channels // factor)
    if not layers:
        raise _error(graph, head, f"found no layer before it whose filters= or output= could be {channels}")
    return [CfgEdit(layer + 1, key, str(channels)) for layer, key in layers]


def _error(graph: Graph, node: Node, message: str) -> CfgError:
    return CfgError([Problem(graph.path, node.line, f"[{node.type}] #{node.index}", f"classes: {message}")])
