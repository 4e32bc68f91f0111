"""What the page shows of weights and activations: a histogram of their values, and kernels as small images."""

from __future__ import annotations

from typing import TypedDict

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from darknet_py.counted import counted
from darknet_py.model.layout import arrays, tensor_name
from darknet_py.model.model_file import ModelFile
from darknet_py.view.data_uri import data_uri

BINS = 40
KERNELS = 64  # of a layer, the first ones
_ACROSS = 8
_SIDE = 32  # pixels of a kernel, at least
_GAP = 4
_COLORS = (1, 3)  # channels of a kernel that can be seen


class ValuesView(TypedDict):
    """An array as the page's script reads it.

    bins: numbers of values in equal parts from `low` to `high`. facts: a line for the reader. kernels: an image of them
    as a data URI, with a line that says what it is; empty where they cannot be seen.
    """

    name: str
    facts: str
    low: float
    high: float
    bins: list[int]
    kernels: str
    note: str


def weight_views(model: ModelFile) -> dict[int, list[ValuesView]]:
    """The arrays of each layer that has some, those with most values first."""
    views: dict[int, list[ValuesView]] = {}
    for node, array in sorted(arrays(model.graph), key=lambda entry: -entry[1].count):
        tensor = model.tensors.get(tensor_name(node, array))
        if tensor is not None:
            view = values_view(array.name, tensor)
            if array.role == "weight":
                view["kernels"], view["note"] = kernel_images(tensor)
            views.setdefault(node.index, []).append(view)
    return views


def values_view(name: str, tensor: Tensor) -> ValuesView:
    """An array without its kernels. Values that are not finite are counted in the facts alone."""
    values = tensor.detach().flatten().float().cpu()
    finite = values[values.isfinite()]
    shape = " × ".join(map(str, tensor.shape))
    facts = f"{shape}: {counted(len(values), 'value', ',')}" if tensor.dim() > 1 else counted(len(values), "value", ",")
    low = high = 0.0
    bins: list[int] = []
    if len(finite):
        low, high = float(finite.min()), float(finite.max())
        bins = torch.histc(finite, BINS, low, high).int().tolist() if low < high else [len(finite)]
        facts += f", mean {float(finite.mean()):.3g}, standard deviation {float(finite.std(correction=0)):.3g}"
    zeros = int((finite == 0).sum())
    facts += f", {zeros / len(values):.0%} zeros" if zeros else ""
    facts += f", {len(values) - len(finite):,} not finite" if len(finite) < len(values) else ""
    return ValuesView(name=name, facts=facts, low=low, high=high, bins=bins, kernels="", note="")


def kernel_images(weights: Tensor) -> tuple[str, str]:
    """Kernels side by side as a data URI, and what is drawn; empty texts where kernels have other channels.

    A kernel of three channels is drawn in color, as that of a layer that reads a photo, one of one channel in gray.
    Each has its own scale: gray is zero, and the largest value reaches the end of the scale.

    Args:
        weights: (filters, channels, height, width).
    """
    if weights.dim() != 4 or weights.shape[1] not in _COLORS or weights[0, 0].numel() == 1:
        return "", ""
    shown = torch.nan_to_num(weights[:KERNELS].detach().float().cpu())
    peaks = shown.abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-12)
    pixels = ((shown / peaks + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1)
    number = "first " if len(shown) < len(weights) else ""
    colors = "in RGB" if weights.shape[1] == 3 else "of one channel"
    note = f"The {number}{counted(len(shown), 'kernel')} {colors}, each to its own scale: gray is zero."
    return _encoded(_mosaic(pixels.expand(-1, -1, -1, 3).numpy())), note


def _mosaic(kernels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(N, h, w, 3) → rows of kernels with whole pixels, on transparent ground: (H, W, 4)."""
    count, height, width = kernels.shape[:3]
    scale = -(-_SIDE // max(height, width))
    height, width = height * scale, width * scale
    across = min(count, _ACROSS)
    mosaic = np.zeros((-(-count // across) * (height + _GAP) - _GAP, _ACROSS * (width + _GAP) - _GAP, 4), np.uint8)
    for at, kernel in enumerate(kernels.repeat(scale, 1).repeat(scale, 2)):
        top, left = at // across * (height + _GAP), at % across * (width + _GAP)
        mosaic[top : top + height, left : left + width] = np.dstack([kernel, np.full((height, width), 255, np.uint8)])
    return mosaic


def _encoded(image: NDArray[np.uint8]) -> str:
    _, data = cv2.imencode(".png", image[..., [2, 1, 0, 3]])
    return data_uri(data.tobytes(), "image/png")
