"""Training by several processes, started by `torchrun`: their ranks, how a batch is split, what is summed.

A batch of the cfg stays one batch: each process takes a part of the subdivisions (or, where there are too few, of each
mini-batch), so that rate, schedule and iteration count mean the same with any number of processes. Losses are sums
over images, so gradients are summed over processes, where DistributedDataParallel alone would average them.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from darknet_py.cfg.net import NetSpec
from darknet_py.counted import counted
from darknet_py.errors import TrainError
from darknet_py.evaluation.rank_merge import all_gather
from darknet_py.layers.normalize import CrossBatchNorm, NormalizedLayer
from darknet_py.model.network import LossReport, Network
from darknet_py.training.peers import TIMEOUT, PeerWatch, watch_peers

ADVICE = "--resume continues from the last checkpoint (torchrun --max-restarts=N does so by itself)"
# For a process that answers but does not get on. The others wait while one of them measures, saves or draws, or is
# slower; whether it is alive at all, `peers` looks.
_STUCK = timedelta(hours=6)
# What keeps DistributedDataParallel from broadcasting running statistics; the name is new in torch 2.13.
_NEW_NAME = "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
_NO_BUFFERS: dict[str, Any] = {"forward_sync_buffers" if _NEW_NAME else "broadcast_buffers": False}


class DistContext(NamedTuple):
    """This process among those that train together.

    Attributes:
        rank: Number of this process; 0 is the main process.
        size: Number of processes.
        local_rank: Number of this process on its machine, which is that of its GPU.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @classmethod
    def from_environment(cls) -> DistContext:
        """The context that `torchrun` sets up; a single process otherwise."""
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls()
        local_rank = int(os.environ.get("LOCAL_RANK", "0"))
        if dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size(), local_rank)
        return cls(int(os.environ.get("RANK", "0")), int(os.environ["WORLD_SIZE"]), local_rank)

    @property
    def is_main_process(self) -> bool:
        """Whether this process logs and writes files."""
        return self.rank == 0


class LocalBatch(NamedTuple):
    """What one process does in an iteration.

    Attributes:
        mini_batches: Number of mini-batches.
        images: Images per mini-batch.
    """

    mini_batches: int
    images: int


def split_batch(net: NetSpec, context: DistContext) -> LocalBatch:
    """Splits the batch of an iteration over the processes.

    Args:
        net: The cfg's `[net]`.
        context: This process among the others.

    Returns:
        The part of this process.

    Raises:
        TrainError: The batch cannot be split evenly.
    """
    local_images = net.mini_batch * net.subdivisions // context.size
    images = min(net.mini_batch, local_images)
    if net.mini_batch * net.subdivisions % context.size or not images or local_images % images:
        raise TrainError(
            f"expected a batch that divides evenly among {counted(context.size, 'process')}, "
            f"got batch={net.batch} subdivisions={net.subdivisions}"
        )
    if net.contrastive and images < 2:
        raise TrainError(
            f"contrastive=1: expected at least 2 images per process and mini-batch, got batch={net.batch} "
            f"subdivisions={net.subdivisions} for {counted(context.size, 'process')}"
        )
    return LocalBatch(local_images // images, images)


def joined_processes(timeout: float, advice: str = ADVICE) -> AbstractContextManager[PeerWatch | None]:
    """Meets the processes that `torchrun` started with this one, and watches them; see `watch_peers`."""
    context = DistContext.from_environment()
    return watch_peers(context.rank, context.size, timeout, advice)


@contextmanager
def process_group(
    context: DistContext, device: torch.device, advice: str = ADVICE, timeout: float = TIMEOUT
) -> Iterator[None]:
    """Joins the processes that `torchrun` started; does nothing for a single process.

    Args:
        context: This process among the others.
        device: What it computes on.
        advice: What to do when another one ends.
        timeout: As of `watch_peers`, which may be entered already.

    Raises:
        TrainError: Another process ended.
    """
    if context.size == 1:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    joins = not dist.is_initialized()
    with watch_peers(context.rank, context.size, timeout, advice) as watch:
        if joins:
            assert watch is not None  # there are several processes
            dist.init_process_group(
                "nccl" if device.type == "cuda" else "gloo",
                store=watch.group_store(_STUCK),
                rank=context.rank,
                world_size=context.size,
                timeout=_STUCK,
            )
        try:
            yield
        except RuntimeError as error:
            if not isinstance(error, dist.DistError) and not any(word in str(error) for word in ("gloo", "NCCL")):
                raise
            raise TrainError(f"rank {context.rank}: {_reason(error)}; {advice}") from error
        finally:
            if joins:
                dist.destroy_process_group()


def _reason(error: RuntimeError) -> str:
    if "imed out" in str(error):
        return f"no peer process has got on for {_STUCK.total_seconds() / 3600:g} hours"
    shared = next((line for line in str(error).splitlines() if "/dev/shm" in line), "")
    if shared:  # of NCCL
        return f"{shared.strip()}; enlarge /dev/shm (docker run --shm-size=2g) or set NCCL_SHM_DISABLE=1"
    return "a peer process terminated unexpectedly"


def check_same(context: DistContext, values: Mapping[str, object]) -> None:
    """Compares what must be the same on all processes of a training.

    Args:
        context: This process among the others, whose group it has joined.
        values: What to compare, by name.

    Raises:
        TrainError: A process differs; every process raises it.
    """
    found = all_gather({name: str(value) for name, value in values.items()}, context.size)
    for rank, others in enumerate(found):
        for name, expected in found[0].items():
            if others.get(name) != expected:
                raise TrainError(f"rank {rank}: {name}: expected {expected}, as rank 0 has, got {others.get(name)}")


class LossModule(nn.Module):
    """`Network.loss` as a forward pass, which is what DistributedDataParallel can wrap."""

    def __init__(self, network: Network):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, truth: Tensor) -> LossReport:
        return self.network.loss(x, truth)


