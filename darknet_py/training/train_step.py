"""One iteration of training: forward and backward passes of its mini-batches, then an update.

`TrainStep.step` is what the trainer runs and what tests call (`train_network`, `train_network_datum` in Darknet).
"""

from __future__ import annotations

import copy
import gc
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from darknet_py.errors import TrainError
from darknet_py.inference.fuse import AMP
from darknet_py.layers.base import RunningDeltaStats, StatefulLayer
from darknet_py.layers.recurrent import RecurrentLayer
from darknet_py.model.network import LossReport, Network
from darknet_py.training.distributed import DistContext, LossModule, all_reduce_sum, no_sync, split_batch, wrap_model
from darknet_py.training.optimizer import (
    Ema,
    batch_normalized,
    last_stopped_layer,
    make_optimizer,
    set_trainable,
    trainable_arrays,
)
from darknet_py.training.schedule import learning_rate, update_batch
from darknet_py.training.state import StepState

_LOSS_SCALE = 128.0  # initial, where the cfg has no loss_scale; the scaler adapts it
_SEED_STRIDE = 1_000_003


class StepResult(NamedTuple):
    """The result of an iteration.

    Attributes:
        iteration: Its number, from 1.
        rate: The learning rate.
        loss: Darknet's printed loss, a detached scalar that is still on the device.
        parts: Per mini-batch and head (by layer index) the head's named values.
    """

    iteration: int
    rate: float
    loss: Tensor
    parts: list[dict[int, dict[str, Tensor]]]


class OutOfMemory(TrainError):
    """The forward or backward pass of a mini-batch needs more memory than there is."""


class Diverged(TrainError):
    """A loss that is not finite or explodes, or weights that are not finite.

    Attributes:
        what: What was seen, in a few words.
        step: The iteration with that loss; None where another value shows it.
        loss: Its loss.
    """

    def __init__(self, what: str, step: StepResult | None = None, loss: float = math.nan):
        super().__init__(what)
        self.what = what
        self.step = step
        self.loss = loss

    def report(self) -> list[str]:
        """Lines about the loss, part by part."""
        if self.step is None:
            return [self.what]
        lines = [f"{self.what} (rate {self.step.rate:.6g}); its weights were not saved"]
        for number, heads in enumerate(self.step.parts):
            for layer, parts in heads.items():
                values = ", ".join(f"{name} {float(value):.6g}" for name, value in parts.items())
                lines.append(f"  mini-batch {number}, layer {layer}: {values}")
        return lines


