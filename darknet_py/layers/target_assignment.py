"""What the anchor heads ([yolo], [Gaussian_yolo], [region]) share: grids, truth rows, matching, ordered writes.

Darknet walks cells and truths one by one and lets later ones overwrite earlier ones. Here all cells and all truths go
at once; where several truths meet in one slot (a cell's anchor), a stable sort by slot tells who came first and last.
Nothing in this file waits for the device (no value is read back) or loops over boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from darknet_py import boxes
from darknet_py.cfg.options import Options, atoi
from darknet_py.errors import DataError
from darknet_py.files import read_text

ANCHOR_LIMIT = 1 << 10  # num; a typo must not ask for gigabytes of anchors
_PAIRS = 1 << 21  # predictions × truths compared at once; bounds the memory of `match`


def parse_anchors(options: Options, num: int) -> tuple[tuple[float, float], ...]:
    """`anchors`: num pairs (width, height). As in Darknet missing ones are .5 and surplus ones are dropped."""
    values = options.floats("anchors")[: 2 * num]
    if len(values) < 2 * num:
        options.warn(
            f"anchors: expected {2 * num} numbers (num={num}), got {len(values)}; the others are .5", "anchors"
        )
        values += (0.5,) * (2 * num - len(values))
    if any(value <= 0 for value in values):
        options.error("anchors: expected sizes above zero", "anchors")
    return tuple(zip(values[::2], values[1::2], strict=True))


def parse_mask(options: Options, num: int) -> tuple[int, ...]:
    """`mask`: which of the num anchors this head predicts; all when it is not given."""
    mask = options.ints("mask", range(num))
    if not mask or min(mask) < 0 or max(mask) >= num or len(set(mask)) < len(mask):
        options.error(
            f"mask: expected different anchors from 0 to {num - 1} (num={num}), got {options.text('mask')!r}", "mask"
        )
        return (0,)
    return mask


def parse_class_weights(options: Options, classes: int, max_delta: float | None) -> tuple[float, ...]:
    """`counters_per_class`: how often each class occurs → a factor for each (`get_classes_multipliers`)."""
    counts = [max(count, 1) for count in options.ints("counters_per_class")]
    if not counts:
        return ()
    if len(counts) != classes:
        options.error(
            f"counters_per_class: expected {classes} numbers, one per class, got {len(counts)}", "counters_per_class"
        )
    most = max(counts)
    return tuple(min(most / count, max_delta or float("inf")) for count in counts)


def read_map(path: str) -> Tensor:
    """A class map: line k holds the class that label k stands for (`read_map`). Raises DataError."""
    lines = read_text(path, "class map").split("\n")
    values = [atoi(line.strip()) for line in lines if line.strip()]
    if not values or any(value is None or not 0 <= value < 1 << 31 for value in values):
        raise DataError(f"{path}: expected one class number per line")
    return torch.tensor(values)


class Grid(NamedTuple):
    """A head's output (images, anchors, entries, height, width). A slot is one anchor of one cell of one image."""

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
        """Number of slots. Slot number `slots` itself is a bin for what must not be written."""
        return self.images * self.anchors * self.cells

    def new(self, like: Tensor) -> Tensor:
        """Zeros for all entries of all slots and of the bin, flat."""
        return like.new_zeros((self.images * self.anchors + 1) * self.entries * self.cells)

    def view(self, flat: Tensor) -> Tensor:
        """What `new` made → (images, anchors, entries, height, width), without the bin."""
        return flat[: self.slots * self.entries].view(self)

    def at(self, slots: Tensor, first: int, count: int = 1) -> Tensor:
        """(M,) slots → (M, count) flat positions of their entries from `first` on."""
        base = slots // self.cells * (self.entries * self.cells) + slots % self.cells
        return base[:, None] + (first + torch.arange(count, device=slots.device)) * self.cells

    def read(self, values: Tensor, slots: Tensor, first: int, count: int = 1) -> Tensor:
        """(M, count) entries of `values`, shaped as the grid; anything for the bin."""
        return values.reshape(-1)[self.at(slots.clamp(max=self.slots - 1), first, count)]


