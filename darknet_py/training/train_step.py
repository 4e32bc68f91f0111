"""One iteration of training: the mini-batches of a batch forward and backward, then an update.

`TrainStep.step` is what the trainer runs and what tests call (`train_network`, `train_network_datum` in Darknet).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from darknet_py.inference.fuse import AMP
from darknet_py.layers.base import RunningDeltaStats
from darknet_py.layers.normalize import NormalizedLayer
from darknet_py.layers.recurrent import RecurrentLayer
from darknet_py.training.distributed import DistContext, LossModule, all_reduce_sum, no_sync, split_batch, wrap_model
from darknet_py.training.optimizer import Ema, make_optimizer, set_trainable, stopped, trainable
from darknet_py.training.schedule import learning_rate, update_batch

if TYPE_CHECKING:
    from darknet_py.model.network import Network

_LOSS_SCALE = 128.0  # to begin with, where the cfg has no loss_scale; the scaler adapts it
_SEED_STRIDE = 1_000_003


class StepResult(NamedTuple):
    """What an iteration came to.

    loss: Darknet's printed loss, a detached scalar that is still on the device. parts: per mini-batch and head (by
    layer index) the head's named figures.
    """

    iteration: int
    rate: float
    loss: Tensor
    parts: list[dict[int, dict[str, Tensor]]]


class TrainStep:
    """A network with what an iteration changes: optimizer, averages, loss scale and the count of iterations."""

    def __init__(self, network: Network, *, seed: int = 0, amp: str | None = None, team: DistContext | None = None):
        net = network.graph.net
        self.network = network
        network.state.scale_delta = True  # as C's GPU build does, which trained the published weights
        self.device = network.device
        self.seed = seed
        self.team = team or DistContext()
        self.share = split_batch(net, self.team)
        self.amp = AMP[amp] if amp else None
        self.iteration = network.state.seen // net.batch_images
        self.optimizer = make_optimizer(network)
        tensors = [tensor for _, _, tensor in trainable(network)]
        self.ema = Ema(tensors, net.ema_alpha, net.max_batches) if net.ema_alpha else None
        scale = net.loss_scale if net.loss_scale > 0 and net.loss_scale != 1 else _LOSS_SCALE
        self.scaler = torch.amp.GradScaler(self.device.type, scale, enabled=self.amp is torch.float16)
        self._loss = LossModule(network)
        self._model: Any = None
        self._stop = -2

    def step(self, mini_batches: Iterable[tuple[Tensor, Tensor]]) -> StepResult:
        """mini_batches: (images (B, C, H, W) in 0..1, truth) of this process's share, on the network's device.

        Nothing is read back from the device. With dropout and the like the result is a pure function of weights,
        iteration, seed and data.
        """
        net, state, team = self.network.graph.net, self.network.state, self.team
        iteration = self.iteration + 1
        self._prepare(iteration)
        cost: Tensor = torch.zeros((), dtype=torch.float64, device=self.device)
        parts = []
        state.iteration = self.iteration
        state.seen = self.iteration * net.batch_images
        for number, (images, truth) in enumerate(mini_batches, 1):
            if net.adversarial_lr and iteration > net.burn_in and torch.rand(()) < 0.5:
                images = self._attacked(images, truth)
            with no_sync(self._model, number < self.share.mini_batches):
                with torch.autocast(self.device.type, self.amp, enabled=self.amp is not None):
                    report = self._model(images, truth)
                if report.total.requires_grad:
                    self.scaler.scale(report.total * team.size).backward()
            cost += report.cost
            parts.append(report.parts)
            state.seen += len(images) * team.size
        batch, divisor = net.batch_images, update_batch(net)
        if net.dynamic_minibatch:
            taken = state.seen - self.iteration * batch
            batch, divisor = taken, divisor // batch * taken
        if net.try_fix_nan:
            self._fix_nan()
        rate = learning_rate(net, iteration, self.seed)
        self.scaler.step(self.optimizer, rate=rate, batch=divisor, iteration=iteration)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.iteration = state.iteration = iteration
        state.seen = iteration * net.batch_images
        if self.ema:
            self.ema.update(iteration)
        # `get_network_cost` averages over the heads, `train_network` over the images.
        loss = all_reduce_sum(cost, team) / (len(self.network.heads) * batch)
        return StepResult(iteration, rate, loss, parts)

    @contextmanager
    def averaged(self) -> Iterator[bool]:
        """While it is entered the network has the averages for weights; False where there are none yet."""
        if self.ema is None or not self.ema.averages:
            yield False
            return
        self.ema.swap()
        try:
            yield True
        finally:
            self.ema.swap()

    def _attacked(self, images: Tensor, truth: Tensor) -> Tensor:
        """Self-adversarial training: images changed so that the network sees less in them (`train_network_datum_gpu`).

        As there, layers keep their running statistics and weights meanwhile; of a contrastive pair only the first
        image is changed.
        """
        net, state = self.network.graph.net, self.network.state
        still = [
            layer
            for layer in self.network.modules()
            if isinstance(layer, NormalizedLayer) and layer.has_batch_norm and layer.training
        ]
        for layer in still:
            layer.training = False
        state.adversarial = True
        try:
            x = images.detach().clone().requires_grad_()
            rows = 0 if self.network.graph.detection_specs else len(truth)
            nothing = truth.new_zeros(rows, truth.shape[1])
            slope = torch.autograd.grad(self.network.loss(x, nothing).total, x, allow_unused=True)[0]
        finally:
            state.adversarial = False
            for layer in still:
                layer.training = True
        if slope is None:
            return images
        rate = net.adversarial_lr * self.iteration / max(net.max_batches, 1)
        attacked = (images - rate * slope).clamp(0, 1)
        if net.contrastive:
            attacked[1::2] = images[1::2]
        return attacked

    def _fix_nan(self) -> None:
        """try_fix_nan: gradients that are not finite become 0, as in C, and so do running means (variances 1)."""
        if not self.scaler.is_enabled():  # the scaler leaves such an update out
            for parameter in self.network.parameters():
                if parameter.grad is not None:
                    parameter.grad.nan_to_num_(0.0, 0.0, 0.0)
        for name, buffer in self.network.named_buffers():
            kind = name.rpartition(".")[2]
            if kind in ("mean", "variance"):
                value = float(kind == "variance")
                buffer.nan_to_num_(value, value, value)

    def _prepare(self, iteration: int) -> None:
        torch.manual_seed(((self.seed * _SEED_STRIDE + iteration) * _SEED_STRIDE + self.team.rank) % (1 << 63))
        stop = stopped(self.network.graph, iteration)
        if stop != self._stop or not self.network.training:  # an evaluation came between
            set_trainable(self.network, stop)
            self._stop = stop
            self._model = wrap_model(self._loss, self.team)

    def state_dict(self) -> dict[str, Any]:
        """All that `step` changes, weights included; loads with `torch.load(weights_only=True)`."""
        return {
            "iteration": self.iteration,
            "seed": self.seed,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema.state_dict() if self.ema else [],
            "scaler": self.scaler.state_dict(),
            "rolling": vars(self.network.state.delta_stats) if self.network.state.delta_stats else {},
            "memory": {name: list(layer.memory) for name, layer in self._remembering() if layer.memory is not None},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.iteration = state["iteration"]
        self.seed = state["seed"]
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.ema:
            self.ema.load_state_dict(state["ema"])
        self.scaler.load_state_dict(state["scaler"])
        rolling = {name: tensor.to(self.device) for name, tensor in state["rolling"].items()}
        self.network.state.delta_stats = RunningDeltaStats(**rolling) if rolling else None
        for name, layer in self._remembering():
            kept = state["memory"].get(name)
            layer.memory = tuple(part.to(self.device) for part in kept) if kept else None
        self.network.state.iteration = self.iteration
        self.network.state.seen = self.iteration * self.network.graph.net.batch_images

    def _remembering(self) -> list[tuple[str, RecurrentLayer]]:
        return [(name, layer) for name, layer in self.network.named_modules() if isinstance(layer, RecurrentLayer)]
