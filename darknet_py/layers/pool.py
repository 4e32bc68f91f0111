"""[maxpool], [local_avgpool], [avgpool] and [dropout]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darknet_py.cfg.net import NetSpec
from darknet_py.cfg.options import Options
from darknet_py.layers.base import Cost, Node, Shape, ShapeError, Spec, windows

_SIZE_LIMIT = 1 << 14


@dataclass(frozen=True)
class Window(Spec):
    """A sliding window (`make_maxpool_layer`): output (in + padding − size) / stride + 1, first window at −padding/2."""

    size: int
    stride_x: int
    stride_y: int
    padding: int

    @staticmethod
    def window(o: Options) -> dict[str, int]:
        stride = o.int("stride", 1, 1)
        size = o.int("size", stride, 1, _SIZE_LIMIT)
        return {
            "size": size,
            "stride_x": o.int("stride_x", stride, 1),
            "stride_y": o.int("stride_y", stride, 1),
            "padding": o.int("padding", size - 1, 0, _SIZE_LIMIT),
        }

    @classmethod
    def parse(cls, o: Options, net: NetSpec, index: int) -> Window:
        return cls(**cls.window(o))

    def infer(self, inputs: Sequence[Shape]) -> Shape:
        (x,) = inputs
        height = windows(x.h + self.padding, self.size, self.stride_y)
        width = windows(x.w + self.padding, self.size, self.stride_x)
        if height < 1 or width < 1:
            raise ShapeError(f"wanted an input of at least {self.size} x {self.size} pixels, found {x.w} x {x.h}")
        return Shape(x.c, height, width)

    def cost(self, node: Node) -> Cost:
        flops = self.size**2 * node.inputs[0].c * node.output.h * node.output.w
        return Cost(float(flops), node.inputs[0].size, node.output.size)

    def kernel(self) -> tuple[int, int, int]:
        return (self.size, self.stride_x, 1)

    def pads(self, x: Tensor) -> tuple[int, int, int, int]:
        """(left, right, top, bottom) cells to add around x (negative: cells no window reaches)."""
        first = self.padding // 2
        height, width = x.shape[2:]
        out_h = windows(height + self.padding, self.size, self.stride_y)
        out_w = windows(width + self.padding, self.size, self.stride_x)
        right = (out_w - 1) * self.stride_x + self.size - width - first
        bottom = (out_h - 1) * self.stride_y + self.size - height - first
        return (first, right, first, bottom)


@dataclass(frozen=True)
class MaxPool(Window):
    """Darknet's `parse_maxpool`. Cells outside the image never win."""

    def build(self, node: Node) -> nn.Module:
        return MaxPooling(self)


class MaxPooling(nn.Module):
    def __init__(self, spec: MaxPool):
        super().__init__()
        self.spec = spec

    def forward(self, x: Tensor) -> Tensor:
        spec = self.spec
        left, right, top, bottom = spec.pads(x)
        stride = (spec.stride_y, spec.stride_x)
        # torch pads both sides alike, with −inf, up to half a window; cells beyond the last window do not matter.
        if right <= left <= spec.size // 2 and bottom <= left:
            y = F.max_pool2d(x, spec.size, stride, left)
            height = windows(x.shape[2] + spec.padding, spec.size, spec.stride_y)
            width = windows(x.shape[3] + spec.padding, spec.size, spec.stride_x)
            return y[:, :, :height, :width]
        x = F.pad(x, (left, max(right, 0), top, max(bottom, 0)), value=float("-inf"))
        return F.max_pool2d(x, spec.size, stride)


@dataclass(frozen=True)
class LocalAvgPool(Window):
    """Darknet's `parse_local_avgpool`: mean over the cells inside the image.

    C's backward pass divides by size² even at the border; ours is the derivative of the forward pass.
    """

    def build(self, node: Node) -> nn.Module:
        return LocalAveragePooling(self)


class LocalAveragePooling(nn.Module):
    def __init__(self, spec: LocalAvgPool):
        super().__init__()
        self.spec = spec

    def forward(self, x: Tensor) -> Tensor:
        spec = self.spec
        pads = spec.pads(x)
        stride = (spec.stride_y, spec.stride_x)
        total = F.avg_pool2d(F.pad(x, pads), spec.size, stride, divisor_override=1)
        inside = F.pad(x.new_ones(1, 1, *x.shape[2:]), pads)
        return total / F.avg_pool2d(inside, spec.size, stride, divisor_override=1)


@dataclass(frozen=True)
class AvgPool(Spec):
    """[avgpool]: the mean of each channel."""

    @classmethod
    def parse(cls, o: Options, net: NetSpec, index: int) -> AvgPool:
        return cls()

    def infer(self, inputs: Sequence[Shape]) -> Shape:
        return Shape(inputs[0].c, 1, 1)

    def build(self, node: Node) -> nn.Module:
        return nn.AdaptiveAvgPool2d(1)


@dataclass(frozen=True)
class Dropout(Spec):
    """[dropout], and DropBlock with dropblock=1 (`dropout_layer.c`)."""

    probability: float
    dropblock: bool
    dropblock_size_rel: float
    dropblock_size_abs: int

    @classmethod
    def parse(cls, o: Options, net: NetSpec, index: int) -> Dropout:
        return cls(
            o.float("probability", 0.2, 0.0, 1.0),
            o.flag("dropblock"),
            o.float("dropblock_size_rel", 0.0, 0.0, 1.0),
            int(o.float("dropblock_size_abs", 0.0, 0.0)),
        )

    def build(self, node: Node) -> nn.Module:
        if not self.dropblock:
            return nn.Dropout(self.probability)
        return DropBlock(self, node.output)


class DropBlock(nn.Module):
    """Zeroes square blocks (of one channel of one image); see dropout_layer.c and the DropBlock paper."""

    def __init__(self, spec: Dropout, shape: Shape):
        super().__init__()
        self.probability = spec.probability
        if spec.dropblock_size_abs:
            self.block = min(spec.dropblock_size_abs, shape.h, shape.w)
        elif spec.dropblock_size_rel:
            self.block = max(int(spec.dropblock_size_rel * min(shape.h, shape.w)), 1)
        else:
            self.block = min(7, shape.h, shape.w)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.probability:
            return x
        size = min(self.block, x.shape[2], x.shape[3])
        seeds = torch.rand_like(x) < self.probability / size**2
        dropped = F.max_pool2d(seeds.float(), size, 1, size // 2)[..., : x.shape[2], : x.shape[3]]
        keep = 1 - dropped
        return x * keep * (keep.numel() / keep.sum().clamp(min=1))
