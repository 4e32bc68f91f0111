"""[maxpool], [local_avgpool], [avgpool] and [dropout]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darknet_py.cfg.net import NetSpec
from darknet_py.cfg.options import Options
from darknet_py.layers import plain
from darknet_py.layers.base import (
    Cost,
    LayerSource,
    Node,
    Shape,
    ShapeError,
    Spec,
    StatefulLayer,
    conv_output_size,
    is_tracing,
)
from darknet_py.layers.resample import Blur

if TYPE_CHECKING:
    from typing_extensions import Self  # in typing since Python 3.11

_SIZE_LIMIT = 1 << 14


@dataclass(frozen=True, kw_only=True)
class WindowSpec(Spec):
    """A sliding window (`make_maxpool_layer`): output (in + padding − size)/stride + 1, first window at −padding/2."""

    pools: ClassVar[bool] = True

    size: int
    stride_x: int
    stride_y: int
    padding: int

    @classmethod
    def parse(cls, options: Options, net: NetSpec, index: int) -> Self:
        stride = options.int("stride", 1, 1)
        size = options.int("size", stride, 1, _SIZE_LIMIT)
        return cls(
            size=size,
            stride_x=options.int("stride_x", stride, 1),
            stride_y=options.int("stride_y", stride, 1),
            padding=options.int("padding", size - 1, 0, _SIZE_LIMIT),
        )

    def infer(self, inputs: Sequence[Shape]) -> Shape:
        (x,) = inputs
        height = conv_output_size(x.h + self.padding, self.size, self.stride_y)
        width = conv_output_size(x.w + self.padding, self.size, self.stride_x)
        if height < 1 or width < 1:
            raise ShapeError(f"expected an input of at least {self.size} x {self.size} pixels, got {x.w} x {x.h}")
        return Shape(x.c, height, width)

    def workspace(self, inputs: Sequence[Shape]) -> int:
        """The padded input."""
        (x,) = inputs
        border = self.padding + self.size
        return x.c * (x.h + border) * (x.w + border)

    def cost(self, node: Node) -> Cost:
        flops = self.size**2 * node.inputs[0].c * node.output.h * node.output.w
        return Cost(float(flops), node.inputs[0].size, node.output.size)

    def kernel(self) -> tuple[int, int, int]:
        return (self.size, self.stride_x, 1)

    def pads(self, height: int, width: int) -> tuple[int, int, int, int]:
        """(left, right, top, bottom) padding of a map (negative: cells that no window covers)."""
        first = self.padding // 2
        out_h = conv_output_size(height + self.padding, self.size, self.stride_y)
        out_w = conv_output_size(width + self.padding, self.size, self.stride_x)
        right = (out_w - 1) * self.stride_x + self.size - width - first
        bottom = (out_h - 1) * self.stride_y + self.size - height - first
        return (first, right, first, bottom)

    def plain_pads(self, x: Shape) -> tuple[int, int, int, int]:
        """The same for maps of any size; where the window exceeds the map x, for that size alone."""
        if self.size > min(x.h, x.w) + self.padding:
            return self.pads(x.h, x.w)
        before, after = self.padding // 2, self.padding - self.padding // 2
        return (before, after, before, after)


@dataclass(frozen=True, kw_only=True)
class MaxPoolSpec(WindowSpec):
    """Darknet's `parse_maxpool`. Cells outside the map are ignored.

    maxpool_depth=1 takes the maximum over the channels g, g + out_channels, … of each pixel instead. antialiasing: the
    strides belong to a blur after a pool of stride 1. C's CPU build ignores maxpool_zero_nonmax, and so does this.
    """

    depth: bool = False
    out_channels: int = 1
    antialiasing: int = 0

    @classmethod
    def parse(cls, options: Options, net: NetSpec, index: int) -> Self:
        if options.flag("maxpool_zero_nonmax"):
            options.warn("maxpool_zero_nonmax has no effect, as in C Darknet's CPU build", "maxpool_zero_nonmax")
        depth, channels = options.flag("maxpool_depth"), options.int("out_channels", 1, 1)
        # C returns from its depth pass before the blur.
        antialiasing = 0 if depth else options.int("antialiasing", 0, 0)
        window = super().parse(options, net, index)
        return replace(window, depth=depth, out_channels=channels, antialiasing=antialiasing)

    @property
    def sharp(self) -> MaxPoolSpec:
        """The pool without the blur of antialiasing, with stride 1."""
        return replace(self, stride_x=1, stride_y=1, antialiasing=0) if self.antialiasing else self

    @property
    def is_channelwise(self) -> bool:
        return not self.depth

    def infer(self, inputs: Sequence[Shape]) -> Shape:
        (x,) = inputs
        if self.depth:
            if x.c < self.out_channels:
                raise ShapeError(f"out_channels: expected at most {x.c}, got {self.out_channels}")
            return Shape(self.out_channels, x.h, x.w)
        if not self.antialiasing:
            return super().infer(inputs)
        output = Blur.infer(self.sharp.infer(inputs), self.antialiasing, self.stride_x, self.stride_y)
        if min(output) < 1:
            raise ShapeError(f"expected an input of at least {self.size} x {self.size} pixels, got {x.w} x {x.h}")
        return output

    def workspace(self, inputs: Sequence[Shape]) -> int:
        """The padded input or the output before the blur; for the depth pass the padded channels."""
        if self.depth:
            return inputs[0].size + self.out_channels * inputs[0].h * inputs[0].w
        return max(super().workspace(inputs), self.sharp.infer(inputs).size if self.antialiasing else 0)

    def cost(self, node: Node) -> Cost:
        output = self.sharp.infer(node.inputs)
        flops = self.size**2 * node.inputs[0].c * output.h * output.w
        return Cost(float(flops), node.inputs[0].size, node.output.size)

    def source(self, node: Node) -> LayerSource:
        if self.depth:
            return LayerSource(f"depth_max({{0}}, {self.out_channels})", "", (plain.depth_max,))
        sharp = self.sharp
        stride = sharp.stride_y if sharp.stride_x == sharp.stride_y else (sharp.stride_y, sharp.stride_x)
        pads = sharp.plain_pads(node.inputs[0])
        if len(set(pads)) == 1 and pads[0] <= sharp.size // 2:
            module = f"nn.MaxPool2d({sharp.size}, {stride}, {pads[0]})"
        elif (sharp.size, stride, pads) == (2, 2, (0, 1, 0, 1)):
            module = "nn.MaxPool2d(2, 2, ceil_mode=True)"
        else:
            module = f"nn.Sequential(nn.ConstantPad2d({pads}, -torch.inf), nn.MaxPool2d({sharp.size}, {stride}))"
        if not self.antialiasing:
            return LayerSource("{layer}({0})", module)
        size = 2 if self.antialiasing == 2 else 3
        blur = f"BlurPool({node.output.c}, {size}, {(self.stride_y, self.stride_x)})"
        return LayerSource("{layer}({0})", f"nn.Sequential({module}, {blur})", (plain.BlurPool,))

    def build(self, node: Node) -> nn.Module:
        return DepthMaxPoolLayer(self.out_channels) if self.depth else MaxPoolLayer(self)


class MaxPoolLayer(nn.Module):
    def __init__(self, spec: MaxPoolSpec):
        super().__init__()
        self.spec = spec.sharp
        self.blur = Blur(spec.antialiasing, spec.stride_x, spec.stride_y) if spec.antialiasing else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(x)
        return x if self.blur is None else self.blur(x)

    def pool(self, x: Tensor) -> Tensor:
        spec = self.spec
        left, right, top, bottom = spec.pads(*x.shape[2:])
        stride = (spec.stride_y, spec.stride_x)
        # torch pads both sides equally, up to half a window; cells beyond the last window do not matter.
        if right <= left <= spec.size // 2 and bottom <= left:
            y = F.max_pool2d(x, spec.size, stride, left)
            height = conv_output_size(x.shape[2] + spec.padding, spec.size, spec.stride_y)
            width = conv_output_size(x.shape[3] + spec.padding, spec.size, spec.stride_x)
            return y[:, :, :height, :width]
        # A window without any pixel gives the lowest finite number, as in C.
        x = F.pad(x, (left, max(right, 0), top, max(bottom, 0)), value=torch.finfo(x.dtype).min)
        return F.max_pool2d(x, spec.size, stride)


class DepthMaxPoolLayer(nn.Module):
    """The maximum over each out_channels-th channel (`forward_maxpool_layer`)."""

    def __init__(self, out_channels: int):
        super().__init__()
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        missing = -c % self.out_channels
        x = F.pad(x, (0, 0, 0, 0, 0, missing), value=float("-inf")) if missing else x
        return x.reshape(b, -1, self.out_channels, h, w).max(1).values  # the gradient goes to one maximum, as in C


@dataclass(frozen=True, kw_only=True)
class LocalAvgPoolSpec(WindowSpec):
    """Darknet's `parse_local_avgpool`: mean over the cells inside the map."""

    def source(self, node: Node) -> LayerSource:
        arguments = f"{self.size}, {(self.stride_y, self.stride_x)}, {self.plain_pads(node.inputs[0])}"
        return LayerSource(f"local_average({{0}}, {arguments})", "", (plain.local_average,))

    def build(self, node: Node) -> nn.Module:
        return LocalAvgPoolLayer(self)


