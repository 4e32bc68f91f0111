"""A fused network as a module of plain tensors, which torch's exporters can trace."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import torch
from torch import Tensor, nn

from darknet_py.inference.fuse import AMP, fuse
from darknet_py.layers.base import HeadLayer, Predictions
from darknet_py.layers.recurrent import RecurrentLayer, reset_state
from darknet_py.model.load import build
from darknet_py.model.model_file import ModelFile
from darknet_py.model.network import Network

INPUT_NAME = "images"
BOX_OUTPUTS = ("boxes", "objectness", "scores")


class TraceableNetwork(nn.Module):
    """Takes a batch of images and gives a tuple of tensors, named by `output_names`.

    A network with recurrent layers computes one step: it also takes what these layers remember of each stream, zeros
    before the first step, and gives what they remember next.

    Args:
        net: A network; a fused copy of it is used.
        outputs: "boxes" or "raw", see `ExportOptions`.
        precision: fp32, fp16 or bf16.
        hier: Class trees: probability above which a class is reported.
    """

    def __init__(self, net: Network, outputs: str, precision: str = "fp32", hier: float = 0.5):
        super().__init__()
        self.net = fuse(net, AMP.get(precision), pack=False)
        self.outputs = outputs
        self.hier = hier
        self.eval()

    @property
    def states(self) -> tuple[str, ...]:
        """The names of what the recurrent layers remember: state_INDEX, or state_INDEX_0 and state_INDEX_1."""
        return tuple(
            f"state_{index}" + (f"_{part}" if layer.memories > 1 else "")
            for index, layer in self.recurrent()
            for part in range(layer.memories)
        )

    @property
    def input_names(self) -> tuple[str, ...]:
        """images, and the states."""
        return INPUT_NAME, *self.states

    @property
    def output_names(self) -> tuple[str, ...]:
        """boxes, objectness, scores; or head_INDEX for what the head of that layer index reads; or output.

        Then the next states, next_state_INDEX ….
        """
        raw = tuple(f"head_{index}" for index, _ in self.net.detectors) or ("output",)
        return (*(BOX_OUTPUTS if self.outputs == "boxes" else raw), *(f"next_{name}" for name in self.states))

    @torch.no_grad()
    def empty_states(self, x: Tensor) -> tuple[Tensor, ...]:
        """The states before the first step of these streams: zeros."""
        if not self.states:
            return ()
        reset_state(self.net)
        self.net(x)
        memories = [part.float() for _, layer in self.recurrent() for part in layer.memory or ()]
        reset_state(self.net)
        return tuple(map(torch.zeros_like, memories))

    def forward(self, x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        """One call, or one step.

        Args:
            x: (B, C, H, W) RGB in 0..1; (B, inputs) of a network without images.
            states: As `empty_states` gives them, or the last outputs of the step before.

        Returns:
            "boxes": boxes (B, N, 4), objectness (B, N) and scores (B, N, classes) as in `Predictions`. "raw": the
            inputs of the detection heads, each (B, channels, rows, columns), or the network's output. Then the next
            states. All are float32.
        """
        if not states:
            return self._outputs(x)
        given = iter(part if self.net.dtype is None else part.to(self.net.dtype) for part in states)
        for _, layer in self.recurrent():
            layer.memory = tuple(islice(given, layer.memories))
        outputs = self._outputs(x)
        following = [part.float() for _, layer in self.recurrent() for part in layer.memory or ()]
        reset_state(self.net)
        return (*outputs, *following)

    def _outputs(self, x: Tensor) -> tuple[Tensor, ...]:
        if self.outputs == "boxes":
            return tuple(self.net.predict(x, self.hier))
        read: list[Tensor] = []
        hooks = [head.register_forward_pre_hook(lambda head, args: read.append(args[0])) for head in self._heads()]
        output: Predictions | Tensor = self.net(x)
        for hook in hooks:
            hook.remove()
        raw = read if isinstance(output, Predictions) else [output]
        return tuple(part.float() for part in raw)

    def _heads(self) -> list[HeadLayer]:
        return [head for _, head in self.net.detectors]

    def recurrent(self) -> Iterator[tuple[int, RecurrentLayer]]:
        """The layers that remember, with their indices."""
        return ((index, layer) for index, layer in enumerate(self.net.layers) if isinstance(layer, RecurrentLayer))


def traceable(model: ModelFile, outputs: str, precision: str = "fp32", hier: float = 0.5) -> TraceableNetwork:
    """The network of a file."""
    with torch.no_grad():
        return TraceableNetwork(build(model), outputs, precision, hier)