class TruthBoxes(NamedTuple):
    """Rows (image, class, cx, cy, w, h, …), in the order in which Darknet sees them.

    image, label: (N,) integers. box: (N, 4) relative to the network input. valid: rows Darknet does not skip.
    """

    image: Tensor
    label: Tensor
    box: Tensor
    valid: Tensor

    @classmethod
    def of(cls, rows: Tensor, classes: int, class_map: Tensor | None = None) -> TruthBoxes:
        label = rows[:, 1].long()
        # A center of zero ends Darknet's list of boxes; a class the head does not know is skipped.
        valid = (label >= 0) & (label < classes) & (rows[:, 2] != 0)
        if class_map is not None:
            label = class_map[label.clamp(0, len(class_map) - 1)]
        return cls(rows[:, 0].long(), label.clamp(0, classes - 1), rows[:, 2:6].float(), valid)

    def cell(self, width: int, height: int) -> tuple[Tensor, Tensor]:
        """(column, row) of the centers. Darknet writes outside its arrays for centers at or beyond 1; we do not."""
        column = (self.box[:, 0] * width).long().clamp(0, width - 1)
        return column, (self.box[:, 1] * height).long().clamp(0, height - 1)


class BestMatch(NamedTuple):
    """For each prediction of a grid: the best IoU with a truth of its image, and (if asked for) that truth's row."""

    iou: Tensor  # (images, anchors · cells)
    row: Tensor | None


