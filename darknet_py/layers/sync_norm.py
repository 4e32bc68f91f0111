"""Batch norm over the mini-batches of all processes that train together."""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx


class _Context(FunctionCtx):
    saved_tensors: tuple[Tensor, ...]  # as `save_for_backward` got them
    count: int  # values per channel, over all processes


class SyncBatchNorm(torch.autograd.Function):
    """`F.batch_norm` in training, as if the processes' mini-batches (all of one size) were one.

    x: (B, C, …). mean, variance: running, updated in place, (C,). The gradients of scale and bias are those of
    this process, to be summed like those of all other weights. torch.nn.SyncBatchNorm needs a GPU.
    """

    @staticmethod
    def forward(
        ctx: _Context,
        x: Tensor,
        scale: Tensor,
        bias: Tensor,
        mean: Tensor,
        variance: Tensor,
        momentum: float,
        eps: float,
    ) -> Tensor:
        dims = [0, *range(2, x.dim())]
        local = torch.stack(torch.var_mean(x.float(), dims, correction=0))
        gathered = [torch.empty_like(local) for _ in range(dist.get_world_size())]
        dist.all_gather(gathered, local)
        variances, means = torch.stack(gathered).unbind(1)
        count = x.numel() // x.shape[1] * len(gathered)
        center = means.mean(0)
        spread = variances.mean(0) + (means - center).square().mean(0)
        mean.lerp_(center, momentum)
        variance.lerp_(spread * (count / max(count - 1, 1)), momentum)
        ctx.save_for_backward(x, scale, center, torch.rsqrt(spread + eps))
        ctx.count = count
        return F.batch_norm(x, center, spread, scale, bias, False, 0.0, eps)

    @staticmethod
    def backward(ctx: _Context, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, center, factor = ctx.saved_tensors
        shape = (-1, *(1,) * (x.dim() - 2))
        dims = [0, *range(2, x.dim())]
        slope = gradients[0].float()
        unit = (x.float() - center.view(shape)) * factor.view(shape)
        local = torch.stack([slope.sum(dims), (slope * unit).sum(dims)])
        sums = local.clone()
        dist.all_reduce(sums)
        shift, tilt = (sums / ctx.count).unbind(0)
        gradient = (slope - shift.view(shape) - unit * tilt.view(shape)) * (factor * scale).view(shape)
        return gradient.to(x.dtype), local[1], local[0], None, None, None, None
