"""Darknet networks in PyTorch: a cfg means here exactly what it means in Darknet.

    import darknet_py

    net = darknet_py.load("cfg/yolov4-tiny.cfg", "yolov4-tiny.weights")
    for detection in net.detect("dog.jpg")[0]:
        print(detection.name, detection.confidence, detection.box)

Names are imported on first use, so that importing the package (and `--help`) is instant.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from darknet_py.backends.loading import load
    from darknet_py.errors import (
        CfgError,
        CfgWarning,
        DarknetError,
        DataError,
        MissingExtra,
        TrainError,
        WeightsError,
    )
    from darknet_py.evaluation.evaluate import evaluate
    from darknet_py.export.convert import convert
    from darknet_py.graph.graph import Graph, parse, parse_text
    from darknet_py.inference.detections import Detection, Detections
    from darknet_py.model.model_file import ModelFile
    from darknet_py.model.network import LossReport, Network
    from darknet_py.training.api import train
    from darknet_py.training.callbacks import EvaluationEvent, IterationEvent, TrainCallback

__version__ = "0.2.0"

_HOMES = {
    "CfgError": "errors",
    "CfgWarning": "errors",
    "DarknetError": "errors",
    "DataError": "errors",
    "Detection": "inference.detections",
    "Detections": "inference.detections",
    "EvaluationEvent": "training.callbacks",
    "Graph": "graph.graph",
    "IterationEvent": "training.callbacks",
    "LossReport": "model.network",
    "MissingExtra": "errors",
    "ModelFile": "model.model_file",
    "Network": "model.network",
    "TrainCallback": "training.callbacks",
    "TrainError": "errors",
    "WeightsError": "errors",
    "convert": "export.convert",
    "evaluate": "evaluation.evaluate",
    "load": "backends.loading",
    "parse": "graph.graph",
    "parse_text": "graph.graph",
    "train": "training.api",
}

__all__ = [
    "CfgError",
    "CfgWarning",
    "DarknetError",
    "DataError",
    "Detection",
    "Detections",
    "EvaluationEvent",
    "Graph",
    "IterationEvent",
    "LossReport",
    "MissingExtra",
    "ModelFile",
    "Network",
    "TrainCallback",
    "TrainError",
    "WeightsError",
    "__version__",
    "convert",
    "evaluate",
    "load",
    "parse",
    "parse_text",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'darknet_py' has no attribute {name!r}")
    value = getattr(import_module(f"darknet_py.{_HOMES[name]}"), name)
    globals()[name] = value  # so that the next use does not come here
    return value


def __dir__() -> list[str]:
    return __all__
