"""Darknet's update rules as torch optimizers, and which tensors a cfg lets them change.

Gradients here are those of `Network.loss(...).total`: sums over the images of a batch, with the opposite sign of
Darknet's `weight_updates`. The arithmetic is done by torch's fused kernels, in one pass and without host sync.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from darknet_py.cfg.net import NetSpec
from darknet_py.graph.graph import Graph
from darknet_py.layers.base import Node
from darknet_py.layers.normalize import NormalizedLayer
from darknet_py.model.network import Network

_DECAYED = ("weight", "shortcut", "implicit")
_CLIPPED = ("weight", "implicit")
_EMPTY_GROUP = {"decayed": False, "scale": 1.0, "clip": 0.0, "start": 1}


class FrozenLayers(NamedTuple):
    """Layers that a cfg excludes from training, by index.

    Attributes:
        frozen: Neither arrays nor running statistics change (`onlyforward`, and all layers before the last
            `stopbackward=1`).
        statistics_only: Arrays stay, running statistics follow the data (`train_only_bn`, which spreads to all earlier
            layers).
    """

    frozen: frozenset[int]
    statistics_only: frozenset[int]

    def keeps_arrays(self, index: int) -> bool:
        """Whether the arrays of a layer stay as they are."""
        return index in self.frozen or index in self.statistics_only


def frozen_layers(graph: Graph) -> FrozenLayers:
    """Reads the freezing options (`parse_network_cfg_custom`, `set_train_only_bn`).

    C Darknet decays the weights of a layer with `onlyforward=1` although it gets no gradient; here they do not change.
    """
    last_stop = max((n.index for n in graph.layers if n.common.stopbackward == 1), default=0)
    last_only_bn = max((n.index for n in graph.layers if n.common.train_only_bn), default=-1)
    frozen = (n.index for n in graph.layers if n.index < last_stop or n.common.onlyforward)
    return FrozenLayers(frozenset(frozen), frozenset(range(last_only_bn + 1)))


def last_stopped_layer(graph: Graph, iteration: int) -> int:
    """The last layer whose gradient is not computed at update number `iteration`; -1 when all are.

    `stopbackward=1` holds forever, `stopbackward=N` for the first N iterations (`backward_network_gpu`). Such a layer
    and those before it get no gradient; unless they are frozen, weight decay and momentum still change them.
    """
    stops = ((n.index, n.common.stopbackward) for n in graph.layers)
    return max((index for index, until in stops if until == 1 or until >= iteration), default=-1)


def set_trainable(network: Network, stop: int) -> None:
    """Puts the network in training mode.

    Frozen layers run with their running statistics (`forward_convolutional_layer_gpu`); no gradient is computed for
    them nor for the layers up to `stop` (see `last_stopped_layer`).
    """
    excluded = frozen_layers(network.graph)
    network.train()
    for node, module in zip(network.graph.layers, network.layers, strict=True):
        if node.index in excluded.frozen and node.spec.arrays(node):
            module.eval()
        gradient = node.index > stop and not excluded.keeps_arrays(node.index)
        for parameter in module.parameters():
            parameter.requires_grad_(gradient)


def batch_normalized(network: Network) -> list[NormalizedLayer]:
    """The modules with batch norm."""
    return [module for module in network.modules() if isinstance(module, NormalizedLayer) and module.has_batch_norm]


def set_statistics_momentum(network: Network, momentum: float) -> None:
    """How fast running means and variances follow: new = (1 − momentum)·old + momentum·(of the mini-batch)."""
    for module in batch_normalized(network):
        module.momentum = momentum


def trainable_arrays(network: Network) -> list[tuple[Node, str, nn.Parameter]]:
    """(node, role, tensor) of each array that training may change, in file order; shared tensors once."""
    excluded = frozen_layers(network.graph)
    seen: set[int] = set()
    arrays = []
    for node, module in zip(network.graph.layers, network.layers, strict=True):
        if excluded.keeps_arrays(node.index):
            continue
        tensors = dict(module.named_parameters())
        for array in node.spec.arrays(node):
            tensor = tensors.get(array.name)
            if tensor is not None and id(tensor) not in seen:
                seen.add(id(tensor))
                arrays.append((node, array.role, tensor))
    return arrays


def make_optimizer(network: Network) -> DarknetOptimizer:
    """SGD, or Adam where `[net]` has adam=1, over the trainable arrays, grouped by how they are updated."""
    net = network.graph.net
    groups: dict[tuple[bool, float, float, int], list[nn.Parameter]] = {}
    for node, role, tensor in trainable_arrays(network):
        common = node.common
        # Darknet sums gradients up while it waits, and then applies the sum; here they are dropped.
        start = max(common.dont_update + 1, common.burnin_update * net.burn_in)
        clip = common.clip if role in _CLIPPED else 0.0
        groups.setdefault((role in _DECAYED, common.learning_rate, clip, start), []).append(tensor)
    rows: list[dict[str, object]] = [
        {"params": tensors, "decayed": decayed, "scale": scale, "clip": clip, "start": start}
        for (decayed, scale, clip, start), tensors in groups.items()
    ]
    return Adam(rows, net) if net.adam else SGD(rows, net)


class DarknetOptimizer(Optimizer):
    """Base of both update rules.

    Parameter groups hold: decayed (weight decay applies), scale (of the learning rate), clip (bound on the absolute
    value, 0 for none), start (first iteration that updates).
    """

    def __init__(self, groups: list[dict[str, object]], net: NetSpec):
        # torch refuses an optimizer without tensors, which a cfg may ask for (train_only_bn everywhere).
        super().__init__(groups or [{"params": [torch.zeros(0)], **_EMPTY_GROUP}], {})
        self.net = net

    @torch.no_grad()
    def step(self, closure: None = None, *, rate: float, batch: int, iteration: int) -> None:  # type: ignore[override]
        """One update from the gradients in `.grad`.

        Args:
            closure: Not used.
            rate: Learning rate.
            batch: Number of images that the gradients are sums over.
            iteration: Number of the update, from 1.
        """
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
            state = self.state[tensor]
            state[name] = _ordered_like(tensor, state[name]) if name in state else torch.zeros_like(tensor)
        return [self.state[tensor][name] for tensor in tensors]


class SGD(DarknetOptimizer):
    """`update_convolutional_layer`: u += gradient + decay·batch·w (weights only), w −= rate/batch·u, u ·= momentum.

    torch's fused kernel does it in one pass: its buffer is u before the last multiplication.
    """

    def _update(self, group: dict[str, Any], tensors: list[Tensor], rate: float, batch: int, iteration: int) -> None:
        buffers: list[Tensor | None] = [*_flat(self._buffers(tensors, "update"))]
        sgd(
            _flat(tensors),
            _flat(_gradients(tensors)),
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
    too. C Darknet uses Adam in convolutional and implicit layers on the GPU only; here it updates all arrays.
    """

    def _update(self, group: dict[str, Any], tensors: list[Tensor], rate: float, batch: int, iteration: int) -> None:
        net = self.net
        first, second = self._buffers(tensors, "first"), self._buffers(tensors, "second")
        steps = float(iteration - 1)  # the kernel adds one
        adam(
            _flat(tensors),
            _flat(_gradients(tensors)),
            _flat(first),
            _flat(second),
            [],
            [torch.tensor(steps, device=tensor.device) for tensor in tensors],
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
    return [
        torch.zeros_like(tensor) if tensor.grad is None else _ordered_like(tensor, tensor.grad) for tensor in tensors
    ]


def _flat(tensors: list[Tensor]) -> list[Tensor]:
    """Views of one dimension, in the order of the memory: torch's fused kernels copy what is not contiguous."""
    return [tensor.as_strided((tensor.numel(),), (1,)) for tensor in tensors]


def _ordered_like(tensor: Tensor, values: Tensor) -> Tensor:
    """The values in memory order of the tensor, which may be channels-last. Both are dense."""
    steps = zip(tensor.shape, tensor.stride(), values.stride(), strict=True)
    if all(ours == theirs for size, ours, theirs in steps if size > 1):
        return values
    return torch.empty_like(tensor).copy_(values)


class Ema:
    """Exponential moving average of the trainable arrays (`ema_update`, `ema_apply`).

    It starts at half of max_batches; near the end the averages replace the weights and training continues from them, so
    that the running statistics fit. Darknet leaves 1,000 iterations for that and so never gets there when max_batches
    is 2,000 or less; a quarter of max_batches is left then.

    Args:
        tensors: The arrays.
        alpha: Weight of the old average in an update.
        max_batches: Iterations of the training.
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

    def is_averaging(self, iteration: int) -> bool:
        """Whether there are averages that follow the weights after this iteration."""
        return bool(self.averages) and iteration < self.apply_at

    def swap(self) -> None:
        """Exchanges weights and averages, to save the averages; a second call restores them."""
        weights = [tensor.clone() for tensor in self.tensors]
        torch._foreach_copy_(self.tensors, self.averages)
        self.averages = weights

    def state_dict(self) -> list[Tensor]:
        """The averages."""
        return self.averages

    def load_state_dict(self, averages: list[Tensor]) -> None:
        """Restores the averages."""
        self.averages = [a.to(t.device) for a, t in zip(averages, self.tensors, strict=False)]
