"""[region]: YOLO version 2's head (Darknet's `region_layer.c`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
    Shape,
    ShapeError,
    TrainState,
    surrogate,
)
from darknet_py.layers.class_hierarchy import ClassHierarchy
from darknet_py.layers.deltas import finite, focal_slope, masked_mean, sum_of_squares
from darknet_py.layers.foreign import check_coords
from darknet_py.layers.head_options import ANCHOR_LIMIT, channels_message, parse_anchors, read_map
from darknet_py.layers.plain import ClassTree, Region, TreeRegion
from darknet_py.layers.target_assignment import Grid, SlotGroups, TruthBoxes, best_anchor_index, best_match

_BOX, _OBJECTNESS, _CLASSES = 0, 4, 5  # entries of a slot
_PRIOR_IMAGES = 12800  # until then all boxes also learn to equal their anchors
_PRIOR_SCALE = 0.01


@dataclass(frozen=True, kw_only=True)
class RegionSpec(DetectionHeadSpec):
    """Darknet's `parse_region`.

    Input and output: num · (4 + 1 + classes) channels; per anchor x, y, w, h, objectness, classes. anchors are in grid
    cells. absolute, log, sqrt and mask_scale are read by Darknet and have no effect there either.
    """

    c_type = 27

    softmax: bool
    focal_loss: bool
    rescore: bool
    bias_match: bool
    thresh: float
    classfix: int
    coord_scale: float
    object_scale: float
    noobject_scale: float
    class_scale: float

    @classmethod
    def parse(cls, options: Options, net: NetSpec, index: int) -> RegionSpec:
        check_coords(options, 4)
        for key in ("absolute", "log", "sqrt", "mask_scale"):
            options.float(key)
        return cls(
            classes=options.int("classes", 20, 1),
            anchors=parse_anchors(options, options.int("num", 1, 1, ANCHOR_LIMIT)),
            max_boxes=options.int("max", 200, 1),
            softmax=options.flag("softmax"),
            focal_loss=options.flag("focal_loss"),
            rescore=options.flag("rescore"),
            bias_match=options.flag("bias_match"),
            thresh=options.float("thresh", 0.5),
            classfix=options.int("classfix"),
            coord_scale=options.float("coord_scale", 1.0),
            object_scale=options.float("object_scale", 1.0),
            noobject_scale=options.float("noobject_scale", 1.0),
            class_scale=options.float("class_scale", 1.0),
            tree=options.text("tree"),
            map=options.text("map"),
            jitter=options.float("jitter", 0.2),
            resize=options.float("resize", 1.0),
            random=options.float("random", 0.0),
        )

    def channels_for(self, classes: int) -> int:
        return len(self.anchors) * (classes + 5)

    def infer(self, inputs: Sequence[Shape]) -> Shape:
        (x,) = inputs
        expected = self.channels_for(self.classes)
        if x.c != expected:
            reason = f"{counted(len(self.anchors), 'anchor')} x ({counted(self.classes, 'class')} + 5)"
            raise ShapeError(channels_message(expected, reason, x.c))
        return x

    def source(self, node: Node) -> LayerSource:
        drop = ", drop_unlikely=True" if self.classfix == -1 else ""
        if not self.tree:
            return LayerSource("{layer}({0})", f"Region({list(self.anchors)}, softmax={self.softmax}{drop})", (Region,))
        buffers = {"tree.parent": ClassHierarchy.read(self.tree, self.classes).parent}
        mapped = ""
        if self.map:
            buffers["class_map"] = read_map(self.map)
            mapped = f", mapped={len(buffers['class_map'])}"
        module = f"TreeRegion({list(self.anchors)}, {self.classes}{mapped}{drop})"
        return LayerSource("{layer}({0})", module, (Region, ClassTree, TreeRegion), buffers=buffers)

    def build(self, node: Node) -> nn.Module:
        return RegionLayer(self)


class RegionLayer(HeadLayer):
    """Decoding and loss of [region]."""

    def __init__(self, spec: RegionSpec):
        super().__init__()
        self.spec = spec
        self.anchors: Tensor
        self.class_map: Tensor | None
        self.register_buffer("anchors", torch.tensor(spec.anchors), persistent=False)
        self.register_buffer("class_map", read_map(spec.map) if spec.map else None, persistent=False)
        self.tree = ClassHierarchy.read(spec.tree, spec.classes) if spec.tree else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the same, float32: logistic on objectness, softmax over classes, boxes as they came.

        C's CPU build keeps this as (B, H, W, C). Without softmax classes stay as they came too, as in AlexeyAB's C.
        """
        entries = self._entries(x.float())
        box, objectness, classes = entries.split((4, 1, self.spec.classes), 2)
        if self.tree is not None:
            classes = self.tree.softmax(classes, 2)
        elif self.spec.softmax:
            classes = classes.softmax(2)
        return torch.cat((box, objectness.sigmoid(), classes), 2).reshape(x.shape)

    def decode(self, output: Tensor, hier: float = HIER_THRESH) -> Predictions:
        """Candidates of all slots (`get_region_boxes`), in the order anchor, row, column.

        Without a tree Darknet thresholds scores only, so that the objectness is the best score where that is higher.
        """
        slots = self._entries(output.float()).permute(0, 1, 3, 4, 2)
        objectness = slots[..., _OBJECTNESS].flatten(1)
        if self.spec.classfix == -1:
            objectness = torch.where(objectness < 0.5, 0.0, objectness)
        scores = self._scores(objectness, slots[..., _CLASSES:].flatten(1, 3), hier)
        if self.tree is None:
            objectness = torch.maximum(objectness, scores.amax(-1))
        return Predictions(self._all_boxes(slots).flatten(1, 3), objectness, scores)

    def loss(self, x: Tensor, truth: Tensor, state: TrainState) -> HeadLoss:
        """truth: (N, 6) rows (image, class, cx, cy, w, h), relative to the network input, in Darknet's order."""
        with torch.no_grad():
            delta, metrics = self._compute_delta(self(x).contiguous(), truth, state)
            cost = sum_of_squares(delta)
        return HeadLoss(surrogate(x, delta.reshape(x.shape), cost), cost, metrics)

    def _entries(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, anchors, entries, H, W)."""
        return x.reshape(x.shape[0], len(self.spec.anchors), -1, x.shape[2], x.shape[3])

    def _all_boxes(self, slots: Tensor) -> Tensor:
        """(B, anchors, H, W, entries) → boxes (B, anchors, H, W, 4) relative to the input."""
        height, width = slots.shape[2:4]
        row = torch.arange(height, device=slots.device)[:, None]
        column = torch.arange(width, device=slots.device)
        return self._decode_boxes(slots[..., :4], self.anchors[:, None, None], column, row, width, height)

    def _decode_boxes(
        self, entries: Tensor, anchor: Tensor, column: Tensor, row: Tensor, width: int, height: int
    ) -> Tensor:
        """Boxes (…, 4) relative to the input (`get_region_box`)."""
        x, y, w, h = entries.unbind(-1)
        center = (column + x.sigmoid()) / width, (row + y.sigmoid()) / height
        return torch.stack((*center, w.exp() * anchor[..., 0] / width, h.exp() * anchor[..., 1] / height), -1)

    def _scores(self, objectness: Tensor, classes: Tensor, hier: float) -> Tensor:
        if self.tree is None:
            return objectness.unsqueeze(-1) * classes
        absolute = self.tree.absolute(classes)
        if self.class_map is not None:
            return objectness.unsqueeze(-1) * absolute[..., self.class_map]
        # Only the last class above the threshold, which is the most specific one, gets a score, without objectness.
        probable = absolute > hier
        last = probable & (probable.flip(-1).cumsum(-1).flip(-1) == 1)
        return absolute * last

    # --- loss

    def _compute_delta(self, output: Tensor, rows: Tensor, state: TrainState) -> tuple[Tensor, dict[str, Tensor]]:
        """Darknet's l.delta and the metrics for the log (`forward_region_layer`)."""
        spec = self.spec
        entries = self._entries(output)
        grid = Grid(*entries.shape)
        truth = TruthBoxes.from_rows(rows, spec.classes)
        flat = grid.zeros(output)
        delta = grid.view(flat)
        objectness = entries[:, :, _OBJECTNESS]
        predicted = self._all_boxes(entries.permute(0, 1, 3, 4, 2))
        match = best_match(predicted.flatten(1, 3), truth, spec.classfix > 0)
        best_iou = match.iou.view_as(objectness)

        slope = objectness * (1 - objectness)
        target = best_iou if spec.classfix == -1 else 0.0
        background = spec.noobject_scale * (target - objectness) * slope
        ignored = (best_iou > spec.thresh) & (spec.classfix != -1)
        delta[:, :, _OBJECTNESS] = torch.where(ignored, 0.0, background)
        if match.row is not None:
            slots = ignored.flatten().nonzero().squeeze(1)
            labels = truth.label[match.row.flatten()[slots]]
            factor = objectness.flatten()[slots] if spec.classfix == 2 else torch.ones_like(slots)
            self._write_classes(flat, grid, output, slots, labels, spec.class_scale * factor)
        # As in C, the images of this mini-batch have been counted already.
        if state.seen + grid.images < _PRIOR_IMAGES:
            xy = entries[:, :, :2].sigmoid()
            delta[:, :, :2] = _PRIOR_SCALE * (0.5 - xy) * xy * (1 - xy)
            delta[:, :, 2:4] = -_PRIOR_SCALE * entries[:, :, 2:4]
        metrics = self._write_truths(flat, grid, output, truth)
        return delta, {**metrics, "background": objectness.mean()}

    def _write_truths(self, flat: Tensor, grid: Grid, output: Tensor, truth: TruthBoxes) -> dict[str, Tensor]:
        """Each truth to the best anchor of its cell; of several in one slot the last counts."""
        spec = self.spec
        column, row = truth.cell(grid.width, grid.height)
        local = torch.arange(grid.anchors, device=column.device)
        cell = row * grid.width + column
        slots = (truth.image[:, None] * grid.anchors + local) * grid.cells + cell[:, None]
        sizes = self.anchors
        if not spec.bias_match:
            sizes = grid.gather(output, slots.flatten(), 2, 2).exp().view(-1, grid.anchors, 2) * self.anchors
        sizes = torch.stack((sizes[..., 0] / grid.width, sizes[..., 1] / grid.height), -1)
        anchor = best_anchor_index(truth, sizes)
        slots = slots.gather(1, anchor[:, None]).squeeze(1)

        entries = grid.gather(output, slots, 0, grid.entries)
        size = self.anchors[anchor]
        predicted = self._decode_boxes(entries[:, :4], size, column, row, grid.width, grid.height)
        iou = boxes.iou(predicted, truth.box)
        x, y, w, h = truth.box.unbind(1)
        xy = entries[:, :2].sigmoid()
        offset = torch.stack((x * grid.width - column, y * grid.height - row), 1) - xy
        log_size = torch.stack((w * grid.width / size[:, 0], h * grid.height / size[:, 1]), 1).log()
        box = spec.coord_scale * torch.cat((offset * xy * (1 - xy), log_size - entries[:, 2:4]), 1)
        objectness = entries[:, _OBJECTNESS]
        error = (iou if spec.rescore else 1.0) - objectness
        objectness_delta = spec.object_scale * error * objectness * (1 - objectness)

        slots = torch.where(truth.valid, slots, grid.slots)
        groups = SlotGroups.from_slots(slots)
        last = grid.positions(torch.where(groups.last, groups.slots, grid.slots), 0, _CLASSES)
        values = torch.cat((box, objectness_delta[:, None]), 1)[groups.order]
        flat.index_put_((last,), finite(values))
        labels = truth.label
        if self.class_map is not None:
            labels = self.class_map[labels.clamp(max=len(self.class_map) - 1)].clamp(max=spec.classes - 1)
        self._write_classes(flat, grid, output, slots, labels, torch.full_like(objectness, spec.class_scale))
        counted = truth.valid
        return {
            "iou": masked_mean(iou, counted),
            "objectness": masked_mean(objectness, counted),
            "class": masked_mean(entries[:, _CLASSES:].gather(1, labels[:, None]).squeeze(1), counted),
            "recall50": masked_mean((iou > 0.5).float(), counted),
            "count": counted.sum(),
        }

    def _write_classes(
        self, flat: Tensor, grid: Grid, output: Tensor, slots: Tensor, labels: Tensor, scale: Tensor
    ) -> None:
        """`delta_region_class` for M writes in Darknet's order; scale: (M,). Later writes replace earlier ones."""
        probability = grid.gather(output, slots, _CLASSES, self.spec.classes)
        target = torch.zeros_like(probability).scatter(1, labels[:, None], 1.0)
        if self.tree is not None:
            in_groups, target = self.tree.targets(labels)
        values = scale[:, None] * (target.to(probability.dtype) - probability)
        if self.spec.focal_loss and self.tree is None:
            values = values * focal_slope(probability.gather(1, labels[:, None]))
        groups = SlotGroups.from_slots(slots)
        values = values[groups.order]
        if self.tree is None:
            last = torch.where(groups.last, groups.slots, grid.slots)
            flat.index_put_((grid.positions(last, _CLASSES, self.spec.classes),), values)
            return
        # A write only touches the groups on its label's way to the top, so that all writes of a slot are needed.
        at = grid.positions(groups.slots, _CLASSES, self.spec.classes)
        at = torch.where(in_groups[groups.order], at, grid.slots * grid.entries)
        turn = torch.arange(len(slots), device=slots.device) - groups.leader()
        for k in range(int(turn.max()) + 1 if len(turn) else 0):
            flat.index_put_((at[turn == k],), values[turn == k])
