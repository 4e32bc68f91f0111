"""The weights that a training starts from: read once, matched with the network, copied into it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from darknet_py.counted import counted
from darknet_py.errors import WeightsError
from darknet_py.graph.graph import Graph
from darknet_py.graph.set_num_classes import feeding_layers
from darknet_py.layers.base import DetectionHeadSpec
from darknet_py.model.layout import stored_arrays, tensor_name
from darknet_py.model.model_file import ModelFile
from darknet_py.model.network import Network


class BoxRows(NamedTuple):
    """The part of a head's array that does not depend on its classes.

    Attributes:
        layer: Index of the layer with the array.
        rows: (anchors, entries, …): what predicts the boxes and their objectness.
    """

    layer: int
    rows: Tensor

    def copy_to(self, array: Tensor) -> None:
        """Copies the rows into the array (filters, …) of a head with other classes."""
        anchors, entries = self.rows.shape[:2]
        array.view(anchors, -1, *array.shape[1:])[:, :entries] = self.rows


@dataclass(frozen=True)
class InitialWeights:
    """Arrays of a weights file that fit a network.

    Attributes:
        path: The file.
        seen: Images that its network has been trained on.
        tensors: Arrays by their name in the network's state dict.
        reinitialized: Indices of the layers that have an array the file does not have in that shape.
        box_rows: Parts of such arrays, by their name, that are kept all the same.
        loaded: How many layers have weights, in words.
    """

    path: Path
    seen: int
    tensors: Mapping[str, Tensor]
    reinitialized: tuple[int, ...] = ()
    box_rows: Mapping[str, BoxRows] = field(default_factory=dict)
    loaded: str = "all layers loaded"

    def copy_to(self, network: Network) -> None:
        """Copies the arrays into a network; all others keep their initial values."""
        network.copy_tensors(self.tensors)
        state = network.state_dict()
        with torch.no_grad():
            for name, part in self.box_rows.items():
                part.copy_to(state[name])

    def __str__(self) -> str:
        classes = tuple(sorted({part.layer for part in self.box_rows.values()}))
        others = tuple(index for index in self.reinitialized if index not in classes)
        if not self.reinitialized:
            return f"{self.path}: {self.loaded}"
        parts = [f"{_layers(others)} re-initialized"] if others else []
        parts += [f"{_layers(classes)}: boxes kept, classes re-initialized"] if classes else []
        return f"{self.path}: weights loaded; {'; '.join(parts)}"


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
    model = stored.before(cutoff).fit(graph, cutoff)
    if not model.tensors and stored_arrays(graph, cutoff):
        raise WeightsError(f"{path}: expected weights, got a header only")
    loaded = f"loaded {model.loaded_layers} of {counted(len(graph.layers), 'layer')}"
    return InitialWeights(path, model.header.seen, model.tensors, loaded=loaded)


def read_matching_weights(
    path: Path,
    graph: Graph,
    source: Graph,
    cutoff: int | None = None,
    stored: ModelFile | None = None,
    keep_boxes: bool = False,
) -> InitialWeights:
    """Reads weights of a network with another number of classes; iterations count from 0.

    Layers are paired by their index, and an array is taken where its shape is the network's.

    Args:
        path: A .weights file or a checkpoint.
        graph: The network to fill.
        source: The network that a .weights file belongs to; a checkpoint holds its own.
        cutoff: Read the layers before this one only.
        stored: The content of `path`, where it is a checkpoint that was read already.
        keep_boxes: Keep what predicts boxes and objectness in detection heads whose classes change.

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
    stored = stored.before(cutoff)
    tensors, missing = stored.matching(graph)
    box_rows = _box_rows(stored, graph) if keep_boxes else {}
    return InitialWeights(path, 0, tensors, tuple(missing), box_rows)


def _box_rows(stored: ModelFile, graph: Graph) -> dict[str, BoxRows]:
    """The rows of boxes and objectness of all heads with anchors whose number of classes differs."""
    found: dict[str, BoxRows] = {}
    for node in graph.layers:
        if not isinstance(node.spec, DetectionHeadSpec) or not node.spec.anchors:
            continue
        spec, feeding = node.spec, feeding_layers(graph, node.sources[0])
        shared = spec.channels_for(0)
        anchors = spec.channels_for(1) - shared
        if len(feeding) != 1 or graph.layers[feeding[0][0]].output.c != spec.channels_for(spec.classes):
            continue
        layer = graph.layers[feeding[0][0]]
        for array in layer.spec.arrays(layer):
            name = tensor_name(layer, array)
            values = stored.tensors.get(name)
            if values is None or values.shape[1:] != array.shape[1:] or values.shape[0] == array.shape[0]:
                continue
            if not values.shape[0] % anchors and values.shape[0] > shared:
                rows = values.view(anchors, -1, *values.shape[1:])[:, : shared // anchors]
                found[name] = BoxRows(layer.index, rows)
    return found


def _layers(indices: Sequence[int]) -> str:
    return f"layer{'s' if len(indices) > 1 else ''} {index_ranges(indices)}"


def index_ranges(indices: Sequence[int]) -> str:
    """Rising indices in words: `3, 29–30`."""
    return ", ".join(_ranges(indices))


def _ranges(indices: Sequence[int]) -> Iterator[str]:
    for _, pairs in groupby(enumerate(indices), key=lambda pair: pair[1] - pair[0]):
        run = [index for _, index in pairs]
        yield f"{run[0]}–{run[-1]}" if len(run) > 1 else str(run[0])
