"""[se]: squeeze and excitation (arXiv 1709.01507), as SpursLipu's cfgs of MobileNetV3 and GhostNet have it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from darknet_py.cfg.net import NetSpec
from darknet_py.cfg.options import Options
from darknet_py.layers.base import Cost, LayerArray, LayerSource, Node, Shape, ShapeError, Spec, scaled_uniform
from darknet_py.layers.foreign import check_squeeze


@dataclass(frozen=True, kw_only=True)
class SqueezeExcitationSpec(Spec):
    """The `SE` module of SpursLipu/YOLOv3v4-ModelCompression-MultidatasetTraining-Multibackbone (utils/layers.py).

    Each channel is multiplied by a factor in 0..1: the channels' means through two fully connected layers without
    bias, the first with channels / reduction outputs and relu, the second with a hard sigmoid.
    """

    filters: int  # 0: as many as there are
    reduction: int

    @classmethod
    def parse(cls, options: Options, net: NetSpec, index: int) -> SqueezeExcitationSpec:
        check_squeeze(options)
        return cls(filters=options.int("filters", 0, 0), reduction=options.int("reduction", 4, 1))

    def infer(self, inputs: Sequence[Shape]) -> Shape:
        (x,) = inputs
        if self.filters not in (0, x.c):
            raise ShapeError(f"filters: expected the number of input channels, {x.c}, got {self.filters}")
        if x.c < self.reduction:
            raise ShapeError(f"reduction: expected at most {x.c}, the number of input channels, got {self.reduction}")
        return x

    def arrays(self, node: Node) -> tuple[LayerArray, ...]:
        channels, inner = self._channels(node)
        return (
            LayerArray("squeeze", "weight", (inner, channels, 1, 1), channels),
            LayerArray("excite", "weight", (channels, inner, 1, 1), inner),
        )

    def cost(self, node: Node) -> Cost:
        channels, inner = self._channels(node)
        return Cost(4.0 * channels * inner, node.inputs[0].size, node.output.size)

    def source(self, node: Node) -> LayerSource:
        channels, inner = self._channels(node)
        module = (
            f"nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d({channels}, {inner}, 1, bias=False), nn.ReLU(), "
            f"nn.Conv2d({inner}, {channels}, 1, bias=False), nn.Hardsigmoid())"
        )
        return LayerSource("{0} * {layer}({0})", module, (), {"squeeze": "1.weight", "excite": "3.weight"})

    def build(self, node: Node) -> nn.Module:
        return SqueezeExcitationLayer(*self._channels(node))

    def _channels(self, node: Node) -> tuple[int, int]:
        """(channels, outputs of the first fully connected layer)."""
        return node.output.c, node.output.c // self.reduction


class SqueezeExcitationLayer(nn.Module):
    """squeeze (inner, channels, 1, 1), excite (channels, inner, 1, 1)."""

    def __init__(self, channels: int, inner: int):
        super().__init__()
        self.squeeze = nn.Parameter(scaled_uniform((inner, channels, 1, 1), channels))
        self.excite = nn.Parameter(scaled_uniform((channels, inner, 1, 1), inner))

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(F.conv2d(F.adaptive_avg_pool2d(x, 1), self.squeeze))
        return x * F.hardsigmoid(F.conv2d(inner, self.excite))
