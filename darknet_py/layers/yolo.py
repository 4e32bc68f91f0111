"""[yolo]: anchor boxes over a grid (Darknet's `yolo_layer.c`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from darknet_py import boxes
from darknet_py.cfg.net import NetSpec
from darknet_py.cfg.options import Options
from darknet_py.layers import heads_common as common
from darknet_py.layers.base import Head, HeadLoss, Node, Predictions, Shape, ShapeError, Spec, TrainState, surrogate
from darknet_py.layers.heads_common import ClassRule, Grid, Taught, Truth

_MATCH_PROBABILITY = 0.25  # a prediction with no class above this is background, whatever it overlaps
_ATTACK_PROBABILITY = 0.25


@dataclass(frozen=True)
class Yolo(Spec):
    """Darknet's `parse_yolo`.

    Input and output: len(mask) · (4 + 1 + classes) channels; per anchor x, y, w, h, objectness, classes. anchors are in
    pixels of the network input, all `num` of them; this head predicts those of `mask`. jitter, resize, random and
    max_boxes belong to the data loader, nms_kind and beta_nms to detection, the track options to tracking.
    """

    classes: int
    anchors: tuple[tuple[float, float], ...]
    mask: tuple[int, ...]
    max_boxes: int
    scale_x_y: float
    new_coords: bool
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
    class_weights: tuple[float, ...]  # from counters_per_class; empty: all 1
    label_smooth_eps: float
    objectness_smooth: bool
    focal_loss: bool
    show_details: bool
    map: str
    nms_kind: str
    beta_nms: float
    jitter: float
    resize: float
    random: float
    track_history_size: int
    sim_thresh: float
    dets_for_track: int
    dets_for_show: int
    track_ciou_norm: float
    embedding_layer: int | None

    @classmethod
    def parse(cls, o: Options, net: NetSpec, index: int) -> Yolo:
        classes = o.int("classes", 20, 1)
        num = o.int("num", 1, 1)
        max_delta = o.float("max_delta", 0.0, 0.0) or None
        embedding = o.int("embedding_layer", 999999)
        return cls(
            classes=classes,
            anchors=common.parse_anchors(o, num),
            mask=common.parse_mask(o, num),
            max_boxes=o.int("max", 200, 1),
            scale_x_y=o.float("scale_x_y", 1.0),
            new_coords=o.flag("new_coords"),
            ignore_thresh=o.float("ignore_thresh", 0.5),
            truth_thresh=o.float("truth_thresh", 1.0),
            iou_thresh=o.float("iou_thresh", 1.0),
            iou_thresh_kind=o.choice("iou_thresh_kind", "iou", tuple(boxes.KINDS)),
            iou_loss=o.choice("iou_loss", "mse", ("mse", *boxes.KINDS)),
            iou_normalizer=o.float("iou_normalizer", 0.75),
            obj_normalizer=o.float("obj_normalizer", 1.0),
            cls_normalizer=o.float("cls_normalizer", 1.0),
            delta_normalizer=o.float("delta_normalizer", 1.0),
            max_delta=max_delta,
            class_weights=common.parse_class_weights(o, classes, max_delta),
            label_smooth_eps=o.float("label_smooth_eps", 0.0),
            objectness_smooth=o.flag("objectness_smooth"),
            focal_loss=o.flag("focal_loss"),
            show_details=o.flag("show_details", True),
            map=o.text("map"),
            nms_kind=o.choice("nms_kind", "default", ("default", "greedynms", "diounms")),
            beta_nms=o.float("beta_nms", 0.6),
            jitter=o.float("jitter", 0.2),
            resize=o.float("resize", 1.0),
            random=o.float("random", 0.0),
            track_history_size=o.int("track_history_size", 5),
            sim_thresh=o.float("sim_thresh", 0.8),
            dets_for_track=o.int("dets_for_track", 1),
            dets_for_show=o.int("dets_for_show", 1),
            track_ciou_norm=o.float("track_ciou_norm", 0.01),
            embedding_layer=None if embedding == 999999 else embedding if embedding >= 0 else index + embedding,
        )

    def infer(self, inputs: Sequence[Shape]) -> Shape:
        (x,) = inputs
        wanted = len(self.mask) * (self.classes + 5)
        if x.c != wanted:
            raise ShapeError(
                common.shape_message(wanted, f"{len(self.mask)} anchors x ({self.classes} classes + 5)", x.c)
            )
        return x

    def build(self, node: Node) -> nn.Module:
        return YoloHead(self, (node.net.width, node.net.height))


class YoloHead(Head):
    """Decoding and loss of [yolo]. `input_size`: (width, height) of the network input in pixels."""

    detects = True
    box_entries = 4  # of a slot: the box, then objectness, then classes

    def __init__(self, spec: Yolo, input_size: tuple[int, int]):
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

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the same, float32: logistic on x, y, objectness and classes, x and y scaled."""
        entries = self._entries(x.float())
        centre, size, rest = entries.split((2, 2, entries.shape[2] - 4), 2)
        if not self.spec.new_coords:
            centre, rest = centre.sigmoid(), rest.sigmoid()
        return torch.cat((self._stretch(centre), size, rest), 2).reshape(x.shape)

    def decode(self, output: Tensor) -> Predictions:
        """Candidates of all slots (`get_yolo_detections`), in the order anchor, row, column."""
        slots = self._entries(output.float()).permute(0, 1, 3, 4, 2)
        batch, objectness = len(slots), slots[..., self.box_entries]
        scores = objectness.unsqueeze(-1) * slots[..., self.box_entries + 1 :]
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

    # --- decoding

    def _entries(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, anchors, entries, H, W)."""
        return x.reshape(x.shape[0], len(self.spec.mask), -1, x.shape[2], x.shape[3])

    def _stretch(self, centre: Tensor) -> Tensor:
        scale = self.spec.scale_x_y
        return centre if scale == 1 else centre * scale - 0.5 * (scale - 1)

    def _all_boxes(self, slots: Tensor) -> Tensor:
        """(B, anchors, H, W, entries) as forward gave them → boxes (B, anchors, H, W, 4)."""
        height, width = slots.shape[2:4]
        row = torch.arange(height, device=slots.device)[:, None]
        column = torch.arange(width, device=slots.device)
        anchors = self.anchors[self.mask][:, None, None]
        return self._box(slots[..., : self.box_entries], anchors, column, row, width, height)

    def _box(self, entry: Tensor, anchor: Tensor, column: Tensor, row: Tensor, width: int, height: int) -> Tensor:
        """Boxes (…, 4) relative to the input (`get_yolo_box`). entry: (…, 4). anchor: (…, 2). grid: width x height."""
        x, y, w, h = entry.unbind(-1)
        w, h = ((2 * w) ** 2, (2 * h) ** 2) if self.spec.new_coords else (w.exp(), h.exp())
        net_width, net_height = self.input_size
        w, h = w * anchor[..., 0] / net_width, h * anchor[..., 1] / net_height
        return torch.stack(((column + x) / width, (row + y) / height, w, h), -1)

    # --- loss

    def _delta(self, output: Tensor, rows: Tensor, state: TrainState) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Darknet's l.delta, *l.cost and figures for the log (`forward_yolo_layer`, `process_batch`)."""
        spec = self.spec
        entries = self._entries(output)
        grid = Grid(*entries.shape)
        objectness = torch.nan_to_num(entries[:, :, self.box_entries], nan=0.0, posinf=0.0, neginf=0.0)
        truth = Truth.of(rows, spec.classes, self.class_map)
        flat = grid.new(output)
        delta = grid.view(flat)

        predicted = self._all_boxes(entries.permute(0, 1, 3, 4, 2))
        exceeds = spec.truth_thresh < 1  # no IoU is above 1
        found = common.match(predicted.flatten(1, 3), truth, exceeds or self._ignored_have_class())
        best = found.iou.view_as(objectness)
        matched = best * (entries[:, :, self.box_entries + 1 :].amax(2) > _MATCH_PROBABILITY)
        ignored = matched > spec.ignore_thresh
        delta[:, :, self.box_entries] = self._background(objectness, matched, ignored, best)
        if state.adversarial:
            self._attack(delta, entries, predicted, ~ignored)

        boxed = [self._assign(truth, grid)]
        self._teach_objectness(flat, grid, objectness, boxed[0], truth)
        if found.row is not None and exceeds:
            boxed.insert(0, common.everywhere(best > spec.truth_thresh, found.row, self.mask))
        classed = boxed
        if found.row is not None and self._ignored_have_class():
            classed = [common.everywhere(ignored, found.row, self.mask), *boxed]
        self._teach_classes(flat, grid, output, Taught.join(classed), truth, best)
        figures = self._teach_boxes(flat, grid, output, Taught.join(boxed), truth)
        figures["background"] = objectness.mean()
        return delta, self._cost(delta, figures), figures

    def _ignored_have_class(self) -> bool:
        """Whether slots above ignore_thresh are taught a class too."""
        return False

    def _background(self, objectness: Tensor, matched: Tensor, ignored: Tensor, best: Tensor) -> Tensor:
        """Objectness delta of all slots, before truths are taught."""
        spec = self.spec
        delta = -spec.obj_normalizer * objectness
        smooth = torch.maximum(delta, spec.obj_normalizer * (matched - objectness))
        delta = torch.where(ignored, smooth if spec.objectness_smooth else 0.0, delta)
        if spec.truth_thresh < 1:
            target = best**2 if spec.objectness_smooth else 1.0
            delta = torch.where(best > spec.truth_thresh, spec.obj_normalizer * (target - objectness), delta)
        return delta

    def _attack(self, delta: Tensor, entries: Tensor, predicted: Tensor, chosen: Tensor) -> None:
        """Self-adversarial training's first pass, which has no truths: teach that there is nothing."""
        objectness, classes = entries[:, :, self.box_entries], entries[:, :, self.box_entries + 1 :]
        scale = (predicted[..., 2] * predicted[..., 3]).clamp(min=0).sqrt() * chosen
        delta[:, :, self.box_entries] = torch.where(
            chosen, -scale * self.spec.obj_normalizer * objectness, delta[:, :, self.box_entries]
        )
        score = classes * objectness.unsqueeze(2)
        seen = score > _ATTACK_PROBABILITY
        found = seen.any(2, keepdim=True)
        scale = scale.unsqueeze(2)
        towards = torch.where(seen, -classes, torch.where(score < _ATTACK_PROBABILITY, 1 - classes, 0.0))
        delta[:, :, self.box_entries + 1 :] = scale * torch.where(found, towards, 0.0)
        box = scale * torch.where(found, -entries[:, :, : self.box_entries], 0.0)
        if self._averages():
            share = (delta[:, :, self.box_entries + 1 :] > 0).sum(2, keepdim=True).clamp(min=1)
            box = torch.where(delta[:, :, self.box_entries : self.box_entries + 1] != 0, box / share, box)
        delta[:, :, : self.box_entries] = box

    def _assign(self, truth: Truth, grid: Grid) -> Taught:
        """Each truth to its cell: to the anchor most like it, and to all above iou_thresh."""
        spec = self.spec
        net_width, net_height = self.input_size
        sizes = torch.stack((self.anchors[:, 0] / net_width, self.anchors[:, 1] / net_height), -1)
        chosen = common.best_anchor(truth, sizes)[:, None] == self.mask
        if spec.iou_thresh < 1:
            mine, size = common.at_origin(sizes[self.mask]), common.at_origin(truth.box[:, None, 2:])
            chosen = chosen | (boxes.alike(mine, size, spec.iou_thresh_kind) > spec.iou_thresh)
        chosen = (chosen & truth.valid[:, None]).flatten()
        column, row = self._cell(truth, grid)
        local = torch.arange(grid.anchors, device=chosen.device)
        slots = ((truth.image[:, None] * grid.anchors + local) * grid.height + row[:, None]) * grid.width + column[
            :, None
        ]
        row_of = torch.arange(len(truth.image), device=chosen.device)[:, None].expand(slots.shape).flatten()
        anchor = self.mask.expand(slots.shape).flatten()
        return Taught(common.only(slots.flatten(), chosen, grid.slots), row_of, anchor, chosen)

    def _cell(self, truth: Truth, grid: Grid) -> tuple[Tensor, Tensor]:
        return truth.cell(grid.width, grid.height)

    def _weight(self, labels: Tensor) -> Tensor | float:
        return 1.0 if self.class_weights is None else self.class_weights[labels]

    def _teach_objectness(self, flat: Tensor, grid: Grid, objectness: Tensor, taught: Taught, truth: Truth) -> None:
        """The last truth of a slot counts; with objectness_smooth the first, and only where delta is still 0."""
        runs = common.Runs.of(taught.slots)
        labels = truth.label[taught.truth[runs.order]]
        own = objectness.flatten()[runs.slots.clamp(max=grid.slots - 1)]
        value = self.spec.obj_normalizer * (1 - own) * self._weight(labels)
        writes = runs.last
        if self.spec.objectness_smooth and not self._ignored_have_class():
            writes = runs.first & (grid.read(flat, runs.slots, self.box_entries).squeeze(1) == 0)
        at = grid.at(common.only(runs.slots, writes, grid.slots), self.box_entries).squeeze(1)
        flat.index_put_((at,), value)

    def _teach_classes(
        self, flat: Tensor, grid: Grid, output: Tensor, taught: Taught, truth: Truth, best: Tensor
    ) -> None:
        spec, first = self.spec, self.box_entries + 1
        labels = truth.label[taught.truth]
        special = None
        if spec.objectness_smooth and spec.truth_thresh < 1:
            # Slots above truth_thresh are taught their IoU² instead of 1.
            slots = taught.slots.clamp(max=grid.slots - 1)
            own = grid.read(output, slots, first, spec.classes).gather(1, labels[:, None]).squeeze(1)
            special = self._weight(labels) * (best.flatten()[slots] ** 2 - own)
            special = torch.where(best.flatten()[slots] > spec.truth_thresh, special, float("nan"))
        rule = ClassRule(spec.label_smooth_eps, spec.focal_loss, self.class_weights, spec.cls_normalizer)
        common.write_classes(flat, grid, output, first, taught.slots, labels, rule, special)

    def _teach_boxes(self, flat: Tensor, grid: Grid, output: Tensor, taught: Taught, truth: Truth) -> dict[str, Tensor]:
        """Adds up the box deltas of all truths in a slot (`delta_yolo_box`), averaged over its classes."""
        target, labels = truth.box[taught.truth], truth.label[taught.truth]
        entry = grid.read(output, taught.slots, 0, grid.entries)
        row, column = taught.slots % grid.cells // grid.width, taught.slots % grid.width
        anchor = self.anchors[taught.anchor]
        predicted = self._box(entry[:, : self.box_entries], anchor, column, row, grid.width, grid.height)
        values = self._box_delta(entry, predicted, target, anchor, column, row, grid, self._weight(labels))
        values = torch.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
        if self._averages():
            share = (grid.read(flat, taught.slots, self.box_entries + 1, self.spec.classes) > 0).sum(1, keepdim=True)
            values = values / torch.where(self._divided(flat, grid, taught.slots), share.clamp(min=1), 1)
        flat.index_add_(0, grid.at(taught.slots, 0, self.box_entries).flatten(), values.flatten())

        counted = taught.counted
        overlap = boxes.iou(predicted, target)
        probability = entry[:, self.box_entries + 1 :].gather(1, labels[:, None]).squeeze(1)
        return {
            "iou": common.mean_where(overlap, counted),
            "giou": common.mean_where(boxes.giou(predicted, target), counted),
            "objectness": common.mean_where(entry[:, self.box_entries], counted),
            "class": common.mean_where(probability, counted),
            "recall50": common.mean_where((overlap > 0.5).float(), counted),
            "recall75": common.mean_where((overlap > 0.75).float(), counted),
            "count": counted.sum(),
        }

    def _averages(self) -> bool:
        return self.spec.iou_thresh < 1

    def _divided(self, flat: Tensor, grid: Grid, slots: Tensor) -> Tensor:
        """(M, 1) whether `averages_yolo_deltas` visits the slot."""
        return grid.read(flat, slots, self.box_entries) != 0

    def _box_delta(
        self,
        entry: Tensor,
        predicted: Tensor,
        target: Tensor,
        anchor: Tensor,
        column: Tensor,
        row: Tensor,
        grid: Grid,
        weight: Tensor | float,
    ) -> Tensor:
        """(M, 4). entry: the slot as forward gave it. predicted, target: boxes relative to the input."""
        spec = self.spec
        factor = spec.iou_normalizer * weight
        if spec.iou_loss == "mse":
            scale = 2 - target[:, 2] * target[:, 3]
            wanted = self._inverse(target, anchor, column, row, grid)
            return (wanted - entry[:, :4]) * (scale * factor)[:, None]
        safe = torch.cat((predicted[:, :2], torch.where(predicted[:, 2:] == 0, 1.0, predicted[:, 2:])), 1)
        slope = boxes.iou_gradient(safe, target, spec.iou_loss)
        if not spec.new_coords:
            slope = torch.cat((slope[:, :2], slope[:, 2:] * entry[:, 2:4].exp()), 1)
        slope = slope * (factor[:, None] if isinstance(factor, Tensor) else factor)
        slope = torch.nan_to_num(slope, nan=0.0, posinf=0.0, neginf=0.0)
        return slope if spec.max_delta is None else slope.clamp(-spec.max_delta, spec.max_delta)

    def _inverse(self, box: Tensor, anchor: Tensor, column: Tensor, row: Tensor, grid: Grid) -> Tensor:
        """(M, 4) what the entries should be for `box`; the inverse of `_box`."""
        x, y, w, h = box.unbind(-1)
        w, h = w * self.input_size[0] / anchor[:, 0], h * self.input_size[1] / anchor[:, 1]
        w, h = ((w / 4).sqrt(), (h / 4).sqrt()) if self.spec.new_coords else (w.log(), h.log())
        return torch.stack((x * grid.width - column, y * grid.height - row, w, h), -1)

    def _cost(self, delta: Tensor, figures: dict[str, Tensor]) -> Tensor:
        """Darknet's printed loss; not what it descends on unless iou_loss=mse."""
        spec = self.spec
        if spec.iou_loss == "mse" or not spec.show_details:
            return common.squares(delta)
        likeness = figures["giou" if spec.iou_loss == "giou" else "iou"]
        apart = torch.where(figures["count"] > 0, 1 - likeness, 0.0)
        return spec.iou_normalizer * apart.double() + spec.obj_normalizer * common.squares(
            delta[:, :, self.box_entries :]
        )
