"""Assisted excitation: training raises the values inside labeled boxes by their mean over the channels."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from darknet_py.layers.base import StatefulLayer


class AssistedExcitation(StatefulLayer):
    """`assisted_excitation_forward_gpu`: y = x + alpha · mask · mean over channels, with alpha falling from 1 to 0.

    until: 1 = the first half of training, N = iterations burn_in … N. As in C no gradient passes through the added
    part. C's CPU build uses twice this alpha and never stops.
    """

    def __init__(self, until: int, burn_in: int):
        super().__init__()
        self.until = until
        self.burn_in = burn_in

    def forward(self, x: Tensor) -> Tensor:
        alpha = self._alpha()
        if not self.training or not alpha or self.state.truth is None:
            return x
        mean = x.detach().mean(1, keepdim=True)
        mask = box_mask(self.state.truth, x.shape[0], x.shape[2], x.shape[3])
        return x + alpha * mask.to(x.dtype)[:, None] * mean

    def _alpha(self) -> float:
        iteration = self.state.iteration
        if self.until == 1:
            length = max(self.state.max_batches, 1)
            is_active = iteration <= length // 2
        else:
            length = self.burn_in + self.until
            is_active = self.burn_in <= iteration <= self.until
        return (1 + math.cos(math.pi * iteration / length)) / 2 if is_active else 0.0


def box_mask(truth: Tensor, batch: int, height: int, width: int) -> Tensor:
    """The cells of a feature map that labeled boxes cover.

    As in C a box also covers the column after its right edge. The cost is linear in boxes and cells: the corners are
    marked and summed up.

    Args:
        truth: (N, 6) rows (image, class, cx, cy, w, h), relative to the image.
        batch: number of images.
        height: of the map.
        width: of the map.

    Returns:
        (batch, height, width) bool.
    """
    image = truth[:, 0].long()
    cx, cy, w, h = truth[:, 2:6].unbind(1)
    left = ((cx - w / 2) * width).floor().clamp(0, width).long()
    right = (((cx + w / 2) * width).ceil() + 1).clamp(0, width).long()
    top = ((cy - h / 2) * height).floor().clamp(0, height).long()
    bottom = ((cy + h / 2) * height).ceil().clamp(0, height).long()
    marks = torch.zeros(batch, height + 1, width + 1, device=truth.device)
    for rows, columns, sign in ((top, left, 1.0), (top, right, -1.0), (bottom, left, -1.0), (bottom, right, 1.0)):
        marks.index_put_((image, rows, columns), marks.new_full(rows.shape, sign), accumulate=True)
    return marks.cumsum(1).cumsum(2)[:, :height, :width] > 0.5
