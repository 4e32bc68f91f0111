"""What a user may write with every public name: `tests/test_typing.py` runs `mypy --strict` on it.

Every line with `reveal_type` must have a type without Any.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import torch
from typing_extensions import reveal_type

import darknet_py
from darknet_py import (
    CfgError,
    CfgWarning,
    DarknetError,
    DataError,
    Detection,
    Detections,
    EvaluationEvent,
    Graph,
    IterationEvent,
    LossReport,
    MissingExtra,
    ModelFile,
    Network,
    TrainCallback,
    TrainError,
    WeightsError,
)


class Printer(TrainCallback):
    def on_iteration(self, event: IterationEvent) -> None:
        reveal_type(event.iteration)
        reveal_type(event.loss)

    def on_evaluation(self, event: EvaluationEvent) -> None:
        reveal_type(event)


def frames(path: str) -> Iterator[torch.Tensor]:
    while True:
        yield torch.zeros(3, 416, 416)


def show(found: Detections) -> None:
    reveal_type(found.boxes)
    reveal_type(found.xyxy)
    reveal_type(found.xywh)
    reveal_type(found.xyxyn)
    reveal_type(found.class_ids)
    reveal_type(found.names)
    reveal_type(found.confidences)
    reveal_type(len(found))
    reveal_type(found[0])
    reveal_type(found[found.confidences > 0.5])
    reveal_type(found[:3])
    reveal_type(found.filter("dog", confidence=0.5))
    reveal_type(found.visible())
    reveal_type(found.plot())
    reveal_type(found.crops())
    reveal_type(found.save("x.jpg"))
    reveal_type(found.to_dict())
    reveal_type(found.to_json())
    reveal_type(found.to_coco(1))
    reveal_type(found.to_csv())
    for detection in found:
        first: Detection = detection
        reveal_type(first.box)
        reveal_type(first.name)


def main() -> int:
    try:
        net = darknet_py.load("x.cfg", "x.weights")
    except (CfgError, WeightsError, DataError, TrainError, MissingExtra) as error:
        reveal_type(error)
        return 1
    except DarknetError as error:
        reveal_type(str(error))
        return 1
    reveal_type(net)
    same: Network = net
    reveal_type(same(torch.zeros(1, 3, 416, 416)))
    reveal_type(net.predict(torch.zeros(1, 3, 416, 416)))
    report: LossReport = net.loss(torch.zeros(1, 3, 416, 416), torch.zeros(0, 6))
    reveal_type(report.total)
    reveal_type(net.detect("dog.jpg", thresh="auto", agnostic=True, class_thresh={"dog": 0.5}, tiles=640))
    reveal_type(net.detect_each(frames("x"), 0.5, batch=4))
    net.detect(b"content of a file")
    net.detect([Path("dog.jpg"), torch.zeros(3, 416, 416)])
    image = cv2.imread("dog.jpg")
    if image is not None:
        net.detect(image.astype("uint8"), bgr=True)
    reveal_type(darknet_py.load("x.cfg", "x.weights", backend="onnxruntime").detect("dog.jpg"))
    for found in net.detect("dog.jpg"):
        show(found)
    graph: Graph = darknet_py.parse("x.cfg")
    reveal_type(graph.input)
    reveal_type(darknet_py.parse_text("[net]\n").layers)
    reveal_type(ModelFile.read_weights("x.weights", graph).tensors)
    result = darknet_py.train("x.cfg", "x.data", "x.weights", classes=3, callbacks=[Printer()])
    reveal_type(result)
    reveal_type(result.weights)
    reveal_type(darknet_py.evaluate("x.cfg", "x.data", "x.weights"))
    reveal_type(darknet_py.convert("x.cfg", "x.weights", "x.pt"))
    reveal_type(darknet_py.__version__)
    print(CfgWarning)
    return 0


if __name__ == "__main__":
    sys.exit(main())
