"""Which arrays a network has, under which names, and in which order a `.weights` file holds them."""

from __future__ import annotations

from collections.abc import Iterator

from darknet_py.graph.graph import Graph
from darknet_py.layers.base import LayerArray, Node


def tensor_name(node: Node, array: LayerArray) -> str:
    """Name of an array in the state dict of a `Network`."""
    return f"layers.{node.index}.{array.name}"


def arrays(graph: Graph, cutoff: int | None = None) -> Iterator[tuple[Node, LayerArray]]:
    """All arrays of layers 0 … cutoff−1 in file order."""
    for node in graph.layers[:cutoff]:
        for array in node.spec.arrays(node):
            yield node, array


def is_loaded(node: Node, array: LayerArray) -> bool:
    """Whether a `.weights` file holds it when it is read: `dontload` and `dontloadscales` leave arrays out."""
    if node.common.dontload:
        return False
    return not (node.common.dontloadscales and array.role in ("scale", "mean", "variance"))


def stored_arrays(graph: Graph, cutoff: int | None = None) -> list[tuple[Node, LayerArray]]:
    """The arrays of layers 0 … cutoff−1 that a `.weights` file holds when it is read."""
    return [(node, array) for node, array in arrays(graph, cutoff) if is_loaded(node, array)]
