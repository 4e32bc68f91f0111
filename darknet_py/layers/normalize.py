"""Batch normalization (as a part of other layers and as [batchnorm]), [normalization] and [l2norm]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darknet_py.cfg.net import NetSpec
from darknet_py.cfg.options import Options
from darknet_py.layers.base import LayerArray, LayerSource, Node, Shape, Spec, StatefulLayer
from darknet_py.layers.plain import local_response_norm
from darknet_py.layers.sync_norm import SyncBatchNorm

EPS = 1e-5  # added to the variance, inside the root (`normalize_cpu`)
MOMENTUM = 0.01  # of the running statistics: C Darknet's GPU build, which trained the published weights


def batch_norm_arrays(n: int) -> tuple[LayerArray, ...]:
    """scale, mean, variance, in the file order of all layer types."""
    return (
        LayerArray("scale", "scale", (n,)),
        LayerArray("mean", "mean", (n,)),
        LayerArray("variance", "variance", (n,)),
    )


def norm_names(prefix: str) -> dict[str, str]:
    """Where torch's batch norm has our arrays. prefix: of the names, with dot."""
    names = {"bias": "bias", "scale": "weight", "mean": "running_mean", "variance": "running_var"}
    return {ours: prefix + theirs for ours, theirs in names.items()}


class NormalizedLayer(nn.Module):
    """Base of layers that may have batch norm: `add_batch_norm` adds its arrays, `batch_norm` applies it."""

    bias: nn.Parameter
    scale: nn.Parameter
    mean: Tensor
    variance: Tensor
    momentum = MOMENTUM
    has_batch_norm = False
    synchronized = False  # in training: statistics over the mini-batches of all processes

    def add_batch_norm(self, n: int) -> None:
        """Adds scale, mean and variance of n channels (the bias is the shift).

        The variance starts at 1: C Darknet's 0 makes an untrained network divide by sqrt(1e-5) at every layer.
        """
        self.scale = nn.Parameter(torch.ones(n))
        self.register_buffer("mean", torch.zeros(n))
        self.register_buffer("variance", torch.ones(n))
        self.has_batch_norm = True

    def batch_norm(self, x: Tensor) -> Tensor:
        """Normalizes x (B, C, …) with the batch's statistics in training, with the running ones otherwise."""
        if self.synchronized and self.training:
            parameters = (self.scale, self.bias, self.mean, self.variance)
            normalized: Tensor = SyncBatchNorm.apply(x, *parameters, self.momentum, EPS)  # type: ignore[no-untyped-call]
            return normalized
        return F.batch_norm(x, self.mean, self.variance, self.scale, self.bias, self.training, self.momentum, EPS)