def match(predicted: Tensor, truth: TruthBoxes, want_row: bool = False) -> BestMatch:
    """predicted: (images, K, 4). Best IoU of each prediction, 0 without truths; of equal ones the first counts."""
    images, count = predicted.shape[:2]
    # NaN and infinity never win in C's comparisons; maximum() would keep them.
    predicted = torch.nan_to_num(predicted, nan=0.0, posinf=1e15, neginf=-1e15)
    best = predicted.new_zeros(images, count)
    chunks = torch.arange(len(truth.image), device=predicted.device).split(max(_PAIRS // max(count, 1), 1))

    def compare(rows: Tensor) -> Tensor:
        likeness = boxes.iou(predicted[truth.image[rows]], truth.box[rows, None])
        return likeness * truth.valid[rows, None]

    for rows in chunks:
        likeness = compare(rows)
        best.scatter_reduce_(0, truth.image[rows, None].expand_as(likeness), likeness, "amax")
    if not want_row:
        return BestMatch(best, None)
    first = torch.full((images, count), len(truth.image), device=predicted.device)
    for rows in chunks:
        here = torch.where(compare(rows) == best[truth.image[rows]], rows[:, None], len(truth.image))
        first.scatter_reduce_(0, truth.image[rows, None].expand_as(here), here, "amin")
    return BestMatch(best, first)


def best_anchor(truth: TruthBoxes, anchors: Tensor) -> Tensor:
    """(N,) index of the anchor most like each truth's size. anchors: (A, 2) relative to the network input."""
    return boxes.iou(at_origin(anchors), at_origin(truth.box[:, None, 2:])).argmax(1)


def at_origin(sizes: Tensor) -> Tensor:
    """(…, 2) sizes → (…, 4) boxes around the origin."""
    return torch.cat((torch.zeros_like(sizes), sizes), -1)


class SlotGroups(NamedTuple):
    """Writes sorted by slot, those of one slot in Darknet's order."""

    order: Tensor  # (M,) index of each sorted write
    slots: Tensor  # (M,) sorted
    first: Tensor  # (M,) whether it is the first of its slot
    last: Tensor

    @classmethod
    def of(cls, slots: Tensor) -> SlotGroups:
        ordered, order = torch.sort(slots, stable=True)
        change = ordered[1:] != ordered[:-1]
        end = change.new_ones(min(len(slots), 1))
        return cls(order, ordered, torch.cat((end, change)), torch.cat((change, end)))

    def leader(self) -> Tensor:
        """(M,) position, among the sorted writes, of the first write to the same slot."""
        position = torch.arange(len(self.slots), device=self.slots.device)
        return torch.where(self.first, position, 0).cummax(0).values if len(position) else position


def only(slots: Tensor, chosen: Tensor, bin_slot: int) -> Tensor:
    """`slots` where chosen, the bin elsewhere."""
    return torch.where(chosen, slots, bin_slot)


class Assignments(NamedTuple):
    """M times one truth is taught to one slot, in Darknet's order."""

    slots: Tensor  # (M,) the grid's bin where there is nothing to teach
    truth: Tensor  # (M,) row of the truth
    anchor: Tensor  # (M,) index into all anchors
    counted: Tensor  # (M,) whether it counts in averages

    @classmethod
    def join(cls, parts: Sequence[Assignments]) -> Assignments:
        return parts[0] if len(parts) == 1 else cls(*(torch.cat(values) for values in zip(*parts, strict=True)))


def everywhere(chosen: Tensor, row: Tensor, mask: Tensor) -> Assignments:
    """All chosen slots (B, anchors, H, W), each with its own truth row. Waits for the device."""
    slots = chosen.flatten().nonzero().squeeze(1)
    cells = chosen.shape[2] * chosen.shape[3]
    anchor = mask[slots // cells % chosen.shape[1]]
    return Assignments(slots, row.flatten()[slots], anchor, torch.zeros_like(slots, dtype=torch.bool))


class ClassLossOptions(NamedTuple):
    """How class deltas are written (`delta_yolo_class`)."""

    smooth: float = 0.0  # label_smooth_eps
    focal: bool = False
    weights: Tensor | None = None  # (classes,) factor per class
    normalizer: float = 1.0  # cls_normalizer; Darknet uses it only together with weights

    def weight(self, labels: Tensor) -> Tensor | float:
        return 1.0 if self.weights is None else self.weights[labels]


def write_classes(
    flat: Tensor,
    grid: Grid,
    output: Tensor,
    entry: int,
    slots: Tensor,
    labels: Tensor,
    rule: ClassLossOptions,
    first_value: Tensor | None = None,
) -> None:
    """Writes the class entries of `flat` (made by `grid.new`) for M writes in Darknet's order.

    The first write to a slot sets all its classes: towards 1 for its label, towards 0 for the others. A later one
    only sets its own label towards 1. output: what forward gave. entry: the first class entry. slots, labels: (M,).
    first_value: (M,) replaces the label's value of a first write where it is not NaN.

    Darknet recognizes "already written" by delta ≠ 0, so it differs in slots with several truths where a probability
    is exactly 0 or 1; what is written there is zero to within rounding.
    """
    runs = SlotGroups.of(slots)
    slots, labels = runs.slots, labels[runs.order]
    leader = runs.leader()
    probability = grid.read(output, slots, entry, grid.entries - entry)
    own = probability.gather(1, labels[:, None]).squeeze(1)
    target, other = 1 - rule.smooth / 2, rule.smooth / 2

    again = (target - own) * rule.weight(labels)
    if rule.focal:
        slope = focal_slope(own)
        row, value = -probability * slope[:, None], (1 - own) * slope
    else:
        row, value = other - probability, target - own
        if rule.weights is not None:
            value = value * rule.weight(labels) * rule.normalizer
    if first_value is not None:
        special = first_value[runs.order]
        value = torch.where(special.isnan(), value, special)
    # A first write whose label comes again in the slot ends up as the later one left it.
    repeats = ~runs.first & (labels == labels[leader])
    repeated = torch.zeros_like(leader).index_add_(0, leader, repeats.long()) > 0
    value = torch.where(runs.first & ~repeated, value, again)

    bin_slot = grid.slots
    at = grid.at(only(slots, runs.first, bin_slot), entry, grid.entries - entry)
    flat.index_put_((at,), finite(row))
    flat.index_put_((grid.at(slots, entry).squeeze(1) + labels * grid.cells,), finite(value))


def focal_slope(p: Tensor) -> Tensor:
    """Half of the derivative of the focal loss with gamma 2, as Darknet writes it."""
    p = p + 1e-15
    return -(1 - p) * (2 * p * torch.log(p) + p - 1) * 0.5


def finite(values: Tensor) -> Tensor:
    """NaN and infinity replaced by 0 (`fix_nan_inf`)."""
    return torch.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)


def with_area(box: Tensor) -> Tensor:
    """(…, 4) boxes, a width or height of 0 replaced by 1 as Darknet does before it takes an IoU's gradient."""
    return torch.cat((box[..., :2], torch.where(box[..., 2:] == 0, 1.0, box[..., 2:])), -1)


def squares(delta: Tensor) -> Tensor:
    """Sum of squares in float64."""
    return (delta * delta).sum(dtype=torch.float64)


def mean_where(values: Tensor, chosen: Tensor) -> Tensor:
    """Mean of the chosen values, 0 when none is."""
    return torch.where(chosen, values, 0.0).sum() / chosen.sum().clamp(min=1)


def shape_message(channels: int, what: str, found: int) -> str:
    return f"expected {channels} input channels ({what}), got {found}; set filters= of the layer before"
