"""What [yolo] and [Gaussian_yolo] share: options, and a loss over anchors on a grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from darknet_py import boxes
from darknet_py.cfg.options import Options
from darknet_py.layers import target_assignment as common
from darknet_py.layers.base import (
    DetectionHeadSpec,
    HeadLayer,
    HeadLoss,
    Predictions,
    Shape,
    ShapeError,
    TrainState,
    surrogate,
)
from darknet_py.layers.target_assignment import Assignments, ClassLossOptions, Grid, TruthBoxes

_MATCH_PROBABILITY = 0.25  # a prediction with no class above this is background, whatever it overlaps
ATTACK_PROBABILITY = 0.25  # what self-adversarial training takes for an object


@dataclass(frozen=True, kw_only=True)
class AnchorHeadSpec(DetectionHeadSpec):
    """Options that [yolo] and [Gaussian_yolo] share.

    anchors are in pixels of the network input, all `num` of them; the head predicts those of `mask`. jitter, resize,
    random and max_boxes belong to the data loader, nms_kind and beta_nms to detection.
    """

    box_entries: ClassVar[int]  # of an anchor: the box, then objectness, then classes
    nms_kinds: ClassVar[tuple[str, ...]] = ("default", "greedynms", "diounms")

    mask: tuple[int, ...] = ()
    scale_x_y: float
    ignore_thresh: float
    truth_thresh: float
    iou_thresh: float
    iou_thresh_kind: str
    iou_loss: str
    iou_normalizer: float
    obj_normalizer: float
    cls_normalizer: float
    delta_normalizer: float
    max_delta: float | None
    label_smooth_eps: float
    objectness_smooth: bool
    focal_loss: bool  # [yolo] only

    @classmethod
    def shared(cls, options: Options) -> dict[str, Any]:
        classes = options.int("classes", 20, 1)
        num = options.int("num", 1, 1, common.ANCHOR_LIMIT)
        max_delta = options.float("max_delta", 0.0, 0.0) or None
        return {
            "classes": classes,
            "anchors": common.parse_anchors(options, num),
            "mask": common.parse_mask(options, num),
            "max_boxes": options.int("max", 200, 1),
            "scale_x_y": options.float("scale_x_y", 1.0),
            "ignore_thresh": options.float("ignore_thresh", 0.5),
            "truth_thresh": options.float("truth_thresh", 1.0),
            "iou_thresh": options.float("iou_thresh", 1.0),
            "iou_thresh_kind": options.choice("iou_thresh_kind", "iou", tuple(boxes.KINDS)),
            "iou_loss": options.choice("iou_loss", "mse", ("mse", *boxes.KINDS)),
            "iou_normalizer": options.float("iou_normalizer", 0.75),
            "obj_normalizer": options.float("obj_normalizer", 1.0),
            "cls_normalizer": options.float("cls_normalizer", 1.0),
            "delta_normalizer": options.float("delta_normalizer", 1.0),
            "max_delta": max_delta,
            "class_weights": common.parse_class_weights(options, classes, max_delta),
            "label_smooth_eps": options.float("label_smooth_eps", 0.0),
            "objectness_smooth": options.flag("objectness_smooth"),
            "map": options.text("map"),
            "nms_kind": options.choice("nms_kind", "default", cls.nms_kinds),
            "beta_nms": options.float("beta_nms", 0.6),
            "jitter": options.float("jitter", 0.2),
            "resize": options.float("resize", 1.0),
            "random": options.float("random", 0.0),
        }

    def channels_for(self, classes: int) -> int:
        return len(self.mask) * (classes + self.box_entries + 1)

    def infer(self, inputs: Sequence[Shape]) -> Shape:
        (x,) = inputs
        expected = self.channels_for(self.classes)
        if x.c != expected:
            what = f"{len(self.mask)} anchors x ({self.classes} classes + {self.box_entries + 1})"
            raise ShapeError(common.shape_message(expected, what, x.c))
        return x


class BoxTargets(NamedTuple):
    """M boxes to be taught, with what they are measured against; all (M, …)."""

    entry: Tensor  # the slot as forward gave it
    predicted: Tensor  # boxes relative to the network input
    target: Tensor
    anchor: Tensor  # (M, 2) pixels
    column: Tensor
    row: Tensor
    weight: Tensor  # of the class, from counters_per_class


class AnchorHeadLayer(HeadLayer):
    """Decoding and loss over anchors; subclasses say what the box entries mean.

    `input_size`: (width, height) of the network input in pixels. Entries of a slot: `spec.box_entries` for the box,
    then objectness, then classes.
    """

    spec: AnchorHeadSpec

    def __init__(self, spec: AnchorHeadSpec, input_size: tuple[int, int]):
        super().__init__()
        self.spec = spec
        self.input_size = input_size
        self.anchors: Tensor
        self.mask: Tensor
        self.class_weights: Tensor | None
        self.class_map: Tensor | None
        self.register_buffer("anchors", torch.tensor(spec.anchors), persistent=False)
        self.register_buffer("mask", torch.tensor(spec.mask), persistent=False)
        weights = torch.tensor(spec.class_weights) if spec.class_weights else None
        self.register_buffer("class_weights", weights, persistent=False)
        self.register_buffer("class_map", common.read_map(spec.map) if spec.map else None, persistent=False)

    def _box(self, entry: Tensor, anchor: Tensor, column: Tensor, row: Tensor, width: int, height: int) -> Tensor:
        """Boxes (…, 4) relative to the input. entry: (…, box_entries) as forward gave it. anchor: (…, 2) pixels.

        column, row: of the cell, in a grid of width x height.
        """
        raise NotImplementedError

    def _box_delta(self, lesson: BoxTargets, grid: Grid) -> Tensor:
        """(M, box_entries) delta of each box, before several of one slot are added up."""
        raise NotImplementedError

    def _background(self, objectness: Tensor, matched: Tensor, ignored: Tensor) -> Tensor:
        """Objectness delta of all slots before truths are taught.

        matched: their best IoU with a truth (0 without a class in sight). ignored: where it is above ignore_thresh.
        """
        raise NotImplementedError

    def _attack(self, delta: Tensor, entries: Tensor, scale: Tensor, chosen: Tensor) -> None:
        """The first pass of self-adversarial training, which has no truths: teach the chosen slots to be empty.

        scale: (B, anchors, H, W) side of the box, relative to the input.
        """
        raise NotImplementedError

    def _cost(self, delta: Tensor, figures: dict[str, Tensor]) -> Tensor:
        """Darknet's printed loss."""
        return common.squares(delta)

    def _reject(self, delta: Tensor, state: TrainState) -> Tensor:
        """Leaves out values that [net] says are not to be trusted."""
        return delta

    def _cell(self, truth: TruthBoxes, grid: Grid) -> tuple[Tensor, Tensor]:
        """(column, row) of the cell that answers for each truth."""
        return truth.cell(grid.width, grid.height)

    def _averages(self, objectness: Tensor) -> Tensor | None:
        """Where box deltas are divided by the number of classes taught; None: nowhere. objectness: its delta."""
        raise NotImplementedError

    def _first_objectness_stays(self) -> bool:
        """Whether a truth only sets an objectness delta that is still 0."""
        return False

    def _teaches_ignored(self) -> bool:
        """Whether slots above ignore_thresh are taught the class of their truth."""
        return False

    def decode(self, output: Tensor) -> Predictions:
        """Candidates of all slots (`get_yolo_detections`), in the order anchor, row, column."""
        slots = self._entries(output.float()).permute(0, 1, 3, 4, 2)
        batch, objectness = slots.shape[0], slots[..., self.spec.box_entries]
        scores = objectness.unsqueeze(-1) * slots[..., self.spec.box_entries + 1 :]
        return Predictions(
            self._all_boxes(slots).reshape(batch, -1, 4),
            objectness.reshape(batch, -1),
            scores.reshape(batch, -1, self.spec.classes),
        )

    def loss(self, x: Tensor, truth: Tensor, state: TrainState) -> HeadLoss:
        """truth: (N, 6) rows (image, class, cx, cy, w, h), relative to the network input, in Darknet's order."""
        with torch.no_grad():
            delta, cost, parts = self._delta(self(x).contiguous(), truth, state)
            if state.scale_delta:
                delta = delta * self.spec.delta_normalizer
        return HeadLoss(surrogate(x, delta.reshape(x.shape), cost), cost, parts)

    def _entries(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, anchors, entries, H, W)."""
        return x.reshape(x.shape[0], len(self.spec.mask), -1, x.shape[2], x.shape[3])

    def _all_boxes(self, slots: Tensor) -> Tensor:
        """(B, anchors, H, W, entries) as forward gave them → boxes (B, anchors, H, W, 4)."""
        height, width = slots.shape[2:4]
        row = torch.arange(height, device=slots.device)[:, None]
        column = torch.arange(width, device=slots.device)
        anchors = self.anchors[self.mask][:, None, None]
        return self._box(slots[..., : self.spec.box_entries], anchors, column, row, width, height)

    # --- loss

    def _delta(self, output: Tensor, rows: Tensor, state: TrainState) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Darknet's l.delta, *l.cost and figures for the log (`forward_yolo_layer`, `process_batch`)."""
        spec = self.spec
        entries = self._entries(output)
        grid = Grid(*entries.shape)
        place = spec.box_entries
        objectness = common.finite(entries[:, :, place])
        truth = TruthBoxes.of(rows, spec.classes, self.class_map)
        flat = grid.new(output)
        delta = grid.view(flat)

        predicted = self._all_boxes(entries.permute(0, 1, 3, 4, 2))
        exceeds = spec.truth_thresh < 1  # no IoU is above 1
        found = common.match(predicted.flatten(1, 3), truth, exceeds or self._teaches_ignored())
        best = found.iou.view_as(objectness)
        matched = best * (entries[:, :, place + 1 :].amax(2) > _MATCH_PROBABILITY)
        ignored, exceeding = matched > spec.ignore_thresh, best > spec.truth_thresh
        background = self._background(objectness, matched, ignored)
        if exceeds:
            target = best**2 if spec.objectness_smooth else 1.0
            background = torch.where(exceeding, spec.obj_normalizer * (target - objectness), background)
        delta[:, :, place] = background
        if state.adversarial:
            scale = (predicted[..., 2] * predicted[..., 3]).clamp(min=0).sqrt()
            self._attack(delta, entries, scale, ~ignored)

        assigned = self._assign(truth, grid, spec.iou_thresh)
        self._teach_objectness(flat, grid, objectness, assigned, truth)
        boxed = classed = assigned
        if found.row is not None and exceeds:
            boxed = classed = Assignments.join((common.everywhere(exceeding, found.row, self.mask), boxed))
        if found.row is not None and self._teaches_ignored():
            once = ignored & ~exceeding if exceeds else ignored
            classed = Assignments.join((common.everywhere(once, found.row, self.mask), boxed))
        self._teach_classes(flat, grid, output, classed, truth, best)
        figures = self._teach_boxes(flat, grid, output, boxed, truth)
        figures["background"] = objectness.mean()
        delta = self._reject(delta, state)
        return delta, self._cost(delta, figures), figures

    def _assign(self, truth: TruthBoxes, grid: Grid, iou_thresh: float) -> Assignments:
        """Each truth to its cell: to the anchor most like it, and to all above iou_thresh."""
        spec = self.spec
        net_width, net_height = self.input_size
        sizes = torch.stack((self.anchors[:, 0] / net_width, self.anchors[:, 1] / net_height), -1)
        chosen = common.best_anchor(truth, sizes)[:, None] == self.mask
        if iou_thresh < 1:
            mine, size = common.at_origin(sizes[self.mask]), common.at_origin(truth.box[:, None, 2:])
            chosen = chosen | (boxes.iou_of_kind(mine, size, spec.iou_thresh_kind) > iou_thresh)
        chosen = (chosen & truth.valid[:, None]).flatten()
        column, row = self._cell(truth, grid)
        local = torch.arange(grid.anchors, device=chosen.device)
        cell = row * grid.width + column
        slots = (truth.image[:, None] * grid.anchors + local) * grid.cells + cell[:, None]
        row_of = torch.arange(len(truth.image), device=chosen.device)[:, None].expand(slots.shape).flatten()
        anchor = self.mask.expand(slots.shape).flatten()
        return Assignments(common.only(slots.flatten(), chosen, grid.slots), row_of, anchor, chosen)

    def _weight(self, labels: Tensor) -> Tensor:
        return torch.ones_like(labels, dtype=torch.float) if self.class_weights is None else self.class_weights[labels]

    def _teach_objectness(
        self, flat: Tensor, grid: Grid, objectness: Tensor, taught: Assignments, truth: TruthBoxes
    ) -> None:
        """The last truth of a slot counts, or the first if it finds a delta of 0."""
        runs = common.SlotGroups.of(taught.slots)
        labels = truth.label[taught.truth[runs.order]]
        own = objectness.flatten()[runs.slots.clamp(max=grid.slots - 1)]
        value = self.spec.obj_normalizer * (1 - own) * self._weight(labels)
        writes = runs.last
        if self._first_objectness_stays():
            writes = runs.first & (grid.read(flat, runs.slots, self.spec.box_entries).squeeze(1) == 0)
        at = grid.at(common.only(runs.slots, writes, grid.slots), self.spec.box_entries).squeeze(1)
        flat.index_put_((at,), value)

    def _teach_classes(
        self, flat: Tensor, grid: Grid, output: Tensor, taught: Assignments, truth: TruthBoxes, best: Tensor
    ) -> None:
        spec, first = self.spec, self.spec.box_entries + 1
        labels = truth.label[taught.truth]
        special = None
        if spec.objectness_smooth and spec.truth_thresh < 1:
            # Slots above truth_thresh are taught their IoU² instead of 1.
            slots = taught.slots.clamp(max=grid.slots - 1)
            own = grid.read(output, slots, first, spec.classes).gather(1, labels[:, None]).squeeze(1)
            special = self._weight(labels) * (best.flatten()[slots] ** 2 - own)
            special = torch.where(best.flatten()[slots] > spec.truth_thresh, special, float("nan"))
        rule = ClassLossOptions(spec.label_smooth_eps, spec.focal_loss, self.class_weights, spec.cls_normalizer)
        common.write_classes(flat, grid, output, first, taught.slots, labels, rule, special)

    def _teach_boxes(
        self, flat: Tensor, grid: Grid, output: Tensor, taught: Assignments, truth: TruthBoxes
    ) -> dict[str, Tensor]:
        """Adds up the box deltas of all truths in a slot (`delta_yolo_box`), averaged over its classes."""
        spec, place = self.spec, self.spec.box_entries
        target, labels = truth.box[taught.truth], truth.label[taught.truth]
        entry = grid.read(output, taught.slots, 0, grid.entries)
        row, column = taught.slots % grid.cells // grid.width, taught.slots % grid.width
        anchor = self.anchors[taught.anchor]
        predicted = self._box(entry[:, :place], anchor, column, row, grid.width, grid.height)
        lesson = BoxTargets(entry, predicted, target, anchor, column, row, self._weight(labels))
        values = common.finite(self._box_delta(lesson, grid))
        averages = self._averages(grid.read(flat, taught.slots, place))
        if averages is not None:
            share = (grid.read(flat, taught.slots, place + 1, spec.classes) > 0).sum(1, keepdim=True).clamp(min=1)
            values = torch.where(averages, values / share, values)
        flat.index_add_(0, grid.at(taught.slots, 0, place).flatten(), values.flatten())

        counted = taught.counted
        overlap = boxes.iou(predicted, target)
        probability = entry[:, place + 1 :].gather(1, labels[:, None]).squeeze(1)
        return {
            "iou": common.mean_where(overlap, counted),
            "giou": common.mean_where(boxes.giou(predicted, target), counted),
            "objectness": common.mean_where(entry[:, place], counted),
            "class": common.mean_where(probability, counted),
            "recall50": common.mean_where((overlap > 0.5).float(), counted),
            "recall75": common.mean_where((overlap > 0.75).float(), counted),
            "count": counted.sum(),
        }
