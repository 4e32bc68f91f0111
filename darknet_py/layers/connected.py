"""[connected]: a fully connected layer."""

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
from darknet_py.layers.base import LayerArray, LayerSource, Node, Shape, Spec, scaled_uniform
from darknet_py.layers.normalize import NormalizedLayer, batch_norm_arrays, norm_names
from darknet_py.layers.plain import Connected


def connected_arrays(outputs: int, inputs: int, norm: bool, prefix: str = "") -> tuple[LayerArray, ...]:
    """bias, weight, then scale, mean, variance (`load_connected_weights`). prefix: path of a sub-module, with dot."""
    arrays = (
        LayerArray("bias", "bias", (outputs,)),
        LayerArray("weight", "weight", (outputs, inputs), inputs, transposable=True),
        *(batch_norm_arrays(outputs) if norm else ()),
    )
    return tuple(array._replace(name=prefix + array.name) for array in arrays)


def connected_source(inputs: int, outputs: int, activation: str, norm: bool) -> LayerSource:
    """A fully connected layer in plain torch."""
    function, parts = activation_source(activation)
    module = f"Connected({inputs}, {outputs}{', norm=True' if norm else ''}, activation={function})"
    names = norm_names("norm.") if norm else {"bias": "linear.bias"}
    return LayerSource("{layer}({0})", module, (*parts, Connected), {**names, "weight": "linear.weight"})


@dataclass(frozen=True, kw_only=True)
class ConnectedSpec(Spec):
    """Darknet's `parse_connected`."""

    vector: ClassVar[bool] = True
    channels_key: ClassVar[str] = "output"
    norm_keys: ClassVar[tuple[str, ...]] = ("batch_normalize",)

    output: int
    batch_normalize: bool

    @classmethod
    def parse(cls, options: Options, net: NetSpec, index: int) -> ConnectedSpec:
        return cls(
            output=options.int("output", 1, 1),
            activation=parse_activation(options, "logistic"),
            batch_normalize=options.flag("batch_normalize"),
        )

    def infer(self, inputs: Sequence[Shape]) -> Shape:
        return Shape(self.output, 1, 1)

    def arrays(self, node: Node) -> tuple[LayerArray, ...]:
        return connected_arrays(self.output, node.inputs[0].size, self.batch_normalize)

    def source(self, node: Node) -> LayerSource:
        return connected_source(node.inputs[0].size, self.output, self.activation, self.batch_normalize)

    def build(self, node: Node) -> nn.Module:
        return ConnectedLayer(node.inputs[0].size, self.output, self.activation, self.batch_normalize)


class ConnectedLayer(NormalizedLayer):
    """(B, C, H, W) → (B, outputs, 1, 1). weight (outputs, inputs), bias (outputs)."""

    def __init__(self, inputs: int, outputs: int, activation: str, norm: bool):
        super().__init__()
        self.weight = nn.Parameter(scaled_uniform((outputs, inputs), inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.norm = norm
        if norm:
            self.add_batch_norm(outputs)
        self.activation = activation
        self.activate = ACTIVATIONS[activation]

    def forward(self, x: Tensor) -> Tensor:
        x = F.linear(x.flatten(1), self.weight, None if self.norm else self.bias)
        if self.norm:
            x = self.batch_norm(x)
        return self.activate(x)[:, :, None, None]
