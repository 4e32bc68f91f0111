"""[softmax] and [cost]: losses of classifiers and of plain regression (Darknet's `softmax_layer.c`, `cost_layer.c`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from darknet_py.cfg.net import NetSpec
from darknet_py.cfg.options import Options
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
    is_tracing,
    surrogate,
)
from darknet_py.layers.class_hierarchy import ClassHierarchy
from darknet_py.layers.plain import ClassTree

_IGNORED = -1234.0  # Darknet's SECRET_NUM: a target that does not count


@dataclass(frozen=True, kw_only=True)
class SoftmaxSpec(HeadSpec):
    """Darknet's `parse_softmax`. The input is one vector per image, split into `groups` of equal length."""

    vector = True

    temperature: float
    noloss: bool

    @classmethod
    def parse(cls, options: Options, net: NetSpec, index: int) -> SoftmaxSpec:
        temperature = options.float("temperature", 1.0)
        if temperature == 0:
            options.error("temperature: expected a number other than 0", "temperature")
        options.float("spatial")
        return cls(
            groups=options.int("groups", 1, 1),
            temperature=temperature,
            noloss=options.flag("noloss"),
            tree=options.text("tree"),
        )

    def infer(self, inputs: Sequence[Shape]) -> Shape:
        (x,) = inputs
        if x.size % self.groups:
            raise ShapeError(f"expected inputs that divide into {self.groups} groups, got {x.size}")
        return Shape(x.size, 1, 1)

    def source(self, node: Node) -> LayerSource:
        groups = "" if self.groups == 1 else f".unflatten(1, ({self.groups}, -1))"
        heat = "" if self.temperature == 1 else f".div({self.temperature!r})"
        if self.tree:
            tree = {"parent": ClassHierarchy.read(self.tree, node.output.size).parent}
            output = f"{{layer}}.softmax({{0}}.flatten(1){heat})[:, :, None, None]"
            return LayerSource(output, f"ClassTree({node.output.size})", (ClassTree,), buffers=tree)
        return LayerSource(f"{{0}}.flatten(1){groups}{heat}.softmax(-1).flatten(1)[:, :, None, None]")

    def build(self, node: Node) -> nn.Module:
        return SoftmaxLayer(self, ClassHierarchy.read(self.tree, node.output.size) if self.tree else None)


class _StraightThrough(torch.autograd.Function):
    """Replaces x by `output` and passes gradients back to x unchanged, as Darknet's softmax does."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, output: Tensor) -> Tensor:
        ctx.dtype = x.dtype
        ctx.shape = x.shape
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0].reshape(ctx.shape).to(ctx.dtype), None


class SoftmaxLayer(HeadLayer):
    """Softmax over all values of an image, or over each group. Its delta is truth − output.

    spatial=1 makes no difference, as on C's CPU build (the GPU build reads past its array then).
    """

    def __init__(self, spec: SoftmaxSpec, tree: ClassHierarchy | None):
        super().__init__()
        self.spec = spec
        self.tree = tree

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C · H · W, 1, 1), float32."""
        if torch.is_grad_enabled() and x.requires_grad and not is_tracing():
            outputs: Tensor = _StraightThrough.apply(x, self._probabilities(x.detach()))  # type: ignore[no-untyped-call]
            return outputs
        return self._probabilities(x)

    def _probabilities(self, x: Tensor) -> Tensor:
        flat = x.float().flatten(1)
        if self.tree is not None:
            result = self.tree.softmax(flat, 1, self.spec.temperature)
        else:
            result = (flat.unflatten(1, (self.spec.groups, -1)) / self.spec.temperature).softmax(2).flatten(1)
        return result[:, :, None, None]

    def loss(self, x: Tensor, truth: Tensor, state: TrainState) -> HeadLoss:
        """truth: (B, outputs), one-hot or any weights. Cost: −log of the output wherever the truth is not 0."""
        if self.spec.noloss:
            zero = torch.zeros((), dtype=torch.float64, device=x.device)
            return HeadLoss(surrogate(x, torch.zeros_like(x), zero), zero, {})
        output = self._probabilities(x.detach()).flatten(1)
        truth = _targets(truth, output)
        counted = truth != 0
        if self.tree is not None:
            counted = counted & (truth != _IGNORED)
        cost = torch.where(counted, -output.log(), 0.0).sum(dtype=torch.float64)
        delta = truth - output
        if self.tree is not None:
            delta = torch.where(truth == _IGNORED, 0.0, delta)
        correct = (output.argmax(1) == truth.argmax(1)).float().mean()
        return HeadLoss(surrogate(x, delta.reshape(x.shape), cost), cost, {"accuracy": correct, "cost": cost})


