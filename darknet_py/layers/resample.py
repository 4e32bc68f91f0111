"""[upsample], [reorg]: layers that move pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from darknet_py.cfg.net import NetSpec
from darknet_py.cfg.options import Options
from darknet_py.layers.base import Node, Shape, ShapeError, Spec


@dataclass(frozen=True)
class Upsample(Spec):
    """[upsample] (`make_upsample_layer`): each pixel `stride` times; a negative stride sums blocks instead."""

    stride: int
    scale: float

    @classmethod
    def parse(cls, o: Options, net: NetSpec, index: int) -> Upsample:
        stride = o.int("stride", 2, -64, 64)
        if not stride:
            o.error("stride: wanted an integer other than 0, found 0", "stride")
        return cls(stride or 1, o.float("scale", 1.0))

    def infer(self, inputs: Sequence[Shape]) -> Shape:
        c, h, w = inputs[0]
        if self.stride > 0:
            return Shape(c, h * self.stride, w * self.stride)
        if h < -self.stride or w < -self.stride:
            raise ShapeError(f"wanted an input of at least {-self.stride} x {-self.stride} pixels, found {w} x {h}")
        return Shape(c, h // -self.stride, w // -self.stride)

    def build(self, node: Node) -> nn.Module:
        return Upsampling(self.stride, self.scale)


class Upsampling(nn.Module):
    def __init__(self, stride: int, scale: float):
        super().__init__()
        self.stride = stride
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        if self.stride > 0:
            x = F.interpolate(x, scale_factor=float(self.stride), mode="nearest")
        else:
            x = F.avg_pool2d(x, -self.stride, divisor_override=1)
        return x if self.scale == 1 else x * self.scale


@dataclass(frozen=True)
class Reorg(Spec):
    """[reorg]: Darknet's old, scrambled space-to-depth (`reorg_old_layer.c`), which YOLOv2 was trained with."""

    stride: int
    reverse: bool

    @classmethod
    def parse(cls, o: Options, net: NetSpec, index: int) -> Reorg:
        return cls(o.int("stride", 1, 1, 64), o.flag("reverse"))

    def infer(self, inputs: Sequence[Shape]) -> Shape:
        c, h, w = inputs[0]
        s = self.stride
        if c % s**2:
            raise ShapeError(f"wanted channels divisible by {s**2}, found {c}")
        if self.reverse:
            return Shape(c // s**2, h * s, w * s)
        if h % s or w % s:
            raise ShapeError(f"wanted width and height divisible by {s}, found {w} x {h}")
        return Shape(c * s**2, h // s, w // s)

    def build(self, node: Node) -> nn.Module:
        return Reorganize(self.stride, self.reverse)


class Reorganize(nn.Module):
    """Reads (C, H, W) as if it were (C/s², H·s, W·s) and writes the s² phases one after another, as `reorg_cpu` does."""

    def __init__(self, stride: int, reverse: bool):
        super().__init__()
        self.stride = stride
        self.reverse = reverse

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        s = self.stride
        if self.reverse:
            phases = x.reshape(b, s, s, c // s**2, h, w)
            return phases.permute(0, 3, 4, 1, 5, 2).reshape(b, c // s**2, h * s, w * s)
        phases = x.reshape(b, c // s**2, h, s, w, s)
        return phases.permute(0, 3, 5, 1, 2, 4).reshape(b, c * s**2, h // s, w // s)