class LocalAvgPoolLayer(nn.Module):
    def __init__(self, spec: LocalAvgPoolSpec):
        super().__init__()
        self.spec = spec

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and x.requires_grad and not is_tracing():
            averaged: Tensor = _LocalAverage.apply(x, self.spec)  # type: ignore[no-untyped-call]
            return averaged
        return _local_average(x, self.spec)


def _local_average(x: Tensor, spec: LocalAvgPoolSpec) -> Tensor:
    pads = spec.pads(*x.shape[2:])
    stride = (spec.stride_y, spec.stride_x)
    total = F.avg_pool2d(F.pad(x, pads), spec.size, stride, divisor_override=1)
    inside = F.pad(x.new_ones(1, 1, *x.shape[2:]), pads)
    return total / F.avg_pool2d(inside, spec.size, stride, divisor_override=1)


class _LocalAverage(torch.autograd.Function):
    """The mean, with the gradient of C's GPU build, which trained yolov4-tiny_contrastive.

    `backward_local_avgpool_layer_kernel` gives each cell the mean gradient of the windows around the one it starts in,
    (size − 1)/stride to each side; with stride = size that is the whole gradient of its window instead of a fraction.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, spec: LocalAvgPoolSpec) -> Tensor:
        ctx.spec, ctx.sides = spec, x.shape[2:]
        return _local_average(x, spec)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (gradient,) = grads
        spec: LocalAvgPoolSpec = ctx.spec
        height, width = ctx.sides
        reach_y, reach_x = (spec.size - 1) // spec.stride_y, (spec.size - 1) // spec.stride_x
        row = (torch.arange(height, device=gradient.device) + spec.padding // 2) // spec.stride_y
        column = (torch.arange(width, device=gradient.device) + spec.padding // 2) // spec.stride_x
        below = max(int(row[-1]) + 1 - gradient.shape[2], 0)
        beside = max(int(column[-1]) + 1 - gradient.shape[3], 0)
        pads = (reach_x, reach_x + beside, reach_y, reach_y + below)
        total, count = (
            F.avg_pool2d(F.pad(t, pads), (2 * reach_y + 1, 2 * reach_x + 1), 1, divisor_override=1)
            for t in (gradient, torch.ones_like(gradient[:1, :1]))
        )
        return (total / count.clamp(min=1))[:, :, row[:, None], column], None


@dataclass(frozen=True, kw_only=True)
class AvgPoolSpec(Spec):
    """[avgpool]: the mean of each channel."""

    pools: ClassVar[bool] = True

    @classmethod
    def parse(cls, options: Options, net: NetSpec, index: int) -> AvgPoolSpec:
        return cls()

    def infer(self, inputs: Sequence[Shape]) -> Shape:
        return Shape(inputs[0].c, 1, 1)

    def source(self, node: Node) -> LayerSource:
        return LayerSource("{0}.mean((2, 3), keepdim=True)")

    def build(self, node: Node) -> nn.Module:
        return nn.AdaptiveAvgPool2d(1)


@dataclass(frozen=True, kw_only=True)
class DropoutSpec(Spec):
    """[dropout], and DropBlock with dropblock=1 (`dropout_layer_kernels.cu`; C's CPU build has dropout only)."""

    probability: float
    dropblock: bool
    size_rel: float  # of the map's side; 0: size_abs counts
    size_abs: int

    @classmethod
    def parse(cls, options: Options, net: NetSpec, index: int) -> DropoutSpec:
        rel = options.float("dropblock_size_rel", 0.0, 0.0)
        size = int(options.float("dropblock_size_abs", 0.0, 0.0))
        return cls(
            probability=options.float("probability", 0.2, 0.0, 1.0),
            dropblock=options.flag("dropblock"),
            size_rel=0.0 if size else rel,
            size_abs=size if size or rel else 7,
        )

    @property
    def is_idle(self) -> bool:
        return True

    def source(self, node: Node) -> LayerSource:
        return LayerSource("{0}")  # it only acts in training

    def build(self, node: Node) -> nn.Module:
        return DropBlockLayer(self) if self.dropblock else nn.Dropout(self.probability)


class DropBlockLayer(StatefulLayer):
    """Zeroes at most one square of each channel of each image, and scales the rest of the image up.

    As in C, probability and side of the squares grow from 0 over the first 85 % of max_batches; each cell starts a
    square with probability p / side², only the most probable one of a channel does, and a square that would exceed the
    map at the right or bottom is moved to start `x − (width − side)`.
    """

    def __init__(self, spec: DropoutSpec):
        super().__init__()
        self.spec = spec

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.spec.probability:
            return x
        mask = self._mask(x)
        fraction = mask.mean((1, 2, 3), keepdim=True)
        return x * (mask / fraction.clamp(min=1e-6))

    def _mask(self, x: Tensor) -> Tensor:
        """(B, C, H, W): 0 inside the squares, 1 elsewhere."""
        spec = self.spec
        b, c, h, w = x.shape
        warm_up = self.state.max_batches * 0.85
        growth = min(self.state.iteration / warm_up, 1.0) if warm_up else 1.0
        sides = (spec.size_rel * w, spec.size_rel * h) if spec.size_rel else (spec.size_abs, spec.size_abs)
        side = max(min(int(sides[0] * growth), int(sides[1] * growth), w, h), 1)
        draws = torch.rand(b, c, h * w, device=x.device)
        lowest, cell = draws.min(2)
        column, row = cell % w, cell // w
        left = torch.where(column > w - side, column - (w - side), column).clamp(0, w - side)
        top = torch.where(row > h - side, row - (h - side), row).clamp(0, h - side)
        in_row = self._within(h, top, side)
        in_column = self._within(w, left, side)
        dropped = lowest < spec.probability * growth / side**2
        square = in_row[..., :, None] & in_column[..., None, :] & dropped[..., None, None]
        return (~square).to(x.dtype)

    @staticmethod
    def _within(length: int, start: Tensor, side: int) -> Tensor:
        """(B, C, length) bool: start ≤ position < start + side."""
        offset = torch.arange(length, device=start.device) - start[..., None]
        return (offset >= 0) & (offset < side)