class TrainStep:
    """A network with what an iteration changes: optimizer, averages, loss scale and the iteration count.

    Args:
        network: The network to train, on its device.
        seed: Of everything random in an iteration.
        amp: `bf16` or `fp16` for mixed precision.
        context: This process among those that train together.
    """

    def __init__(self, network: Network, *, seed: int = 0, amp: str | None = None, context: DistContext | None = None):
        net = network.graph.net
        self.network = network
        network.state.scale_delta = True  # as C's GPU build does, which trained the published weights
        self.device = network.device
        self.seed = seed
        self.context = context or DistContext()
        self.local_batch = split_batch(net, self.context)
        self.amp = AMP[amp] if amp else None
        self.iteration = network.state.seen // net.batch_images
        self.optimizer = make_optimizer(network)
        tensors = [tensor for _, _, tensor in trainable_arrays(network)]
        self.ema = Ema(tensors, net.ema_alpha, net.max_batches) if net.ema_alpha else None
        scale = net.loss_scale if net.loss_scale > 0 and net.loss_scale != 1 else _LOSS_SCALE
        self.scaler = torch.amp.GradScaler(self.device.type, scale, enabled=self.amp is torch.float16)
        self._loss = LossModule(network)
        self._model: nn.Module = self._loss
        self.parts = 1  # in which each mini-batch is computed
        self.rate_factor = 1.0  # of the schedule's learning rate, see `Recovery`
        self._stop: int | None = None
        writers = [layer for layer in self._stateful() if layer.changes_weights]
        self._changing = [*network.buffers(), *(network.parameters() if writers else ())]
        self._before = [tensor.detach().clone() for tensor in self._changing]

    def step(self, mini_batches: Iterable[tuple[Tensor, Tensor]]) -> StepResult:
        """Trains on one batch. Nothing is read back from the device.

        With dropout and the like the result is a pure function of weights, iteration, seed and data. Where it raises,
        or where `mini_batches` does, everything is as it was before the call.

        Args:
            mini_batches: (images (B, C, H, W) in 0..1, truth as `Network.loss` takes it) of this process, on the
                network's device.

        Returns:
            Number, rate, loss and the parts of the loss.
        """
        net, state, context = self.network.graph.net, self.network.state, self.context
        iteration = self.iteration + 1
        self._prepare(iteration)
        cost = torch.zeros((), dtype=torch.float64, device=self.device)
        parts = []
        state.iteration = self.iteration
        state.seen = self.iteration * net.batch_images
        with self._undone_on_error():
            for number, (images, truth) in self._numbered_parts(mini_batches):
                if net.adversarial_lr and iteration > net.burn_in and torch.rand(()) < 0.5:
                    images = self._adversarial_images(images, truth)
                with no_sync(self._model, number < self.local_batch.mini_batches):
                    with torch.autocast(self.device.type, self.amp, enabled=self.amp is not None):
                        report: LossReport = self._model(images, truth)
                    if report.total.requires_grad:
                        self.scaler.scale(report.total * context.size).backward()  # type: ignore[no-untyped-call]
                cost += report.cost
                parts.append(report.parts)
                state.seen += len(images) * context.size
        batch, divisor = net.batch_images, update_batch(net)
        if net.dynamic_minibatch:
            processed = state.seen - self.iteration * batch
            batch, divisor = processed, divisor // batch * processed
        if net.try_fix_nan:
            self._fix_nan()
        rate = learning_rate(net, iteration, self.seed) * self.rate_factor
        self.scaler.step(self.optimizer, rate=rate, batch=divisor, iteration=iteration)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.iteration = state.iteration = iteration
        state.seen = iteration * net.batch_images
        if self.ema:
            self.ema.update(iteration)
        # `get_network_cost` averages over the heads, `train_network` over the images.
        loss = all_reduce_sum(cost, context) / (len(self.network.heads) * batch)
        return StepResult(iteration, rate, loss, parts)

    def split_further(self) -> bool:
        """Computes each mini-batch in twice as many parts from now on; False where it cannot be split.

        A part of a contrastive mini-batch needs pairs, and one of a recurrent network all steps of its streams.
        """
        net = self.network.graph.net
        if net.contrastive or net.time_steps > 1 or 2 * self.parts > self.local_batch.images:
            return False
        self.parts *= 2
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return True

    def _numbered_parts(
        self, mini_batches: Iterable[tuple[Tensor, Tensor]]
    ) -> Iterator[tuple[int, tuple[Tensor, Tensor]]]:
        """Number, from 1, images and truth of each mini-batch, or of each of its parts."""
        for number, (images, truth) in enumerate(mini_batches, 1):
            if self.parts == 1:
                yield number, (images, truth)
                continue
            size = -(-len(images) // self.parts)
            for first in range(0, len(images), size):
                rows = truth[first : first + size]
                if self.network.graph.detection_specs:  # rows name their image
                    rows = truth[(truth[:, 0] >= first) & (truth[:, 0] < first + size)].clone()
                    rows[:, 0] -= first
                yield number, (images[first : first + size], rows)

    @contextmanager
    def _undone_on_error(self) -> Iterator[None]:
        """Puts back what the forward and backward passes of an unfinished iteration have changed."""
        network = self.network
        _copy(self._changing, self._before)
        stats = copy.copy(network.state.delta_stats)
        memories = [(layer, layer.memory) for _, layer in self._recurrent()]
        try:
            yield
        except BaseException as error:
            _copy(self._before, self._changing)
            for stateful in self._stateful():
                stateful.weights_restored()
            for layer, memory in memories:
                layer.memory = memory
            network.state.delta_stats = stats
            network.state.seen = self.iteration * network.graph.net.batch_images
            self.optimizer.zero_grad()
            if isinstance(error, RuntimeError) and _is_out_of_memory(error):
                raise OutOfMemory(f"iteration {self.iteration + 1}: out of memory on {self.device}") from error
            raise

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

    def _adversarial_images(self, images: Tensor, truth: Tensor) -> Tensor:
        """Self-adversarial training: images changed so that the network sees less in them (`train_network_datum_gpu`).

        As in C, layers use their running statistics and keep their weights meanwhile; of a contrastive pair only the
        first image is changed.
        """
        net, state = self.network.graph.net, self.network.state
        frozen = [layer for layer in batch_normalized(self.network) if layer.training]
        for layer in frozen:
            layer.training = False
        state.adversarial = True
        try:
            x = images.detach().clone().requires_grad_()
            rows = 0 if self.network.graph.detection_specs else len(truth)
            nothing = truth.new_zeros(rows, truth.shape[1])
            gradient = torch.autograd.grad(self.network.loss(x, nothing).total, x, allow_unused=True)[0]
        finally:
            state.adversarial = False
            for layer in frozen:
                layer.training = True
        if gradient is None:
            return images
        rate = net.adversarial_lr * self.iteration / max(net.max_batches, 1)
        changed = (images - rate * gradient).clamp(0, 1)
        if net.contrastive:
            changed[1::2] = images[1::2]
        return changed

    def _fix_nan(self) -> None:
        """try_fix_nan: gradients that are not finite become 0, as in C, and so do running means (variances 1)."""
        if not self.scaler.is_enabled():  # the scaler skips such an update
            for parameter in self.network.parameters():
                if parameter.grad is not None:
                    parameter.grad.nan_to_num_(0.0, 0.0, 0.0)
        for name, buffer in self.network.named_buffers():
            role = name.rpartition(".")[2]
            if role in ("mean", "variance"):
                value = float(role == "variance")
                buffer.nan_to_num_(value, value, value)

    def _prepare(self, iteration: int) -> None:
        torch.manual_seed(((self.seed * _SEED_STRIDE + iteration) * _SEED_STRIDE + self.context.rank) % (1 << 63))
        stop = last_stopped_layer(self.network.graph, iteration)
        if stop != self._stop or not self.network.training:  # an evaluation came between
            set_trainable(self.network, stop)
            self._stop = stop
            self._model = wrap_model(self._loss, self.context)

    def close(self) -> None:
        """Drops the DistributedDataParallel wrapper; call it while the process group still exists.

        Freed later, it would free the last reference to the group with the GIL held, which can deadlock with a thread
        of the group.
        """
        self._model, self._stop = self._loss, None
        if self.context.size > 1:
            gc.collect()

    def state_dict(self) -> StepState:
        """All that `step` changes, weights included; loads with `torch.load(weights_only=True)`."""
        stats = self.network.state.delta_stats
        return {
            "iteration": self.iteration,
            "seed": self.seed,
            "rate_factor": self.rate_factor,
            "parts": self.parts,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema.state_dict() if self.ema else [],
            "scaler": self.scaler.state_dict(),
            "rolling": vars(stats) if stats else {},
            "memory": {name: list(layer.memory) for name, layer in self._recurrent() if layer.memory is not None},
        }

    def load_state_dict(self, state: StepState) -> None:
        """Restores what `state_dict` gave."""
        self.iteration = state["iteration"]
        self.seed = state["seed"]
        self.rate_factor = state.get("rate_factor", 1.0)
        self.parts = state.get("parts", 1)
        self.network.load_state_dict(state["network"])
        for layer in self._stateful():
            layer.weights_restored()
        self.optimizer.load_state_dict(state["optimizer"])
        if self.ema:
            self.ema.load_state_dict(state["ema"])
        self.scaler.load_state_dict(state["scaler"])
        rolling = {name: tensor.to(self.device) for name, tensor in state["rolling"].items()}
        self.network.state.delta_stats = RunningDeltaStats(**rolling) if rolling else None
        for name, recurrent in self._recurrent():
            memory = state["memory"].get(name)
            recurrent.memory = tuple(part.to(self.device) for part in memory) if memory else None
        self.network.state.iteration = self.iteration
        self.network.state.seen = self.iteration * self.network.graph.net.batch_images

    def _stateful(self) -> list[StatefulLayer]:
        return [layer for layer in self.network.modules() if isinstance(layer, StatefulLayer)]

    def _recurrent(self) -> list[tuple[str, RecurrentLayer]]:
        return [(name, layer) for name, layer in self.network.named_modules() if isinstance(layer, RecurrentLayer)]


@torch.no_grad()
def _copy(source: list[Tensor], target: list[Tensor]) -> None:
    if source:
        torch._foreach_copy_(target, source)


def _is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
