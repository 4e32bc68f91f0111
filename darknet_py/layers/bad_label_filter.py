"""Label noise: leaving out the largest or smallest deltas late in training (end of Darknet's `forward_yolo_layer`).

`[net]` options: badlabels_rejection_percentage and num_sigmas_reject_badlabels leave out what is suspiciously wrong in
the last quarter of training, equidistant_point what is nearly right after that iteration.
"""

from __future__ import annotations

import torch
from torch import Tensor

from darknet_py.cfg.net import NetSpec
from darknet_py.layers.base import RunningDeltaStats

_MEMORY = 0.99  # of the running figures, per mini-batch and head
_STEP = 0.01  # by which the threshold of badlabels_rejection_percentage moves


def filters_labels(net: NetSpec, iteration: int) -> bool:
    """Whether `reject` has anything to do in that iteration."""
    late = iteration > net.max_batches * 3 // 4
    noisy = net.badlabels_rejection_percentage or net.num_sigmas_reject_badlabels
    return bool(noisy and late) or 0 < net.equidistant_point < iteration


def filter_labels(delta: Tensor, rolling: RunningDeltaStats, net: NetSpec, iteration: int, entries: int) -> Tensor:
    """delta with rejected values set to 0; updates `rolling`. entries: values per anchor."""
    start = net.max_batches * 3 // 4
    late = iteration > start
    progress = (iteration - net.equidistant_point) / max(net.max_batches - net.equidistant_point, 1)
    least = rolling.mean * progress * 1.4
    size, taught = delta.abs(), delta != 0
    count = taught.sum().clamp(min=1)
    rolling.largest = torch.where(rolling.largest == 0, size.max(), rolling.largest)
    rolling.largest = _MEMORY * rolling.largest + (1 - _MEMORY) * size.max()
    rolling.mean = _MEMORY * rolling.mean + (1 - _MEMORY) * size.sum() / count

    if net.num_sigmas_reject_badlabels and late:
        spread = (torch.where(taught, delta - rolling.mean, 0.0).square().sum() / count).sqrt()
        final = rolling.mean + rolling.spread * net.num_sigmas_reject_badlabels
        rolling.spread = _MEMORY * rolling.spread + (1 - _MEMORY) * spread
        falling = rolling.largest - (iteration - start) / max(start, 1) * (rolling.largest - final).abs()
        delta = torch.where(size > torch.maximum(final, falling), 0.0, delta)
        least = torch.minimum(final, rolling.mean) * progress

    if net.badlabels_rejection_percentage and late:
        limit = torch.where(rolling.threshold == 0, rolling.largest, rolling.threshold)
        taught, over = delta != 0, delta.abs() > limit
        percent = 100 * over.sum() * entries / taught.sum().clamp(min=1)
        lower = torch.where(limit > _STEP, limit - _STEP, limit)
        rolling.threshold = torch.where(percent > net.badlabels_rejection_percentage, limit + _STEP, lower)
        delta = torch.where(over, 0.0, delta)

    if 0 < net.equidistant_point < iteration:
        delta = torch.where(delta.abs() < least, 0.0, delta)
    return delta
