"""[upsample], [reorg], [reorg3d], and the blur of antialiasing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darknet_py.cfg.net import NetSpec
from darknet_py.cfg.options import Options
from darknet_py.layers.base import LayerSource, Node, Shape, ShapeError, Spec, conv_output_size, pad_to_window
from darknet_py.layers.plain import gather_phases, reorg, reversed_reorg3d, spread_phases


@dataclass(frozen=True, kw_only=True)
class UpsampleSpec(Spec):
    """[upsample] (`make_upsample_layer`): repeats each pixel `stride` times; a negative stride sums blocks."""

    stride: int
    scale: float

    @classmethod
    def parse(cls, options: Options, net: NetSpec, index: int) -> UpsampleSpec:
        stride = options.int("stride", 2, -64, 64)
        if not stride:
            options.error("stride: expected an integer other than 0, got 0", "stride")
        return cls(stride=stride or 1, scale=options.float("scale", 1.0))

    def infer(self, inputs: Sequence[Shape]) -> Shape:
        c, h, w = inputs[0]
        if self.stride > 0:
            return Shape(c, h * self.stride, w * self.stride)
        if h < -self.stride or w < -self.stride:
            raise ShapeError(f"expected an input of at least {-self.stride} x {-self.stride} pixels, got {w} x {h}")
        return Shape(c, h // -self.stride, w // -self.stride)

    def source(self, node: Node) -> LayerSource:
        scale = "" if self.scale == 1 else f" * {self.scale!r}"
        if self.stride > 0:
            return LayerSource(f"F.interpolate({{0}}, scale_factor={float(self.stride)}){scale}")
        return LayerSource(f"F.avg_pool2d({{0}}, {-self.stride}, divisor_override=1){scale}")

    def build(self, node: Node) -> nn.Module:
        return UpsampleLayer(self.stride, self.scale)


class UpsampleLayer(nn.Module):
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


@dataclass(frozen=True, kw_only=True)
class ReorgExtraSpec(Spec):
    """[reorg] with extra (pjreddie): all values of an image and `extra` zeros, for the move "pass" of go.cfg."""

    vector: ClassVar[bool] = True
    extra: int

    def infer(self, inputs: Sequence[Shape]) -> Shape:
        return Shape(inputs[0].size + self.extra, 1, 1)

    def source(self, node: Node) -> LayerSource:
        return LayerSource(f"F.pad({{0}}.flatten(1), (0, {self.extra}))[:, :, None, None]")

    def build(self, node: Node) -> nn.Module:
        return ReorgExtraLayer(self.extra)


class ReorgExtraLayer(nn.Module):
    def __init__(self, extra: int):
        super().__init__()
        self.extra = extra

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x.flatten(1), (0, self.extra))[:, :, None, None]


@dataclass(frozen=True, kw_only=True)
class ReorgSpec(Spec):
    """[reorg]: Darknet's old, scrambled space-to-depth (`reorg_old_layer.c`), which YOLOv2 was trained with."""

    stride: int
    reverse: bool

    @classmethod
    def parse(cls, options: Options, net: NetSpec, index: int) -> Spec:
        if extra := options.int("extra", 0, 0, 1 << 16):
            return ReorgExtraSpec(extra=extra)
        return cls(stride=options.int("stride", 1, 1, 64), reverse=options.flag("reverse"))

    def infer(self, inputs: Sequence[Shape]) -> Shape:
        c, h, w = inputs[0]
        s = self.stride
        if c % self.multiple():
            raise ShapeError(f"expected channels divisible by {self.multiple()}, got {c}")
        if self.reverse:
            return Shape(c // s**2, h * s, w * s)
        if h % s or w % s:
            raise ShapeError(f"expected width and height divisible by {s}, got {w} x {h}")
        return Shape(c * s**2, h // s, w // s)

    def multiple(self) -> int:
        """The number of channels must be a multiple of it."""
        return self.stride**2

    def source(self, node: Node) -> LayerSource:
        if self.reverse:
            return LayerSource(f"gather_phases({{0}}, {self.stride})", "", (gather_phases,))
        return LayerSource(f"reorg({{0}}, {self.stride})", "", (spread_phases, reorg))

    def build(self, node: Node) -> nn.Module:
        return ReorgLayer(self.stride, self.reverse)


class ReorgLayer(nn.Module):
    """Reads (C, H, W) as if it were (C/s², H·s, W·s) and writes its s² phases in a row, as `reorg_cpu` does."""

    def __init__(self, stride: int, reverse: bool):
        super().__init__()
        self.stride = stride
        self.reverse = reverse

    def forward(self, x: Tensor) -> Tensor:
        return gather_phases(x, self.stride) if self.reverse else reorg(x, self.stride)


@dataclass(frozen=True, kw_only=True)
class Reorg3dSpec(ReorgSpec):
    """[reorg3d]: each s × s block of pixels becomes s² channel groups (`reorg_cpu` of blas.c).

    With reverse=1 C's function gets the output's shape in place of the input's, in its GPU build too. It reads its
    input as (C/s², H·s, W·s), unfolds that and writes the result as the same shape, which is not the inverse.
    """

    def multiple(self) -> int:
        return self.stride**4 if self.reverse else 1

    def source(self, node: Node) -> LayerSource:
        if self.reverse:
            parts = (gather_phases, reversed_reorg3d)
            return LayerSource(f"reversed_reorg3d({{0}}, {self.stride})", "", parts)
        return LayerSource(f"spread_phases({{0}}, {self.stride})", "", (spread_phases,))

    def build(self, node: Node) -> nn.Module:
        return Reorg3dLayer(self.stride, self.reverse)


class Reorg3dLayer(ReorgLayer):
    def forward(self, x: Tensor) -> Tensor:
        return reversed_reorg3d(x, self.stride) if self.reverse else spread_phases(x, self.stride)


class Blur(nn.Module):
    """The low-pass filter of antialiasing, with the stride of the layer (`make_maxpool_layer`).

    kind: 2 is a 2 × 2 mean without padding, anything else a 3 × 3 binomial filter with zeros around the image.
    """

    def __init__(self, kind: int, stride_x: int, stride_y: int):
        super().__init__()
        self.stride = (stride_y, stride_x)
        side = torch.ones(2) / 2 if kind == 2 else torch.tensor([1.0, 2.0, 1.0]) / 4
        self.register_buffer("filter", side[:, None] * side, persistent=False)

    filter: Tensor

    @staticmethod
    def infer(shape: Shape, kind: int, stride_x: int, stride_y: int) -> Shape:
        """Its output's shape; kind 0 is no blur."""
        if not kind or min(shape) < 1:
            return shape
        size, border = (2, 0) if kind == 2 else (3, 2)
        return Shape(
            shape.c,
            conv_output_size(shape.h + border, size, stride_y),
            conv_output_size(shape.w + border, size, stride_x),
        )

    def forward(self, x: Tensor) -> Tensor:
        size = self.filter.shape[0]
        weight = self.filter.to(x.dtype).expand(x.shape[1], 1, size, size)
        border = 1 if size == 3 else 0
        return F.conv2d(pad_to_window(x, size - 2 * border), weight, None, self.stride, border, 1, x.shape[1])
