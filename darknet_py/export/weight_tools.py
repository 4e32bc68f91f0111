"""Darknet's weight tools (`darknet.c`): changes of trained arrays that need no training.

Each takes what the files contain and returns what the new file is to contain. As in C, the number of images seen is
cut to whole batches. `docs/differences.md` says where C is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from darknet_py.cfg.document import CfgEdit
from darknet_py.counted import counted
from darknet_py.errors import DarknetError, WeightsError
from darknet_py.graph.graph import Graph, build_graph
from darknet_py.layers.base import DetectionHeadSpec, LayerArray, Node
from darknet_py.layers.normalize import EPS
from darknet_py.model.header import Header, read_header
from darknet_py.model.layout import arrays, tensor_name
from darknet_py.model.model_file import ModelFile
from darknet_py.model.network import Network

_IDENTITY = {"scale": 1.0, "mean": 0.0, "variance": 1.0}  # batch norm that changes nothing (but for EPS)


class ArrayStatistics(NamedTuple):
    """One array of a network.

    Attributes:
        layer: Index of the layer.
        type: Its section.
        name: The array within the layer ("weight", "gates.wf.bias").
        size: Number of values.
        rms: Root of the mean square (C prints it as MSE).
        mean: Their mean.
        variance: Their variance, divided by their number.
        least: The smallest value.
        largest: The largest value.
    """

    layer: int
    type: str
    name: str
    size: int
    rms: float
    mean: float
    variance: float
    least: float
    largest: float


def partial(model: ModelFile, layers: int) -> ModelFile:
    """The first layers alone, with no images seen (`partial`).

    Args:
        model: The network with its arrays.
        layers: How many layers to keep.

    Returns:
        What the file `NAME.conv.N` contains.

    Raises:
        DarknetError: The network has fewer layers.
        WeightsError: One of the layers has no weights.
    """
    count = len(model.graph.layers)
    if not 0 < layers <= count:
        raise DarknetError(f"expected 1 to {counted(count, 'layer')} of {model.graph.path}, got {layers}")
    model.require_weights(layers)
    return replace(model.before(layers), header=Header())


def average(models: Sequence[ModelFile]) -> ModelFile:
    """The mean of the arrays of several trainings of one network (`average`).

    Args:
        models: The trainings; the graph and the number of images seen are the first one's.

    Returns:
        The averaged network.

    Raises:
        WeightsError: The files do not hold the same arrays.
    """
    first = models[0]
    total = {name: values.clone() for name, values in first.tensors.items()}
    for other in models[1:]:
        if other.tensors.keys() != total.keys():
            layers = [len({name.split(".")[1] for name in model.tensors}) for model in (first, other)]
            raise WeightsError(
                f"expected files of the same layers, got {layers[0]} and {counted(layers[1], 'layer')} with arrays"
            )
        for name, values in total.items():
            values += other.tensors[name]
    factor = float(np.float32(1 / len(models)))
    return _saved(first, {name: values * factor for name, values in total.items()})


def rgbgr(model: ModelFile) -> ModelFile:
    """For images whose red and blue are swapped: swaps those of the first filters (`rgbgr`).

    Args:
        model: The network with its arrays.

    Returns:
        The network for the other order of the channels.

    Raises:
        WeightsError: The first filters do not read three channels, or the file does not hold them.
    """
    _, name = _first_filters(model)
    return _saved(model, {**model.tensors, name: model.tensors[name].flip(1)})


def rescale(model: ModelFile) -> ModelFile:
    """For pixels in 0…1 instead of −1…1: w · (2x − 1) = 2w · x − sum of w (`rescale`).

    With batch norm the sum goes to the mean, which is subtracted before the bias is added. Where the filters reach
    beyond the image, the zeros there are the old network's gray.

    Args:
        model: The network with its arrays.

    Returns:
        The network for pixels in 0…1.

    Raises:
        WeightsError: The first filters do not read three channels, or the file does not hold them.
    """
    layer, name = _first_filters(model)
    weight = model.tensors[name] * 2
    half = weight.sum((1, 2, 3)) * -0.5
    mean, bias = f"layers.{layer}.mean", f"layers.{layer}.bias"
    shifted = {mean: model.tensors[mean] - half} if mean in model.tensors else {bias: model.tensors[bias] + half}
    return _saved(model, {**model.tensors, name: weight, **shifted})


def reset(model: ModelFile) -> ModelFile:
    """Folds batch norm into filters and biases; its arrays remain as scale 1, mean 0, variance 1 (`reset`).

    Args:
        model: The network with its arrays.

    Returns:
        A network with the same outputs and the same cfg.
    """
    return _saved(model, _folded(model))


def denormalize(model: ModelFile) -> ModelFile:
    """Folds batch norm into filters and biases, and removes it (`denormalize`).

    Args:
        model: The network with its arrays.

    Returns:
        A network with the same outputs, whose cfg has `batch_normalize=0`. A `[batchnorm]` section stays.
    """
    edits = []
    for node, section in zip(model.graph.layers, model.graph.document.sections[1:], strict=True):
        present = {option.key for option in section.options}
        edits += [CfgEdit(node.index + 1, key, "0") for key in node.spec.norm_keys if key in present]
    return _saved(model, _folded(model), build_graph(model.graph.document.with_edits(edits)))


def normalize(model: ModelFile) -> ModelFile:
    """Gives batch norm to the layers without: scale 1, mean 0, variance 1 (`normalize`).

    Args:
        model: The network with its arrays.

    Returns:
        A network with the same outputs, whose cfg has `batch_normalize=1` in every layer that can have it.
    """
    edits = []
    for node in model.graph.layers:
        has = any(array.role == "scale" for array in node.spec.arrays(node))
        edits += [CfgEdit(node.index + 1, key, "1") for key in node.spec.norm_keys[:1] if not has]
    return _saved(model, model.tensors, build_graph(model.graph.document.with_edits(edits)))


def oneoff(cfg: str | Path, weights: str | Path) -> ModelFile:
    """Gives a detector the class filters of a classifier with fewer classes (`oneoff`, made for YOLO9000).

    The file fits the cfg but for the layer before the head, of which it holds k filters. They become the first k
    classes of every anchor. The other filters of that layer are new, the same for all anchors.

    Args:
        cfg: The detector.
        weights: The classifier's `.weights` file. Its length says what k is (C: 9372).

    Returns:
        The detector, with no images seen.

    Raises:
        CfgError: The cfg is wrong.
        WeightsError: The file does not fit.
        DarknetError: The cfg does not end in a layer with filters and a detection head with anchors.
    """
    model = ModelFile.read(cfg)
    graph = model.graph
    head = graph.layers[-1]
    if not isinstance(head.spec, DetectionHeadSpec) or len(graph.layers) < 2:
        raise DarknetError(f"{graph.path}: expected a detection head as the last layer, got [{head.type}]")
    anchors = len(head.spec.anchors if head.spec.mask is None else head.spec.mask)
    node = graph.layers[-2]
    expected = node.spec.arrays(node)
    if not anchors or not expected or expected[0].count % anchors:
        raise DarknetError(f"{graph.path}: expected filters for each anchor before the last layer, got [{node.type}]")
    per_anchor = expected[0].count // anchors
    box = per_anchor - head.spec.classes  # coordinates and objectness
    stored = ModelFile.read_weights(weights, graph, cutoff=node.index)
    taken = _filters_at_end(weights, model, node, per_anchor - box)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        fresh = Network(graph).state_dict()
    tensors = {**stored.tensors}
    for array in expected:
        values = fresh[tensor_name(node, array)].clone()
        values[box : box + len(taken[array.name])] = taken[array.name]
        tensors[tensor_name(node, array)] = values[:per_anchor].repeat(anchors, *[1] * (values.dim() - 1))
    return replace(model, tensors=tensors, header=Header())


def statistics(model: ModelFile) -> list[ArrayStatistics]:
    """What C's `statistics` prints, of all arrays of all layers.

    Args:
        model: The network with its arrays.

    Returns:
        One entry for each array that the file holds, in file order.
    """
    result = []
    for node, array in arrays(model.graph):
        values = model.tensors.get(tensor_name(node, array))
        if values is not None:
            x = values.double()
            moments = (x.square().mean().sqrt(), x.mean(), x.var(correction=0), x.min(), x.max())
            result.append(ArrayStatistics(node.index, node.type, array.name, array.count, *map(float, moments)))
    return result


def _saved(model: ModelFile, tensors: Mapping[str, Tensor], graph: Graph | None = None) -> ModelFile:
    """The model as C saves it, for a graph that may have more or fewer arrays of batch norm."""
    graph = graph or model.graph
    kept = {}
    for node, array in arrays(graph):
        name = tensor_name(node, array)
        if name in tensors:
            kept[name] = tensors[name]
        elif name not in model.tensors and array.role in _IDENTITY and _sibling(name, "bias") in tensors:
            kept[name] = torch.full(array.shape, _IDENTITY[array.role])
    batch = graph.net.batch_images
    return replace(model, graph=graph, tensors=kept, header=Header(seen=model.header.seen // batch * batch))


def _folded(model: ModelFile) -> dict[str, Tensor]:
    """The arrays with every batch norm folded into the filters before it (`denormalize_convolutional_layer`).

    Where there are none to fold into, as in `[batchnorm]`, it stays.
    """
    tensors = dict(model.tensors)
    for node, array in arrays(model.graph):
        name = tensor_name(node, array)
        scale = model.tensors.get(_sibling(name, "scale"))
        if array.role != "weight" or scale is None:
            continue
        root = torch.sqrt(model.tensors[_sibling(name, "variance")].double() + EPS)
        factor = (scale.double() / root).float()
        shape = [1] * len(array.shape)
        shape[array.axis] = -1
        tensors[name] = model.tensors[name] * factor.view(shape)
        bias = _sibling(name, "bias")
        tensors[bias] = model.tensors[bias] - model.tensors[_sibling(name, "mean")] * factor
        for role, value in _IDENTITY.items():
            tensors[_sibling(name, role)] = torch.full_like(scale, value)
    return tensors


def _sibling(name: str, array: str) -> str:
    """The name of another array of the same part of a layer."""
    return f"{name.rpartition('.')[0]}.{array}"


def _first_filters(model: ModelFile) -> tuple[int, str]:
    """(layer, name) of the filters that read the image."""
    for node, array in arrays(model.graph):
        name = tensor_name(node, array)
        if array.role == "weight" and len(array.shape) == 4 and node.sources == (node.index - 1,):
            if name not in model.tensors:
                raise WeightsError(f"expected the filters of layer {node.index} [{node.type}], got a file without them")
            if array.shape[1] != 3 or array.axis:
                raise WeightsError(
                    f"layer {node.index} [{node.type}]: expected filters of 3 channels, got {array.shape[1]}"
                )
            return node.index, name
    raise WeightsError(f"{model.graph.path}: expected a layer with filters of 3 channels, got none")


def _filters_at_end(path: str | Path, model: ModelFile, node: Node, limit: int) -> dict[str, Tensor]:
    """The arrays of `node` by their names, of as many filters as a `.weights` file holds after the layers before."""
    header = read_header(path)
    position = sum(array.count for _, array in arrays(model.graph, node.index))
    floats = torch.from_numpy(np.fromfile(path, "<f4", offset=header.size)[position:])
    expected: tuple[LayerArray, ...] = node.spec.arrays(node)
    widths = [array.count // array.shape[0] for array in expected]
    filters, rest = divmod(len(floats), sum(widths))
    if rest or not 0 < filters <= limit:
        raise WeightsError(
            f"{path}: layer {node.index} [{node.type}]: expected whole filters of {sum(widths)} floats, "
            f"at most {limit} of them, got {len(floats)} floats"
        )
    parts = floats.split([filters * width for width in widths])
    return {array.name: part.view(filters, *array.shape[1:]) for array, part in zip(expected, parts, strict=True)}
