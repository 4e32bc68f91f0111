"""Boxes as (…, 4) tensors of center x, center y, width, height, and how alike two of them are (Darknet's `box.c`).

All functions broadcast: `iou(a[:, None], b)` compares each of a with each of b. Units are the caller's, the same for
both sides. Everything here is differentiable or says otherwise, and works in the dtype it is given.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


def to_corners(boxes: Tensor) -> Tensor:
    """(…, 4) cx, cy, w, h → left, top, right, bottom."""
    half = boxes[..., 2:] / 2
    return torch.cat((boxes[..., :2] - half, boxes[..., :2] + half), -1)


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union (`box_iou`); 0 where the boxes do not touch or have no area."""
    inter, union = _overlap(a, b)
    return torch.where((inter == 0) | (union == 0), 0.0, inter / union)


def giou(a: Tensor, b: Tensor) -> Tensor:
    """Generalized IoU, −1…1 (`box_giou`)."""
    inter, union = _overlap(a, b)
    plain = torch.where((inter == 0) | (union == 0), 0.0, inter / union)
    size = _enclosing(a, b)
    area = size[..., 0] * size[..., 1]
    return plain - torch.where(area == 0, 0.0, (area - union) / area)


def diou(a: Tensor, b: Tensor, beta: float = 0.6) -> Tensor:
    """IoU − (d² / c²)^beta (`box_diou`, and `box_diounms` for any beta).

    d: distance of the centers, c: diagonal of the enclosing box. Darknet's [yolo] figures and `greedynms` use .6.
    """
    distance, diagonal = _spread(a, b)
    return iou(a, b) - torch.where(diagonal == 0, 0.0, (distance / diagonal) ** beta)


def ciou(a: Tensor, b: Tensor) -> Tensor:
    """Complete IoU (`box_ciou`): IoU − d² / c² − alpha · (difference of the aspect ratios)."""
    distance, diagonal = _spread(a, b)
    plain = iou(a, b)
    aspect = _aspect(a, b) ** 2 * (4 / math.pi**2)
    alpha = aspect / (1 - plain + aspect + 1e-6)
    return plain - torch.where(diagonal == 0, 0.0, distance / diagonal + alpha * aspect)


KINDS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"iou": iou, "giou": giou, "diou": diou, "ciou": ciou}


def iou_of_kind(a: Tensor, b: Tensor, kind: str) -> Tensor:
    """Likeness of a and b by kind "iou", "giou", "diou" or "ciou" (`box_iou_kind`)."""
    return KINDS[kind](a, b)


class _Edges(NamedTuple):
    """What `iou_gradient` needs of predictions p and truths t. `low`, `high`: (…, 2) for x and y."""

    low: Tensor
    high: Tensor
    beyond_low: Tensor  # p reaches further than t on that side
    beyond_high: Tensor