@dataclass(frozen=True, kw_only=True)
class CostSpec(HeadSpec):
    """Darknet's `parse_cost`.

    type: sse, masked (targets of −1234 do not count), smooth (Huber's) and, as in pjreddie's C, L1, seg (targets of 0
    count `noobj` times) and wgan (the output itself, to be raised where the target is above 0 and lowered elsewhere).
    ratio is read and has no effect, as in C (which computes a threshold from it and then sets it to 0).
    """

    vector = True

    type: str
    scale: float
    noobj: float

    @classmethod
    def parse(cls, options: Options, net: NetSpec, index: int) -> CostSpec:
        options.float("ratio")
        kinds = ("sse", "masked", "smooth", "L1", "seg", "wgan")
        return cls(
            type=options.choice("type", "sse", kinds),
            scale=options.float("scale", 1.0),
            noobj=options.float("noobj", 1.0),
        )

    def infer(self, inputs: Sequence[Shape]) -> Shape:
        return Shape(inputs[0].size, 1, 1)

    def source(self, node: Node) -> LayerSource:
        return LayerSource("{0}.flatten(1)[:, :, None, None]")

    def build(self, node: Node) -> nn.Module:
        return CostLayer(self)


class CostLayer(HeadLayer):
    """Passes its input on; its delta is scale · (truth − input), of size 1 at most for smooth and always for L1."""

    def __init__(self, spec: CostSpec):
        super().__init__()
        self.spec = spec

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C · H · W, 1, 1), the same values. Darknet keeps no output here."""
        return x.flatten(1)[:, :, None, None]

    def loss(self, x: Tensor, truth: Tensor, state: TrainState) -> HeadLoss:
        """truth: (B, outputs)."""
        with torch.no_grad():
            output = x.float().flatten(1)
            truth = _targets(truth, output)
            delta = truth - output
            if self.spec.type == "masked":
                delta = torch.where(truth == _IGNORED, 0.0, delta)
            error = delta**2
            if self.spec.type == "smooth":
                size = delta.abs()
                error = torch.where(size < 1, error, 2 * size - 1)
                delta = delta.clamp(-1, 1)
            elif self.spec.type == "L1":
                error = delta.abs()
                delta = torch.where(delta > 0, 1.0, -1.0)
            elif self.spec.type == "seg":
                weight = torch.where(truth == 0, self.spec.noobj, 1.0)
                error, delta = error * weight, delta * weight
            elif self.spec.type == "wgan":
                error = torch.where(truth != 0, -output, output)
                delta = torch.where(truth > 0, 1.0, -1.0)
            cost = error.sum(dtype=torch.float64)
        return HeadLoss(surrogate(x, (self.spec.scale * delta).reshape(x.shape), cost), cost, {"cost": cost})


def _targets(truth: Tensor, output: Tensor) -> Tensor:
    """truth as (B, outputs) float32. Raises DarknetError where the number of values differs."""
    if truth.shape[:1] != output.shape[:1] or truth.flatten(1).shape != output.shape:
        raise DarknetError(f"expected truth of {tuple(output.shape)} (images, outputs), got {tuple(truth.shape)}")
    return truth.to(output.device).float().flatten(1)
