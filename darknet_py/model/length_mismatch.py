"""What a `.weights` file of the wrong length probably is, and what can be done with it."""

from __future__ import annotations

from functools import cache

from darknet_py.cfg.document import CfgDocument
from darknet_py.counted import counted
from darknet_py.errors import CfgError
from darknet_py.graph.graph import Graph, build_graph
from darknet_py.graph.set_num_classes import class_edits
from darknet_py.model.layout import stored_arrays
from darknet_py.shipped import shipped_cfgs

_MAX_CLASSES = 100_000
_MAX_NAMES = 3  # of cfgs in a message


def length_mismatch(graph: Graph, floats: int, odd: int) -> str:
    """Says what is wrong with the length of a file, the likely cause, and the way on.

    Args:
        graph: The network that the file does not fit.
        floats: Whole floats after the header.
        odd: Bytes after the last whole float.

    Returns:
        One line, without the file's path.
    """
    stored = stored_arrays(graph)
    total = sum(array.count for _, array in stored)
    if floats >= total:
        what = f"expected {total} floats for this network, got {_amount(floats - total, odd)} more after its last layer"
        way_on = "--ignore-rest (ignore_rest=True) reads this network's layers and ignores the rest, as Darknet does"
    else:
        index, where = _layer_at(graph, floats)
        what = f"the file ends in {where}: expected {total} floats in all, got {_amount(floats, odd)}"
        way_on = "it is cut off or belongs to another cfg"
        way_on += f"; --cutoff {index} of train and convert takes the layers before" if index else ""
    cause = "" if odd else _other_classes(graph, floats) or _other_cfg(floats)
    return f"{what}; {cause or way_on}"


def _amount(floats: int, odd: int) -> str:
    parts = [f"{count} {unit}{'s' * (count != 1)}" for count, unit in ((floats, "float"), (odd, "byte")) if count]
    return " and ".join(parts) or "none"


def _layer_at(graph: Graph, floats: int) -> tuple[int, str]:
    """Index and description of the layer whose array ends behind so many floats."""
    for node, array in stored_arrays(graph):
        floats -= array.count
        if floats < 0:
            return node.index, f"layer {node.index} [{node.type}], {array.role}"
    raise ValueError("the file does not end in a layer")


def _other_classes(graph: Graph, floats: int) -> str:
    """Whether the file is of the same network with another number of classes: its length is linear in it."""
    if graph.reads_text:
        return ""
    try:
        first, second = (_count(_with_classes(graph, classes)) for classes in (1, 2))
        classes, rest = divmod(floats - first, second - first) if second > first else (0, 1)
        classes += 1
        if rest or not 1 <= classes <= _MAX_CLASSES:
            return ""
        other = _with_classes(graph, classes)
    except CfgError:  # the number of classes cannot be changed
        return ""
    if _count(other) != floats:
        return ""
    own = max((spec.classes for spec in graph.detection_specs), default=graph.layers[-1].output.size)
    cutoff = next(
        node.index
        for node, changed in zip(graph.layers, other.layers, strict=True)
        if node.parameters != changed.parameters
    )
    return (
        f"it is as long as for this network with {counted(classes, 'class')} instead of {own}: "
        f"use the cfg of {counted(classes, 'class')}; to train {counted(own, 'class')} from these weights, "
        f"that cfg and --classes {own}, or this one and --cutoff {cutoff}"
    )


def _other_cfg(floats: int) -> str:
    """Whether the file has the length of a shipped cfg's weights."""
    names = _shipped_lengths().get(floats, ())
    return f"it is as long as for {' or '.join(names[:_MAX_NAMES])} (shipped with darknet_py)" if names else ""


@cache
def _shipped_lengths() -> dict[int, list[str]]:
    """The shipped cfgs by the floats of their weights."""
    names: dict[int, list[str]] = {}
    for path in shipped_cfgs():
        names.setdefault(_count(build_graph(CfgDocument.read(path))), []).append(path.name)
    return names


def _with_classes(graph: Graph, classes: int) -> Graph:
    document = graph.document.with_edits(class_edits(graph, classes))
    return build_graph(document, width=graph.net.width, height=graph.net.height)


def _count(graph: Graph) -> int:
    return sum(array.count for _, array in stored_arrays(graph))
