"""[deconvolutional] (pjreddie): transposed convolution with batch norm and activation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darknet_py.cfg.net import NetSpec
from darknet_py.cfg.options import Options
from darknet_py.layers.activations import ACTIVATIONS, activation_source, parse_activation
from darknet_py.layers.base import Cost, LayerArray, LayerSource, Node, Shape, ShapeError, Spec, scaled_normal
from darknet_py.layers.normalize import NormalizedLayer, batch_norm_arrays, norm_names
from darknet_py.layers.plain import Deconv


@dataclass(frozen=True, kw_only=True)
class DeconvolutionalSpec(Spec):
    """`parse_deconvolutional`: output (in − 1)·stride + size − 2·padding."""

    spreads: ClassVar[bool] = True
    channels_key: ClassVar[str] = "filters"
    norm_keys: ClassVar[tuple[str, ...]] = ("batch_normalize",)

    filters: int
    size: int
    stride: int
    padding: int
    batch_normalize: bool

    @classmethod
    def parse(cls, options: Options, net: NetSpec, index: int) -> DeconvolutionalSpec:
        size = options.int("size", 1, 1, 1 << 12)
        padding = options.int("padding", 0, 0)
        return cls(
            filters=options.int("filters", 1, 1),
            size=size,
            stride=options.int("stride", 1, 1, 1 << 12),
            padding=size // 2 if options.flag("pad") else padding,
            batch_normalize=options.flag("batch_normalize"),
            activation=parse_activation(options, "logistic"),
        )

    def infer(self, inputs: Sequence[Shape]) -> Shape:
        (x,) = inputs
        height, width = ((side - 1) * self.stride + self.size - 2 * self.padding for side in (x.h, x.w))
        if height < 1 or width < 1:
            raise ShapeError(f"padding: expected a non-empty output, got {width} x {height}")
        return Shape(self.filters, height, width)

    def arrays(self, node: Node) -> tuple[LayerArray, ...]:
        channels = node.inputs[0].c
        shape = (channels, self.filters, self.size, self.size)
        weight = LayerArray("weight", "weight", shape, channels * self.size**2, axis=1)
        norm = batch_norm_arrays(self.filters) if self.batch_normalize else ()
        return (LayerArray("bias", "bias", (self.filters,)), *norm, weight)

    def cost(self, node: Node) -> Cost:
        weights = node.inputs[0].c * self.filters * self.size**2
        return Cost(2.0 * weights * node.inputs[0].h * node.inputs[0].w, node.inputs[0].size, node.output.size)

    def kernel(self) -> tuple[int, int, int]:
        return (self.size, self.stride, 1)

    def source(self, node: Node) -> LayerSource:
        activation, parts = activation_source(self.activation)
        sizes = f"{node.inputs[0].c}, {self.filters}, {self.size}, {self.stride}, {self.padding}"
        module = f"Deconv({sizes}, norm={self.batch_normalize}, activation={activation})"
        names = norm_names("norm.") if self.batch_normalize else {"bias": "conv.bias"}
        return LayerSource("{layer}({0})", module, (*parts, Deconv), {**names, "weight": "conv.weight"})

    def build(self, node: Node) -> nn.Module:
        return DeconvolutionalLayer(self, node)


class DeconvolutionalLayer(NormalizedLayer):
    """weight (channels, filters, size, size), bias (filters), and scale, mean, variance with batch norm."""

    def __init__(self, spec: DeconvolutionalSpec, node: Node):
        super().__init__()
        self.spec = spec
        # Darknet's standard deviation: .02, times the factor by which the layer enlarges its input.
        deviation = 0.02 * node.output.h * node.output.w / (node.inputs[0].h * node.inputs[0].w)
        self.weight = nn.Parameter(scaled_normal(spec.arrays(node)[-1].shape, deviation))
        self.bias = nn.Parameter(torch.zeros(spec.filters))
        if spec.batch_normalize:
            self.add_batch_norm(spec.filters)
        self.activate = ACTIVATIONS[spec.activation]

    def forward(self, x: Tensor) -> Tensor:
        spec = self.spec
        bias = None if spec.batch_normalize else self.bias
        x = F.conv_transpose2d(x, self.weight, bias, spec.stride, spec.padding)
        return self.activate(self.batch_norm(x) if spec.batch_normalize else x)
