"""[crop]: a window of the input image, with augmentation in training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darknet_py.cfg.net import NetSpec
from darknet_py.cfg.options import Options
from darknet_py.layers.base import LayerSource, Node, Shape, ShapeError, Spec
from darknet_py.layers.plain import crop_center


@dataclass(frozen=True, kw_only=True)
class CropSpec(Spec):
    """Darknet's `parse_crop`: the middle window, scaled to −1 … 1 unless noadjust.

    In training, as in `crop_layer_kernels.cu`, position, mirroring, rotation (± angle degrees), saturation and
    exposure (a factor up to the option's, or its inverse) are random for each image; shift changes all colors of a
    mini-batch.
    """

    height: int
    width: int
    flip: bool
    angle: float
    saturation: float
    exposure: float
    shift: float
    noadjust: bool

    @classmethod
    def parse(cls, options: Options, net: NetSpec, index: int) -> CropSpec:
        return cls(
            height=options.int("crop_height", 1, 1),
            width=options.int("crop_width", 1, 1),
            flip=options.flag("flip"),
            angle=options.float("angle"),
            saturation=options.float("saturation", 1.0, 1e-6),
            exposure=options.float("exposure", 1.0, 1e-6),
            shift=options.float("shift"),
            noadjust=options.flag("noadjust"),
        )

    def infer(self, inputs: Sequence[Shape]) -> Shape:
        (x,) = inputs
        if x.h < self.height or x.w < self.width:
            raise ShapeError(f"expected an input of at least {self.width} x {self.height} pixels, got {x.w} x {x.h}")
        return Shape(x.c, self.height, self.width)

    def source(self, node: Node) -> LayerSource:
        cropped = f"crop_center({{0}}, {self.height}, {self.width})"
        return LayerSource(cropped if self.noadjust else f"{cropped} * 2 - 1", "", (crop_center,))

    def build(self, node: Node) -> nn.Module:
        return CropLayer(self)


class CropLayer(nn.Module):
    def __init__(self, spec: CropSpec):
        super().__init__()
        self.spec = spec

    def forward(self, x: Tensor) -> Tensor:
        spec = self.spec
        if self.training:
            x = self._change_colors(x)
        else:
            top, left = (x.shape[2] - spec.height) // 2, (x.shape[3] - spec.width) // 2
            x = x[:, :, top : top + spec.height, left : left + spec.width]
        x = x if spec.noadjust else x * 2 - 1
        return self._random_window(self._shift_colors(x)) if self.training else x

    def _change_colors(self, x: Tensor) -> Tensor:
        """Saturation and exposure in HSV, which are linear while the hue stays."""
        if x.shape[1] != 3 or self.spec.saturation == self.spec.exposure == 1:
            return x
        saturation, exposure = (_factor(x, largest) for largest in (self.spec.saturation, self.spec.exposure))
        value = x.amax(1, keepdim=True)
        return (exposure * (value - saturation * (value - x))).clamp(0, 1)

    def _shift_colors(self, x: Tensor) -> Tensor:
        if not self.spec.shift:
            return x
        return x + (torch.rand(1, x.shape[1], 1, 1, device=x.device, dtype=x.dtype) - 0.5) * self.spec.shift

    def _random_window(self, x: Tensor) -> Tensor:
        """(B, C, height, width): random windows, rotated about the image's center, zero outside the image."""
        spec = self.spec
        b, _, h, w = x.shape
        draws = torch.rand(b, 4, 1, 1, device=x.device)
        column = torch.arange(spec.width, device=x.device) + (w - spec.width) * draws[:, 0]
        row = torch.arange(spec.height, device=x.device)[:, None] + (h - spec.height) * draws[:, 1]
        mirrored = (draws[:, 2] > 0.5) & spec.flip
        column = torch.where(mirrored, w - 1 - column, column)
        angle = math.radians(spec.angle) * (2 * draws[:, 3] - 1)
        dx, dy = column - w / 2, row - h / 2
        source_x = angle.cos() * dx - angle.sin() * dy + w / 2
        source_y = angle.sin() * dx + angle.cos() * dy + h / 2
        grid = torch.stack((2 * source_x / max(w - 1, 1) - 1, 2 * source_y / max(h - 1, 1) - 1), -1)
        return F.grid_sample(x, grid.to(x.dtype), align_corners=True)


def _factor(x: Tensor, largest: float) -> Tensor:
    """(B, 1, 1, 1): uniform in 1 … largest, or the inverse."""
    draws = torch.rand(2, x.shape[0], 1, 1, 1, device=x.device)
    factor = draws[0] * (largest - 1) + 1
    return torch.where(draws[1] > 0.5, 1 / factor, factor).to(x.dtype)
