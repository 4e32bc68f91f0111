"""[detection]: YOLO version 1's head, one vector per image (Darknet's `detection_layer.c`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from darknet_py import boxes
from darknet_py.cfg.net import NetSpec
from darknet_py.cfg.options import Options
from darknet_py.counted import counted
from darknet_py.errors import DarknetError
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
from darknet_py.layers.deltas import masked_mean, sum_of_squares
from darknet_py.layers.foreign import check_coords
from darknet_py.layers.plain import decode_cells
from darknet_py.layers.target_assignment import SlotGroups, TruthBoxes

_RANDOM_IMAGES = 64000  # until then random=1 picks the responsible box at random
_FORCED_AREA = 0.1  # forced=1: smaller objects belong to the second box


@dataclass(frozen=True, kw_only=True)
class DetectionSpec(DetectionHeadSpec):
    """Darknet's `parse_detection`.

    The input and output of an image is a vector: classes of each of the side · side cells, then num objectness values
    of each, then num boxes of each (x and y within the cell, w and h of the image, or their roots with sqrt=1).
    """

    vector = True

    num: int
    side: int
    rescore: bool
    softmax: bool
    sqrt: bool
    forced: bool
    coord_scale: float
    object_scale: float
    noobject_scale: float
    class_scale: float

    @classmethod
    def parse(cls, options: Options, net: NetSpec, index: int) -> DetectionSpec:
        check_coords(options, 1)
        if options.flag("reorg"):
            options.warn("reorg has no effect, as in C", "reorg")
        return cls(
            classes=options.int("classes", 1, 1),
            num=options.int("num", 1, 1),
            side=options.int("side", 7, 1),
            rescore=options.flag("rescore"),
            softmax=options.flag("softmax"),
            sqrt=options.flag("sqrt"),
            forced=options.flag("forced"),
            random=options.float("random", 0.0),
            coord_scale=options.float("coord_scale", 1.0),
            object_scale=options.float("object_scale", 1.0),
            noobject_scale=options.float("noobject_scale", 1.0),
            class_scale=options.float("class_scale", 1.0),
            max_boxes=options.int("max", 200, 1),
            jitter=options.float("jitter", 0.2),
            resize=options.float("resize", 1.0),
        )

    def channels_for(self, classes: int) -> int:
        return self.side**2 * (5 * self.num + classes)

    def infer(self, inputs: Sequence[Shape]) -> Shape:
        expected = self.channels_for(self.classes)
        if inputs[0].size != expected:
            reason = f"side {self.side} x {self.side} cells x (num {self.num} x 5 + {counted(self.classes, 'class')})"
            raise ShapeError(f"expected {expected} inputs ({reason}), got {inputs[0].size}")
        return Shape(expected, 1, 1)

    def source(self, node: Node) -> LayerSource:
        arguments = f"{self.side}, {self.num}, {self.classes}, square={self.sqrt}, softmax={self.softmax}"
        return LayerSource(f"decode_cells({{0}}, {arguments})", "", (decode_cells,))

    def build(self, node: Node) -> nn.Module:
        return DetectionLayer(self)


class OutputParts(NamedTuple):
    """The parts of an output vector, for B images, L cells and n boxes per cell."""

    classes: Tensor  # (B, L, classes)
    objectness: Tensor  # (B, L, n)
    boxes: Tensor  # (B, L, n, 4)


class DetectionLayer(HeadLayer):
    """Decoding and loss of [detection]."""

    def __init__(self, spec: DetectionSpec):
        super().__init__()
        self.spec = spec

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C · H · W, 1, 1), float32; with softmax=1 over each cell's classes."""
        flat = x.float().flatten(1)
        if self.spec.softmax:
            parts = self._parts(flat)
            flat = torch.cat((parts.classes.softmax(2).flatten(1), flat[:, parts.classes[0].numel() :]), 1)
        return flat[:, :, None, None]

    def decode(self, output: Tensor, hier: float = HIER_THRESH) -> Predictions:
        """Candidates of all cells (`get_detection_detections`), in the order row, column, box.

        Darknet thresholds scores only here, so that the objectness is the best score where that is higher.
        """
        spec, parts = self.spec, self._parts(output.float().flatten(1))
        cell = torch.arange(spec.side**2, device=output.device)[:, None]
        x, y, w, h = parts.boxes.unbind(-1)
        if spec.sqrt:
            w, h = w**2, h**2
        box = torch.stack(((x + cell % spec.side) / spec.side, (y + cell // spec.side) / spec.side, w, h), -1)
        scores = (parts.objectness.unsqueeze(-1) * parts.classes.unsqueeze(2)).flatten(1, 2)
        objectness = torch.maximum(parts.objectness.flatten(1), scores.amax(-1))
        return Predictions(box.flatten(1, 2), objectness, scores)

    def loss(self, x: Tensor, truth: Tensor, state: TrainState) -> HeadLoss:
        """truth: (N, 6) rows (image, class, cx, cy, w, h) relative to the network input, or Darknet's own grid.

        The grid is (B, side · side · (5 + classes)): per cell, row by row, whether there is an object, its class
        one-hot, x and y within the cell, w and h.
        """
        with torch.no_grad():
            output = self(x).flatten(1)
            delta, metrics = self._compute_delta(self._parts(output), self._grid(truth, len(output)), state)
            cost = sum_of_squares(delta)
        return HeadLoss(surrogate(x, delta.reshape(x.shape), cost), cost, metrics)

    def _parts(self, flat: Tensor) -> OutputParts:
        spec, cells = self.spec, self.spec.side**2
        classes, objectness, box = flat.split((cells * spec.classes, cells * spec.num, cells * spec.num * 4), 1)
        return OutputParts(
            classes.unflatten(1, (cells, spec.classes)),
            objectness.unflatten(1, (cells, spec.num)),
            box.unflatten(1, (cells, spec.num, 4)),
        )

    def _grid(self, truth: Tensor, images: int) -> Tensor:
        """(B, L, 1 + classes + 4) float32."""
        cells, entries = self.spec.side**2, 5 + self.spec.classes
        if truth.numel() == images * cells * entries and truth.shape[0] == images:
            return truth.float().reshape(images, cells, entries)
        if truth.dim() != 2 or truth.shape[1] < 6:
            expected = f"(N, 6) or ({images}, {cells * entries})"
            raise DarknetError(f"[detection]: expected truth of {expected}, got {tuple(truth.shape)}")
        return self._from_rows(truth, images)

    def _from_rows(self, rows: Tensor, images: int) -> Tensor:
        """`fill_truth_region`: the first object of a cell counts."""
        spec, cells = self.spec, self.spec.side**2
        truth = TruthBoxes.from_rows(rows, spec.classes)
        column, row = truth.cell(spec.side, spec.side)
        slots = torch.where(truth.valid, (truth.image * spec.side + row) * spec.side + column, images * cells)
        one_hot = torch.zeros(len(slots), spec.classes, device=rows.device).scatter(1, truth.label[:, None], 1.0)
        offset = truth.box[:, :2] * spec.side - torch.stack((column, row), 1)
        values = torch.cat((torch.ones_like(offset[:, :1]), one_hot, offset, truth.box[:, 2:]), 1)
        groups = SlotGroups.from_slots(slots)
        grid = values.new_zeros(images * cells + 1, values.shape[1])
        grid[torch.where(groups.first, groups.slots, images * cells)] = values[groups.order]
        return grid[:-1].reshape(images, cells, -1)

    def _compute_delta(self, output: OutputParts, truth: Tensor, state: TrainState) -> tuple[Tensor, dict[str, Tensor]]:
        """(B, outputs) Darknet's l.delta, and the metrics for the log (`forward_detection_layer`)."""
        spec = self.spec
        has_object = truth[..., 0].long() != 0
        one_hot = truth[..., 1 : 1 + spec.classes]
        target = truth[..., 1 + spec.classes :]
        predicted = output.boxes
        if spec.sqrt:
            predicted = torch.cat((predicted[..., :2], predicted[..., 2:] ** 2), -1)
        # Both boxes are in the same cell, which is therefore left out; x and y are in cells.
        unit = predicted.new_tensor((spec.side, spec.side, 1, 1))
        iou = boxes.iou(predicted / unit, (target / unit).unsqueeze(2))
        best = self._responsible(predicted / unit, target / unit, iou, state)
        chosen = has_object.unsqueeze(2) & (best.unsqueeze(2) == torch.arange(spec.num, device=best.device))

        objectness = output.objectness
        objectness_target = iou if spec.rescore else torch.ones_like(objectness)
        object_delta = spec.object_scale * (objectness_target - objectness)
        objectness_delta = torch.where(chosen, object_delta, -spec.noobject_scale * objectness)
        class_delta = torch.where(has_object.unsqueeze(2), spec.class_scale * (one_hot - output.classes), 0.0)
        size = target[..., 2:].sqrt() if spec.sqrt else target[..., 2:]
        offset = torch.cat((target[..., :2], size), -1).unsqueeze(2) - output.boxes
        box_delta = torch.where(chosen.unsqueeze(3), spec.coord_scale * offset, 0.0)
        class_probability = (output.classes * one_hot).sum(2)
        return torch.cat((class_delta.flatten(1), objectness_delta.flatten(1), box_delta.flatten(1)), 1), {
            "iou": masked_mean(iou, chosen),
            "class": masked_mean(class_probability, has_object),
            "objectness": masked_mean(objectness, chosen),
            "background": objectness.mean(),
            "count": has_object.sum(),
        }

    def _responsible(self, predicted: Tensor, target: Tensor, iou: Tensor, state: TrainState) -> Tensor:
        """(B, L) the responsible box of the cell: the one with the largest IoU; without any, the nearest."""
        spec = self.spec
        if spec.random and state.seen + len(predicted) < _RANDOM_IMAGES:
            return torch.randint(spec.num, iou.shape[:2], device=iou.device)
        if spec.forced:
            small = target[..., 2] * target[..., 3] < _FORCED_AREA
            return small.long().clamp(max=spec.num - 1)
        distance = ((predicted - target.unsqueeze(2)) ** 2).sum(3)
        return torch.where((iou > 0).any(2), iou.argmax(2), distance.argmin(2))
