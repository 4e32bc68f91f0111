"""Arithmetic of the deltas that heads write (what Darknet puts in l.delta)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from darknet_py.layers.target_assignment import Grid, SlotGroups


class ClassLossOptions(NamedTuple):
    """How class deltas are written (`delta_yolo_class`)."""

    label_smoothing: float = 0.0  # label_smooth_eps
    focal: bool = False
    weights: Tensor | None = None  # (classes,) factor per class
    normalizer: float = 1.0  # cls_normalizer; Darknet uses it only together with weights

    def weight(self, labels: Tensor) -> Tensor | float:
        return 1.0 if self.weights is None else self.weights[labels]


def write_classes(
    flat: Tensor,
    grid: Grid,
    output: Tensor,
    first_class: int,
    slots: Tensor,
    labels: Tensor,
    options: ClassLossOptions,
    first_value: Tensor | None = None,
) -> None:
    """Writes the class entries of M assignments, in Darknet's order, into `flat`.

    The first write to a slot sets all its classes: towards 1 for its label, towards 0 for the others. A later one
    only sets its own label towards 1. Darknet recognizes "already written" by delta ≠ 0, so it differs in slots with
    several truths where a probability is exactly 0 or 1; what is written there is zero to within rounding.

    Args:
        flat: deltas as `Grid.zeros` made them; changed in place.
        grid: the shape of the head's output.
        output: the result of the head's forward.
        first_class: the entry of class 0.
        slots: (M,) slots.
        labels: (M,) classes.
        options: label smoothing, focal loss and weights.
        first_value: (M,) values that replace the label's value of a first write where they are not NaN.
    """
    groups = SlotGroups.from_slots(slots)
    slots, labels = groups.slots, labels[groups.order]
    leader = groups.leader()
    probabilities = grid.gather(output, slots, first_class, grid.entries - first_class)
    probability = probabilities.gather(1, labels[:, None]).squeeze(1)
    positive, negative = 1 - options.label_smoothing / 2, options.label_smoothing / 2

    later_value = (positive - probability) * options.weight(labels)
    if options.focal:
        slope = focal_slope(probability)
        others, value = -probabilities * slope[:, None], (1 - probability) * slope
    else:
        others, value = negative - probabilities, positive - probability
        if options.weights is not None:
            value = value * options.weight(labels) * options.normalizer
    if first_value is not None:
        replacement = first_value[groups.order]
        value = torch.where(replacement.isnan(), value, replacement)
    # A first write whose label comes again in the slot ends up as the later one left it.
    repeats = ~groups.first & (labels == labels[leader])
    is_repeated = torch.zeros_like(leader).index_add_(0, leader, repeats.long()) > 0
    value = torch.where(groups.first & ~is_repeated, value, later_value)

    first_slots = torch.where(groups.first, slots, grid.slots)
    flat.index_put_((grid.positions(first_slots, first_class, grid.entries - first_class),), finite(others))
    flat.index_put_((grid.positions(slots, first_class).squeeze(1) + labels * grid.cells,), finite(value))


def focal_slope(p: Tensor) -> Tensor:
    """−p / 2 times the derivative of the focal loss −(1 − p)² · log p, as Darknet writes it (`delta_yolo_class`)."""
    p = p + 1e-15
    return -(1 - p) * (2 * p * torch.log(p) + p - 1) * 0.5


def finite(values: Tensor) -> Tensor:
    """NaN and infinity replaced by 0 (`fix_nan_inf`)."""
    return torch.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)


def with_area(box: Tensor) -> Tensor:
    """(…, 4) boxes, a width or height of 0 replaced by 1 as Darknet does before it takes an IoU's gradient."""
    return torch.cat((box[..., :2], torch.where(box[..., 2:] == 0, 1.0, box[..., 2:])), -1)


def sum_of_squares(delta: Tensor) -> Tensor:
    """In float64 (`mag_array`, squared)."""
    return (delta * delta).sum(dtype=torch.float64)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of the values where the mask is set, 0 where it never is."""
    return torch.where(mask, values, 0.0).sum() / mask.sum().clamp(min=1)
