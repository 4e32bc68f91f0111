"""What an exported network takes and gives."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from darknet_py.cfg.net import NetSpec
from darknet_py.errors import CfgError, DarknetError
from darknet_py.graph.graph import Graph, resized
from darknet_py.layers.base import HIER_THRESH

OUTPUTS = ("raw", "boxes", "nms")
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
DYNAMIC = ("none", "batch", "size", "both")


@dataclass(frozen=True)
class ExportOptions:
    """How a network is exported.

    Attributes:
        outputs: "boxes": decoded candidates before any threshold. "nms": detections after the confidence threshold and
            non-maximum suppression. "raw": what each head reads, or the output of a network without detection layers.
            Empty: "boxes" of a detector, else "raw".
        precision: Of all layers but the heads: fp32, fp16, bf16 or int8.
        calibrate: A folder, glob or list of images like those that an int8 network will see.
        batch: Images per call, where that is fixed.
        dynamic: What the exported network takes any number of: "none", "batch", "size" or "both".
        width: Input width in pixels, instead of the cfg's.
        height: Input height in pixels, instead of the cfg's.
        thresh: Confidence threshold; "nms" contains it, other outputs only mention it in the metadata.
        nms: IoU threshold for non-maximum suppression, likewise.
        hier: Class trees: probability above which a class is reported.
    """

    outputs: str = ""
    precision: str = "fp32"
    calibrate: str | Path = ""
    batch: int = 1
    dynamic: str = "none"
    width: int | None = None
    height: int | None = None
    thresh: float = 0.25
    nms: float = 0.45
    hier: float = HIER_THRESH

    @property
    def any_batch(self) -> bool:
        """Whether the number of images is open."""
        return self.dynamic in ("batch", "both")

    @property
    def any_size(self) -> bool:
        """Whether height and width are open."""
        return self.dynamic in ("size", "both")

    def chosen_outputs(self, graph: Graph) -> str:
        """The outputs, "boxes" or "raw" where none were chosen.

        Raises:
            DarknetError: A network without detection layers has no boxes.
        """
        outputs = self.outputs or ("boxes" if graph.detection_specs else "raw")
        if outputs != "raw" and not graph.detection_specs:
            raise DarknetError(f"outputs: {graph.path} has no detection layer; expected raw, got {outputs}")
        return outputs

    def check(self) -> None:
        """Raises DarknetError for an unknown word or a number out of range."""
        for name, value, known in (
            ("outputs", self.outputs, ("", *OUTPUTS)),
            ("precision", self.precision, PRECISIONS),
            ("dynamic", self.dynamic, DYNAMIC),
        ):
            if value not in known:
                raise DarknetError(f"{name}: expected one of {', '.join(filter(None, known))}, got {value!r}")
        check_calibration(self.precision, self.calibrate)
        if self.batch < 1:
            raise DarknetError(f"batch: expected at least 1, got {self.batch}")
        for name, fraction in (("thresh", self.thresh), ("nms", self.nms), ("hier", self.hier)):
            if not 0 <= fraction <= 1:
                raise DarknetError(f"{name}: expected a number from 0 to 1, got {fraction}")


def check_calibration(precision: str, calibrate: str | Path) -> None:
    """Raises DarknetError for int8 without images to calibrate it, or images without int8."""
    if (precision == "int8") != bool(calibrate):
        expected = (
            "images, from which int8 takes its scales" if precision == "int8" else "none, as only int8 needs them"
        )
        raise DarknetError(f"calibrate: expected {expected}, got {str(calibrate) or 'none'}")


def size_step(graph: Graph) -> int:
    """The number of pixels by which the input may grow so that all feature maps still fit each other.

    Raises:
        DarknetError: The network has weights for each position, so that its size is fixed.
    """
    net = graph.net
    maps = [node.output for node in graph.layers if min(node.output.h, node.output.w) > 1]
    scale = max((math.ceil(net.height / shape.h) for shape in maps), default=1)
    step = 1 << (scale - 1).bit_length()
    grown = 2 * step * math.ceil(max(net.width, net.height) / step)
    try:
        fits = resized(graph, grown, grown).parameters == graph.parameters
    except CfgError:
        fits = False
    if not fits:
        raise DarknetError(f"dynamic: {graph.path} has weights for one input size only; expected batch or none")
    return step


def example_size(net: NetSpec, step: int) -> tuple[int, int]:
    """A (height, width) to trace a network of any size with: multiples of `step`, different and at least two of it."""
    rows, columns = (max(2, size // step) for size in (net.height, net.width))
    return rows * step, (columns + (columns == rows)) * step
