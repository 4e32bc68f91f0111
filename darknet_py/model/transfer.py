"""Weights of one network for another that differs in a few layers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from darknet_py.errors import WeightsError
from darknet_py.model import checkpoint, weights

if TYPE_CHECKING:
    from darknet_py.graph.graph import Graph
    from darknet_py.layers.base import Node
    from darknet_py.model.network import Network


def load_matching(net: Network, path: str | Path, source: Graph, cutoff: int | None = None) -> list[Node]:
    """Copies what fits of the layers before `cutoff` (default: all): each array whose shape is the network's.

    source: the cfg that the weights are of; a checkpoint's own layout is read from the checkpoint. Layers are paired by
    their index. Returns the layers that have an array the file does not have in that shape; these arrays stay as they
    are. Raises WeightsError where the file does not fit `source`.
    """
    found = _arrays(path, source, cutoff)
    state, anew = net.state_dict(), {}
    with torch.no_grad():
        for node, array in weights.arrays(net.graph):
            name = f"layers.{node.index}.{array.name}"
            values = found.get(name)
            if values is not None and values.shape == state[name].shape:
                state[name].copy_(values)
            else:
                anew[node.index] = node
    return list(anew.values())


def _arrays(path: str | Path, source: Graph, cutoff: int | None) -> dict[str, Tensor]:
    if checkpoint.is_checkpoint(path):
        stored = checkpoint.read(path)
        names = {f"layers.{node.index}.{array.name}" for node, array in weights.arrays(stored.graph, cutoff)}
        return {name: tensor for name, tensor in stored.state.items() if name in names}
    try:
        found = weights.read(source, path, cutoff)[1]
    except WeightsError as error:
        raise WeightsError(f"{error} (by the layers of {source.path}, before its number of classes changed)") from error
    return {f"layers.{node.index}.{array.name}": values for node, array, values in found}
