"""[contrastive]: pulls embeddings of one object or class together and pushes others apart (`softmax_layer.c`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from darknet_py.cfg.net import NetSpec
from darknet_py.cfg.options import Options
from darknet_py.counted import counted
from darknet_py.errors import DarknetError
from darknet_py.layers.base import HeadLayer, HeadLoss, HeadSpec, Node, Shape, ShapeError, TrainState, surrogate
from darknet_py.layers.deltas import finite, masked_mean, sum_of_squares

_MAX_PROBABILITY = 0.9999  # Darknet's value where the sum of the others is 0 or the result is above 1


@dataclass(frozen=True, kw_only=True)
class ContrastiveSpec(HeadSpec):
    """Darknet's `parse_contrastive`.

    Without yolo_layer (an absolute index) the input is one embedding per image, and images of one of the `classes`
    belong together. With it, each anchor of that [yolo] has an embedding in each cell, and embeddings of one track
    belong together. temperature divides the cosine; max_delta clips; contrastive_neg_max limits the negatives of an
    object.
    """

    temperature: float
    cls_normalizer: float
    max_delta: float | None
    contrastive_neg_max: int
    time_steps: int
    label_smooth_eps: float

    @classmethod
    def parse(cls, options: Options, net: NetSpec, index: int) -> ContrastiveSpec:
        yolo = options.int("yolo_layer", 0)
        yolo = index + yolo if yolo < 0 else yolo
        if not 0 <= yolo < index:
            options.error(
                f"yolo_layer: expected a [yolo] before layer {index}, got {options.text('yolo_layer')!r}", "yolo_layer"
            )
        temperature = options.float("temperature", 1.0)
        if temperature <= 0:
            options.error(f"temperature: expected a number above 0, got {options.text('temperature')!r}", "temperature")
        return cls(
            classes=options.int("classes", 1000, 1),
            yolo_layer=yolo or None,
            temperature=temperature,
            cls_normalizer=options.float("cls_normalizer", 1.0),
            max_delta=options.float("max_delta", 0.0, 0.0) or None,
            contrastive_neg_max=options.int("contrastive_neg_max", 3, 1),
            time_steps=net.time_steps,
            label_smooth_eps=net.label_smooth_eps,
        )

    def infer(self, inputs: Sequence[Shape]) -> Shape:
        (x,) = inputs
        if self.yolo_layer is None and (x.h, x.w) != (1, 1):
            raise ShapeError(f"expected one embedding per image (1 x 1 x {x.c}), got {x}; or set yolo_layer=")
        return x

    def build(self, node: Node) -> nn.Module:
        return ContrastiveLayer(self)


class Pairs(NamedTuple):
    """All (M, M) over the embeddings."""

    cosine: Tensor
    probability: Tensor  # C's P_constrastive: softmax of i among the embeddings compared with j
    pull: Tensor  # how often i is pulled to j
    push: Tensor  # how often i is pushed away from k


class ContrastiveLayer(HeadLayer):
    """Passes its input on; its loss moves the embeddings."""

    is_contrastive = True

    def __init__(self, spec: ContrastiveSpec):
        super().__init__()
        self.spec = spec

    def forward(self, x: Tensor) -> Tensor:
        return x

    def loss(self, x: Tensor, truth: Tensor, state: TrainState) -> HeadLoss:
        """truth: (B, classes) for classifiers; for detectors the rows that [yolo] takes.

        Their seventh column is the track of the object; without it the loss is 0.
        """
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            spec, values = self.spec, x.float()
            if spec.yolo_layer is None:
                delta, accuracy = self._image_delta(values.flatten(1), truth, state)
                delta = delta.reshape(values.shape)
            else:
                delta, accuracy = self._object_delta(values, state)
            delta = delta * spec.cls_normalizer
            if spec.max_delta is not None:
                delta = delta.clamp(-spec.max_delta, spec.max_delta)
            cost = sum_of_squares(delta)
        return HeadLoss(surrogate(x, delta, cost), cost, {"accuracy": accuracy})

    def _image_delta(self, z: Tensor, truth: Tensor, state: TrainState) -> tuple[Tensor, Tensor]:
        """(delta, accuracy). z: (B, size)."""
        images = torch.arange(len(z), device=z.device)
        if truth.shape[:1] != z.shape[:1]:
            raise DarknetError(f"[contrastive]: expected truth of {counted(len(z), 'image')}, got {len(truth)}")
        is_set = truth.to(z.device).flatten(1) > self.spec.label_smooth_eps
        last = is_set.shape[1] - 1 - is_set.flip(1).int().argmax(1)
        label = torch.where(is_set.any(1), last, images % 2 if state.adversarial else images // 2)

        different = ~torch.eye(len(z), dtype=torch.bool, device=z.device)
        compared = self._same_step(images, len(z)) & different
        cosine = _cosine(z) * compared
        pull = ((label[:, None] == label) & different).float()
        push = (pull.sum(1, keepdim=True) - pull) * different
        pairs = Pairs(cosine, self._probability(cosine, compared), pull, push)
        return self._pairs_delta(z, label, pairs), _accuracy(cosine, label, compared)

    def _object_delta(self, x: Tensor, state: TrainState) -> tuple[Tensor, Tensor]:
        """(delta, accuracy). x: (B, anchors · size, H, W)."""
        tracks = state.tracks.get(self.spec.yolo_layer or 0)
        delta = torch.zeros_like(x)
        if tracks is None:
            return delta, x.new_zeros(())
        images, anchors, height, width = tracks.track.shape
        if x.shape[2:] != (height, width) or x.shape[1] % anchors:
            expected = f"{width} x {height} cells and channels for {counted(anchors, 'anchor')}"
            raise DarknetError(f"[contrastive]: expected {expected}, as its [yolo] has, got {tuple(x.shape)}")
        image, anchor, row, column = (tracks.track >= 0).nonzero(as_tuple=True)
        at = (image, anchor, slice(None), row, column)
        if not len(image):
            return delta, x.new_zeros(())
        z = x.unflatten(1, (anchors, -1))[at]
        track, label = tracks.track[image, anchor, row, column], tracks.label[image, anchor, row, column]

        different = ~torch.eye(len(z), dtype=torch.bool, device=z.device)
        compared = different & (label[:, None] == label) & self._same_step(image, images)
        cosine = _cosine(z)
        probability = self._probability(cosine, compared)
        probability = torch.where(probability > 1, _MAX_PROBABILITY, probability)  # infinity too
        same = (track[:, None] == track) & different
        pairs = Pairs(cosine, probability, (same & compared).float(), self._pushes(same, track, label, compared))
        delta.unflatten(1, (anchors, -1))[at] = self._pairs_delta(z, track, pairs)
        return delta, _accuracy(cosine, track, compared)

    def _probability(self, cosine: Tensor, compared: Tensor) -> Tensor:
        """`P_constrastive`: exp(cosine / temperature) of each pair over the sum of the others."""
        similarity = torch.where(compared, (cosine.double() / self.spec.temperature).exp(), 0.0)
        return torch.where(compared, similarity / (similarity.sum(0) - similarity), 0.0).float()

    def _same_step(self, image: Tensor, images: int) -> Tensor:
        step = image // max(images // self.spec.time_steps, 1)
        return step[:, None] == step

    def _pushes(self, same: Tensor, track: Tensor, label: Tensor, compared: Tensor) -> Tensor:
        """(M, M) how often i is pushed away from k: once for each positive j of i, up to contrastive_neg_max in all.

        Darknet goes through j, then k; it also counts those k that it has not compared with i, and stops at the
        first compared one that reaches the limit (`grad_contrastive_loss_negative_f`).
        """
        max_positives = max(int(same.sum(1).max()), 1)
        positives = same.int().argsort(dim=1, descending=True, stable=True)[:, :max_positives]
        is_positive = same.gather(1, positives)
        index = torch.arange(len(track), device=label.device)
        pushes = torch.zeros(same.shape, device=same.device)
        # (M, positives, M), a few million at a time
        for rows in index.split(max((1 << 22) // (max_positives * len(index)), 1)):
            j = positives[rows]
            counted = is_positive[rows, :, None] & (index != rows[:, None, None]) & (index != j[:, :, None])
            counted &= (track != track[rows, None, None]) & (label == label[j][:, :, None])
            count = counted.flatten(1).cumsum(1)
            used = counted.flatten(1) & compared[rows].repeat(1, max_positives)
            at_limit = used & (count >= self.spec.contrastive_neg_max)
            used &= ~at_limit | (at_limit.cumsum(1) == 1)
            pushes[rows] = used.unflatten(1, (max_positives, -1)).sum(1).float()
        return pushes

    def _pairs_delta(self, z: Tensor, label: Tensor, pairs: Pairs) -> Tensor:
        """(M, size) delta of each embedding."""
        others = (label[:, None] == label).sum(1) - 1
        factor = 1 / (others * self.spec.temperature * z.norm(dim=1))
        pull = pairs.pull * (1 - pairs.probability)
        push = pairs.push * pairs.probability
        radial = ((push - pull) * pairs.cosine).sum(1, keepdim=True)
        return finite(factor[:, None] * (radial * z + (pull - push) @ z))


def _cosine(z: Tensor) -> Tensor:
    """(M, M) cosine similarity, 0 for a vector of zeros."""
    length = z.norm(dim=1)
    product = length[:, None] * length
    return torch.where(product > 0, (z @ z.T) / product, 0.0)


def _accuracy(cosine: Tensor, label: Tensor, compared: Tensor) -> Tensor:
    """The fraction of embeddings, of those with a positive and a negative, whose nearest one is a positive."""
    same = label[:, None] == label
    positive = torch.where(compared & same, cosine, -10.0).amax(1)
    negative = torch.where(compared & ~same, cosine, -10.0).amax(1)
    has_both = (positive >= -1) & (negative >= -1)
    return masked_mean((positive > negative).float(), has_both)