def iou_gradient(predicted: Tensor, truth: Tensor, kind: str) -> Tensor:
    """How the likeness grows with the predicted cx, cy, w, h: (…, 4), what Darknet adds to `delta` (`dx_box_iou`).

    Not the exact derivative, but what Darknet trains with: for w and h of a plain IoU or GIoU it is twice that, and
    the center term of DIoU and CIoU has the opposite sign for w and h. Not differentiable itself.
    """
    p, t = to_corners(predicted), to_corners(truth)
    turned = p[..., :2] >= p[..., 2:]  # no height or width left, within rounding
    low, high = torch.minimum(p[..., :2], p[..., 2:]), torch.maximum(p[..., :2], p[..., 2:])
    t_low, t_high = t[..., :2], t[..., 2:]
    edges = _Edges(low, high, low < t_low, high > t_high)

    size = high - low
    shared = torch.minimum(high, t_high) - torch.maximum(low, t_low)  # negative where they do not touch
    inter = shared.prod(-1, keepdim=True)
    union = size.prod(-1, keepdim=True) + (t_high - t_low).prod(-1, keepdim=True) - inter

    # Moving an edge changes an area by the length of that edge, the extent along the other axis.
    d_union_low = -size.flip(-1)
    d_inter_low = torch.where(low > t_low, -shared.flip(-1), 0.0)
    d_inter_high = torch.where(high < t_high, shared.flip(-1), 0.0)
    d_union_low, d_union_high = d_union_low - d_inter_low, -d_union_low - d_inter_high
    has_area = union > 0
    slope_low = torch.where(has_area, (union * d_inter_low - inter * d_union_low) / union**2, 0.0)
    slope_high = torch.where(has_area, (union * d_inter_high - inter * d_union_high) / union**2, 0.0)
    slope_low = torch.where(turned, slope_high, slope_low)
    apart = (shared <= 0).any(-1, keepdim=True)

    if kind == "giou":
        around = torch.maximum(high, t_high) - torch.minimum(low, t_low)
        area = around.prod(-1, keepdim=True)
        d_area_low = torch.where(edges.beyond_low, -around.flip(-1), 0.0)
        d_area_high = torch.where(edges.beyond_high, around.flip(-1), 0.0)
        pull_low = torch.where(area > 0, (area * d_union_low - union * d_area_low) / area**2, 0.0)
        pull_high = torch.where(area > 0, (area * d_union_high - union * d_area_high) / area**2, 0.0)
        slope_low = torch.where(apart, pull_low, slope_low + pull_low)
        slope_high = torch.where(apart, pull_high, slope_high + pull_high)

    # For the size Darknet does not divide by two.
    gradient = torch.cat((slope_low + slope_high, slope_high - slope_low), -1)
    if kind in ("diou", "ciou"):
        gradient = torch.where(apart, 0.0, gradient) + _center_gradient(predicted, truth, edges)
    if kind == "ciou":
        gradient = gradient + _aspect_gradient(predicted, truth, inter / union)
    return gradient


def _overlap(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Areas of the intersection and the union."""
    low = torch.maximum(a[..., :2] - a[..., 2:] / 2, b[..., :2] - b[..., 2:] / 2)
    high = torch.minimum(a[..., :2] + a[..., 2:] / 2, b[..., :2] + b[..., 2:] / 2)
    size = (high - low).clamp(min=0)
    inter = size[..., 0] * size[..., 1]
    return inter, a[..., 2] * a[..., 3] + b[..., 2] * b[..., 3] - inter


def _enclosing(a: Tensor, b: Tensor) -> Tensor:
    """(…, 2) width and height of the smallest box around both (`box_c`)."""
    low = torch.minimum(a[..., :2] - a[..., 2:] / 2, b[..., :2] - b[..., 2:] / 2)
    high = torch.maximum(a[..., :2] + a[..., 2:] / 2, b[..., :2] + b[..., 2:] / 2)
    return high - low


def _spread(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distance of the centers, and squared diagonal of the enclosing box."""
    return ((a[..., :2] - b[..., :2]) ** 2).sum(-1), (_enclosing(a, b) ** 2).sum(-1)


def _aspect(predicted: Tensor, truth: Tensor) -> Tensor:
    return torch.atan(truth[..., 2] / truth[..., 3]) - torch.atan(predicted[..., 2] / predicted[..., 3])


def _center_gradient(predicted: Tensor, truth: Tensor, edges: _Edges) -> Tensor:
    """Of −d² / c²."""
    distance, diagonal = (part.unsqueeze(-1) for part in _spread(predicted, truth))
    around = _enclosing(predicted, truth)
    low, high = edges.beyond_low.to(around.dtype), edges.beyond_high.to(around.dtype)
    d_diagonal_center = 2 * around * (high - low)
    d_diagonal_size = around * (high + low)
    towards = 2 * (truth[..., :2] - predicted[..., :2])
    center = (towards * diagonal - d_diagonal_center * distance) / diagonal**2
    size = d_diagonal_size * distance / diagonal**2
    return torch.where(diagonal > 0, torch.cat((center, size), -1), 0.0)


def _aspect_gradient(predicted: Tensor, truth: Tensor, plain: Tensor) -> Tensor:
    """Of the aspect term, with alpha held and the factor 1 / (w² + h²) left out."""
    angle = _aspect(predicted, truth).unsqueeze(-1)
    aspect = angle**2 * (4 / math.pi**2)
    alpha = aspect / (1 - plain + aspect + 1e-6)
    slope = alpha * angle * (8 / math.pi**2)
    zero = torch.zeros_like(slope)
    return torch.cat((zero, zero, slope * predicted[..., 3:4], -slope * predicted[..., 2:3]), -1)
