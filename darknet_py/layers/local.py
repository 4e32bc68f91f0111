"""[local]: a convolution whose filters differ at every output pixel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darknet_py.cfg.net import NetSpec
from darknet_py.cfg.options import Options
from darknet_py.layers.activations import ACTIVATIONS, activation_source, parse_activation
from darknet_py.layers.base import (
    Cost,
    LayerArray,
    LayerSource,
    Node,
    Shape,
    ShapeError,
    Spec,
    conv_output_size,
    scaled_uniform,
)
from darknet_py.layers.plain import Local


@dataclass(frozen=True, kw_only=True)
class LocalSpec(Spec):
    """Darknet's `parse_local`. With pad the map is padded so that every stride-th pixel is the center of a window.

    C pads by one pixel for every size, which is right for size 3 only and reads outside the map with others.
    """

    channels_key: ClassVar[str] = "filters"

    filters: int
    size: int
    stride: int
    pad: bool

    @classmethod
    def parse(cls, options: Options, net: NetSpec, index: int) -> LocalSpec:
        return cls(
            filters=options.int("filters", 1, 1),
            size=options.int("size", 1, 1, 1 << 12),
            stride=options.int("stride", 1, 1),
            pad=options.flag("pad"),
            activation=parse_activation(options, "logistic"),
        )

    def infer(self, inputs: Sequence[Shape]) -> Shape:
        (x,) = inputs
        reach = 1 if self.pad else self.size
        if min(x.h, x.w) < reach:
            raise ShapeError(f"expected an input of at least {self.size} x {self.size} pixels, got {x.w} x {x.h}")
        return Shape(self.filters, conv_output_size(x.h, reach, self.stride), conv_output_size(x.w, reach, self.stride))

    def workspace(self, inputs: Sequence[Shape]) -> int:
        """The padded input, or the pixels of all windows."""
        (x,) = inputs
        pixels = math.prod(self.infer(inputs)[1:])
        return max(x.c * (x.h + self.size) * (x.w + self.size), x.c * self.size**2 * pixels)

    def arrays(self, node: Node) -> tuple[LayerArray, ...]:
        out, channels = node.output, node.inputs[0].c
        fan_in = channels * self.size**2
        return (
            LayerArray("bias", "bias", (out.c, out.h, out.w)),
            LayerArray("weight", "weight", (out.h * out.w, out.c, fan_in), fan_in),
        )

    def cost(self, node: Node) -> Cost:
        return Cost(0.0, node.inputs[0].size, node.output.size)  # Darknet's table has no operations for this layer

    def source(self, node: Node) -> LayerSource:
        activation, parts = activation_source(self.activation)
        before = self.size // 2 if self.pad else 0
        pads = (before, self.size - 1 - before if self.pad else 0)
        sizes = f"{node.inputs[0].c}, {tuple(node.output)}, {self.size}, {self.stride}, {pads}"
        module = f"Local({sizes}, activation={activation})"
        return LayerSource("{layer}({0})", module, (*parts, Local), {"bias": "bias", "weight": "weight"})

    def build(self, node: Node) -> nn.Module:
        return LocalLayer(self, node)

    def kernel(self) -> tuple[int, int, int]:
        return (self.size, self.stride, 1)


class LocalLayer(nn.Module):
    """weight (pixels, filters, channels·size²), bias (filters, H, W)."""

    def __init__(self, spec: LocalSpec, node: Node):
        super().__init__()
        self.spec = spec
        self.output = node.output
        bias, weight = spec.arrays(node)
        self.weight = nn.Parameter(scaled_uniform(weight.shape, weight.fan_in))
        self.bias = nn.Parameter(torch.zeros(bias.shape))
        self.activation = spec.activation
        self.activate = ACTIVATIONS[spec.activation]

    def forward(self, x: Tensor) -> Tensor:
        spec = self.spec
        if spec.pad:
            before = spec.size // 2
            after = spec.size - 1 - before
            x = F.pad(x, (before, after, before, after))
        patches = F.unfold(x, spec.size, stride=spec.stride)  # (B, channels·size², pixels)
        y = torch.einsum("bkp,pfk->bfp", patches, self.weight).unflatten(2, self.bias.shape[1:])
        return self.activate(y + self.bias)
