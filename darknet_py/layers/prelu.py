"""[prelu]: parametric ReLU, for MTCNN (isLouisHsu/DarkerNet's `prelu_layer.c`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darknet_py.cfg.net import NetSpec
from darknet_py.cfg.options import Options
from darknet_py.counted import counted
from darknet_py.layers.base import LayerArray, LayerSource, Node, Shape, ShapeError, SourceError, Spec

_INITIAL_SLOPE = 0.25  # that fork only reads trained weights; this is where the paper and PyTorch begin


@dataclass(frozen=True, kw_only=True)
class PreluSpec(Spec):
    """`parse_prelu`: n slopes for negative values, one for each of n groups of neighboring channels."""

    n: int

    @classmethod
    def parse(cls, options: Options, net: NetSpec, index: int) -> PreluSpec:
        return cls(n=options.int("n", 1, 1))

    def infer(self, inputs: Sequence[Shape]) -> Shape:
        (x,) = inputs
        if x.c % self.n:
            raise ShapeError(f"n: expected a divisor of {counted(x.c, 'channel')}, got {self.n}")
        return x

    def arrays(self, node: Node) -> tuple[LayerArray, ...]:
        return (LayerArray("slope", "bias", (self.n,)),)

    def source(self, node: Node) -> LayerSource:
        if self.n not in (1, node.output.c):
            raise SourceError(f"{self.n} slopes for {counted(node.output.c, 'channel')}")
        return LayerSource("{layer}({0})", f"nn.PReLU({self.n})", (), {"slope": "weight"})

    def build(self, node: Node) -> nn.Module:
        return PreluLayer(self.n, node.output.c)


class PreluLayer(nn.Module):
    """slope (n,)."""

    def __init__(self, n: int, channels: int):
        super().__init__()
        self.repeats = channels // n
        self.slope = nn.Parameter(torch.full((n,), _INITIAL_SLOPE))

    def forward(self, x: Tensor) -> Tensor:
        return F.prelu(x, self.slope.repeat_interleave(self.repeats))
