"""An exported file in place of its network: what it finds on labeled images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from darknet_py.backends.backend_network import BackendNetwork
from darknet_py.counted import counted
from darknet_py.errors import DarknetError
from darknet_py.evaluation.detector import EvalOptions
from darknet_py.evaluation.evaluate import evaluate_on
from darknet_py.export.export_options import ExportOptions
from darknet_py.export.runtimes import run_onnx, run_openvino
from darknet_py.export.verify import Runner
from darknet_py.model.network import Network

_RUNNERS: dict[str, Callable[[Path], Runner]] = {
    ".onnx": lambda path: run_onnx(path.read_bytes()),
    ".xml": run_openvino,
}


class MapCost(NamedTuple):
    """Darknet's mAP@0.50 of a network and of a file that it was exported to, from 0 to 1."""

    network: float
    exported: float
    images: int

    def __str__(self) -> str:
        cost = 100 * (self.exported - self.network)
        return (
            f"mAP@0.50 on {counted(self.images, 'image')}: {self.exported:.2%}, "
            f"of the network itself {self.network:.2%}: {cost:+.2f} points"
        )


def map_cost(net: Network, path: Path, options: ExportOptions, data: str | Path) -> MapCost:
    """Evaluates an exported detector beside its network.

    Args:
        net: The network, at the size of the export.
        path: An .onnx or .xml file with the outputs boxes.
        options: How it was exported.
        data: A labeled data set, as `evaluate` takes it.

    Raises:
        DarknetError: The file is of another kind.
        DataError: The data cannot be used.
    """
    check_measurable(path, options)
    exported = BackendNetwork(
        net, _RUNNERS[path.suffix](path), path.name, options.precision, options.batch, options.hier
    )
    values = []
    for predictor in (None, exported):
        evaluation, _ = evaluate_on(net, data, None, (), EvalOptions(("darknet",), predictor=predictor, progress=True))
        assert evaluation.darknet is not None
        values.append(evaluation.darknet.map)
    return MapCost(values[0], values[1], len(evaluation.boxes.paths))


def check_measurable(path: Path, options: ExportOptions) -> None:
    """Raises DarknetError where the mAP of an exported file cannot be measured."""
    if path.suffix not in _RUNNERS or options.outputs not in ("", "boxes"):
        raise DarknetError(f"{path}: expected {' or '.join(_RUNNERS)} with the outputs boxes, to measure its mAP")
