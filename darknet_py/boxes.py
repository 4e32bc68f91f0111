"""Boxes as (…, 4) tensors of center x, center y, width, height: conversions and the IoU family (Darknet's `box.c`).

All functions broadcast: `iou(a[:, None], b)` compares each of a with each of b. Any unit will do, the same for both
sides. All but `iou_gradient` are differentiable, and all work in the dtype of their arguments.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


def to_corners(boxes: Tensor) -> Tensor:
    """Converts center boxes to corner boxes.

    Args:
        boxes: (…, 4) cx, cy, w, h.

    Returns:
        (…, 4) left, top, right, bottom.
    """
    half = boxes[..., 2:] / 2
    return torch.cat((boxes[..., :2] - half, boxes[..., :2] + half), -1)


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union (`box_iou`).

    Args:
        a: (…, 4) cx, cy, w, h.
        b: (…, 4), broadcastable to a.

    Returns:
        (…) in 0…1; 0 where the boxes do not touch or have no area.
    """
    inter, union = _intersection_and_union(a, b)
    return torch.where((inter == 0) | (union == 0), 0.0, inter / union)


def giou(a: Tensor, b: Tensor) -> Tensor:
    """Generalized IoU (`box_giou`): IoU minus the fraction of the enclosing box that the union leaves empty.

    Args:
        a: (…, 4) cx, cy, w, h.
        b: (…, 4), broadcastable to a.

    Returns:
        (…) in −1…1.
    """
    inter, union = _intersection_and_union(a, b)
    plain = torch.where((inter == 0) | (union == 0), 0.0, inter / union)
    size = _enclosing(a, b)
    area = size[..., 0] * size[..., 1]
    return plain - torch.where(area == 0, 0.0, (area - union) / area)


def diou(a: Tensor, b: Tensor, beta: float = 0.6) -> Tensor:
    """Distance IoU: IoU − (d² / c²)^beta (`box_diou`, and `box_diounms` for any beta).

    Args:
        a: (…, 4) cx, cy, w, h.
        b: (…, 4), broadcastable to a.
        beta: exponent; Darknet's [yolo] metrics and `greedynms` use 0.6.

    Returns:
        (…), where d is the distance of the centers and c the diagonal of the enclosing box.
    """
    distance, diagonal = _distance_and_diagonal(a, b)
    return iou(a, b) - torch.where(diagonal == 0, 0.0, (distance / diagonal) ** beta)


def ciou(a: Tensor, b: Tensor) -> Tensor:
    """Complete IoU (`box_ciou`): IoU − d² / c² − alpha · (difference of the aspect ratios).

    Args:
        a: (…, 4) cx, cy, w, h.
        b: (…, 4), broadcastable to a.

    Returns:
        (…), with d and c as in `diou`.
    """
    distance, diagonal = _distance_and_diagonal(a, b)
    plain = iou(a, b)
    aspect = _aspect(a, b) ** 2 * (4 / math.pi**2)
    alpha = aspect / (1 - plain + aspect + 1e-6)
    return plain - torch.where(diagonal == 0, 0.0, distance / diagonal + alpha * aspect)


KINDS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"iou": iou, "giou": giou, "diou": diou, "ciou": ciou}


def iou_of_kind(a: Tensor, b: Tensor, kind: str) -> Tensor:
    """The member of the IoU family that a cfg names (`box_iou_kind`).

    Args:
        a: (…, 4) cx, cy, w, h.
        b: (…, 4), broadcastable to a.
        kind: "iou", "giou", "diou" or "ciou".

    Returns:
        (…).
    """
    return KINDS[kind](a, b)


class _Edges(NamedTuple):
    """Edges of predictions p compared with those of truths t, all (…, 2) for x and y."""

    low: Tensor
    high: Tensor
    beyond_low: Tensor  # p extends beyond t on that side
    beyond_high: Tensor


