"""[implicit]: learned vectors independent of the input; YOLOR's layers that add or multiply them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from darknet_py.cfg.net import NetSpec
from darknet_py.cfg.options import Options
from darknet_py.layers.base import Cost, LayerArray, LayerSource, Node, Shape, ShapeError, Spec
from darknet_py.layers.merge import MultiplyLayer, parse_layers
from darknet_py.layers.plain import Implicit


@dataclass(frozen=True, kw_only=True)
class ImplicitSpec(Spec):
    """[implicit] (`make_implicit_layer`): `atoms` values per filter, (filters, atoms, 1) for each image."""

    reads_input: ClassVar[bool] = False
    channels_key: ClassVar[str] = "filters"

    filters: int
    atoms: int
    mean: float
    std: float

    @classmethod
    def parse(cls, options: Options, net: NetSpec, index: int) -> ImplicitSpec:
        return cls(
            filters=options.int("filters", 128, 1),
            atoms=options.int("atoms", 1, 1),
            mean=options.float("mean", 0.0),
            std=options.float("std", 0.2),
        )

    def inputs(self, index: int) -> tuple[int, ...]:
        return (-1,)  # only for the number of images

    def infer(self, inputs: Sequence[Shape]) -> Shape:
        return Shape(self.filters, self.atoms, 1)

    def arrays(self, node: Node) -> tuple[LayerArray, ...]:
        return (LayerArray("weight", "implicit", (self.filters, self.atoms, 1)),)

    def cost(self, node: Node) -> Cost:
        return Cost(0.0, 0, node.output.size)

    def source(self, node: Node) -> LayerSource:
        module = f"Implicit({self.filters}, {self.atoms})"
        return LayerSource("{layer}({0})", module, (Implicit,), {"weight": "weight"})

    def build(self, node: Node) -> nn.Module:
        return ImplicitLayer(self._initial(node.output))

    def _initial(self, shape: Shape) -> Tensor:
        return self.mean + self.std * (torch.rand(shape) * 2 - 1)


@dataclass(frozen=True, kw_only=True)
class ImplicitAddSpec(ImplicitSpec):
    """[implicit_add] (YOLOR): one value per filter around 0."""

    center: ClassVar[float] = 0.0

    @classmethod
    def parse(cls, options: Options, net: NetSpec, index: int) -> ImplicitSpec:
        return cls(filters=options.int("filters", 128, 1), atoms=1, mean=cls.center, std=0.02)

    def _initial(self, shape: Shape) -> Tensor:
        return self.mean + self.std * torch.randn(shape)


@dataclass(frozen=True, kw_only=True)
class ImplicitMulSpec(ImplicitAddSpec):
    """[implicit_mul] (YOLOR): one value per filter around 1."""

    center: ClassVar[float] = 1.0


class ImplicitLayer(nn.Module):
    """weight (filters, atoms, 1)."""

    def __init__(self, weight: Tensor):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.weight.expand(x.shape[0], *self.weight.shape)


@dataclass(frozen=True, kw_only=True)
class ControlChannelsSpec(Spec):
    """[control_channels] (YOLOR): the previous layer's output times the value of `from` for each channel."""

    layer: int

    @classmethod
    def parse(cls, options: Options, net: NetSpec, index: int) -> ControlChannelsSpec:
        return cls(layer=parse_layers(options, "from", index)[0])

    def inputs(self, index: int) -> tuple[int, ...]:
        return (index - 1, self.layer)

    def infer(self, inputs: Sequence[Shape]) -> Shape:
        x, values = inputs
        if values != (x.c, 1, 1):
            raise ShapeError(f"from: expected a layer of {Shape(x.c, 1, 1)}, got {values} from layer {self.layer}")
        return x

    def source(self, node: Node) -> LayerSource:
        return LayerSource("{0} * {1}")

    def build(self, node: Node) -> nn.Module:
        return MultiplyLayer("linear")


@dataclass(frozen=True, kw_only=True)
class ShiftChannelsSpec(ControlChannelsSpec):
    """[shift_channels] (YOLOR): the previous layer's output plus the value of `from` for each channel."""

    def source(self, node: Node) -> LayerSource:
        return LayerSource("{0} + {1}")

    def build(self, node: Node) -> nn.Module:
        return ShiftChannelsLayer()


class ShiftChannelsLayer(nn.Module):
    def forward(self, x: Tensor, values: Tensor) -> Tensor:
        return x + values
