"""Batch normalisation, as a part of other layers and as the section [batchnorm]."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darknet_py.cfg.net import NetSpec
from darknet_py.cfg.options import Options
from darknet_py.layers.base import Array, Node, Spec

EPS = 1e-5  # added to the variance inside the root (`normalize_cpu`)
MOMENTUM = 0.01  # of the running statistics: C Darknet's GPU build, which trained the published weights


def batch_norm_arrays(n: int) -> tuple[Array, ...]:
    """scale, mean, variance: the order all layer types share."""
    return (Array("scale", "scale", (n,)), Array("mean", "mean", (n,)), Array("variance", "variance", (n,)))


def add_batch_norm(module: nn.Module, n: int) -> None:
    """Gives `module` scale, mean, variance and momentum (its bias is the shift).

    The variance starts at 1: C Darknet's 0 makes an untrained network divide by sqrt(1e-5) at every layer.
    """
    module.scale = nn.Parameter(torch.ones(n))
    module.register_buffer("mean", torch.zeros(n))
    module.register_buffer("variance", torch.ones(n))
    module.momentum = MOMENTUM


def batch_norm(module: nn.Module, x: Tensor) -> Tensor:
    """Normalises x (B, C, …) with the batch's statistics in training, with the running ones otherwise."""
    return F.batch_norm(
        x, module.mean, module.variance, module.scale, module.bias, module.training, module.momentum, EPS
    )


@dataclass(frozen=True)
class BatchNorm(Spec):
    """[batchnorm] (`make_batchnorm_layer`)."""

    @classmethod
    def parse(cls, o: Options, net: NetSpec, index: int) -> BatchNorm:
        return cls()

    def arrays(self, node: Node) -> tuple[Array, ...]:
        channels = node.output.c
        return (Array("bias", "bias", (channels,)), *batch_norm_arrays(channels))

    def build(self, node: Node) -> nn.Module:
        return Normalization(node.output.c)


class Normalization(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))
        add_batch_norm(self, channels)

    def forward(self, x: Tensor) -> Tensor:
        return batch_norm(self, x)
