"""[yolo]: anchor boxes over a grid (Darknet's `yolo_layer.c`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from darknet_py import boxes
from darknet_py.cfg.net import NetSpec
from darknet_py.cfg.options import Options
from darknet_py.layers import target_assignment as common
from darknet_py.layers.anchor_head import ATTACK_PROBABILITY, AnchorHeadLayer, AnchorHeadSpec, BoxTargets
from darknet_py.layers.bad_label_filter import filter_labels, filters_labels
from darknet_py.layers.base import HeadLoss, Node, RunningDeltaStats, Tracks, TrainState
from darknet_py.layers.target_assignment import Grid, TruthBoxes

_NO_LAYER = 999999


@dataclass(frozen=True, kw_only=True)
class YoloSpec(AnchorHeadSpec):
    """Darknet's `parse_yolo`.

    Input and output: len(mask) · (4 + 1 + classes) channels; per anchor x, y, w, h, objectness, classes. The track
    options and embedding_layer (an absolute index) belong to tracking.
    """

    box_entries = 4
    filters_labels = True  # as [net] asks: see `layers.reject`

    new_coords: bool
    show_details: bool
    track_history_size: int
    sim_thresh: float
    dets_for_track: int
    dets_for_show: int
    track_ciou_norm: float
    embedding_layer: int | None

    @classmethod
    def parse(cls, options: Options, net: NetSpec, index: int) -> YoloSpec:
        embedding = options.int("embedding_layer", _NO_LAYER)
        return cls(
            **cls.shared(options),
            new_coords=options.flag("new_coords"),
            focal_loss=options.flag("focal_loss"),
            show_details=options.flag("show_details", True),
            track_history_size=options.int("track_history_size", 5),
            sim_thresh=options.float("sim_thresh", 0.8),
            dets_for_track=options.int("dets_for_track", 1),
            dets_for_show=options.int("dets_for_show", 1),
            track_ciou_norm=options.float("track_ciou_norm", 0.01),
            embedding_layer=None if embedding == _NO_LAYER else embedding if embedding >= 0 else index + embedding,
        )

    def build(self, node: Node) -> nn.Module:
        return YoloLayer(self, node.net, node.index)


class YoloLayer(AnchorHeadLayer):
    """Box entries: x, y, w, h."""

    spec: YoloSpec

    def __init__(self, spec: YoloSpec, net: NetSpec, index: int):
        super().__init__(spec, (net.width, net.height))
        self.net = net
        self.index = index

    def loss(self, x: Tensor, truth: Tensor, state: TrainState) -> HeadLoss:
        """truth: as `AnchorHeadLayer.loss` takes it; a seventh column is the track of the object, for [contrastive]."""
        if truth.shape[1] > 6:
            state.tracks[self.index] = self._tracks(truth, self._entries(x).shape)
        return super().loss(x, truth, state)

    def _tracks(self, rows: Tensor, shape: Sequence[int]) -> Tracks:
        grid, truth = Grid(*shape), TruthBoxes.of(rows, self.spec.classes, self.class_map)
        taught = self._assign(truth, grid, float("inf"))
        runs = common.SlotGroups.of(taught.slots)
        slots, row = common.only(runs.slots, runs.last, grid.slots), taught.truth[runs.order]
        none = rows.new_full((grid.slots + 1,), -1, dtype=torch.long)
        view = (grid.images, grid.anchors, grid.height, grid.width)
        label = none.index_put((slots,), rows[row, 6].long())[:-1].view(view)
        return Tracks(label, none.index_put((slots,), truth.label[row])[:-1].view(view))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the same, float32: logistic on x, y, objectness and classes, x and y scaled."""
        entries = self._entries(x.float())
        # All at once and then back what was too much: parts of channels-last memory take five times as long.
        output = entries.clone() if self.spec.new_coords else entries.sigmoid()
        if output.requires_grad:
            output = output.clone()  # sigmoid's backward pass reads its own output
        output[:, :, 2:4] = entries[:, :, 2:4]
        output[:, :, :2] = self._stretch(output[:, :, :2])
        return output.flatten(1, 2)

    def _stretch(self, center: Tensor) -> Tensor:
        scale = self.spec.scale_x_y
        return center if scale == 1 else center * scale - 0.5 * (scale - 1)

    def _box(self, entry: Tensor, anchor: Tensor, column: Tensor, row: Tensor, width: int, height: int) -> Tensor:
        """Boxes (…, 4) relative to the input (`get_yolo_box`). entry: (…, 4). anchor: (…, 2). grid: width x height."""
        x, y, w, h = entry.unbind(-1)
        w, h = ((2 * w) ** 2, (2 * h) ** 2) if self.spec.new_coords else (w.exp(), h.exp())
        net_width, net_height = self.input_size
        w, h = w * anchor[..., 0] / net_width, h * anchor[..., 1] / net_height
        return torch.stack(((column + x) / width, (row + y) / height, w, h), -1)

    def _background(self, objectness: Tensor, matched: Tensor, ignored: Tensor) -> Tensor:
        delta = -self.spec.obj_normalizer * objectness
        smooth = torch.maximum(delta, self.spec.obj_normalizer * (matched - objectness))
        return torch.where(ignored, smooth if self.spec.objectness_smooth else 0.0, delta)

    def _first_objectness_stays(self) -> bool:
        return self.spec.objectness_smooth

    def _averages(self, objectness: Tensor) -> Tensor | None:
        """`averages_yolo_deltas`."""
        return objectness != 0 if self.spec.iou_thresh < 1 else None

    def _attack(self, delta: Tensor, entries: Tensor, scale: Tensor, chosen: Tensor) -> None:
        scale = (scale * chosen).unsqueeze(2)
        box, objectness, classes = entries.split((4, 1, self.spec.classes), 2)
        score = classes * objectness
        found = (score > ATTACK_PROBABILITY).any(2, keepdim=True)
        towards = torch.where(score < ATTACK_PROBABILITY, 1 - classes, 0.0)
        towards = torch.where(score > ATTACK_PROBABILITY, -classes, towards)
        taught = scale * torch.where(found, towards, 0.0)
        away = scale * torch.where(found, -box, 0.0)
        delta[:, :, 4:5] = torch.where(
            chosen.unsqueeze(2), -scale * self.spec.obj_normalizer * objectness, delta[:, :, 4:5]
        )
        delta[:, :, 5:] = taught
        averages = self._averages(delta[:, :, 4:5])
        if averages is not None:
            away = torch.where(averages, away / (taught > 0).sum(2, keepdim=True).clamp(min=1), away)
        delta[:, :, :4] = away

    def _box_delta(self, lesson: BoxTargets, grid: Grid) -> Tensor:
        """`delta_yolo_box`."""
        spec, entry, target = self.spec, lesson.entry, lesson.target
        factor = (spec.iou_normalizer * lesson.weight)[:, None]
        if spec.iou_loss == "mse":
            scale = 2 - target[:, 2:3] * target[:, 3:]
            return (self._inverse(lesson, grid) - entry[:, :4]) * scale * factor
        slope = boxes.iou_gradient(common.with_area(lesson.predicted), target, spec.iou_loss)
        if not spec.new_coords:
            slope = torch.cat((slope[:, :2], slope[:, 2:] * entry[:, 2:4].exp()), 1)
        slope = common.finite(slope * factor)
        return slope if spec.max_delta is None else slope.clamp(-spec.max_delta, spec.max_delta)

    def _inverse(self, lesson: BoxTargets, grid: Grid) -> Tensor:
        """(M, 4) what the entries should be for the target; the inverse of `_box`."""
        x, y, w, h = lesson.target.unbind(-1)
        w, h = w * self.input_size[0] / lesson.anchor[:, 0], h * self.input_size[1] / lesson.anchor[:, 1]
        w, h = ((w / 4).sqrt(), (h / 4).sqrt()) if self.spec.new_coords else (w.log(), h.log())
        return torch.stack((x * grid.width - lesson.column, y * grid.height - lesson.row, w, h), -1)

    def _reject(self, delta: Tensor, state: TrainState) -> Tensor:
        if not filters_labels(self.net, state.iteration):
            return delta
        state.delta_stats = state.delta_stats or RunningDeltaStats.start(delta)
        return filter_labels(delta, state.delta_stats, self.net, state.iteration, delta.shape[2])

    def _cost(self, delta: Tensor, figures: dict[str, Tensor]) -> Tensor:
        """Darknet's printed loss; not what it descends on unless iou_loss=mse."""
        spec = self.spec
        if spec.iou_loss == "mse" or not spec.show_details:
            return common.squares(delta)
        likeness = figures["giou" if spec.iou_loss == "giou" else "iou"]
        apart = torch.where(figures["count"] > 0, 1 - likeness, 0.0)
        return spec.iou_normalizer * apart.double() + spec.obj_normalizer * common.squares(delta[:, :, 4:])
