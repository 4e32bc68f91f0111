"""[yolo]: anchor boxes over a grid (Darknet's `yolo_layer.c`), and the base that [Gaussian_yolo] shares with it.

The loss, from the truths of a mini-batch to l.delta, is `AnchorHeadLayer._compute_delta`. Each step is a method; the
methods that differ between the two heads are declared together above it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from darknet_py import boxes
from darknet_py.cfg.net import NetSpec
from darknet_py.cfg.options import Options
from darknet_py.counted import counted
from darknet_py.layers.base import (
    HIER_THRESH,
    DetectionHeadSpec,
    HeadLayer,
    HeadLoss,
    LayerSource,
    Node,
    Predictions,
    RunningDeltaStats,
    Shape,
    ShapeError,
    Tracks,
    TrainState,
    is_tracing,
    surrogate,
)
from darknet_py.layers.deltas import ClassLossOptions, finite, masked_mean, sum_of_squares, with_area, write_classes
from darknet_py.layers.head_options import (
    ANCHOR_LIMIT,
    channels_message,
    parse_anchors,
    parse_class_weights,
    parse_mask,
    read_map,
)
from darknet_py.layers.plain import Yolo
from darknet_py.layers.target_assignment import (
    Assignments,
    Grid,
    SlotGroups,
    TruthBoxes,
    assign_slots,
    at_origin,
    best_anchor_index,
    best_match,
)

_MIN_CLASS_PROBABILITY = 0.25  # a prediction whose classes are all below this is background, whatever its IoU
ADVERSARIAL_THRESH = 0.25  # class score from which self-adversarial training takes a prediction for an object
_STATS_DECAY = 0.99  # of the running delta statistics, per mini-batch and head
_THRESHOLD_STEP = 0.01  # by which the threshold of badlabels_rejection_percentage moves


@dataclass(frozen=True, kw_only=True)
class AnchorHeadSpec(DetectionHeadSpec):
    """Options that [yolo] and [Gaussian_yolo] share. Anchors are in pixels of the network input."""

    box_entries: ClassVar[int]  # entries of an anchor before objectness and classes
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
    focal_loss: bool = False  # [yolo] only

    @classmethod
    def _parse_shared(cls, options: Options) -> dict[str, Any]:
        classes = options.int("classes", 20, 1)
        num = options.int("num", 1, 1, ANCHOR_LIMIT)
        max_delta = options.float("max_delta", 0.0, 0.0) or None
        return {
            "classes": classes,
            "anchors": parse_anchors(options, num),
            "mask": parse_mask(options, num),
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
            "class_weights": parse_class_weights(options, classes, max_delta),
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
            reason = (
                f"{counted(len(self.mask), 'anchor')} x ({counted(self.classes, 'class')} + {self.box_entries + 1})"
            )
            raise ShapeError(channels_message(expected, reason, x.c))
        return x


class BoxTargets(NamedTuple):
    """M slots with the boxes that they should predict; all (M, …)."""

    entries: Tensor  # the slot's output
    predicted: Tensor  # boxes relative to the network input
    target: Tensor
    anchor: Tensor  # (M, 2) pixels
    column: Tensor
    row: Tensor
    weight: Tensor  # of the class, from counters_per_class


class AnchorHeadLayer(HeadLayer):
    """Decoding and loss over anchors; subclasses define what the box entries mean.

    Entries of a slot: `spec.box_entries` for the box, then objectness, then classes.
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
        self.register_buffer("class_map", read_map(spec.map) if spec.map else None, persistent=False)

    # --- what differs between [yolo] and [Gaussian_yolo]

    def _decode_boxes(
        self, entries: Tensor, anchor: Tensor, column: Tensor, row: Tensor, width: int, height: int
    ) -> Tensor:
        """Boxes (…, 4) relative to the input.

        entries: (…, box_entries) of the output. anchor: (…, 2) pixels. column, row: of the cell, in a grid of
        width x height.
        """
        raise NotImplementedError

    def _box_delta(self, targets: BoxTargets, grid: Grid) -> Tensor:
        """(M, box_entries) delta of each box, before those of one slot are added up."""
        raise NotImplementedError

    def _background_delta(self, objectness: Tensor, iou: Tensor, ignored: Tensor) -> Tensor:
        """Objectness delta of all slots before truths are assigned.

        iou: the slot's best IoU with a truth (0 without a probable class). ignored: where it exceeds ignore_thresh.
        """
        raise NotImplementedError

    def _add_adversarial_delta(self, delta: Tensor, entries: Tensor, scale: Tensor, chosen: Tensor) -> None:
        """The first pass of self-adversarial training, which has no truths: the chosen slots should be empty.

        scale: (B, anchors, H, W) side of the box, relative to the input.
        """
        raise NotImplementedError

    def _averaged_slots(self, objectness_delta: Tensor) -> Tensor | None:
        """Where box deltas are divided by the number of assigned classes; None: nowhere."""
        raise NotImplementedError

    def _responsible_cell(self, truth: TruthBoxes, grid: Grid) -> tuple[Tensor, Tensor]:
        """(column, row) of the cell that is responsible for each truth."""
        return truth.cell(grid.width, grid.height)

    def _keeps_first_objectness(self) -> bool:
        """Whether a truth only sets an objectness delta that is still 0."""
        return False

    def _assigns_ignored_classes(self) -> bool:
        """Whether slots above ignore_thresh get the class of their truth."""
        return False

    def _filter_labels(self, delta: Tensor, state: TrainState) -> Tensor:
        """delta without the values of labels that [net] excludes as bad."""
        return delta

    def _cost(self, delta: Tensor, metrics: dict[str, Tensor]) -> Tensor:
        """Darknet's printed loss."""
        return sum_of_squares(delta)

    # --- detection

    def decode(self, output: Tensor, hier: float = HIER_THRESH) -> Predictions:
        """Candidates of all slots (`get_yolo_detections`), in the order anchor, row, column."""
        slots = self._entries(output.float()).permute(0, 1, 3, 4, 2)
        batch, objectness = slots.shape[0], slots[..., self.spec.box_entries]
        scores = objectness.unsqueeze(-1) * slots[..., self.spec.box_entries + 1 :]
        return Predictions(
            self._all_boxes(slots).reshape(batch, -1, 4),
            objectness.reshape(batch, -1),
            scores.reshape(batch, -1, self.spec.classes),
        )

    def _entries(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, anchors, entries, H, W)."""
        return x.reshape(x.shape[0], len(self.spec.mask), -1, x.shape[2], x.shape[3])

    def _all_boxes(self, slots: Tensor) -> Tensor:
        """Output (B, anchors, H, W, entries) → boxes (B, anchors, H, W, 4)."""
        height, width = slots.shape[2:4]
        row = torch.arange(height, device=slots.device)[:, None]
        column = torch.arange(width, device=slots.device)
        anchors = self.anchors[self.mask][:, None, None]
        return self._decode_boxes(slots[..., : self.spec.box_entries], anchors, column, row, width, height)

    # --- loss

    def loss(self, x: Tensor, truth: Tensor, state: TrainState) -> HeadLoss:
        """truth: (N, 6) rows (image, class, cx, cy, w, h), relative to the network input, in Darknet's order."""
        with torch.no_grad():
            delta, cost, metrics = self._compute_delta(self(x).contiguous(), truth, state)
            if state.scale_delta:
                delta = delta * self.spec.delta_normalizer
        return HeadLoss(surrogate(x, delta.reshape(x.shape), cost), cost, metrics)

    def _compute_delta(
        self, output: Tensor, rows: Tensor, state: TrainState
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Darknet's l.delta, *l.cost and the metrics for the log (`forward_yolo_layer`, `process_batch`)."""
        spec, at = self.spec, self.spec.box_entries
        entries = self._entries(output)
        grid = Grid(*entries.shape)
        objectness = finite(entries[:, :, at])
        truth = TruthBoxes.from_rows(rows, spec.classes, self.class_map)
        flat = grid.zeros(output)
        delta = grid.view(flat)

        # Every slot is background unless it resembles a truth.
        predicted = self._all_boxes(entries.permute(0, 1, 3, 4, 2))
        uses_truth_thresh = spec.truth_thresh < 1  # no IoU is above 1
        match = best_match(predicted.flatten(1, 3), truth, uses_truth_thresh or self._assigns_ignored_classes())
        best_iou = match.iou.view_as(objectness)
        probable_iou = best_iou * (entries[:, :, at + 1 :].amax(2) > _MIN_CLASS_PROBABILITY)
        ignored, above_truth_thresh = probable_iou > spec.ignore_thresh, best_iou > spec.truth_thresh
        background = self._background_delta(objectness, probable_iou, ignored)
        if uses_truth_thresh:
            target = best_iou**2 if spec.objectness_smooth else 1.0
            background = torch.where(above_truth_thresh, spec.obj_normalizer * (target - objectness), background)
        delta[:, :, at] = background
        if state.adversarial:
            scale = (predicted[..., 2] * predicted[..., 3]).clamp(min=0).sqrt()
            self._add_adversarial_delta(delta, entries, scale, ~ignored)

        # Each truth has its slots; with truth_thresh, those that already resemble it have it too.
        assigned = self._assign(truth, grid, spec.iou_thresh)
        self._write_objectness(flat, grid, objectness, assigned, truth)
        for_boxes = for_classes = assigned
        if match.row is not None and uses_truth_thresh:
            for_boxes = for_classes = Assignments.join(
                (assign_slots(above_truth_thresh, match.row, self.mask), for_boxes)
            )
        if match.row is not None and self._assigns_ignored_classes():
            others = ignored & ~above_truth_thresh if uses_truth_thresh else ignored
            for_classes = Assignments.join((assign_slots(others, match.row, self.mask), for_boxes))
        self._write_classes(flat, grid, output, for_classes, truth, best_iou)
        metrics = self._add_box_deltas(flat, grid, output, for_boxes, truth)
        metrics["background"] = objectness.mean()
        delta = self._filter_labels(delta, state)
        return delta, self._cost(delta, metrics), metrics

    def _assign(self, truth: TruthBoxes, grid: Grid, iou_thresh: float) -> Assignments:
        """Each truth to its cell: to the anchor that fits best, and to all whose IoU is above iou_thresh."""
        spec = self.spec
        net_width, net_height = self.input_size
        sizes = torch.stack((self.anchors[:, 0] / net_width, self.anchors[:, 1] / net_height), -1)
        chosen = best_anchor_index(truth, sizes)[:, None] == self.mask
        if iou_thresh < 1:
            anchor_boxes, truth_boxes = at_origin(sizes[self.mask]), at_origin(truth.box[:, None, 2:])
            chosen = chosen | (boxes.iou_of_kind(anchor_boxes, truth_boxes, spec.iou_thresh_kind) > iou_thresh)
        chosen = (chosen & truth.valid[:, None]).flatten()
        column, row = self._responsible_cell(truth, grid)
        local = torch.arange(grid.anchors, device=chosen.device)
        cell = row * grid.width + column
        slots = (truth.image[:, None] * grid.anchors + local) * grid.cells + cell[:, None]
        truth_row = torch.arange(len(truth.image), device=chosen.device)[:, None].expand(slots.shape).flatten()
        anchor = self.mask.expand(slots.shape).flatten()
        return Assignments(torch.where(chosen, slots.flatten(), grid.slots), truth_row, anchor, chosen)

    def _label_weight(self, labels: Tensor) -> Tensor:
        return torch.ones_like(labels, dtype=torch.float) if self.class_weights is None else self.class_weights[labels]

    def _write_objectness(
        self, flat: Tensor, grid: Grid, objectness: Tensor, assigned: Assignments, truth: TruthBoxes
    ) -> None:
        """The last truth of a slot counts, or the first if it finds a delta of 0."""
        groups = SlotGroups.from_slots(assigned.slots)
        labels = truth.label[assigned.truth[groups.order]]
        current = objectness.flatten()[groups.slots.clamp(max=grid.slots - 1)]
        value = self.spec.obj_normalizer * (1 - current) * self._label_weight(labels)
        writes = groups.last
        if self._keeps_first_objectness():
            writes = groups.first & (grid.gather(flat, groups.slots, self.spec.box_entries).squeeze(1) == 0)
        slots = torch.where(writes, groups.slots, grid.slots)
        flat.index_put_((grid.positions(slots, self.spec.box_entries).squeeze(1),), value)

    def _write_classes(
        self, flat: Tensor, grid: Grid, output: Tensor, assigned: Assignments, truth: TruthBoxes, best_iou: Tensor
    ) -> None:
        """`delta_yolo_class` of all assignments."""
        spec, first_class = self.spec, self.spec.box_entries + 1
        labels = truth.label[assigned.truth]
        first_value = None
        if spec.objectness_smooth and spec.truth_thresh < 1:
            # The target of slots above truth_thresh is IoU² instead of 1.
            slots = assigned.slots.clamp(max=grid.slots - 1)
            probability = grid.gather(output, slots, first_class, spec.classes).gather(1, labels[:, None]).squeeze(1)
            iou = best_iou.flatten()[slots]
            first_value = self._label_weight(labels) * (iou**2 - probability)
            first_value = torch.where(iou > spec.truth_thresh, first_value, float("nan"))
        options = ClassLossOptions(spec.label_smooth_eps, spec.focal_loss, self.class_weights, spec.cls_normalizer)
        write_classes(flat, grid, output, first_class, assigned.slots, labels, options, first_value)

    def _add_box_deltas(
        self, flat: Tensor, grid: Grid, output: Tensor, assigned: Assignments, truth: TruthBoxes
    ) -> dict[str, Tensor]:
        """Adds up the box deltas of all truths in a slot (`delta_yolo_box`), averaged over its classes.

        Returns the metrics of the log.
        """
        spec, at = self.spec, self.spec.box_entries
        target, labels = truth.box[assigned.truth], truth.label[assigned.truth]
        entries = grid.gather(output, assigned.slots, 0, grid.entries)
        row, column = assigned.slots % grid.cells // grid.width, assigned.slots % grid.width
        anchor = self.anchors[assigned.anchor]
        predicted = self._decode_boxes(entries[:, :at], anchor, column, row, grid.width, grid.height)
        targets = BoxTargets(entries, predicted, target, anchor, column, row, self._label_weight(labels))
        values = finite(self._box_delta(targets, grid))
        averaged = self._averaged_slots(grid.gather(flat, assigned.slots, at))
        if averaged is not None:
            positive = grid.gather(flat, assigned.slots, at + 1, spec.classes) > 0
            values = torch.where(averaged, values / positive.sum(1, keepdim=True).clamp(min=1), values)
        flat.index_add_(0, grid.positions(assigned.slots, 0, at).flatten(), values.flatten())

        counted = assigned.is_counted
        iou = boxes.iou(predicted, target)
        probability = entries[:, at + 1 :].gather(1, labels[:, None]).squeeze(1)
        return {
            "iou": masked_mean(iou, counted),
            "giou": masked_mean(boxes.giou(predicted, target), counted),
            "objectness": masked_mean(entries[:, at], counted),
            "class": masked_mean(probability, counted),
            "recall50": masked_mean((iou > 0.5).float(), counted),
            "recall75": masked_mean((iou > 0.75).float(), counted),
            "count": counted.sum(),
        }


@dataclass(frozen=True, kw_only=True)
class YoloSpec(AnchorHeadSpec):
    """Darknet's `parse_yolo`.

    Input and output: len(mask) · (4 + 1 + classes) channels; per anchor x, y, w, h, objectness, classes. The options
    of C's tracker are read and have no effect: nothing here tracks objects in videos.
    """

    c_type = 28
    box_entries = 4
    filters_labels = True

    new_coords: bool
    show_details: bool

    @classmethod
    def parse(cls, options: Options, net: NetSpec, index: int) -> YoloSpec:
        for key in ("track_history_size", "dets_for_track", "dets_for_show", "embedding_layer"):
            options.int(key)
        for key in ("sim_thresh", "track_ciou_norm"):
            options.float(key)
        return cls(
            **cls._parse_shared(options),
            new_coords=options.flag("new_coords"),
            focal_loss=options.flag("focal_loss"),
            show_details=options.flag("show_details", True),
        )

    def source(self, node: Node) -> LayerSource:
        options = "" if self.scale_x_y == 1 else f", scale_x_y={self.scale_x_y!r}"
        options += ", new_coords=True" if self.new_coords else ""
        module = f"Yolo({[self.anchors[k] for k in self.mask]}{options})"
        return LayerSource("{layer}({0}, {image})", module, (Yolo,))

    def build(self, node: Node) -> nn.Module:
        return YoloLayer(self, node.net, node.index)


class YoloLayer(AnchorHeadLayer):
    """Box entries: x, y, w, h."""

    spec: YoloSpec

    def __init__(self, spec: YoloSpec, net: NetSpec, index: int):
        super().__init__(spec, (net.width, net.height))
        self.net = net
        self.index = index

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the same, float32: logistic on x, y, objectness and classes, x and y scaled."""
        entries = self._entries(x.float())
        # All entries at once, then w and h are restored: slices of channels-last memory take five times as long.
        output = entries.clone() if self.spec.new_coords else entries.sigmoid()
        if output.requires_grad or is_tracing():  # a trace is the same with and without gradients
            output = output.clone()  # sigmoid's backward pass reads its own output
        output[:, :, 2:4] = entries[:, :, 2:4]
        output[:, :, :2] = self._scale_center(output[:, :, :2])
        return output.flatten(1, 2)

    def _scale_center(self, center: Tensor) -> Tensor:
        scale = self.spec.scale_x_y
        return center if scale == 1 else center * scale - 0.5 * (scale - 1)

    def loss(self, x: Tensor, truth: Tensor, state: TrainState) -> HeadLoss:
        """truth: as `AnchorHeadLayer.loss` takes it; a seventh column is the track of the object, for [contrastive]."""
        if truth.shape[1] > 6:
            state.tracks[self.index] = self._tracks(truth, self._entries(x).shape)
        return super().loss(x, truth, state)

    def _tracks(self, rows: Tensor, shape: Sequence[int]) -> Tracks:
        grid, truth = Grid(*shape), TruthBoxes.from_rows(rows, self.spec.classes, self.class_map)
        assigned = self._assign(truth, grid, float("inf"))
        groups = SlotGroups.from_slots(assigned.slots)
        slots, row = torch.where(groups.last, groups.slots, grid.slots), assigned.truth[groups.order]
        none = rows.new_full((grid.slots + 1,), -1, dtype=torch.long)
        view = (grid.images, grid.anchors, grid.height, grid.width)
        track = none.index_put((slots,), rows[row, 6].long())[:-1].view(view)
        return Tracks(track, none.index_put((slots,), truth.label[row])[:-1].view(view))

    def _decode_boxes(
        self, entries: Tensor, anchor: Tensor, column: Tensor, row: Tensor, width: int, height: int
    ) -> Tensor:
        """`get_yolo_box`."""
        x, y, w, h = entries.unbind(-1)
        w, h = ((2 * w) ** 2, (2 * h) ** 2) if self.spec.new_coords else (w.exp(), h.exp())
        net_width, net_height = self.input_size
        w, h = w * anchor[..., 0] / net_width, h * anchor[..., 1] / net_height
        return torch.stack(((column + x) / width, (row + y) / height, w, h), -1)

    def _encode_boxes(self, targets: BoxTargets, grid: Grid) -> Tensor:
        """(M, 4) the entries that decode to the target; the inverse of `_decode_boxes`."""
        x, y, w, h = targets.target.unbind(-1)
        w, h = w * self.input_size[0] / targets.anchor[:, 0], h * self.input_size[1] / targets.anchor[:, 1]
        w, h = ((w / 4).sqrt(), (h / 4).sqrt()) if self.spec.new_coords else (w.log(), h.log())
        return torch.stack((x * grid.width - targets.column, y * grid.height - targets.row, w, h), -1)

    def _box_delta(self, targets: BoxTargets, grid: Grid) -> Tensor:
        """`delta_yolo_box`."""
        spec, entries, target = self.spec, targets.entries, targets.target
        factor = (spec.iou_normalizer * targets.weight)[:, None]
        if spec.iou_loss == "mse":
            scale = 2 - target[:, 2:3] * target[:, 3:]
            return (self._encode_boxes(targets, grid) - entries[:, :4]) * scale * factor
        slope = boxes.iou_gradient(with_area(targets.predicted), target, spec.iou_loss)
        if not spec.new_coords:
            slope = torch.cat((slope[:, :2], slope[:, 2:] * entries[:, 2:4].exp()), 1)
        slope = finite(slope * factor)
        return slope if spec.max_delta is None else slope.clamp(-spec.max_delta, spec.max_delta)

    def _background_delta(self, objectness: Tensor, iou: Tensor, ignored: Tensor) -> Tensor:
        delta = -self.spec.obj_normalizer * objectness
        smooth = torch.maximum(delta, self.spec.obj_normalizer * (iou - objectness))
        return torch.where(ignored, smooth if self.spec.objectness_smooth else 0.0, delta)

    def _keeps_first_objectness(self) -> bool:
        return self.spec.objectness_smooth

    def _averaged_slots(self, objectness_delta: Tensor) -> Tensor | None:
        """`averages_yolo_deltas`."""
        return objectness_delta != 0 if self.spec.iou_thresh < 1 else None

    def _add_adversarial_delta(self, delta: Tensor, entries: Tensor, scale: Tensor, chosen: Tensor) -> None:
        scale = (scale * chosen).unsqueeze(2)
        box, objectness, classes = entries.split((4, 1, self.spec.classes), 2)
        score = classes * objectness
        has_object = (score > ADVERSARIAL_THRESH).any(2, keepdim=True)
        class_delta = torch.where(score < ADVERSARIAL_THRESH, 1 - classes, 0.0)
        class_delta = torch.where(score > ADVERSARIAL_THRESH, -classes, class_delta)
        class_delta = scale * torch.where(has_object, class_delta, 0.0)
        box_delta = scale * torch.where(has_object, -box, 0.0)
        delta[:, :, 4:5] = torch.where(
            chosen.unsqueeze(2), -scale * self.spec.obj_normalizer * objectness, delta[:, :, 4:5]
        )
        delta[:, :, 5:] = class_delta
        averaged = self._averaged_slots(delta[:, :, 4:5])
        if averaged is not None:
            positive = (class_delta > 0).sum(2, keepdim=True).clamp(min=1)
            box_delta = torch.where(averaged, box_delta / positive, box_delta)
        delta[:, :, :4] = box_delta

    def _cost(self, delta: Tensor, metrics: dict[str, Tensor]) -> Tensor:
        """Darknet's printed loss; not the objective that is minimized, unless iou_loss=mse."""
        spec = self.spec
        if spec.iou_loss == "mse" or not spec.show_details:
            return sum_of_squares(delta)
        iou = metrics["giou" if spec.iou_loss == "giou" else "iou"]
        iou_cost = torch.where(metrics["count"] > 0, 1 - iou, 0.0)
        return spec.iou_normalizer * iou_cost.double() + spec.obj_normalizer * sum_of_squares(delta[:, :, 4:])

    def _filter_labels(self, delta: Tensor, state: TrainState) -> Tensor:
        if not label_filter_is_active(self.net, state.iteration):
            return delta
        state.delta_stats = state.delta_stats or RunningDeltaStats.start(delta)
        return filter_labels(delta, state.delta_stats, self.net, state.iteration)


# --- bad labels: leaving out the largest or smallest deltas late in training (end of `forward_yolo_layer`)


def label_filter_is_active(net: NetSpec, iteration: int) -> bool:
    """Whether `filter_labels` has anything to do in that iteration."""
    is_late = iteration > net.max_batches * 3 // 4
    filters_large = net.badlabels_rejection_percentage or net.num_sigmas_reject_badlabels
    return bool(filters_large and is_late) or 0 < net.equidistant_point < iteration


def filter_labels(delta: Tensor, stats: RunningDeltaStats, net: NetSpec, iteration: int) -> Tensor:
    """Sets suspicious deltas to 0.

    In the last quarter of training badlabels_rejection_percentage and num_sigmas_reject_badlabels leave out large
    deltas (probably wrong labels); after iteration equidistant_point small ones are left out (nearly right already).

    Args:
        delta: (B, anchors, entries, H, W).
        stats: running statistics; updated.
        net: the options.
        iteration: finished batches.

    Returns:
        The filtered delta.
    """
    start = net.max_batches * 3 // 4
    is_late = iteration > start
    progress = (iteration - net.equidistant_point) / max(net.max_batches - net.equidistant_point, 1)
    minimum = stats.mean * progress * 1.4
    size, written = delta.abs(), delta != 0
    count = written.sum().clamp(min=1)
    stats.largest = torch.where(stats.largest == 0, size.max(), stats.largest)
    stats.largest = _STATS_DECAY * stats.largest + (1 - _STATS_DECAY) * size.max()
    stats.mean = _STATS_DECAY * stats.mean + (1 - _STATS_DECAY) * size.sum() / count

    if net.num_sigmas_reject_badlabels and is_late:
        spread = (torch.where(written, delta - stats.mean, 0.0).square().sum() / count).sqrt()
        final = stats.mean + stats.spread * net.num_sigmas_reject_badlabels
        stats.spread = _STATS_DECAY * stats.spread + (1 - _STATS_DECAY) * spread
        falling = stats.largest - (iteration - start) / max(start, 1) * (stats.largest - final).abs()
        delta = torch.where(size > torch.maximum(final, falling), 0.0, delta)
        minimum = torch.minimum(final, stats.mean) * progress

    if net.badlabels_rejection_percentage and is_late:
        limit = torch.where(stats.threshold == 0, stats.largest, stats.threshold)
        written, exceeds = delta != 0, delta.abs() > limit
        percent = 100 * exceeds.sum() * delta.shape[2] / written.sum().clamp(min=1)
        lower = torch.where(limit > _THRESHOLD_STEP, limit - _THRESHOLD_STEP, limit)
        stats.threshold = torch.where(percent > net.badlabels_rejection_percentage, limit + _THRESHOLD_STEP, lower)
        delta = torch.where(exceeds, 0.0, delta)

    if 0 < net.equidistant_point < iteration:
        delta = torch.where(delta.abs() < minimum, 0.0, delta)
    return delta
