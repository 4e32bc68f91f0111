"""An estimate of the memory that a training needs, from the graph alone."""

from __future__ import annotations

from typing import NamedTuple

from darknet_py.graph.graph import Graph

_FLOAT_BYTES = 4
_HALF_BYTES = 2


class MemoryEstimate(NamedTuple):
    """Bytes on the device during an iteration, without torch's own and temporary buffers.

    Attributes:
        weights: All arrays, and their averages with ema_alpha.
        optimizer: Gradients and the optimizer's buffers.
        activations: What a mini-batch keeps for the backward pass.
    """

    weights: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """All together."""
        return sum(self)


def estimate_memory(graph: Graph, images: int, scale: float = 1.0, mixed_precision: bool = False) -> MemoryEstimate:
    """Estimates the memory of a training.

    A layer keeps its output for the backward pass; with batch norm it keeps the values before and after it too.

    Args:
        graph: The network.
        images: Images per mini-batch of one process.
        scale: Area of the largest input relative to the cfg's, with `random`.
        mixed_precision: Whether activations take 16 bits.

    Returns:
        The estimate.
    """
    parameters = graph.parameters * _FLOAT_BYTES
    values = graph.input.size + sum(
        node.output.size * (3 if any(array.role == "scale" for array in node.spec.arrays(node)) else 1)
        for node in graph.layers
    )
    size = _HALF_BYTES if mixed_precision else _FLOAT_BYTES
    return MemoryEstimate(
        parameters * (2 if graph.net.ema_alpha else 1),
        parameters * (3 if graph.net.adam else 2),
        round(values * images * scale * size),
    )
