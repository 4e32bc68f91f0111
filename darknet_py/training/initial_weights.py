"""The weights that a training starts from: read once, matched with the network, copied into it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from torch import Tensor

from darknet_py.errors import WeightsError
from darknet_py.graph.graph import Graph
from darknet_py.model.model_file import ModelFile
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
    tensors: Mapping[str, Tensor]
    reinitialized: tuple[int, ...] = ()

    def copy_to(self, network: Network) -> None:
        """Copies the arrays into a network; all others keep their initial values."""
        network.copy_tensors(self.tensors)

    def __str__(self) -> str:
        if not self.reinitialized:
            return f"{self.path}: all layers loaded"
        plural = "s" if len(self.reinitialized) > 1 else ""
        return f"{self.path}: weights loaded; layer{plural} {index_ranges(self.reinitialized)} re-initialized"


def read_weights(
    path: Path, graph: Graph, cutoff: int | None = None, stored: ModelFile | None = None
) -> InitialWeights:
    """Reads weights of the same network.

    Args:
        path: A .weights file or a checkpoint.
        graph: The network.
        cutoff: Read the layers before this one only.
        stored: The content of `path`, where it is a checkpoint that was read already.

    Returns:
        The arrays of the file. A partial file leaves the layers after its end as they are.

    Raises:
        WeightsError: The file cannot be read or does not fit the network.
    """
    stored = stored or ModelFile.read_weights(path, graph, cutoff=cutoff)
    model = stored.before(cutoff).fit(graph, path, cutoff)
    return InitialWeights(path, model.header.seen, model.tensors)


def read_matching_weights(
    path: Path, graph: Graph, source: Graph, cutoff: int | None = None, stored: ModelFile | None = None
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
    if stored is None:
        try:
            stored = ModelFile.read_weights(path, source, cutoff=cutoff)
        except WeightsError as error:
            message = f"{error} (by the layers of {source.path}, before its number of classes changed)"
            raise WeightsError(message) from error
    tensors, missing = stored.before(cutoff).matching(graph)
    return InitialWeights(path, 0, tensors, tuple(missing))


def index_ranges(indices: Sequence[int]) -> str:
    """Rising indices in words: `3, 29–30`."""
    return ", ".join(_ranges(indices))


def _ranges(indices: Sequence[int]) -> Iterator[str]:
    for _, pairs in groupby(enumerate(indices), key=lambda pair: pair[1] - pair[0]):
        run = [index for _, index in pairs]
        yield f"{run[0]}–{run[-1]}" if len(run) > 1 else str(run[0])
