"""Training by several processes, started by `torchrun`: who we are, how a batch is shared, what is summed.

A batch of the cfg stays one batch: each process takes its share of the subdivisions (or, where there are too few, of
each mini-batch), so that rate, schedule and iteration count mean the same with any number of processes. Losses are
sums over images, so gradients are summed over processes, where DistributedDataParallel alone would average them.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from darknet_py.errors import TrainError
from darknet_py.layers.normalize import CrossBatchNorm, NormalizedLayer

if TYPE_CHECKING:
    from darknet_py.cfg.net import NetSpec
    from darknet_py.model.network import Network


_ADVICE = "--resume goes on from the last checkpoint (torchrun --max-restarts=N does so by itself)"


_PATIENCE = timedelta(hours=1)  # the others wait while the first one saves, draws and writes
# What keeps DistributedDataParallel from sending running statistics around; the name is new in torch 2.13.
_NEW_NAME = "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
_NO_BUFFERS: dict[str, Any] = {"forward_sync_buffers" if _NEW_NAME else "broadcast_buffers": False}


class DistContext(NamedTuple):
    """This process among those that train together."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0  # on this machine: the number of its GPU

    @property
    def leads(self) -> bool:
        """Whether this process prints and writes files."""
        return self.rank == 0


class LocalBatch(NamedTuple):
    """What one process does in an iteration."""

    mini_batches: int
    images: int  # per mini-batch


def split_batch(net: NetSpec, team: DistContext) -> LocalBatch:
    """Raises TrainError where the batch cannot be split evenly."""
    total = net.mini_batch * net.subdivisions
    own = total // team.size
    images = min(net.mini_batch, own)
    if total % team.size or not images or own % images:
        raise TrainError(
            f"expected a batch that {team.size} processes can share evenly, "
            f"found batch={net.batch} subdivisions={net.subdivisions}"
        )
    if net.contrastive and images < 2:
        raise TrainError(
            f"contrastive=1: expected at least 2 images per process and mini-batch, got batch={net.batch} "
            f"subdivisions={net.subdivisions} for {team.size} processes"
        )
    return LocalBatch(own // images, images)


@contextmanager
def process_group(device: str | None = None) -> Iterator[DistContext]:
    """Joins the processes that `torchrun` started; alone when it did not."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield DistContext()
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    cuda = torch.cuda.is_available() and (device or "cuda").startswith("cuda")
    if cuda:
        torch.cuda.set_device(local)
    ours = not dist.is_initialized()
    if ours:
        store, rank, size = next(rendezvous("env://", timeout=_PATIENCE))
        if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
            # torchrun keeps one store over its restarts, with the addresses of processes that have ended
            # (pytorch/pytorch#135712).
            restart = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
            store = dist.distributed_c10d.PrefixStore(f"start {restart}", store)
        backend = "nccl" if cuda else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=_PATIENCE)
    try:
        yield DistContext(dist.get_rank(), size, local)
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and not any(word in str(error) for word in ("gloo", "NCCL")):
            raise
        raise TrainError(f"process {dist.get_rank()} lost another one, which has ended; {_ADVICE}") from error
    finally:
        if ours:
            dist.destroy_process_group()


class LossModule(nn.Module):
    """`Network.loss` as a forward pass, which is what DistributedDataParallel can wrap."""

    def __init__(self, network: Network):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, truth: Tensor) -> Any:
        return self.network.loss(x, truth)


def wrap_model(loss: LossModule, team: DistContext) -> nn.Module:
    """`loss` with gradients averaged over the team. To be made anew when `requires_grad` of a tensor changes."""
    if team.size == 1 or not any(p.requires_grad for p in loss.parameters()):
        return loss
    devices = [team.local_rank] if next(loss.parameters()).is_cuda else None
    # Running statistics are averaged by `average_statistics`.
    idle = any(p.requires_grad for layer in without_loss(loss.network) for p in layer.parameters())
    return DistributedDataParallel(loss, devices, find_unused_parameters=idle, **_NO_BUFFERS)


def without_loss(network: Network) -> list[nn.Module]:
    """The layers that feed no head, whose arrays get no gradient."""
    nodes = network.graph.layers
    feeding = {index for index, _ in network.heads if not nodes[index].common.onlyforward}
    for node in reversed(nodes):
        if node.index in feeding:
            feeding.update(node.sources)
    return [layer for node, layer in zip(nodes, network.layers, strict=True) if node.index not in feeding]


def no_sync(loss: nn.Module, hold: bool) -> Any:
    """A context in which gradients stay with this process; they are exchanged by the first backward outside."""
    return loss.no_sync() if hold and isinstance(loss, DistributedDataParallel) else nullcontext()


def all_reduce_sum(value: Tensor, team: DistContext) -> Tensor:
    """The sum of `value` over the team."""
    if team.size > 1:
        dist.all_reduce(value)
    return value


def any_rank(flag: bool, team: DistContext, device: torch.device) -> bool:
    """Whether the flag is set in any process."""
    if team.size == 1:
        return flag
    value = torch.tensor(float(flag), device=device)
    dist.all_reduce(value, dist.ReduceOp.MAX)
    return bool(value.item())


def broadcast_parameters(network: Network, team: DistContext) -> None:
    """Lets batch norm normalize over the mini-batches of all processes in training. Raises TrainError for cbn=1."""
    if any(isinstance(module, CrossBatchNorm) for module in network.modules()):
        raise TrainError(f"{network.graph.path}: sync_bn is not supported with cbn=1; remove one of them")
    for module in network.modules():
        if isinstance(module, NormalizedLayer):
            module.synchronized = team.size > 1


def average_statistics(network: Network, team: DistContext) -> None:
    """Gives all processes the mean of their running means and variances."""
    if team.size == 1:
        return
    for name, buffer in network.named_buffers():
        if name.rpartition(".")[2] in ("mean", "variance"):
            dist.all_reduce(buffer)
            buffer /= team.size
