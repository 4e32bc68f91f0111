from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from darknet_py.layers.sync_norm import SyncBatchNorm


@pytest.fixture
def one_process(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def _batch_norm(
    x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, rate: float, eps: float
) -> Tensor:
    return F.batch_norm(x, mean, variance, scale, bias, True, rate, eps)


@pytest.mark.usefixtures("one_process")
def test_one_process_gives_batch_norm() -> None:
    """Several processes: tests/training/test_distributed.py."""
    x = torch.randn(4, 3, 5, 6)
    results = []
    for function in (SyncBatchNorm.apply, _batch_norm):
        values = x.clone().requires_grad_()
        scale, bias = torch.tensor([1.0, 2, 3], requires_grad=True), torch.tensor([0.5, 0, 1], requires_grad=True)
        mean, variance = torch.zeros(3), torch.ones(3)
        y = function(values, scale, bias, mean, variance, 0.1, 1e-5)
        y.square().sum().backward()
        results.append((y, mean, variance, values.grad, scale.grad, bias.grad))
    for ours, expected in zip(*results, strict=True):
        assert torch.allclose(ours, expected, atol=1e-4)