class CrossBatchNorm(StatefulLayer):
    """Cross-iteration batch norm (cbn=1): statistics averaged over the mini-batches of one update so far.

    `fast_v_cbn_gpu`: mean and mean square are running averages over the mini-batches 1 … k of the update; no gradient
    passes to earlier ones. Outside training it is batch norm with the running statistics.
    """

    mean: Tensor
    square: Tensor

    def __init__(self, n: int, net: NetSpec):
        super().__init__()
        self.mini_batch = net.mini_batch
        self.subdivisions = net.subdivisions
        self.register_buffer("mean", torch.zeros(n), persistent=False)
        self.register_buffer("square", torch.zeros(n), persistent=False)

    def forward(self, norm: NormalizedLayer, x: Tensor) -> Tensor:
        """norm: the module with scale, bias, mean and variance. x: (B, C, H, W)."""
        if not self.training:
            return norm.batch_norm(x)
        weight = 1 / (self.state.seen // self.mini_batch % self.subdivisions + 1)
        values = x.float()
        count = values.numel() // values.shape[1]
        mean = values.mean((0, 2, 3))
        square = torch.maximum(values.square().sum((0, 2, 3)) / max(count - 1, 1), mean.square())
        mean = weight * mean + (1 - weight) * self.mean
        square = weight * square + (1 - weight) * self.square
        variance = (square - mean.square()).clamp(min=0)
        with torch.no_grad():
            self.mean.copy_(mean)
            self.square.copy_(square)
            norm.mean.lerp_(mean, norm.momentum)
            norm.variance.lerp_(variance, norm.momentum)
        factor = norm.scale * torch.rsqrt(variance + EPS)
        return (x - mean[:, None, None]) * factor[:, None, None] + norm.bias[:, None, None]


@dataclass(frozen=True, kw_only=True)
class BatchNormSpec(Spec):
    """[batchnorm] (`make_batchnorm_layer`)."""

    @classmethod
    def parse(cls, options: Options, net: NetSpec, index: int) -> BatchNormSpec:
        return cls()

    def arrays(self, node: Node) -> tuple[LayerArray, ...]:
        channels = node.output.c
        return (LayerArray("bias", "bias", (channels,)), *batch_norm_arrays(channels))

    def build(self, node: Node) -> nn.Module:
        return BatchNormLayer(node.output.c)

    def source(self, node: Node) -> LayerSource:
        module = f"nn.BatchNorm2d({node.output.c}, eps=1e-5, momentum=0.01)"
        return LayerSource("{layer}({0})", module, (), norm_names(""))


class BatchNormLayer(NormalizedLayer):
    def __init__(self, channels: int):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))
        self.add_batch_norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.batch_norm(x)


@dataclass(frozen=True, kw_only=True)
class LrnSpec(Spec):
    """[normalization]: local response normalization over neighboring channels (`normalization_layer.c`)."""

    size: int
    alpha: float
    beta: float
    kappa: float

    @classmethod
    def parse(cls, options: Options, net: NetSpec, index: int) -> LrnSpec:
        return cls(
            size=options.int("size", 5, 1, 1 << 16),
            alpha=options.float("alpha", 0.0001),
            beta=options.float("beta", 0.75),
            kappa=options.float("kappa", 1.0),
        )

    def workspace(self, inputs: Sequence[Shape]) -> int:
        """The squares, padded along the channels."""
        (x,) = inputs
        return (x.c + self.size) * x.h * x.w

    def build(self, node: Node) -> nn.Module:
        return LrnLayer(self)

    def source(self, node: Node) -> LayerSource:
        arguments = f"{self.size}, {self.alpha!r}, {self.beta!r}, {self.kappa!r}"
        return LayerSource(f"local_response_norm({{0}}, {arguments})", "", (local_response_norm,))


class LrnLayer(nn.Module):
    """x / (kappa + alpha · sum of squares over `size` channels)^beta.

    C's running sum never adds channel size//2 but later subtracts it, so that all sums lack that channel's square;
    this is reproduced. Its backward pass treats the divisor as constant; ours is the true derivative.
    """

    def __init__(self, spec: LrnSpec):
        super().__init__()
        self.spec = spec

    def forward(self, x: Tensor) -> Tensor:
        spec = self.spec
        squares = x.square()
        window = F.pad(squares, (0, 0, 0, 0, (spec.size - 1) // 2, spec.size // 2)).unfold(1, spec.size, 1).sum(-1)
        missing = spec.size // 2
        if missing < x.shape[1]:
            window = window - squares[:, missing : missing + 1]
        return x * (spec.kappa + spec.alpha * window) ** -spec.beta


@dataclass(frozen=True, kw_only=True)
class L2NormSpec(Spec):
    """[l2norm] (pjreddie): the channels of each pixel as a unit vector (`l2normalize_cpu`)."""

    @classmethod
    def parse(cls, options: Options, net: NetSpec, index: int) -> L2NormSpec:
        return cls()

    def build(self, node: Node) -> nn.Module:
        return L2NormLayer()

    def source(self, node: Node) -> LayerSource:
        return LayerSource("F.normalize({0}, dim=1)")


class L2NormLayer(nn.Module):
    """The gradient is the true one; C's CPU build passes it unchanged, and its GPU build adds another term."""

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=1)
