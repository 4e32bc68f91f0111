"""What C Darknet's CPU build does otherwise than its GPU build, to compare multi-step training with its figures.

Our training follows the GPU build, which trained the published weights and whose gradients are the mathematical ones.
The CPU build (AlexeyAB's HEAD), which gave the figures of reference/train, differs in these ways:

- a convolution's backward pass overwrites the delta of the layer before it (`col2im_cpu_ext` clears it first), and so
  drops what later readers of that layer (route, shortcut) had handed back;
- only convolutional, shortcut and maxpool layers clear their delta at each iteration (`forward_network` asks for
  `l.train`); that of a route, upsample or avgpool layer goes on growing, unless a convolution overwrites it;
- delta_normalizer does nothing;
- batch norm divides by n − 1, keeps its running statistics with momentum .1, and its bias gets no gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

from darknet_py.layers.base import HeadLayer, Node
from darknet_py.layers.normalize import EPS, NormalizedLayer
from darknet_py.model.network import Network

_CLEARED = ("convolutional", "shortcut", "maxpool")


@contextmanager
def cpu_build() -> Iterator[None]:
    """While it is entered, networks compute gradients and batch norm as C's CPU build does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Network, "_run", _run)
        patch.setattr(NormalizedLayer, "batch_norm", _batch_norm)
        yield


def _run(self: Network, x: Tensor, step: Callable[[Node, nn.Module, list[Tensor]], Tensor | None]) -> None:
    nodes = self.graph.layers
    deltas: dict[int, Tensor] = self.__dict__.setdefault("deltas", {})
    outputs = {-1: x}
    self.state.scale_delta = False
    for _, head in self.heads:
        head.input_size = (x.shape[3], x.shape[2])
    for node, module in zip(nodes, self.layers, strict=True):
        inputs = [
            outputs[source].detach() if _overwritten(nodes, source) and node.index != source + 1 else outputs[source]
            for source in node.sources
        ]
        output = step(node, module, inputs)
        if output is None:
            continue
        cleared = node.type in _CLEARED or isinstance(module, HeadLayer) or _overwritten(nodes, node.index)
        if not cleared and output.requires_grad:
            output.register_hook(lambda delta, index=node.index: _grown(deltas, index, delta))
        outputs[node.index] = output


def _overwritten(nodes: tuple[Node, ...], index: int) -> bool:
    return 0 <= index < len(nodes) - 1 and nodes[index + 1].type == "convolutional"


def _grown(deltas: dict[int, Tensor], index: int, delta: Tensor) -> Tensor:
    deltas[index] = delta + deltas.get(index, 0)
    return deltas[index]


def _batch_norm(module: nn.Module, x: Tensor) -> Tensor:
    assert module.training
    mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=True)
    with torch.no_grad():
        module.mean.lerp_(mean, 0.1)
        module.variance.lerp_(variance, 0.1)
    mean, variance, scale, bias = (v[:, None, None] for v in (mean, variance, module.scale, module.bias.detach()))
    return (x - mean) / torch.sqrt(variance + EPS) * scale + bias
