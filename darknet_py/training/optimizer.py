"""Darknet's update rules as torch optimizers, and which tensors a cfg lets them touch.

Gradients here are of `Network.loss(...).total`: sums over the images of a batch, with the sign opposite to Darknet's
`weight_updates`. The arithmetic is torch's fused kernels, one pass and no host synchronization.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from darknet_py.layers.normalize import NormalizedLayer

if TYPE_CHECKING:
    from darknet_py.cfg.net import NetSpec
    from darknet_py.graph.graph import Graph
    from darknet_py.layers.base import Node
    from darknet_py.model.network import Network

_DECAYED = ("weight", "shortcut", "implicit")
_CLIPPED = ("weight", "implicit")


class FrozenLayers(NamedTuple):
    """Layers that a cfg excludes from training, by index.

    still: neither arrays nor running statistics change (`onlyforward`, and all before the last `stopbackward=1`).
    fixed: arrays stay, running statistics follow the data (`train_only_bn`, which spreads to all earlier layers).
    """

    still: frozenset[int]
    fixed: frozenset[int]


def frozen_layers(graph: Graph) -> FrozenLayers:
    """Reads the freezing options (`parse_network_cfg_custom`, `set_train_only_bn`).

    C Darknet decays the weights of a layer with `onlyforward=1` although it gets no gradient; we leave them alone.
    """
    last_stop = max((n.index for n in graph.layers if n.common.stopbackward == 1), default=0)
    last_only_bn = max((n.index for n in graph.layers if n.common.train_only_bn), default=-1)
    still = (n.index for n in graph.layers if n.index < last_stop or n.common.onlyforward)
    return FrozenLayers(frozenset(still), frozenset(range(last_only_bn + 1)))


def stopped(graph: Graph, iteration: int) -> int:
    """The last layer whose gradient is not computed at update number `iteration`; -1 when all are.

    `stopbackward=1` holds for ever, `stopbackward=N` for the first N iterations (`backward_network_gpu`). Such a layer
    and those before it get no gradient; unless they are frozen, weight decay and momentum still move them.
    """
    stops = ((n.index, n.common.stopbackward) for n in graph.layers)
    return max((index for index, until in stops if until == 1 or until >= iteration), default=-1)


def set_trainable(network: Network, stop: int) -> None:
    """Puts the network in training mode; stop: as `stopped` gives it.

    Frozen layers run with their running statistics (`forward_convolutional_layer_gpu`); no gradient is computed for
    them nor for the layers up to the stop.
    """
    still, fixed = frozen_layers(network.graph)
    network.train()
    for node, module in zip(network.graph.layers, network.layers, strict=True):
        if node.index in still and node.spec.arrays(node):
            module.eval()
        gradient = node.index > stop and node.index not in still and node.index not in fixed
        for parameter in module.parameters():
            parameter.requires_grad_(gradient)


def set_statistics_momentum(network: Network, momentum: float) -> None:
    """How fast running means and variances follow: new = (1 − momentum)·old + momentum·(of the mini-batch)."""
    for module in network.modules():
        if isinstance(module, NormalizedLayer):
            module.momentum = momentum


def trainable(network: Network) -> list[tuple[Node, str, nn.Parameter]]:
    """(node, role, tensor) of each array that training may change, in file order; shared tensors once."""
    still, fixed = frozen_layers(network.graph)
    seen: set[int] = set()
    found = []
    for node, module in zip(network.graph.layers, network.layers, strict=True):
        if node.index in still or node.index in fixed:
            continue
        tensors = dict(module.named_parameters())
        for array in node.spec.arrays(node):
            tensor = tensors.get(array.name)
            if tensor is not None and id(tensor) not in seen:
                seen.add(id(tensor))
                found.append((node, array.role, tensor))
    return found


def make_optimizer(network: Network) -> DarknetOptimizer:
    """SGD, or Adam where `[net]` says adam=1, over the trainable tensors grouped by how they are updated."""
    net = network.graph.net
    groups: dict[tuple[bool, float, float, int], list[nn.Parameter]] = {}
    for node, role, tensor in trainable(network):
        common = node.common
        # Darknet keeps summing gradients up while it waits, and then applies the sum; we start from nothing.
        start = max(common.dont_update + 1, common.burnin_update * net.burn_in)
        clip = common.clip if role in _CLIPPED else 0.0
        groups.setdefault((role in _DECAYED, common.learning_rate, clip, start), []).append(tensor)
    rows = [
        {"params": tensors, "decayed": decayed, "scale": scale, "clip": clip, "start": start}
        for (decayed, scale, clip, start), tensors in groups.items()
    ]
    return Adam(rows, net) if net.adam else SGD(rows, net)


class DarknetOptimizer(Optimizer):
    """What both rules share. Groups: decayed (weight decay applies), scale (of the learning rate), clip (bound on the
    absolute value, 0 none), start (first iteration that updates)."""

    def __init__(self, groups: list[dict[str, Any]], net: NetSpec):
        # torch refuses an optimizer without tensors, which a cfg may ask for (train_only_bn everywhere).
        super().__init__(groups or [{"params": [torch.zeros(0)], **_IDLE}], {})
        self.net = net

    @torch.no_grad()
    def step(self, closure: None = None, *, rate: float, batch: int, iteration: int) -> None:  # type: ignore[override]
        """One update from the gradients in `.grad`, sums over `batch` images. iteration: counts from 1."""
        for group in self.param_groups:
            if iteration < group["start"]:
                continue
            self._update(group, group["params"], rate * group["scale"], batch, iteration)
            if group["clip"]:
                torch._foreach_clamp_max_(group["params"], group["clip"])
                torch._foreach_clamp_min_(group["params"], -group["clip"])

    def _update(self, group: dict[str, Any], tensors: list[Tensor], rate: float, batch: int, iteration: int) -> None:
        raise NotImplementedError

    def _buffers(self, tensors: list[Tensor], name: str) -> list[Tensor]:
        for tensor in tensors:
            if name not in self.state[tensor]:
                self.state[tensor][name] = torch.zeros_like(tensor)
        return [self.state[tensor][name] for tensor in tensors]


_IDLE = {"decayed": False, "scale": 1.0, "clip": 0.0, "start": 1}


class SGD(DarknetOptimizer):
    """`update_convolutional_layer`: u += gradient + decay·batch·w (weights only), w −= rate/batch·u, u ·= momentum.

    torch's fused kernel does it in one pass: its buffer is u before the last multiplication.
    """

    def _update(self, group: dict[str, Any], tensors: list[Tensor], rate: float, batch: int, iteration: int) -> None:
        buffers: list[Tensor | None] = [*self._buffers(tensors, "update")]
        sgd(
            tensors,
            _gradients(tensors),
            buffers,
            lr=rate / batch,
            momentum=self.net.momentum,
            weight_decay=self.net.decay * batch if group["decayed"] else 0.0,
            dampening=0.0,
            nesterov=False,
            maximize=False,
            fused=True,
        )


class Adam(DarknetOptimizer):
    """`adam_update_gpu`: moments of gradient + decay·batch·w with bias correction by the iteration number.

    As in Darknet the gradient is the sum over the batch, eps is added outside the root, and biases and scales decay
    too. C Darknet uses Adam in convolutional and implicit layers on the GPU only; we use it for all arrays.
    """

    def _update(self, group: dict[str, Any], tensors: list[Tensor], rate: float, batch: int, iteration: int) -> None:
        net = self.net
        first, second = self._buffers(tensors, "first"), self._buffers(tensors, "second")
        before = float(iteration - 1)  # the kernel counts on by itself
        adam(
            tensors,
            _gradients(tensors),
            first,
            second,
            [],
            [torch.tensor(before, device=tensor.device) for tensor in tensors],
            lr=rate,
            beta1=net.B1,
            beta2=net.B2,
            eps=net.eps,
            weight_decay=net.decay * batch,
            amsgrad=False,
            maximize=False,
            fused=True,
        )


def _gradients(tensors: list[Tensor]) -> list[Tensor]:
    return [torch.zeros_like(tensor) if tensor.grad is None else tensor.grad for tensor in tensors]


class Ema:
    """Exponential moving average of the trainable tensors (`ema_update`, `ema_apply`).

    It starts at half of max_batches; near the end the averages replace the weights and training goes on from them, so
    that the running statistics fit. Darknet leaves 1,000 iterations for that and so never gets there when max_batches
    is 2,000 or less; then we leave a quarter.
    """

    def __init__(self, tensors: Iterable[Tensor], alpha: float, max_batches: int):
        self.tensors = [tensor.detach() for tensor in tensors]
        self.alpha = alpha
        self.start = max_batches // 2
        self.apply_at = max_batches - (1000 if max_batches > 2000 else max_batches // 4)
        self.averages: list[Tensor] = []

    @torch.no_grad()
    def update(self, iteration: int) -> None:
        """Call after update number `iteration`."""
        if iteration < self.start or not self.tensors:
            return
        if not self.averages:
            self.averages = [tensor.clone() for tensor in self.tensors]
        if iteration == self.apply_at:
            torch._foreach_copy_(self.tensors, self.averages)
        elif iteration < self.apply_at:
            torch._foreach_lerp_(self.averages, self.tensors, 1 - self.alpha)

    def swap(self) -> None:
        """Exchanges weights and averages, to save the averages; a second call restores them."""
        held = [tensor.clone() for tensor in self.tensors]
        torch._foreach_copy_(self.tensors, self.averages)
        self.averages = held

    def state_dict(self) -> list[Tensor]:
        return self.averages

    def load_state_dict(self, averages: list[Tensor]) -> None:
        self.averages = [a.to(t.device) for a, t in zip(averages, self.tensors, strict=False)]