def wrap_model(loss: LossModule, context: DistContext) -> nn.Module:
    """`loss` with gradients averaged over the processes.

    It has to be wrapped again when `requires_grad` of a tensor changes.
    """
    if context.size == 1 or not any(p.requires_grad for p in loss.parameters()):
        return loss
    parameter = next(loss.parameters())
    devices = [parameter.device] if parameter.is_cuda else None
    # Running statistics are averaged by `average_statistics`.
    unused = any(p.requires_grad for layer in layers_without_loss(loss.network) for p in layer.parameters())
    return DistributedDataParallel(loss, devices, find_unused_parameters=unused, **_NO_BUFFERS)


def layers_without_loss(network: Network) -> list[nn.Module]:
    """The layers that feed no head, whose arrays get no gradient."""
    nodes = network.graph.layers
    feeding = {index for index, _ in network.heads if not nodes[index].common.onlyforward}
    for node in reversed(nodes):
        if node.index in feeding:
            feeding.update(node.sources)
    return [layer for node, layer in zip(nodes, network.layers, strict=True) if node.index not in feeding]


def no_sync(model: nn.Module, accumulate: bool) -> AbstractContextManager[None]:
    """A context in which gradients stay with this process; the first backward pass outside exchanges them."""
    if accumulate and isinstance(model, DistributedDataParallel):
        context: AbstractContextManager[None] = model.no_sync()
        return context
    return nullcontext()


def all_reduce_sum(value: Tensor, context: DistContext) -> Tensor:
    """The sum of `value` over the processes."""
    if context.size > 1:
        dist.all_reduce(value)
    return value


def any_rank(flag: bool, context: DistContext, device: torch.device) -> bool:
    """Whether the flag is set in any process."""
    if context.size == 1:
        return flag
    value = torch.tensor(float(flag), device=device)
    dist.all_reduce(value, dist.ReduceOp.MAX)
    return bool(value.item())


def synchronize_batch_norm(network: Network, context: DistContext) -> None:
    """Makes batch norm in training normalize over the mini-batches of all processes. Raises TrainError for cbn=1."""
    if any(isinstance(module, CrossBatchNorm) for module in network.modules()):
        raise TrainError(f"{network.graph.path}: sync_bn is not supported with cbn=1; remove one of them")
    for module in network.modules():
        if isinstance(module, NormalizedLayer):
            module.synchronized = context.size > 1


def average_statistics(network: Network, context: DistContext) -> None:
    """Gives all processes the mean of their running means and variances."""
    if context.size == 1:
        return
    for name, buffer in network.named_buffers():
        if name.rpartition(".")[2] in ("mean", "variance"):
            dist.all_reduce(buffer)
            buffer /= context.size
