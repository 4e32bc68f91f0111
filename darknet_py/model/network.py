"""The graph as a torch module."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from darknet_py.errors import CfgError, DarknetError, Problem
from darknet_py.graph.graph import Graph
from darknet_py.layers.base import (
    DetectionHeadSpec,
    HeadLayer,
    HeadLoss,
    Node,
    Predictions,
    ShapeError,
    StatefulLayer,
    TrainState,
)
from darknet_py.model import checkpoint
from darknet_py.model import weights as weights_file
from darknet_py.model.c_emulation import CEmulation


class LossReport(NamedTuple):
    """What `Network.loss` found for a mini-batch.

    total: scalar; its gradient with respect to each head's input is −(Darknet's delta), summed over the mini-batch.
    cost: Darknet's cost of the mini-batch before division by its size (a detached scalar). parts: per head's layer
    index, the named figures of that head.
    """

    total: Tensor
    cost: Tensor
    parts: dict[int, dict[str, Tensor]]


class Network(nn.Module):
    """Runs a graph layer by layer and frees each output after its last use.

    `layers[i]` is the module of cfg layer i. `state` tells heads where training stands.
    """

    def __init__(self, graph: Graph, names: Sequence[str] = ()):
        super().__init__()
        self.graph = graph
        self.names = list(names)
        self.dtype: torch.dtype | None = None  # of all but the heads, where it is not float32 (`fuse`)
        self.state = TrainState(max_batches=graph.net.max_batches)
        self.layers = nn.ModuleList(node.spec.build(node) for node in graph.layers)
        for node, layer in zip(graph.layers, self.layers, strict=True):
            try:
                node.spec.link(layer, list(self.layers), graph.layers)
            except ShapeError as error:
                where = f"[{node.type}] #{node.index}"
                raise CfgError([Problem(graph.path, node.line, where, str(error))]) from None
        self.heads = [(i, layer) for i, layer in enumerate(self.layers) if isinstance(layer, HeadLayer)]
        for layer in self.modules():
            if isinstance(layer, StatefulLayer):
                layer.state = self.state

    @property
    def detectors(self) -> list[tuple[int, HeadLayer]]:
        return [(i, head) for i, head in self.heads if isinstance(self.graph.layers[i].spec, DetectionHeadSpec)]

    @property
    def nms_kind(self) -> tuple[str, float]:
        """(nms_kind, beta_nms) of the last detection layer: Darknet looks at that one alone."""
        specs = self.graph.detection_specs
        return (specs[-1].nms_kind, specs[-1].beta_nms) if specs else ("default", 0.6)

    @property
    def device(self) -> torch.device:
        """Where its arrays are; the CPU where it has none."""
        return next(self.parameters(), torch.empty(0)).device

    def forward(self, x: Tensor) -> Any:
        """x: (B, C, H, W) RGB in 0..1.

        Detectors: `Predictions` of all heads together, boxes (B, N, 4) relative to the input. Other networks: the
        last layer's output, (B, N) for vectors.
        """
        return self._forward(x, lambda node, module, inputs: None)

    def forward_with_loss(self, x: Tensor, truth: Tensor) -> tuple[Any, Tensor]:
        """What `forward` gives, and Darknet's cost of the mini-batch (float64), divided by the number of heads.

        One pass. Heads count as they do late in training, so that nothing is drawn by chance and the weights alone
        decide; heads that compare images with each other are left out. truth: as `loss` takes it.
        """
        late, costs = TrainState(seen=1 << 40), []

        def cost(node: Node, module: nn.Module, inputs: list[Tensor]) -> None:
            if isinstance(module, HeadLayer) and not module.is_contrastive and not node.common.onlyforward:
                costs.append(_head_loss(module, inputs[0], truth, late).cost)

        found = self._forward(x, cost)
        if not costs:
            raise DarknetError(f"{self.graph.path}: no layer of this network has a loss")
        return found, torch.stack(costs).mean()

    def _forward(self, x: Tensor, look: Callable[[Node, nn.Module, list[Tensor]], None]) -> Any:
        """`forward`, with `look` called before each layer runs."""
        decoded: list[Predictions] = []
        last: list[Tensor] = []

        def keep(node: Node, module: nn.Module, inputs: list[Tensor]) -> Tensor:
            look(node, module, inputs)
            output = module(*inputs)
            if isinstance(module, HeadLayer) and isinstance(node.spec, DetectionHeadSpec):
                decoded.append(module.decode(output))
            last[:] = [output]
            return output

        self._run(x, keep)
        if decoded:
            return Predictions(*(torch.cat(parts, 1) for parts in zip(*decoded, strict=True)))
        return _as_darknet(last[0], self.graph.layers[-1])

    def outputs(self, x: Tensor) -> list[Tensor | None]:
        """What C Darknet's CPU build keeps in each layer's l.output, faults included: (B, C, H, W) or (B, N).

        None where C keeps none. See `model.c_emulation` for the few cfgs where this is not what the network computes.
        """
        build = CEmulation(self.graph.layers, list(self.layers))
        outputs: list[Tensor | None] = []

        def keep(node: Node, module: nn.Module, inputs: list[Tensor]) -> Tensor:
            output = module(*inputs)
            c_output = build.output(node, module, inputs, output)
            outputs.append(None if c_output is None else c_output.clone())
            return output

        with build.faults():
            self._run(x, keep)
        return outputs

    def loss(self, x: Tensor, truth: Tensor) -> LossReport:
        """Forward pass of one mini-batch with losses.

        x: (B, C, H, W). truth: (N, 6) rows (image, class, cx, cy, w, h) relative to the input for detectors;
        (B, outputs) for classifiers.
        """
        totals: list[Tensor] = []
        costs: list[Tensor] = []
        parts: dict[int, dict[str, Tensor]] = {}

        def measure(node: Node, module: nn.Module, inputs: list[Tensor]) -> Tensor | None:
            if isinstance(module, HeadLayer) and not node.common.onlyforward:
                report = _head_loss(module, inputs[0], truth, self.state)
                totals.append(report.total)
                costs.append(report.cost)
                parts[node.index] = report.parts
                if node.last_use == node.index:
                    return None
            return module(*inputs)

        truth = truth if truth.numel() else truth.reshape(0, 6)  # no boxes at all, as torch.tensor([]) gives them
        self.state.truth = truth
        try:
            self._run(x, measure)
        finally:
            self.state.truth = None
        if not totals:
            raise DarknetError(f"{self.graph.path}: no layer of this network has a loss")
        return LossReport(torch.stack(totals).sum(), torch.stack(costs).sum(), parts)

    def load_weights(self, path: str | Path, cutoff: int | None = None) -> weights_file.Header:
        """Reads a `.weights` file or a checkpoint; see `model.weights.load`. cutoff: only layers before it."""
        reader = checkpoint if checkpoint.is_checkpoint(path) else weights_file
        header = reader.load(self, path, cutoff)
        self.state.seen = header.seen
        self.state.iteration = header.seen // self.graph.net.batch_images
        return header

    def save_weights(self, path: str | Path, cutoff: int | None = None, seen: int | None = None) -> None:
        """Writes a Darknet `.weights` file; seen: images, as the header keeps them (default: as trained)."""
        weights_file.save(self, path, cutoff, self.state.seen if seen is None else seen)

    def boxes(self, x: Tensor, thresh: float = 0.25, nms: float = 0.45) -> list[list[Any]]:
        """Detections on a ready input tensor (B, C, H, W), boxes relative to it; see `model.predict`."""
        from darknet_py.inference.detect import boxes  # it needs the data room, a network does not

        return boxes(self, x, thresh, nms)

    def detect(self, images: Any, thresh: float = 0.25, nms: float = 0.45, stb: bool = False) -> list[list[Any]]:
        """Detections on images (paths or (H, W, 3) RGB uint8 arrays), relative to each; see `model.predict`."""
        from darknet_py.inference.detect import detect

        return detect(self, images, thresh, nms, stb=stb)

    def _run(self, x: Tensor, step: Callable[[Node, nn.Module, list[Tensor]], Tensor | None]) -> None:
        """Calls `step` for each layer in order with its inputs; its result is that layer's output."""
        self._check_input(x)
        x = x if self.dtype is None else x.to(self.dtype)
        outputs: dict[int, Tensor] = {-1: x if x.dim() == 4 else x[:, :, None, None]}
        for _, head in self.heads:
            head.input_size = (x.shape[3], x.shape[2]) if x.dim() == 4 else (1, 1)
        for node, module in zip(self.graph.layers, self.layers, strict=True):
            output = step(node, module, [outputs[source] for source in node.sources])
            if output is not None and node.common.onlyforward:
                output = output.detach()  # `backward_network` passes over such a layer
            for source in node.sources:
                if source >= 0 and self.graph.layers[source].last_use == node.index:
                    outputs.pop(source, None)
            if output is not None and node.last_use > node.index:
                outputs[node.index] = output

    def _check_input(self, x: Tensor) -> None:
        expected = self.graph.input
        if x.dim() == 2 and expected.size == x.shape[1]:
            return
        if x.dim() != 4 or x.shape[1] != expected.c:
            raise DarknetError(f"expected an input of (batch, {expected.c}, height, width), got {tuple(x.shape)}")


def _head_loss(head: HeadLayer, x: Tensor, truth: Tensor, state: TrainState) -> HeadLoss:
    """In float32 whatever the layers before run in: a sum over thousands of cells needs more than 16 bits."""
    with torch.autocast(x.device.type, enabled=False):
        return head.loss(x.float(), truth, state)


def _as_darknet(output: Tensor, node: Node) -> Tensor:
    return output.flatten(1) if node.spec.vector else output
