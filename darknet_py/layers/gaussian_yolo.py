"""[Gaussian_yolo]: [yolo] that also predicts the deviation of each coordinate (`gaussian_yolo_layer.c`)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from darknet_py import boxes
from darknet_py.cfg.net import NetSpec
from darknet_py.cfg.options import Options
from darknet_py.layers.base import HIER_THRESH, LayerSource, Node, Predictions
from darknet_py.layers.deltas import finite, with_area
from darknet_py.layers.plain import GaussianYolo
from darknet_py.layers.target_assignment import Grid, TruthBoxes
from darknet_py.layers.yolo import ADVERSARIAL_THRESH, AnchorHeadLayer, AnchorHeadSpec, BoxTargets

_SIGMA = 0.3  # added to a predicted deviation
_EPSILON = 1e-9
_POINTS = {"center": 0.0, "left_top": -0.5, "right_bottom": 0.5}  # from the center, in box sizes


@dataclass(frozen=True, kw_only=True)
class GaussianYoloSpec(AnchorHeadSpec):
    """Darknet's `parse_gaussian_yolo`.

    Input and output: len(mask) · (8 + 1 + classes) channels; per anchor x, y, w, h, each followed by its deviation,
    then objectness and classes. yolo_point: the point of the box that x and y are, whose cell is responsible for
    the box.
    """

    c_type = 29
    box_entries = 8
    nms_kinds = ("default", "greedynms", "diounms", "cornersnms")

    uc_normalizer: float
    yolo_point: str

    @classmethod
    def parse(cls, options: Options, net: NetSpec, index: int) -> GaussianYoloSpec:
        return cls(
            **cls._parse_shared(options),
            uc_normalizer=options.float("uc_normalizer", 1.0),
            yolo_point=options.choice("yolo_point", "center", tuple(_POINTS)),
        )

    def source(self, node: Node) -> LayerSource:
        anchors = [self.anchors[k] for k in self.mask]
        module = f"GaussianYolo({anchors}, {self.scale_x_y!r}, {_POINTS[self.yolo_point]})"
        return LayerSource("{layer}({0}, {image})", module, (GaussianYolo,))

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

    def decode(self, output: Tensor, hier: float = HIER_THRESH) -> Predictions:
        """As [yolo]'s, scores times 1 − mean deviation (`get_gaussian_yolo_detections`)."""
        predictions = super().decode(output, hier)
        deviation = self._entries(output.float())[:, :, 1:8:2].mean(2).flatten(1)
        return predictions._replace(scores=predictions.scores * (1 - deviation).unsqueeze(-1))

    def _decode_boxes(
        self, entries: Tensor, anchor: Tensor, column: Tensor, row: Tensor, width: int, height: int
    ) -> Tensor:
        """`get_gaussian_yolo_box`."""
        x, y, w, h = entries[..., ::2].unbind(-1)
        w, h = w.exp() * anchor[..., 0] / self.input_size[0], h.exp() * anchor[..., 1] / self.input_size[1]
        shift = _POINTS[self.spec.yolo_point]
        return torch.stack(((column + x) / width - shift * w, (row + y) / height - shift * h, w, h), -1)

    def _encode_boxes(self, targets: BoxTargets, grid: Grid) -> Tensor:
        """(M, 4) the x, y, w, h that decode to the target."""
        x, y, w, h = targets.target.unbind(-1)
        shift = _POINTS[self.spec.yolo_point]
        x, y = (x + shift * w) * grid.width - targets.column, (y + shift * h) * grid.height - targets.row
        w, h = w * self.input_size[0] / targets.anchor[:, 0], h * self.input_size[1] / targets.anchor[:, 1]
        return torch.stack((x, y, w.log(), h.log()), -1)

    def _responsible_cell(self, truth: TruthBoxes, grid: Grid) -> tuple[Tensor, Tensor]:
        point = truth.box[:, :2] + _POINTS[self.spec.yolo_point] * truth.box[:, 2:]
        return truth._replace(box=torch.cat((point, truth.box[:, 2:]), 1)).cell(grid.width, grid.height)

    def _background_delta(self, objectness: Tensor, iou: Tensor, ignored: Tensor) -> Tensor:
        spec = self.spec
        smooth = spec.obj_normalizer * (iou**2 - objectness)
        return torch.where(ignored, smooth if spec.objectness_smooth else 0.0, -spec.obj_normalizer * objectness)

    def _assigns_ignored_classes(self) -> bool:
        return self.spec.objectness_smooth

    def _averaged_slots(self, objectness_delta: Tensor) -> Tensor | None:
        """`averages_gaussian_yolo_deltas`."""
        return torch.ones_like(objectness_delta, dtype=torch.bool)

    def _add_adversarial_delta(self, delta: Tensor, entries: Tensor, scale: Tensor, chosen: Tensor) -> None:
        scale, chosen = scale.unsqueeze(2), chosen.unsqueeze(2)
        objectness, classes = entries[:, :, 8:9], entries[:, :, 9:]
        delta[:, :, 8:9] = torch.where(chosen, -scale * self.spec.obj_normalizer * objectness, delta[:, :, 8:9])
        has_object = chosen & (classes * objectness > ADVERSARIAL_THRESH)
        delta[:, :, 9:] = torch.where(has_object, -scale * classes, 0.0)

    def _box_delta(self, targets: BoxTargets, grid: Grid) -> Tensor:
        """(M, 8): ascends the likelihood of the target (`delta_gaussian_yolo_box`), or its IoU for x, y, w, h."""
        spec, entries, target = self.spec, targets.entries, targets.target
        mean, deviation = entries[:, :8:2], entries[:, 1:8:2]
        scale = 2 - target[:, 2:3] * target[:, 3:]
        z = (self._encode_boxes(targets, grid) - mean) / deviation
        density = (-0.5 * z**2).exp() / (math.sqrt(2 * math.pi) * (deviation + _SIGMA))
        likelihood = 0.5 * density / (density + _EPSILON) * scale
        spread = likelihood * (z**2 / deviation - 1 / (deviation + _SIGMA)) * spec.uc_normalizer
        if spec.iou_loss == "mse":
            move = likelihood * z / deviation
        else:
            slope = boxes.iou_gradient(with_area(targets.predicted), target, spec.iou_loss)
            center = slope[:, :2] + _POINTS[spec.yolo_point] * slope[:, 2:]
            move = torch.cat((center, slope[:, 2:] * mean[:, 2:].exp()), 1)
        move = move * (spec.iou_normalizer * targets.weight)[:, None]
        values = finite(torch.stack((move, spread), 2).flatten(1))
        return values if spec.max_delta is None else values.clamp(-spec.max_delta, spec.max_delta)
