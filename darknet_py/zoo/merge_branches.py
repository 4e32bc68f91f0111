"""Re-parameterization (RepVGG, Ding et al., 2021): parallel convolutions that are added become one convolution.

A convolution is linear, so the sum of several of the same input is a convolution with the sum of their kernels, smaller
ones padded with zeros. Batch normalization is folded into them first; on its own ([batchnorm], RepVGG's identity
branch) it is a 1x1 convolution that keeps the channels apart. The result computes the same but for rounding.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from darknet_py.cfg.document import CfgDocument
from darknet_py.errors import DarknetError
from darknet_py.graph.graph import Graph, build_graph
from darknet_py.layers.base import Node
from darknet_py.layers.convolutional import ConvolutionalLayer, ConvolutionalSpec
from darknet_py.layers.merge import RouteSpec, ShortcutSpec
from darknet_py.layers.normalize import EPS, BatchNormLayer, BatchNormSpec
from darknet_py.model.network import Network

_REFERENCES = ("layers", "from", "share_index", "embedding_layer", "yolo_layer")


class Branches(NamedTuple):
    """Layers of a sum of parallel branches: `members`, `[route]`s back to their input between them, and the sum."""

    members: tuple[int, ...]
    sum: int

    @property
    def dropped(self) -> range:
        """The layers that the sum replaces."""
        return range(self.members[0], self.sum)


def find_branches(graph: Graph) -> list[Branches]:
    """The parallel branches that can be merged.

    They follow each other in the cfg: a convolution, `[route] layers=-2`, another, `[shortcut] from=-3`; with a third
    branch also `[route] layers=-4` before it, and then `[shortcut] from=-3,-5`. A branch is a convolution or
    `[batchnorm]`, and at least one is a convolution. All convolutions have the same filters, groups and stride, linear
    activation and windows of odd size padded to keep the map's size. Nothing else reads the branches.
    """
    readers: dict[int, int] = {}
    for node in graph:
        for source in node.sources:
            readers[source] = readers.get(source, 0) + 1
    shared = {node.spec.share_index for node in graph if isinstance(node.spec, ConvolutionalSpec)}
    found = []
    for node in graph:
        if not isinstance(node.spec, ShortcutSpec) or node.spec.weights_type != "none":
            continue
        branches = Branches(tuple(sorted(node.sources)), node.index)
        once = all(readers.get(index) == 1 and index not in shared for index in branches.dropped)
        if once and _are_parallel(graph, branches):
            found.append(branches)
    return found


def _are_parallel(graph: Graph, branches: Branches) -> bool:
    first = branches.members[0]
    if first < 1 or branches.members != tuple(range(first, branches.sum, 2)):
        return False
    members = [graph.layers[index] for index in branches.members]
    for route in (graph.layers[index] for index in range(first + 1, branches.sum, 2)):
        if not isinstance(route.spec, RouteSpec) or route.spec.groups > 1 or route.sources != (first - 1,):
            return False
    convolutions = [member for member in members if not isinstance(member.spec, BatchNormSpec)]
    if members[0].sources != (first - 1,) or not convolutions or not all(map(_joins, convolutions)):
        return False
    same_shape = all(member.output == graph.layers[branches.sum].output for member in members)
    return same_shape and len({_key(member) for member in convolutions}) == 1


def _joins(node: Node) -> bool:
    """Whether the layer is an ordinary linear convolution that keeps the size of the map but for its stride."""
    spec = node.spec
    if not isinstance(spec, ConvolutionalSpec):
        return False
    plain = spec.share_index is None and not (spec.xnor or spec.antialiasing or spec.assisted_excitation or spec.cbn)
    same_size = spec.size % 2 == 1 and spec.padding == spec.size // 2 and spec.dilation == 1
    return plain and same_size and not spec.deformation and spec.activation == "linear"


def _key(node: Node) -> tuple[object, ...]:
    spec = node.spec
    assert isinstance(spec, ConvolutionalSpec)
    return spec.filters, spec.groups, spec.stride_y, spec.stride_x


def merge_branches(net: Network) -> Network:
    """Merges parallel convolutions of a network into single ones.

    Args:
        net: The trained network; it stays as it is.

    Returns:
        The merged network, in evaluation mode. Its graph's text is the new cfg.

    Raises:
        DarknetError: The network has no parallel convolutions that can be merged.
    """
    graph = net.graph
    found = find_branches(graph)
    if not found:
        expected = "linear convolutions of the same input that are added"
        raise DarknetError(f"{graph.path}: expected {expected}, got none")
    text, new_index = _merged_text(graph, found)
    document = CfgDocument.from_text(text, graph.path)
    merged = Network(build_graph(document, width=graph.net.width, height=graph.net.height), net.names)
    sums = {branches.sum: branches for branches in found}
    with torch.no_grad():
        for old, new in new_index.items():
            if old in sums:
                _write_sum(net, sums[old], merged.layers[new])
            else:
                merged.layers[new].load_state_dict(net.layers[old].state_dict())
    merged.state.seen, merged.state.iteration = net.state.seen, net.state.iteration
    return merged.eval()


def _write_sum(net: Network, branches: Branches, target: torch.nn.Module) -> None:
    assert isinstance(target, ConvolutionalLayer)
    weight = torch.zeros_like(target.weight, dtype=torch.float64)
    bias = torch.zeros_like(target.bias, dtype=torch.float64)
    for index in branches.members:
        layer = net.layers[index]
        assert isinstance(layer, (ConvolutionalLayer, BatchNormLayer))
        kernel, shift = _folded(layer, _identity(weight))
        border = (target.spec.size - kernel.shape[-1]) // 2
        weight += F.pad(kernel, (border,) * 4)
        bias += shift
    target.weight.copy_(weight)
    target.bias.copy_(bias)


def _identity(weight: Tensor) -> Tensor:
    """The kernel (filters, channels of a group, 1, 1) of the 1x1 convolution that changes nothing."""
    filters, channels = weight.shape[:2]
    return torch.eye(channels, dtype=weight.dtype).repeat(-(-filters // channels), 1)[:filters, :, None, None]


def _folded(layer: ConvolutionalLayer | BatchNormLayer, identity: Tensor) -> tuple[Tensor, Tensor]:
    """Weight and bias of the layer as a convolution without batch normalization, in float64."""
    weight = identity if isinstance(layer, BatchNormLayer) else layer.weight.double()
    bias = layer.bias.double()
    if not layer.has_batch_norm:
        return weight, bias
    factor = layer.scale.double() / torch.sqrt(layer.variance.double() + EPS)
    return weight * factor[:, None, None, None], bias - layer.mean.double() * factor


def _merged_text(graph: Graph, found: list[Branches]) -> tuple[str, dict[int, int]]:
    """The text with the merged convolutions, and old → new layer numbers of the layers that remain."""
    sums = {branches.sum: branches for branches in found}
    dropped = {index for branches in found for index in branches.dropped}
    kept = [node.index for node in graph if node.index not in dropped]
    new_index = {old: new for new, old in enumerate(kept)}
    lines = graph.text.splitlines()
    sections = graph.document.sections[1:]
    ends = [*(section.line - 1 for section in sections), len(lines)]
    chunks = ["\n".join(lines[: ends[0]])]
    for node, start, end in zip(graph, ends, ends[1:], strict=False):
        if node.index in dropped:
            continue
        if node.index in sums:
            chunks.append(_merged_section(graph, sums[node.index]))
            continue
        chunks.append("\n".join(_renumbered(line, node, new_index) for line in lines[start:end]))
    return "\n".join(chunks) + "\n", new_index


def _renumbered(line: str, node: Node, new_index: dict[int, int]) -> str:
    """The line with the layers that it names by their new numbers."""
    match = re.match(r"\s*(\w+)\s*=\s*([-\d,\s]+)", line)
    if not match or match[1] not in _REFERENCES:
        return line
    old = [int(number) for number in match[2].split(",") if number.strip()]
    new = [
        new_index[node.index + number] - new_index[node.index] if number < 0 else new_index[number] for number in old
    ]
    return f"{match[1]}={','.join(map(str, new))}"


def _merged_section(graph: Graph, branches: Branches) -> str:
    specs = [graph.layers[index].spec for index in branches.members]
    convolutions = [spec for spec in specs if isinstance(spec, ConvolutionalSpec)]
    first, size = convolutions[0], max(spec.size for spec in convolutions)
    activation = graph.layers[branches.sum].spec.activation
    stride = f"stride={first.stride_x}\n"
    if first.stride_x != first.stride_y:
        stride = f"stride_x={first.stride_x}\nstride_y={first.stride_y}\n"
    groups = f"groups={first.groups}\n" if first.groups > 1 else ""
    return (
        f"# Layers {branches.members[0]}-{branches.sum} before they were merged\n[convolutional]\n"
        f"filters={first.filters}\nsize={size}\n{stride}pad=1\n{groups}activation={activation}\n"
    )
