"""Which truth is assigned to which slot of a detection head ([yolo], [Gaussian_yolo], [region], [detection]).

Darknet walks cells and truths one by one and lets later ones overwrite earlier ones. Here all cells and all truths are
processed at once; where several truths fall into one slot (a cell's anchor), a stable sort by slot tells which came
first and last. No function but `assign_slots` waits for the device, and none loops over boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from darknet_py import boxes

_PAIRS = 1 << 21  # predictions × truths compared at once; limits the memory of `best_match`


class Grid(NamedTuple):
    """The shape of a head's output: images, anchors, entries, height, width.

    A slot is one anchor of one cell of one image. Slot number `slots` is one more, for values to be discarded.
    """

    images: int
    anchors: int
    entries: int
    height: int
    width: int

    @property
    def cells(self) -> int:
        return self.height * self.width

    @property
    def slots(self) -> int:
        return self.images * self.anchors * self.cells

    def zeros(self, like: Tensor) -> Tensor:
        """Zeros for all entries of all slots and of the one to be discarded, flat."""
        return like.new_zeros((self.images * self.anchors + 1) * self.entries * self.cells)

    def view(self, flat: Tensor) -> Tensor:
        """The result of `zeros` as (images, anchors, entries, height, width), without the slot to be discarded."""
        return flat[: self.slots * self.entries].view(self)

    def positions(self, slots: Tensor, first: int, count: int = 1) -> Tensor:
        """(M,) slots → (M, count) flat positions of their entries first, first + 1, …"""
        base = slots // self.cells * (self.entries * self.cells) + slots % self.cells
        return base[:, None] + (first + torch.arange(count, device=slots.device)) * self.cells

    def gather(self, values: Tensor, slots: Tensor, first: int, count: int = 1) -> Tensor:
        """(M, count) entries of `values`, shaped as the grid; arbitrary ones for the slot to be discarded."""
        return values.reshape(-1)[self.positions(slots.clamp(max=self.slots - 1), first, count)]


class TruthBoxes(NamedTuple):
    """The labeled boxes of a mini-batch, in the order in which Darknet sees them.

    image, label: (N,) integers. box: (N, 4) cx, cy, w, h relative to the network input. valid: (N,) the boxes that
    Darknet does not skip.
    """

    image: Tensor
    label: Tensor
    box: Tensor
    valid: Tensor

    @classmethod
    def from_rows(cls, rows: Tensor, classes: int, class_map: Tensor | None = None) -> TruthBoxes:
        """rows: (N, 6 or more) image, class, cx, cy, w, h, …"""
        label = rows[:, 1].long()
        # A center of zero ends Darknet's list of boxes; a class that the head does not know is skipped.
        valid = (label >= 0) & (label < classes) & (rows[:, 2] != 0)
        if class_map is not None:
            label = class_map[label.clamp(0, len(class_map) - 1)]
        return cls(rows[:, 0].long(), label.clamp(0, classes - 1), rows[:, 2:6].float(), valid)

    def cell(self, width: int, height: int) -> tuple[Tensor, Tensor]:
        """(column, row) of the centers. Darknet writes outside its arrays for centers at or beyond 1; we do not."""
        column = (self.box[:, 0] * width).long().clamp(0, width - 1)
        return column, (self.box[:, 1] * height).long().clamp(0, height - 1)


class BestMatch(NamedTuple):
    """For each prediction of a grid the best IoU with a truth of its image, and (if asked for) that truth's row."""

    iou: Tensor  # (images, anchors · cells)
    row: Tensor | None


def best_match(predicted: Tensor, truth: TruthBoxes, with_row: bool = False) -> BestMatch:
    """Compares all predictions with the truths of their images.

    Args:
        predicted: (images, K, 4) boxes cx, cy, w, h.
        truth: boxes in the same units.
        with_row: also return the row of the best truth; the first of several equal ones.

    Returns:
        The best IoU of each prediction, 0 without truths.
    """
    images, count = predicted.shape[:2]
    # NaN and infinity never win in C's comparisons; maximum() would keep them.
    predicted = torch.nan_to_num(predicted, nan=0.0, posinf=1e15, neginf=-1e15)
    best = predicted.new_zeros(images, count)
    chunks = torch.arange(len(truth.image), device=predicted.device).split(max(_PAIRS // max(count, 1), 1))

    def compare(rows: Tensor) -> Tensor:
        iou = boxes.iou(predicted[truth.image[rows]], truth.box[rows, None])
        return iou * truth.valid[rows, None]

    for rows in chunks:
        iou = compare(rows)
        best.scatter_reduce_(0, truth.image[rows, None].expand_as(iou), iou, "amax")
    if not with_row:
        return BestMatch(best, None)
    first = torch.full((images, count), len(truth.image), device=predicted.device)
    for rows in chunks:
        equal = torch.where(compare(rows) == best[truth.image[rows]], rows[:, None], len(truth.image))
        first.scatter_reduce_(0, truth.image[rows, None].expand_as(equal), equal, "amin")
    return BestMatch(best, first)


def best_anchor_index(truth: TruthBoxes, anchors: Tensor) -> Tensor:
    """(N,) index of the anchor whose size fits each truth best. anchors: (A, 2) relative to the network input."""
    return boxes.iou(at_origin(anchors), at_origin(truth.box[:, None, 2:])).argmax(1)


def at_origin(sizes: Tensor) -> Tensor:
    """(…, 2) sizes → (…, 4) boxes around the origin."""
    return torch.cat((torch.zeros_like(sizes), sizes), -1)


class SlotGroups(NamedTuple):
    """M writes sorted by slot; those of one slot stay in Darknet's order."""

    order: Tensor  # (M,) index of each sorted write
    slots: Tensor  # (M,) sorted
    first: Tensor  # (M,) whether it is the first of its slot
    last: Tensor

    @classmethod
    def from_slots(cls, slots: Tensor) -> SlotGroups:
        ordered, order = torch.sort(slots, stable=True)
        change = ordered[1:] != ordered[:-1]
        end = change.new_ones(min(len(slots), 1))
        return cls(order, ordered, torch.cat((end, change)), torch.cat((change, end)))

    def leader(self) -> Tensor:
        """(M,) position, among the sorted writes, of the first write to the same slot."""
        position = torch.arange(len(self.slots), device=self.slots.device)
        return torch.where(self.first, position, 0).cummax(0).values if len(position) else position


class Assignments(NamedTuple):
    """M assignments of a truth to a slot, in Darknet's order."""

    slots: Tensor  # (M,) `Grid.slots` where nothing is assigned
    truth: Tensor  # (M,) row of the truth
    anchor: Tensor  # (M,) index into all anchors
    is_counted: Tensor  # (M,) whether it counts in averages

    @classmethod
    def join(cls, parts: Sequence[Assignments]) -> Assignments:
        return parts[0] if len(parts) == 1 else cls(*(torch.cat(values) for values in zip(*parts, strict=True)))


def assign_slots(chosen: Tensor, row: Tensor, mask: Tensor) -> Assignments:
    """Assigns to each chosen slot (B, anchors, H, W) the truth of `row` (as many values). Waits for the device."""
    slots = chosen.flatten().nonzero().squeeze(1)
    cells = chosen.shape[2] * chosen.shape[3]
    anchor = mask[slots // cells % chosen.shape[1]]
    return Assignments(slots, row.flatten()[slots], anchor, torch.zeros_like(slots, dtype=torch.bool))