def iou_gradient(predicted: Tensor, truth: Tensor, kind: str) -> Tensor:
    """The gradient of an IoU that Darknet trains with (`dx_box_iou`).

    It is not the exact derivative: for w and h of a plain IoU or GIoU it is twice that, and the center term of DIoU and
    CIoU has the opposite sign for w and h. Not differentiable itself.

    Args:
        predicted: (…, 4) cx, cy, w, h.
        truth: (…, 4), broadcastable to predicted.
        kind: "iou", "giou", "diou" or "ciou".

    Returns:
        (…, 4) slopes with respect to the predicted cx, cy, w, h, which Darknet adds to l.delta.
    """
    p, t = to_corners(predicted), to_corners(truth)
    is_inverted = p[..., :2] >= p[..., 2:]  # no height or width, within rounding
    low, high = torch.minimum(p[..., :2], p[..., 2:]), torch.maximum(p[..., :2], p[..., 2:])
    t_low, t_high = t[..., :2], t[..., 2:]
    edges = _Edges(low, high, low < t_low, high > t_high)

    size = high - low
    overlap = torch.minimum(high, t_high) - torch.maximum(low, t_low)  # negative where they do not touch
    inter = overlap.prod(-1, keepdim=True)
    union = size.prod(-1, keepdim=True) + (t_high - t_low).prod(-1, keepdim=True) - inter

    # Moving an edge changes an area by the length of that edge, the size along the other axis.
    d_union_low = -size.flip(-1)
    d_inter_low = torch.where(low > t_low, -overlap.flip(-1), 0.0)
    d_inter_high = torch.where(high < t_high, overlap.flip(-1), 0.0)
    d_union_low, d_union_high = d_union_low - d_inter_low, -d_union_low - d_inter_high
    has_area = union > 0
    slope_low = torch.where(has_area, (union * d_inter_low - inter * d_union_low) / union**2, 0.0)
    slope_high = torch.where(has_area, (union * d_inter_high - inter * d_union_high) / union**2, 0.0)
    slope_low = torch.where(is_inverted, slope_high, slope_low)
    apart = (overlap <= 0).any(-1, keepdim=True)

    if kind == "giou":
        enclosing = torch.maximum(high, t_high) - torch.minimum(low, t_low)
        area = enclosing.prod(-1, keepdim=True)
        d_area_low = torch.where(edges.beyond_low, -enclosing.flip(-1), 0.0)
        d_area_high = torch.where(edges.beyond_high, enclosing.flip(-1), 0.0)
        area_slope_low = torch.where(area > 0, (area * d_union_low - union * d_area_low) / area**2, 0.0)
        area_slope_high = torch.where(area > 0, (area * d_union_high - union * d_area_high) / area**2, 0.0)
        slope_low = torch.where(apart, area_slope_low, slope_low + area_slope_low)
        slope_high = torch.where(apart, area_slope_high, slope_high + area_slope_high)

    # For the size Darknet does not divide by two.
    gradient = torch.cat((slope_low + slope_high, slope_high - slope_low), -1)
    if kind in ("diou", "ciou"):
        gradient = torch.where(apart, 0.0, gradient) + _center_gradient(predicted, truth, edges)
    if kind == "ciou":
        gradient = gradient + _aspect_gradient(predicted, truth, inter / union)
    return gradient


def _intersection_and_union(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """The areas of the intersection and the union."""
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


def _distance_and_diagonal(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distance of the centers, and squared diagonal of the enclosing box."""
    return ((a[..., :2] - b[..., :2]) ** 2).sum(-1), (_enclosing(a, b) ** 2).sum(-1)


def _aspect(predicted: Tensor, truth: Tensor) -> Tensor:
    return torch.atan(truth[..., 2] / truth[..., 3]) - torch.atan(predicted[..., 2] / predicted[..., 3])


def _center_gradient(predicted: Tensor, truth: Tensor, edges: _Edges) -> Tensor:
    """The gradient of −d² / c²."""
    distance, diagonal = (part.unsqueeze(-1) for part in _distance_and_diagonal(predicted, truth))
    enclosing = _enclosing(predicted, truth)
    low, high = edges.beyond_low.to(enclosing.dtype), edges.beyond_high.to(enclosing.dtype)
    d_diagonal_center = 2 * enclosing * (high - low)
    d_diagonal_size = enclosing * (high + low)
    offset = 2 * (truth[..., :2] - predicted[..., :2])
    center = (offset * diagonal - d_diagonal_center * distance) / diagonal**2
    size = d_diagonal_size * distance / diagonal**2
    return torch.where(diagonal > 0, torch.cat((center, size), -1), 0.0)


def _aspect_gradient(predicted: Tensor, truth: Tensor, plain: Tensor) -> Tensor:
    """The gradient of the aspect term with constant alpha and without the factor 1 / (w² + h²)."""
    angle = _aspect(predicted, truth).unsqueeze(-1)
    aspect = angle**2 * (4 / math.pi**2)
    alpha = aspect / (1 - plain + aspect + 1e-6)
    slope = alpha * angle * (8 / math.pi**2)
    zero = torch.zeros_like(slope)
    return torch.cat((zero, zero, slope * predicted[..., 3:4], -slope * predicted[..., 2:3]), -1)
