"""The images with the most errors."""

from __future__ import annotations

import numpy as np

from darknet_py.evaluation.types import CollectedBoxes, GroundTruth
from darknet_py.evaluation.worst_images import worst_images
from darknet_py.inference.detections import Detections


def boxes(*centers: float) -> np.ndarray:
    return np.array([[center, 0.5, 0.1, 0.1] for center in centers], np.float32).reshape(-1, 4)


def test_missed_wrong_and_doubled_objects_count() -> None:
    """a: nothing wrong. b: one missed, one of the wrong class, one below the threshold. c: the same object twice."""
    truth = [
        GroundTruth(boxes(0.2), np.array([0])),
        GroundTruth(boxes(0.2, 0.6), np.array([0, 1])),
        GroundTruth(boxes(0.2), np.array([0])),
        GroundTruth(boxes(), np.zeros(0, np.int64)),
    ]
    found = [
        Detections(boxes(0.2), np.array([0]), np.array([0.9], np.float32)),
        Detections(boxes(0.9, 0.2, 0.6), np.array([1, 0, 0]), np.array([0.1, 0.7, 0.8], np.float32)),
        Detections(boxes(0.2, 0.2), np.array([0, 0]), np.array([0.6, 0.9], np.float32)),
        Detections(boxes(), np.zeros(0, np.int64), np.zeros(0, np.float32)),
    ]
    collected = CollectedBoxes(["a", "b", "c", "d"], [(9, 9)] * 4, truth, {"darknet": found}, None, [])
    worst = worst_images(collected, found, 0.5, 0.5, 8)
    assert [(image.path, image.errors) for image in worst] == [("b", 2), ("c", 1)]
    assert worst[0].is_missed.tolist() == [False, True]
    assert worst[0].found.confidences.tolist() == np.array([0.8, 0.7], np.float32).tolist()
    assert worst[0].is_wrong.tolist() == [True, False]
    assert worst[1].is_wrong.tolist() == [False, True]  # the less confident one
    assert [image.path for image in worst_images(collected, found, 0.5, 0.5, 1)] == ["b"]
    assert [image.path for image in worst_images(collected, found, 0.05, 0.5, 1)] == ["b"]
