"""[convolutional]: grouped, dilated, strided convolution with batch norm and activation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darknet_py.cfg.net import NetSpec
from darknet_py.cfg.options import Options
from darknet_py.layers.activations import ACTIVATIONS, IN_PLACE, parse_activation
from darknet_py.layers.base import Array, Cost, Node, Shape, ShapeError, Spec, scaled_uniform, windows
from darknet_py.layers.normalize import add_batch_norm, batch_norm, batch_norm_arrays


@dataclass(frozen=True)
class Convolutional(Spec):
    """Darknet's `parse_convolutional`. `pad=1` means padding size/2; `padding=` sets it outright."""

    filters: int
    size: int
    stride_x: int
    stride_y: int
    dilation: int
    padding: int
    groups: int
    batch_normalize: bool
    activation: str
    flipped: bool

    @classmethod
    def parse(cls, o: Options, net: NetSpec, index: int) -> Convolutional:
        size = o.int("size", 1, 1, 1 << 12)
        stride = o.int("stride", 1, 1)
        stride_x, stride_y = o.int("stride_x", -1), o.int("stride_y", -1)
        padding = o.int("padding", 0, 0)
        dilation = o.int("dilation", 1, 1)
        return cls(
            filters=o.int("filters", 1, 1),
            size=size,
            stride_x=stride_x if stride_x > 0 else stride,
            stride_y=stride_y if stride_y > 0 else stride,
            dilation=1 if size == 1 else dilation,
            padding=size // 2 if o.flag("pad") else padding,
            groups=o.int("groups", 1, 1),
            batch_normalize=o.flag("batch_normalize"),
            activation=parse_activation(o, "logistic"),
            flipped=o.flag("flipped"),
        )

    def infer(self, inputs: Sequence[Shape]) -> Shape:
        (x,) = inputs
        if x.c % self.groups or self.filters % self.groups:
            raise ShapeError(
                f"groups: wanted a divisor of {x.c} input channels and {self.filters} filters, found {self.groups}"
            )
        reach = self.dilation * (self.size - 1) + 1
        border = 2 * self.padding * self.dilation
        height = windows(x.h + border, reach, self.stride_y)
        width = windows(x.w + border, reach, self.stride_x)
        if height < 1 or width < 1:
            raise ShapeError(f"wanted an input of at least {self.size} x {self.size} pixels, found {x.w} x {x.h}")
        return Shape(self.filters, height, width)

    def arrays(self, node: Node) -> tuple[Array, ...]:
        per_group = node.inputs[0].c // self.groups
        shape = (self.filters, per_group, self.size, self.size)
        weight = Array("weight", "weight", shape, per_group * self.size**2, flipped=self.flipped)
        bias = Array("bias", "bias", (self.filters,))
        norm = batch_norm_arrays(self.filters) if self.batch_normalize else ()
        return (bias, *norm, weight)

    def cost(self, node: Node) -> Cost:
        weights = self.filters * (node.inputs[0].c // self.groups) * self.size**2
        flops = 2.0 * weights * node.output.h * node.output.w
        return Cost(flops, node.inputs[0].size, node.output.size)

    def build(self, node: Node) -> nn.Module:
        return Convolution(self, node.inputs[0].c)

    def kernel(self) -> tuple[int, int, int]:
        return (self.size, self.stride_x, self.dilation)


class Convolution(nn.Module):
    """weight (filters, channels/groups, size, size), bias (filters), and scale, mean, variance with batch norm."""

    def __init__(self, spec: Convolutional, channels: int):
        super().__init__()
        self.spec = spec
        per_group = channels // spec.groups
        shape = (spec.filters, per_group, spec.size, spec.size)
        if spec.activation.startswith("normalize_channels"):
            self.weight = nn.Parameter(torch.ones(shape))
        else:
            self.weight = nn.Parameter(scaled_uniform(shape, per_group * spec.size**2))
        self.bias = nn.Parameter(torch.zeros(spec.filters))
        if spec.batch_normalize:
            add_batch_norm(self, spec.filters)
        # Neither batch norm's nor the convolution's backward pass reads its own output.
        self.activate = IN_PLACE.get(spec.activation, ACTIVATIONS[spec.activation])

    def forward(self, x: Tensor) -> Tensor:
        spec = self.spec
        bias = None if spec.batch_normalize else self.bias
        pad = spec.padding * spec.dilation
        stride = (spec.stride_y, spec.stride_x)
        inside = spec.dilation * (spec.size - 1) + 1 - 2 * pad
        if inside > min(x.shape[2], x.shape[3]):  # the only window sticks out of a tiny image; see `windows`
            x = F.pad(x, (0, max(inside - x.shape[3], 0), 0, max(inside - x.shape[2], 0)))
        x = F.conv2d(x, self.weight, bias, stride, (pad, pad), spec.dilation, spec.groups)
        if spec.batch_normalize:
            x = batch_norm(self, x)
        return self.activate(x)
