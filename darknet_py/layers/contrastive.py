"""[contrastive]: embeddings of one object or class closer, of others apart (Darknet's `softmax_layer.c`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from darknet_py.cfg.net import NetSpec
from darknet_py.cfg.options import Options
from darknet_py.errors import DarknetError
from darknet_py.layers import target_assignment as common
from darknet_py.layers.base import HeadLayer, HeadLoss, HeadSpec, Node, Shape, ShapeError, TrainState, surrogate

_SURE = 0.9999  # what Darknet puts for a share above 1, or of nothing


@dataclass(frozen=True, kw_only=True)
class ContrastiveSpec(HeadSpec):
    """Darknet's `parse_contrastive`.

    Without yolo_layer (an absolute index) the input is one embedding per image and `classes` truths decide which images
    belong together. With it, each anchor of that [yolo] has an embedding in each cell, and the tracks of the objects
    decide. temperature divides the cosine; max_delta clips; contrastive_neg_max limits the negatives per object.
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
    share: Tensor  # P_constrastive: of what is like j, how much is i
    towards: Tensor  # how often i is drawn to j
    away: Tensor  # how often i is pushed from k


class ContrastiveLayer(HeadLayer):
    """Hands its input on, and teaches it in training."""

    is_contrastive = True

    def __init__(self, spec: ContrastiveSpec):
        super().__init__()
        self.spec = spec

    def forward(self, x: Tensor) -> Tensor:
        return x

    def loss(self, x: Tensor, truth: Tensor, state: TrainState) -> HeadLoss:
        """truth: (B, classes) for classifiers; for detectors the rows that [yolo] takes, with a seventh column, the
        track: objects of one track are the same thing. Rows of six columns have no tracks and teach nothing here."""
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            spec, values = self.spec, x.float()
            if spec.yolo_layer is None:
                delta, right = self._of_images(values.flatten(1), truth, state)
                delta = delta.reshape(values.shape)
            else:
                delta, right = self._of_objects(values, state)
            delta = delta * spec.cls_normalizer
            if spec.max_delta is not None:
                delta = delta.clamp(-spec.max_delta, spec.max_delta)
            cost = common.squares(delta)
        return HeadLoss(surrogate(x, delta, cost), cost, {"accuracy": right})

    def _of_images(self, z: Tensor, truth: Tensor, state: TrainState) -> tuple[Tensor, Tensor]:
        """z: (B, size)."""
        images = torch.arange(len(z), device=z.device)
        if truth.shape[:1] != z.shape[:1]:
            raise DarknetError(f"[contrastive]: expected truth of {len(z)} images, got {len(truth)}")
        above = truth.to(z.device).flatten(1) > self.spec.label_smooth_eps
        last = above.shape[1] - 1 - above.flip(1).int().argmax(1)
        label = torch.where(above.any(1), last, images % 2 if state.adversarial else images // 2)

        same_step = self._same_step(images, len(z))
        off = ~torch.eye(len(z), dtype=torch.bool, device=z.device)
        cosine = _cosine(z) * (same_step & off)
        share = self._share(cosine, same_step & off)
        towards = ((label[:, None] == label) & off).float()
        away = (towards.sum(1, keepdim=True) - towards) * off
        pairs = Pairs(cosine, share, towards, away)
        return self._delta(z, label, pairs), _accuracy(cosine, label, same_step & off)

    def _of_objects(self, x: Tensor, state: TrainState) -> tuple[Tensor, Tensor]:
        """x: (B, anchors · size, H, W)."""
        tracks = state.tracks.get(self.spec.yolo_layer or 0)
        delta = torch.zeros_like(x)
        if tracks is None:
            return delta, x.new_zeros(())
        images, anchors, height, width = tracks.track.shape
        if x.shape[2:] != (height, width) or x.shape[1] % anchors:
            expected = f"{width} x {height} cells and channels for {anchors} anchors"
            raise DarknetError(f"[contrastive]: expected {expected}, as its [yolo] has, got {tuple(x.shape)}")
        image, anchor, row, column = (tracks.track >= 0).nonzero(as_tuple=True)
        at = (image, anchor, slice(None), row, column)
        if not len(image):
            return delta, x.new_zeros(())
        z = x.unflatten(1, (anchors, -1))[at]
        label, kind = tracks.track[at[0], at[1], row, column], tracks.label[at[0], at[1], row, column]

        off = ~torch.eye(len(z), dtype=torch.bool, device=z.device)
        compared = off & (kind[:, None] == kind) & self._same_step(image, images)
        cosine = _cosine(z)
        share = self._share(cosine, compared)
        share = torch.where(share > 1, _SURE, share)  # so is the share of nothing
        same = (label[:, None] == label) & off
        pairs = Pairs(cosine, share, (same & compared).float(), self._negatives(same, label, kind, compared))
        delta.unflatten(1, (anchors, -1))[at] = self._delta(z, label, pairs)
        return delta, _accuracy(cosine, label, compared)

    def _share(self, cosine: Tensor, compared: Tensor) -> Tensor:
        like = torch.where(compared, (cosine.double() / self.spec.temperature).exp(), 0.0)
        return torch.where(compared, like / (like.sum(0) - like), 0.0).float()

    def _same_step(self, image: Tensor, images: int) -> Tensor:
        step = image // max(images // self.spec.time_steps, 1)
        return step[:, None] == step

    def _negatives(self, same: Tensor, label: Tensor, kind: Tensor, compared: Tensor) -> Tensor:
        """(M, M) how often i is pushed from k: once for each positive j of i, up to contrastive_neg_max in all.

        Darknet goes through j, then k; it also counts those k that it has not compared with i, and stops at the
        first compared one that reaches the limit (`grad_contrastive_loss_negative_f`).
        """
        most = max(int(same.sum(1).max()), 1)
        positives = same.int().argsort(dim=1, descending=True, stable=True)[:, :most]
        real = same.gather(1, positives)
        index = torch.arange(len(label), device=label.device)
        away = torch.zeros(same.shape, device=same.device)
        # (M, positives, M), a few million at a time
        for rows in index.split(max((1 << 22) // (most * len(index)), 1)):
            j = positives[rows]
            met = real[rows, :, None] & (index != rows[:, None, None]) & (index != j[:, :, None])
            met &= (label != label[rows, None, None]) & (kind == kind[j][:, :, None])
            count = met.flatten(1).cumsum(1)
            used = met.flatten(1) & compared[rows].repeat(1, most)
            late = used & (count >= self.spec.contrastive_neg_max)
            used &= ~late | (late.cumsum(1) == 1)
            away[rows] = used.unflatten(1, (most, -1)).sum(1).float()
        return away

    def _delta(self, z: Tensor, label: Tensor, pairs: Pairs) -> Tensor:
        """(M, size) what to add to each embedding."""
        others = (label[:, None] == label).sum(1) - 1
        factor = 1 / (others * self.spec.temperature * z.norm(dim=1))
        pull = pairs.towards * (1 - pairs.share)
        push = pairs.away * pairs.share
        turned = ((push - pull) * pairs.cosine).sum(1, keepdim=True)
        return common.finite(factor[:, None] * (turned * z + (pull - push) @ z))


def _cosine(z: Tensor) -> Tensor:
    """(M, M) cosine similarity, 0 for a vector of zeros."""
    length = z.norm(dim=1)
    product = length[:, None] * length
    return torch.where(product > 0, (z @ z.T) / product, 0.0)


def _accuracy(cosine: Tensor, label: Tensor, compared: Tensor) -> Tensor:
    """Share of those with a positive and a negative whose nearest is a positive."""
    same = label[:, None] == label
    positive = torch.where(compared & same, cosine, -10.0).amax(1)
    negative = torch.where(compared & ~same, cosine, -10.0).amax(1)
    both = (positive >= -1) & (negative >= -1)
    return common.mean_where((positive > negative).float(), both)
