"""2-D convolution whose gradient with respect to the filters is a product of matrices on CPUs where that is faster.

In channels-last memory the channels of a pixel are a row of a matrix. oneDNN's own kernels for this pass are slow
there: for 1x1 convolutions, and without AVX-512 for larger ones, they take up to 1.8 times as long.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from darknet_py.layers.base import is_tracing

_MANY_CHANNELS = 64  # of the input; fewer are too narrow a matrix for windows of several pixels
_ROWS = 2048  # of a matrix: more need more memory and are no faster


class Window(NamedTuple):
    """How a convolution's window moves. stride, padding, dilation: (y, x)."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int


def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, window: Window) -> Tensor:
    """`torch.nn.functional.conv2d`: the same values, and a faster gradient on CPUs.

    Args:
        x: (B, C, H, W).
        weight: (filters, C/groups, size, size).
        bias: (filters).
        window: Stride, padding, dilation and groups.

    Returns:
        (B, filters, H', W').
    """
    if _is_faster_by_hand(x, weight, window):
        output: Tensor = _Convolution.apply(x, weight, bias, window)  # type: ignore[no-untyped-call]
        return output
    return F.conv2d(x, weight, bias, *window)


def _is_faster_by_hand(x: Tensor, weight: Tensor, window: Window) -> bool:
    if not (torch.is_grad_enabled() and weight.requires_grad and x.dtype == weight.dtype == torch.float32):
        return False
    if x.device.type != "cpu" or torch.is_autocast_enabled("cpu") or is_tracing() or torch.compiler.is_compiling():
        return False
    if window.groups > 1 or window.dilation != (1, 1) or not x.is_contiguous(memory_format=torch.channels_last):
        return False
    if tuple(weight.shape[2:]) == (1, 1):
        return window.stride == (1, 1) and window.padding == (0, 0)
    return x.shape[1] >= _MANY_CHANNELS and not _has_avx512()


@cache
def _has_avx512() -> bool:
    return "AVX512" in torch.backends.cpu.get_cpu_capability()


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, window: Window) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.bias_sizes = None if bias is None else [len(bias)]
        ctx.window = window
        return F.conv2d(x, weight, bias, *window)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        of_x, _, of_bias, _ = ctx.needs_input_grad
        stride, padding, dilation, groups = ctx.window
        by_x, _, by_bias = torch.ops.aten.convolution_backward(
            gradient,
            x,
            weight,
            ctx.bias_sizes,
            stride,
            padding,
            dilation,
            False,
            (0, 0),
            groups,
            (of_x, False, of_bias),
        )
        return by_x, weight_gradient(gradient, x, weight.shape[2:], ctx.window), by_bias, None


def weight_gradient(gradient: Tensor, x: Tensor, size: Sequence[int], window: Window) -> Tensor:
    """The gradient with respect to the filters, one product for each row of the window.

    Args:
        gradient: With respect to the output, (B, filters, H', W').
        x: The input, (B, C, H, W).
        size: Of the window, (y, x).
        window: Stride and padding; no dilation, one group. A window of one pixel has neither.

    Returns:
        (filters, C, size, size), in channels-last memory.
    """
    (_, filters, height, width), channels = gradient.shape, x.shape[1]
    (size_y, size_x), (stride_y, stride_x), (pad_y, pad_x) = size, window.stride, window.padding
    if (size_y, size_x) == (1, 1):
        return (_as_matrix(gradient).t() @ _as_matrix(x)).view(filters, channels, 1, 1)
    # Gradient and input get the same height, so that a window one row further down is `width` rows of the matrix on.
    reach = height + (size_y - 1) // stride_y
    padding = (pad_x, pad_x, pad_y, reach * stride_y - x.shape[2] - pad_y)
    result = x.new_zeros(filters, size_y, size_x * channels)
    images = max(_ROWS // (reach * width), 1)
    for part, part_of_gradient in zip(x.split(images), gradient.split(images), strict=True):
        padded = F.pad(part, padding).permute(0, 2, 3, 1).contiguous()  # F.pad forgets the order of maps of one pixel
        rows = _as_matrix(F.pad(part_of_gradient, (0, 0, 0, reach - height)))
        by_image, by_row, by_column, by_channel = padded.stride()
        shape = (len(part), reach, width, size_x * channels)
        strides = (by_image, by_row * stride_y, by_column * stride_x, by_channel)
        for first in range(min(stride_y, size_y)):
            # A pixel and those to its right are next to each other in memory.
            windows = padded.as_strided(shape, strides, padded.storage_offset() + first * by_row)
            matrix = windows.reshape(len(rows), -1)
            for row in range(first, size_y, stride_y):
                skipped = row // stride_y * width
                result[:, row].addmm_(rows[: len(rows) - skipped].t(), matrix[skipped:])
    return result.view(filters, size_y, size_x, channels).permute(0, 3, 1, 2)


def _as_matrix(x: Tensor) -> Tensor:
    """(B·H·W, C) of (B, C, H, W): a view where x is channels-last."""
    return x.permute(0, 2, 3, 1).flatten(0, 2)
