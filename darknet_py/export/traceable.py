"""A fused network as a module of plain tensors, which torch's exporters can trace."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from darknet_py.errors import DarknetError
from darknet_py.inference.fuse import AMP, fuse
from darknet_py.layers.base import HeadLayer, Predictions
from darknet_py.layers.recurrent import RecurrentLayer
from darknet_py.model.load import build
from darknet_py.model.model_file import ModelFile
from darknet_py.model.network import Network

INPUT_NAME = "images"
BOX_OUTPUTS = ("boxes", "objectness", "scores")


class TraceableNetwork(nn.Module):
    """Takes a batch of images and gives a tuple of tensors, named by `output_names`.

    Args:
        net: A network; a fused copy of it is used.
        outputs: "boxes" or "raw", see `ExportOptions`.
        precision: fp32, fp16 or bf16.
        hier: Class trees: probability above which a class is reported.

    Raises:
        DarknetError: The network keeps a memory from call to call.
    """

    def __init__(self, net: Network, outputs: str, precision: str = "fp32", hier: float = 0.5):
        super().__init__()
        if net.graph.reads_text or any(isinstance(layer, RecurrentLayer) for layer in net.modules()):
            raise DarknetError(f"{net.graph.path}: recurrent layers keep a memory between calls and cannot be exported")
        self.net = fuse(net, AMP.get(precision), pack=False)
        self.outputs = outputs
        self.hier = hier
        self.eval()

    @property
    def output_names(self) -> tuple[str, ...]:
        """boxes, objectness, scores; or head_INDEX for what the head of that layer index reads; or output."""
        if self.outputs == "boxes":
            return BOX_OUTPUTS
        return tuple(f"head_{index}" for index, _ in self.net.detectors) or ("output",)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """x: (B, C, H, W) RGB in 0..1.

        Returns "boxes": boxes (B, N, 4), objectness (B, N) and scores (B, N, classes) as in `Predictions`. "raw": the
        inputs of the detection heads, each (B, channels, rows, columns), or the network's output. All are float32.
        """
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


def traceable(model: ModelFile, outputs: str, precision: str = "fp32", hier: float = 0.5) -> TraceableNetwork:
    """The network of a file. Raises DarknetError where it cannot be exported."""
    with torch.no_grad():
        return TraceableNetwork(build(model), outputs, precision, hier)
