"""pjreddie's heads for segmentation: [logistic] (a class per pixel) and [iseg] (instances)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from darknet_py.cfg.net import NetSpec
from darknet_py.cfg.options import Options
from darknet_py.counted import counted
from darknet_py.errors import DarknetError
from darknet_py.layers.base import (
    HeadLayer,
    HeadLoss,
    HeadSpec,
    LayerSource,
    Node,
    Shape,
    ShapeError,
    TrainState,
    surrogate,
)


@dataclass(frozen=True, kw_only=True)
class LogisticSpec(HeadSpec):
    """[logistic]: cross entropy of each value with its target (`logistic_layer.c`)."""

    @classmethod
    def parse(cls, options: Options, net: NetSpec, index: int) -> LogisticSpec:
        return cls()

    def source(self, node: Node) -> LayerSource:
        return LayerSource("{0}.sigmoid()")

    def build(self, node: Node) -> nn.Module:
        return LogisticLayer()


class LogisticLayer(HeadLayer):
    """Its delta is truth − output, its cost the sum of −t·log(p) − (1 − t)·log(1 − p)."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the same, float32."""
        return torch.sigmoid(x.float())

    def loss(self, x: Tensor, truth: Tensor, state: TrainState) -> HeadLoss:
        """truth: (B, C, H, W) or flattened, in 0 … 1."""
        output = self(x.detach())
        if truth.numel() != output.numel():
            raise DarknetError(f"expected truth of {tuple(output.shape)}, got {tuple(truth.shape)}")
        truth = truth.to(output).reshape(output.shape)
        entropy = torch.nn.functional.binary_cross_entropy_with_logits(x.detach().float(), truth, reduction="none")
        cost = entropy.sum(dtype=torch.float64)
        return HeadLoss(surrogate(x, truth - output, cost), cost, {"cost": cost})


@dataclass(frozen=True, kw_only=True)
class IsegSpec(HeadSpec):
    """[iseg]: `classes` masks and an embedding of `ids` values per pixel (`iseg_layer.c`)."""

    ids: int

    @classmethod
    def parse(cls, options: Options, net: NetSpec, index: int) -> IsegSpec:
        return cls(classes=options.int("classes", 20, 1), ids=options.int("ids", 32, 0))

    def infer(self, inputs: Sequence[Shape]) -> Shape:
        if inputs[0].c != self.classes + self.ids:
            raise ShapeError(
                f"expected classes + ids = {counted(self.classes + self.ids, 'input channel')}, got {inputs[0].c}"
            )
        return inputs[0]

    def source(self, node: Node) -> LayerSource:
        parts = f"({{0}}[:, :{self.classes}].sigmoid(), {{0}}[:, {self.classes}:])"
        return LayerSource(f"torch.cat({parts}, 1)")

    def build(self, node: Node) -> nn.Module:
        return IsegLayer(self)


class IsegLayer(HeadLayer):
    """Pulls embeddings of one instance to their mean and pushes them away from the means of the others."""

    def __init__(self, spec: IsegSpec):
        super().__init__()
        self.spec = spec

    def forward(self, x: Tensor) -> Tensor:
        """(B, classes + ids, H, W) → the same, float32: logistic on the classes."""
        classes, embedding = x.float().split([self.spec.classes, self.spec.ids], 1)
        return torch.cat((torch.sigmoid(classes), embedding), 1)

    def loss(self, x: Tensor, truth: Tensor, state: TrainState) -> HeadLoss:
        """truth: (B, instances, 1 + H·W) or flattened: class and mask of each instance; a class below 0 ends the list.

        Cost: the sum of squared deltas.
        """
        output = self(x.detach()).flatten(2)
        pixels = output.shape[2]
        if truth.shape[0] != x.shape[0] or truth[0].numel() % (1 + pixels):
            raise DarknetError(f"expected truth of (images, instances, {1 + pixels}), got {tuple(truth.shape)}")
        rows = truth.to(output).reshape(x.shape[0], -1, 1 + pixels)
        delta = torch.stack([self._image_delta(*image) for image in zip(output, rows, strict=True)])
        cost = delta.square().sum(dtype=torch.float64)
        return HeadLoss(surrogate(x, delta.view(x.shape), cost), cost, {"cost": cost})

    def _image_delta(self, output: Tensor, truth: Tensor) -> Tensor:
        """One image. output: (classes + ids, pixels); truth: (instances, 1 + pixels)."""
        ended = (truth[:, 0] < 0).cumsum(0) > 0
        truth = truth[~ended]
        labels, values = truth[:, 0].long(), truth[:, 1:]
        if truth.numel() and int(labels.max()) >= self.spec.classes:
            raise DarknetError(f"expected classes 0…{self.spec.classes - 1}, got {int(labels.max())}")
        inside = values != 0  # (instances, pixels)
        classes, embedding = output.split([self.spec.classes, self.spec.ids], 0)

        # The last of several instances of a class counts at a pixel.
        order = torch.arange(1, len(truth) + 1, device=output.device)[:, None] * inside
        last = order.new_zeros(classes.shape).scatter_reduce(
            0, labels[:, None].expand(-1, output.shape[1]), order, "amax"
        )
        padded = torch.cat((values.new_zeros(1, output.shape[1]), values))
        class_delta = padded.gather(0, last) - classes

        pixels = inside.sum(1)
        mask = inside[pixels > 0].to(output.dtype)
        means = mask @ embedding.t() / pixels[pixels > 0, None]  # (instances, ids)
        signs = torch.where(means[:, :, None] - embedding < 0, -1.0, 1.0)  # (instances, ids, pixels)
        pull = 2 * torch.einsum("ip,izp->zp", mask, signs) - signs.sum(0) * mask.sum(0)
        return torch.cat((class_delta, 0.01 * 0.1 * (pull - embedding)))
