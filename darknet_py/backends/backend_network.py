"""A network that another runtime runs, with the methods of `Network` for inference."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from darknet_py.errors import DarknetError
from darknet_py.export.verify import Runner
from darknet_py.graph.graph import Graph
from darknet_py.inference.detect import DetectArguments, DetectOptions, ImageLike, detect_each, detect_tensor
from darknet_py.inference.detections import Detections
from darknet_py.layers.base import Predictions
from darknet_py.model.network import Network

if TYPE_CHECKING:
    from typing_extensions import Unpack


class BackendNetwork:
    """Runs by a runtime. Decoding takes place in the runtime, thresholds and suppression here.

    Args:
        net: The network that it runs.
        run: The runtime, for batches of `batch` images at the network's input size.
        backend: Its name.
        precision: In what it computes: fp32, bf16 or fp16.
        batch: Images per call: fewer are filled up, more are divided. None: the runtime takes any number and size.
        hier: Class trees: the probability that the runtime was made with.

    Attributes:
        graph: The network's layers.
        names: Class names.
        backend: The runtime's name.
        precision: In what it computes.
    """

    def __init__(self, net: Network, run: Runner, backend: str, precision: str, batch: int | None, hier: float):
        self.graph: Graph = net.graph
        self.names: Sequence[str] = net.names
        self.backend, self.precision = backend, precision
        self._net, self._run, self._batch, self._hier = net, run, batch, hier

    @property
    def device(self) -> torch.device:
        """Where its inputs are."""
        return self._net.device

    @property
    def is_exclusive(self) -> bool:
        """Whether threads must not use it at the same time."""
        return self.backend != "torch" or self.device.type != "cpu"

    @property
    def nms_kind(self) -> tuple[str, float]:
        """See `Network.nms_kind`."""
        return self._net.nms_kind

    def __call__(self, x: Tensor) -> Predictions | Tensor:
        """As the network itself: a detector's predictions, or the output of another network.

        Args:
            x: (B, C, height, width) RGB in 0..1, at the network's input size.

        Raises:
            DarknetError: The input has another shape.
        """
        outputs = self._outputs(x)
        return Predictions(*outputs) if self.graph.detection_specs else outputs[0]

    def predict(self, x: Tensor, hier: float | None = None) -> Predictions:
        """As `Network.predict`.

        Args:
            x: (B, C, height, width) RGB in 0..1, at the network's input size.
            hier: The probability that it was made with, or None for that.

        Raises:
            DarknetError: The input has another shape, hier is another, or the network has no detection layer.
        """
        if hier is not None and hier != self._hier and any(spec.tree for spec in self.graph.detection_specs):
            raise DarknetError(f"hier: expected {self._hier}, with which this back end was made, got {hier}")
        if not self.graph.detection_specs:
            raise DarknetError(f"{self.graph.path}: this network has no detection layer")
        return Predictions(*self._outputs(x))

    def _outputs(self, x: Tensor) -> Sequence[Tensor]:
        if self._batch is None:
            return self._run(x)
        if tuple(x.shape[1:]) != tuple(self.graph.input):
            expected = ", ".join(map(str, self.graph.input))
            raise DarknetError(f"expected an input of (batch, {expected}), got {tuple(x.shape)}")
        if len(x) == self._batch:
            return self._run(x)
        parts = [self._run_part(part, self._batch) for part in x.split(self._batch)]
        return parts[0] if len(parts) == 1 else [torch.cat(part) for part in zip(*parts, strict=True)]

    def _run_part(self, x: Tensor, batch: int) -> list[Tensor]:
        filled = torch.cat((x, x.new_zeros(batch - len(x), *x.shape[1:])))
        return [output[: len(x)] for output in self._run(filled)]

    def boxes(self, x: Tensor, thresh: float = 0.25, nms: float = 0.45) -> list[Detections]:
        """As `Network.boxes`."""
        return detect_tensor(self, x, DetectOptions(thresh, nms, hier=self._hier))

    def detect(
        self,
        images: ImageLike | Iterable[ImageLike],
        thresh: float | Literal["auto"] = 0.25,
        nms: float = 0.45,
        *,
        bgr: bool = False,
        letter_box: bool | None = None,
        stb: bool = False,
        agnostic: bool = False,
        class_thresh: Mapping[int | str, float] | None = None,
        tiles: int = 0,
        overlap: float = 0.2,
    ) -> list[Detections]:
        """As `Network.detect`, in batches of the size that it was made for."""
        return list(
            self.detect_each(
                images,
                thresh,
                nms,
                bgr=bgr,
                letter_box=letter_box,
                stb=stb,
                agnostic=agnostic,
                class_thresh=class_thresh,
                tiles=tiles,
                overlap=overlap,
            )
        )

    def detect_each(
        self,
        images: ImageLike | Iterable[ImageLike],
        thresh: float | Literal["auto"] = 0.25,
        nms: float = 0.45,
        **options: Unpack[DetectArguments],
    ) -> Iterator[Detections]:
        """As `Network.detect_each`, in batches of the size that it was made for."""
        options = {**options, "hier": self._hier, "batch": self._batch or 1}
        return detect_each(self, images, DetectOptions.of(self._net.threshold(thresh), nms, self.names, options))
