"""[Gaussian_yolo]: [yolo] that also predicts how sure it is of each coordinate (Darknet's `gaussian_yolo_layer.c`)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from darknet_py import boxes
from darknet_py.cfg.net import NetSpec
from darknet_py.cfg.options import Options
from darknet_py.layers import target_assignment as common
from darknet_py.layers.anchor_head import ATTACK_PROBABILITY, AnchorHeadLayer, AnchorHeadSpec, BoxTargets
from darknet_py.layers.base import Node, Predictions
from darknet_py.layers.target_assignment import Grid, TruthBoxes

_SIGMA = 0.3  # added to a predicted deviation
_EPSILON = 1e-9
_POINTS = {"center": 0.0, "left_top": -0.5, "right_bottom": 0.5}  # from the center, in box sizes


@dataclass(frozen=True, kw_only=True)
class GaussianYoloSpec(AnchorHeadSpec):
    """Darknet's `parse_gaussian_yolo`.

    Input and output: len(mask) · (8 + 1 + classes) channels; per anchor x, y, w, h, each followed by its deviation,
    then objectness and classes. yolo_point: which point of the box x and y give, and whose cell answers for it.
    """

    box_entries = 8
    nms_kinds = ("default", "greedynms", "diounms", "cornersnms")

    uc_normalizer: float
    yolo_point: str

    @classmethod
    def parse(cls, options: Options, net: NetSpec, index: int) -> GaussianYoloSpec:
        return cls(
            **cls.shared(options),
            focal_loss=False,
            uc_normalizer=options.float("uc_normalizer", 1.0),
            yolo_point=options.choice("yolo_point", "center", tuple(_POINTS)),
        )

    def build(self, node: Node) -> nn.Module:
        return GaussianYoloLayer(self, (node.net.width, node.net.height))


class GaussianYoloLayer(AnchorHeadLayer):
    """Box entries: x, its deviation, y, its deviation, and so on for w and h."""

    spec: GaussianYoloSpec

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the same, float32: logistic on all but w and h, x and y scaled."""
        entries = self._entries(x.float())
        ones = (1,) * 8
        x, dx, y, dy, w, dw, h, dh, rest = entries.split((*ones, entries.shape[2] - 8), 2)
        scale = self.spec.scale_x_y
        x, y = (part.sigmoid() * scale - 0.5 * (scale - 1) for part in (x, y))
        dx, dy, dw, dh, rest = (part.sigmoid() for part in (dx, dy, dw, dh, rest))
        return torch.cat((x, dx, y, dy, w, dw, h, dh, rest), 2).flatten(1, 2)

    def decode(self, output: Tensor) -> Predictions:
        """As [yolo]'s, scores times 1 − mean deviation (`get_gaussian_yolo_detections`)."""
        found = super().decode(output)
        deviation = self._entries(output.float())[:, :, 1:8:2].mean(2).flatten(1)
        return found._replace(scores=found.scores * (1 - deviation).unsqueeze(-1))

    def _box(self, entry: Tensor, anchor: Tensor, column: Tensor, row: Tensor, width: int, height: int) -> Tensor:
        """`get_gaussian_yolo_box`."""
        x, y, w, h = entry[..., ::2].unbind(-1)
        w, h = w.exp() * anchor[..., 0] / self.input_size[0], h.exp() * anchor[..., 1] / self.input_size[1]
        shift = _POINTS[self.spec.yolo_point]
        return torch.stack(((column + x) / width - shift * w, (row + y) / height - shift * h, w, h), -1)

    def _cell(self, truth: TruthBoxes, grid: Grid) -> tuple[Tensor, Tensor]:
        point = truth.box[:, :2] + _POINTS[self.spec.yolo_point] * truth.box[:, 2:]
        return truth._replace(box=torch.cat((point, truth.box[:, 2:]), 1)).cell(grid.width, grid.height)

    def _background(self, objectness: Tensor, matched: Tensor, ignored: Tensor) -> Tensor:
        spec = self.spec
        smooth = spec.obj_normalizer * (matched**2 - objectness)
        return torch.where(ignored, smooth if spec.objectness_smooth else 0.0, -spec.obj_normalizer * objectness)

    def _teaches_ignored(self) -> bool:
        return self.spec.objectness_smooth

    def _averages(self, objectness: Tensor) -> Tensor | None:
        """`averages_gaussian_yolo_deltas`."""
        return torch.ones_like(objectness, dtype=torch.bool)

    def _attack(self, delta: Tensor, entries: Tensor, scale: Tensor, chosen: Tensor) -> None:
        scale, chosen = scale.unsqueeze(2), chosen.unsqueeze(2)
        objectness, classes = entries[:, :, 8:9], entries[:, :, 9:]
        delta[:, :, 8:9] = torch.where(chosen, -scale * self.spec.obj_normalizer * objectness, delta[:, :, 8:9])
        seen = chosen & (classes * objectness > ATTACK_PROBABILITY)
        delta[:, :, 9:] = torch.where(seen, -scale * classes, 0.0)

    def _box_delta(self, lesson: BoxTargets, grid: Grid) -> Tensor:
        """(M, 8): up the likelihood of the target (`delta_gaussian_yolo_box`), or of its IoU for x, y, w, h."""
        spec, entry, target = self.spec, lesson.entry, lesson.target
        mean, deviation = entry[:, :8:2], entry[:, 1:8:2]
        scale = 2 - target[:, 2:3] * target[:, 3:]
        z = (self._inverse(lesson, grid) - mean) / deviation
        density = (-0.5 * z**2).exp() / (math.sqrt(2 * math.pi) * (deviation + _SIGMA))
        share = 0.5 * density / (density + _EPSILON) * scale
        spread = share * (z**2 / deviation - 1 / (deviation + _SIGMA)) * spec.uc_normalizer
        if spec.iou_loss == "mse":
            move = share * z / deviation
        else:
            slope = boxes.iou_gradient(common.with_area(lesson.predicted), target, spec.iou_loss)
            center = slope[:, :2] + _POINTS[spec.yolo_point] * slope[:, 2:]
            move = torch.cat((center, slope[:, 2:] * mean[:, 2:].exp()), 1)
        move = move * (spec.iou_normalizer * lesson.weight)[:, None]
        values = common.finite(torch.stack((move, spread), 2).flatten(1))
        return values if spec.max_delta is None else values.clamp(-spec.max_delta, spec.max_delta)

    def _inverse(self, lesson: BoxTargets, grid: Grid) -> Tensor:
        """(M, 4) what x, y, w, h should be for the target."""
        x, y, w, h = lesson.target.unbind(-1)
        shift = _POINTS[self.spec.yolo_point]
        x, y = (x + shift * w) * grid.width - lesson.column, (y + shift * h) * grid.height - lesson.row
        w, h = w * self.input_size[0] / lesson.anchor[:, 0], h * self.input_size[1] / lesson.anchor[:, 1]
        return torch.stack((x, y, w.log(), h.log()), -1)
