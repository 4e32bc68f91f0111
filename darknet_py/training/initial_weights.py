"""The weights that a training starts from: read once, matched with the network, copied into it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import torch
from torch import Tensor

from darknet_py.errors import WeightsError
from darknet_py.graph.graph import Graph
from darknet_py.layers.base import LayerArray, Node
from darknet_py.model import checkpoint, weights
from darknet_py.model.checkpoint import Checkpoint
from darknet_py.model.network import Network


@dataclass(frozen=True)
class InitialWeights:
    """Arrays of a weights file that fit a network.

    Attributes:
        path: The file.
        seen: Images that its network has been trained on.
        tensors: Arrays by their name in the network's state dict.
        reinitialized: Indices of the layers that have an array the file does not have in that shape.
    """

    path: Path
    seen: int
    tensors: dict[str, Tensor]
    reinitialized: tuple[int, ...] = ()

    def copy_to(self, network: Network) -> None:
        """Copies the arrays into a network; all others keep their initial values."""
        state = network.state_dict()
        with torch.no_grad():
            for name, tensor in self.tensors.items():
                state[name].copy_(tensor)

    def __str__(self) -> str:
        if not self.reinitialized:
            return f"{self.path}: all layers loaded"
        plural = "s" if len(self.reinitialized) > 1 else ""
        return f"{self.path}: weights loaded; layer{plural} {index_ranges(self.reinitialized)} re-initialized"


def read_weights(
    path: Path, graph: Graph, cutoff: int | None = None, stored: Checkpoint | None = None
) -> InitialWeights:
    """Reads weights of the same network.

    Args:
        path: A .weights file or a checkpoint.
        graph: The network.
        cutoff: Read the layers before this one only.
        stored: The content of `path`, where it is a checkpoint that was read already.

    Returns:
        The arrays of the file. A partial .weights file leaves the layers after its end as they are.

    Raises:
        WeightsError: The file cannot be read or does not fit the network.
    """
    if stored is None and checkpoint.is_checkpoint(path):
        stored = checkpoint.read(path)
    if stored is None:
        header, found = weights.read(graph, path, cutoff)
        return InitialWeights(path, header.seen, {_name(node, array): values for node, array, values in found})
    expected = {_name(node, array): (node, array) for node, array in weights.arrays(graph, cutoff)}
    for name, (node, array) in expected.items():
        values = stored.state.get(name)
        if values is None or tuple(values.shape) != tuple(array.shape):
            got = "none" if values is None else str(tuple(values.shape))
            raise WeightsError(f"{path}: layer {node.index} [{node.type}], {name}: expected {array.shape}, got {got}")
    known = {_name(node, array) for node, array in weights.arrays(graph)}
    extra = sorted(set(stored.state) - known)
    if extra and cutoff is None:
        raise WeightsError(f"{path}: expected nothing beyond this network's tensors, got {extra[0]} and others")
    return InitialWeights(path, stored.header.seen, {name: stored.state[name] for name in expected})


def read_matching_weights(
    path: Path, graph: Graph, source: Graph, cutoff: int | None = None, stored: Checkpoint | None = None
) -> InitialWeights:
    """Reads weights of a network with another number of classes; iterations count from 0.

    Layers are paired by their index, and an array is taken where its shape is the network's.

    Args:
        path: A .weights file or a checkpoint.
        graph: The network to fill.
        source: The network that a .weights file belongs to; a checkpoint holds its own.
        cutoff: Read the layers before this one only.
        stored: The content of `path`, where it is a checkpoint that was read already.

    Returns:
        The arrays that fit, and the layers that stay initialized.

    Raises:
        WeightsError: The file cannot be read or does not fit `source`.
    """
    if stored is None and checkpoint.is_checkpoint(path):
        stored = checkpoint.read(path)
    if stored is not None:
        names = {_name(node, array) for node, array in weights.arrays(stored.graph, cutoff)}
        found = {name: tensor for name, tensor in stored.state.items() if name in names}
    else:
        try:
            rows = weights.read(source, path, cutoff)[1]
        except WeightsError as error:
            message = f"{error} (by the layers of {source.path}, before its number of classes changed)"
            raise WeightsError(message) from error
        found = {_name(node, array): values for node, array, values in rows}
    fits = {
        _name(node, array): found.get(_name(node, array)) is not None
        and tuple(found[_name(node, array)].shape) == tuple(array.shape)
        for node, array in weights.arrays(graph)
    }
    left_out = dict.fromkeys(node.index for node, array in weights.arrays(graph) if not fits[_name(node, array)])
    return InitialWeights(path, 0, {name: found[name] for name, fit in fits.items() if fit}, tuple(left_out))


def index_ranges(indices: Sequence[int]) -> str:
    """Rising indices in words: `3, 29–30`."""
    return ", ".join(_ranges(indices))


def _ranges(indices: Sequence[int]) -> Iterator[str]:
    for _, pairs in groupby(enumerate(indices), key=lambda pair: pair[1] - pair[0]):
        run = [index for _, index in pairs]
        yield f"{run[0]}–{run[-1]}" if len(run) > 1 else str(run[0])


def _name(node: Node, array: LayerArray) -> str:
    return f"layers.{node.index}.{array.name}"
