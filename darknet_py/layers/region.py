"""[region]: YOLO version 2's head (Darknet's `region_layer.c`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from darknet_py import boxes
from darknet_py.cfg.net import NetSpec
from darknet_py.cfg.options import Options
from darknet_py.layers import target_assignment as common
from darknet_py.layers.base import (
    DetectionHeadSpec,
    HeadLayer,
    HeadLoss,
    Node,
    Predictions,
    Shape,
    ShapeError,
    TrainState,
    surrogate,
)
from darknet_py.layers.class_hierarchy import ClassHierarchy
from darknet_py.layers.target_assignment import Grid, TruthBoxes

_BOX, _OBJECTNESS, _CLASSES = 0, 4, 5  # entries of a slot
_PRIOR_IMAGES = 12800  # so many images long all boxes are drawn towards their anchors
_PRIOR_SCALE = 0.01


@dataclass(frozen=True, kw_only=True)
class RegionSpec(DetectionHeadSpec):
    """Darknet's `parse_region`.

    Input and output: num · (4 + 1 + classes) channels; per anchor x, y, w, h, objectness, classes. anchors are in grid
    cells. jitter, resize, random and max_boxes belong to the data loader. absolute, log, sqrt and mask_scale are read
    by Darknet and have no effect there either.
    """

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
        if options.int("coords", 4) != 4:
            options.error(f"coords: expected 4 (center and size), got {options.text('coords')!r}", "coords")
        for key in ("absolute", "log", "sqrt", "mask_scale"):
            options.float(key)
        return cls(
            classes=options.int("classes", 20, 1),
            anchors=common.parse_anchors(options, options.int("num", 1, 1, common.ANCHOR_LIMIT)),
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
            what = f"{len(self.anchors)} anchors x ({self.classes} classes + 5)"
            raise ShapeError(common.shape_message(expected, what, x.c))
        return x

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
        self.register_buffer("class_map", common.read_map(spec.map) if spec.map else None, persistent=False)
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

    def decode(self, output: Tensor) -> Predictions:
        """Candidates of all slots (`get_region_boxes`), in the order anchor, row, column.

        Without a tree Darknet looks at scores only, so that objectness is given as the best score where that is higher.
        """
        slots = self._entries(output.float()).permute(0, 1, 3, 4, 2)
        objectness = slots[..., _OBJECTNESS].flatten(1)
        if self.spec.classfix == -1:
            objectness = torch.where(objectness < 0.5, 0.0, objectness)
        scores = self._scores(objectness, slots[..., _CLASSES:].flatten(1, 3))
        if self.tree is None:
            objectness = torch.maximum(objectness, scores.amax(-1))
        return Predictions(self._all_boxes(slots).flatten(1, 3), objectness, scores)

    def loss(self, x: Tensor, truth: Tensor, state: TrainState) -> HeadLoss:
        """truth: (N, 6) rows (image, class, cx, cy, w, h), relative to the network input, in Darknet's order."""
        with torch.no_grad():
            delta, parts = self._delta(self(x).contiguous(), truth, state)
            cost = common.squares(delta)
        return HeadLoss(surrogate(x, delta.reshape(x.shape), cost), cost, parts)

    def _entries(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, anchors, entries, H, W)."""
        return x.reshape(x.shape[0], len(self.spec.anchors), -1, x.shape[2], x.shape[3])

    def _all_boxes(self, slots: Tensor) -> Tensor:
        """(B, anchors, H, W, entries) → boxes (B, anchors, H, W, 4) relative to the input."""
        height, width = slots.shape[2:4]
        row = torch.arange(height, device=slots.device)[:, None]
        column = torch.arange(width, device=slots.device)
        return self._box(slots[..., :4], self.anchors[:, None, None], column, row, width, height)

    def _box(self, entry: Tensor, anchor: Tensor, column: Tensor, row: Tensor, width: int, height: int) -> Tensor:
        """Boxes (…, 4) relative to the input (`get_region_box`)."""
        x, y, w, h = entry.unbind(-1)
        center = (column + x.sigmoid()) / width, (row + y.sigmoid()) / height
        return torch.stack((*center, w.exp() * anchor[..., 0] / width, h.exp() * anchor[..., 1] / height), -1)

    def _scores(self, objectness: Tensor, classes: Tensor) -> Tensor:
        if self.tree is None:
            return objectness.unsqueeze(-1) * classes
        absolute = self.tree.absolute(classes)
        if self.class_map is not None:
            return objectness.unsqueeze(-1) * absolute[..., self.class_map]
        # Only the last sufficiently sure class, which is the most special one, is named, without the objectness.
        sure = absolute > self.hier
        last = sure & (sure.flip(-1).cumsum(-1).flip(-1) == 1)
        return absolute * last

    # --- loss

    def _delta(self, output: Tensor, rows: Tensor, state: TrainState) -> tuple[Tensor, dict[str, Tensor]]:
        """Darknet's l.delta and figures for the log (`forward_region_layer`)."""
        spec = self.spec
        entries = self._entries(output)
        grid = Grid(*entries.shape)
        truth = TruthBoxes.of(rows, spec.classes)
        flat = grid.new(output)
        delta = grid.view(flat)
        objectness = entries[:, :, _OBJECTNESS]
        predicted = self._all_boxes(entries.permute(0, 1, 3, 4, 2))
        found = common.match(predicted.flatten(1, 3), truth, spec.classfix > 0)
        best = found.iou.view_as(objectness)

        slope = objectness * (1 - objectness)
        target = best if spec.classfix == -1 else 0.0
        background = spec.noobject_scale * (target - objectness) * slope
        over = (best > spec.thresh) & (spec.classfix != -1)
        delta[:, :, _OBJECTNESS] = torch.where(over, 0.0, background)
        if found.row is not None:
            slots = over.flatten().nonzero().squeeze(1)
            labels = truth.label[found.row.flatten()[slots]]
            factor = objectness.flatten()[slots] if spec.classfix == 2 else torch.ones_like(slots)
            self._teach_classes(flat, grid, output, slots, labels, spec.class_scale * factor)
        # As in C, the images of this mini-batch have been counted already.
        if state.seen + grid.images < _PRIOR_IMAGES:
            xy = entries[:, :, :2].sigmoid()
            delta[:, :, :2] = _PRIOR_SCALE * (0.5 - xy) * xy * (1 - xy)
            delta[:, :, 2:4] = -_PRIOR_SCALE * entries[:, :, 2:4]
        figures = self._teach(flat, grid, output, truth)
        return delta, {**figures, "background": objectness.mean()}

    def _teach(self, flat: Tensor, grid: Grid, output: Tensor, truth: TruthBoxes) -> dict[str, Tensor]:
        """Each truth to the best anchor of its cell; of several in one slot the last counts."""
        spec = self.spec
        column, row = truth.cell(grid.width, grid.height)
        local = torch.arange(grid.anchors, device=column.device)
        cell = row * grid.width + column
        slots = (truth.image[:, None] * grid.anchors + local) * grid.cells + cell[:, None]
        sizes = self.anchors
        if not spec.bias_match:
            sizes = grid.read(output, slots.flatten(), 2, 2).exp().view(-1, grid.anchors, 2) * self.anchors
        sizes = torch.stack((sizes[..., 0] / grid.width, sizes[..., 1] / grid.height), -1)
        anchor = common.best_anchor(truth, sizes)
        slots = slots.gather(1, anchor[:, None]).squeeze(1)

        entry = grid.read(output, slots, 0, grid.entries)
        size = self.anchors[anchor]
        predicted = self._box(entry[:, :4], size, column, row, grid.width, grid.height)
        overlap = boxes.iou(predicted, truth.box)
        x, y, w, h = truth.box.unbind(1)
        xy = entry[:, :2].sigmoid()
        towards = torch.stack((x * grid.width - column, y * grid.height - row), 1) - xy
        expected = torch.stack((w * grid.width / size[:, 0], h * grid.height / size[:, 1]), 1).log()
        box = spec.coord_scale * torch.cat((towards * xy * (1 - xy), expected - entry[:, 2:4]), 1)
        own = entry[:, _OBJECTNESS]
        objectness = spec.object_scale * ((overlap if spec.rescore else 1.0) - own) * own * (1 - own)

        slots = common.only(slots, truth.valid, grid.slots)
        runs = common.SlotGroups.of(slots)
        last = grid.at(common.only(runs.slots, runs.last, grid.slots), 0, _CLASSES)
        values = torch.cat((box, objectness[:, None]), 1)[runs.order]
        flat.index_put_((last,), common.finite(values))
        labels = truth.label
        if self.class_map is not None:
            labels = self.class_map[labels.clamp(max=len(self.class_map) - 1)].clamp(max=spec.classes - 1)
        self._teach_classes(flat, grid, output, slots, labels, torch.full_like(own, spec.class_scale))
        counted = truth.valid
        return {
            "iou": common.mean_where(overlap, counted),
            "objectness": common.mean_where(own, counted),
            "class": common.mean_where(entry[:, _CLASSES:].gather(1, labels[:, None]).squeeze(1), counted),
            "recall50": common.mean_where((overlap > 0.5).float(), counted),
            "count": counted.sum(),
        }

    def _teach_classes(
        self, flat: Tensor, grid: Grid, output: Tensor, slots: Tensor, labels: Tensor, scale: Tensor
    ) -> None:
        """`delta_region_class` for M writes in Darknet's order; scale: (M,). Later writes replace earlier ones."""
        probability = grid.read(output, slots, _CLASSES, self.spec.classes)
        target = torch.zeros_like(probability).scatter(1, labels[:, None], 1.0)
        if self.tree is not None:
            taught, target = self.tree.taught(labels)
        values = scale[:, None] * (target.to(probability.dtype) - probability)
        if self.spec.focal_loss and self.tree is None:
            values = values * common.focal_slope(probability.gather(1, labels[:, None]))
        runs = common.SlotGroups.of(slots)
        values = values[runs.order]
        if self.tree is None:
            at = grid.at(common.only(runs.slots, runs.last, grid.slots), _CLASSES, self.spec.classes)
            flat.index_put_((at,), values)
            return
        # A write only touches the groups on its label's way to the top, so that all writes of a slot are needed.
        at = grid.at(runs.slots, _CLASSES, self.spec.classes)
        at = torch.where(taught[runs.order], at, grid.slots * grid.entries)
        turn = torch.arange(len(slots), device=slots.device) - runs.leader()
        for k in range(int(turn.max()) + 1 if len(turn) else 0):
            flat.index_put_((at[turn == k],), values[turn == k])
