"""Transforms of a [convolutional] layer's filters: binarization, deformed copies, centralized gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from darknet_py.layers.base import StatefulLayer


def signs(x: Tensor) -> Tensor:
    """+1 where x > 0, −1 elsewhere (`binarize_cpu`). The gradient passes where |x| < 1, as through HARDTAN."""
    passed = F.hardtanh(x)
    return torch.where(x > 0, 1.0, -1.0).to(x.dtype) + (passed - passed.detach())


def binarize(weight: Tensor) -> Tensor:
    """Each filter's signs times its mean magnitude (`binarize_weights`). weight: (filters, …).

    The gradient goes to the full weights unchanged, as in `backward_convolutional_layer_gpu`.
    """
    mean = weight.detach().abs().mean(tuple(range(1, weight.dim())), keepdim=True)
    return torch.where(weight.detach() > 0, mean, -mean) + (weight - weight.detach())


class _TransformGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, transform: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.transform = transform
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.transform(gradients[0]), None


def transform_gradient(x: Tensor, transform: Callable[[Tensor], Tensor]) -> Tensor:
    """x; its gradient is transformed in the backward pass."""
    result: Tensor = _TransformGradient.apply(x, transform)  # type: ignore[no-untyped-call]
    return result


def centralize(gradient: Tensor) -> Tensor:
    """Gradient centralization: each filter's gradient minus its mean (`gradient_centralization_gpu`).

    As on C's GPU only where a filter has a multiple of 32 weights. C centralizes its momentum buffer, which includes
    the decay of earlier steps; this function centralizes the gradient alone.
    """
    if gradient[0].numel() % 32:
        return gradient
    return gradient - gradient.mean(tuple(range(1, gradient.dim())), keepdim=True)


class DeformedKernels(StatefulLayer):
    """Filters that are deformed copies of the first quarter (sway, rotate, stretch and stretch_sway).

    In the first half of training C's GPU build averages the (un-deformed) gradients of the four quarters, and after
    each update writes the first quarter, deformed, over all (`update_convolutional_layer_gpu`). Here the copies are
    written before the forward pass. The saved weights hold the deformed filters, so inference needs nothing of it.
    """

    changes_weights = True
    forward_maps: Tensor
    backward_maps: Tensor

    def __init__(self, kind: str, size: int, angle: float):
        super().__init__()
        # Kernels are (size²) vectors; each stage is a matrix (size², size²) that deforms them.
        degrees = float(int(angle))  # C passes the angle as an integer
        self.register_buffer("forward_maps", torch.stack(_stages(kind, size, degrees, False)), persistent=False)
        self.register_buffer("backward_maps", torch.stack(_stages(kind, size, degrees, True)), persistent=False)
        self._written = -1

    def weights_restored(self) -> None:
        self._written = -1

    @staticmethod
    def stages(kind: str) -> int:
        """The number of parts that the kernels of a layer are split into."""
        return 8 if kind == "stretch_sway" else 4

    def forward(self, weight: Tensor) -> Tensor:
        if self.state.iteration > self.state.max_batches // 2:
            return weight
        if self.state.iteration != self._written:  # once per update: a second forward pass must not change the weights
            with torch.no_grad():
                quarter = weight.flatten()[: weight.numel() // 4]
                weight.copy_(self._deformed(quarter.repeat(4).view(weight.shape), self.forward_maps))
            self._written = self.state.iteration
        return transform_gradient(weight, self._average_quarters)

    def _average_quarters(self, gradient: Tensor) -> Tensor:
        parts = self._deformed(gradient, self.backward_maps).reshape(4, -1)
        return parts.mean(0).repeat(4).view(gradient.shape)

    @staticmethod
    def _deformed(weight: Tensor, maps: Tensor) -> Tensor:
        kernels = weight.reshape(len(maps), -1, maps.shape[1])
        return torch.einsum("sij,skj->ski", maps.to(kernels.dtype), kernels).reshape(weight.shape)


def _stages(kind: str, size: int, angle: float, back: bool) -> list[Tensor]:
    same = torch.eye(size * size)
    if kind == "rotate":
        turns = [torch.rot90(same.view(size, size, -1), turn, (1, 0)).reshape(size**2, -1) for turn in range(4)]
        return [turn.t() for turn in turns] if back else turns
    flip = same.view(size, size, -1).flip(1).reshape(size**2, -1)
    sway = [_rotation(size, -angle if back else angle), _rotation(size, angle if back else -angle)]
    if kind == "sway":
        return [same, *sway, flip]
    if kind == "stretch":
        return [same, *(_stretching(size, 1 / s if back else s, True) for s in (0.65, 0.8, 1.3))]
    stretch = [_stretching(size, 1 / s if back else s, False) for s in (0.65, 0.8, 1.2, 1.4)]
    return [same, *stretch, *sway, flip]


def _rotation(size: int, degrees: float) -> Tensor:
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    matrix = _sampling(size, lambda x, y: (x * cos + y * sin, y * cos - x * sin))
    return matrix * (size**2 / matrix.sum())  # makes up for what fell outside the kernel


def _stretching(size: int, scale: float, always: bool) -> Tensor:
    matrix = _sampling(size, lambda x, y: (x / scale, y / scale))
    return matrix / scale if always or scale > 1 else matrix


def _sampling(size: int, source: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> Tensor:
    """(size², size²): row = output pixel, bilinear weights of the pixels at `source` (offsets from the center)."""
    center = size // 2
    offset = torch.arange(size) - float(center)
    y, x = torch.meshgrid(offset, offset, indexing="ij")
    source_x, source_y = source(x, y)
    pixel = torch.arange(size, dtype=torch.float32)
    weight_x = (1 - (source_x[..., None] + center - pixel).abs()).clamp(min=0)
    weight_y = (1 - (source_y[..., None] + center - pixel).abs()).clamp(min=0)
    return (weight_y[..., :, None] * weight_x[..., None, :]).reshape(size**2, size**2)
