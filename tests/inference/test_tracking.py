"""Objects keep their numbers from frame to frame."""

from __future__ import annotations

import numpy as np
import pytest

from darknet_py.inference.detections import Detections
from darknet_py.inference.tracking import ObjectTracker


def frame(*rows: tuple[float, float]) -> Detections:
    """Boxes of the same size: center x, confidence."""
    boxes = np.array([[x, 0.5, 0.2, 0.4] for x, _ in rows], np.float32).reshape(-1, 4)
    confidences = np.array([confidence for _, confidence in rows], np.float32)
    return Detections(boxes, np.zeros(len(rows), np.int64), confidences, ("cat",), (200, 100))


@pytest.mark.filterwarnings("ignore")  # of the library
def test_ids_follow_the_objects() -> None:
    pytest.importorskip("trackers")
    tracker = ObjectTracker(10)
    assert tracker.update(frame()).track_ids.tolist() == []
    tracker.update(frame((0.2, 0.9), (0.7, 0.8)))
    first = tracker.update(frame((0.21, 0.9), (0.69, 0.8)))
    left, right = first.track_ids.tolist()
    assert left > 0 and right > 0 and left != right
    later = tracker.update(frame((0.68, 0.95), (0.22, 0.9), (0.45, 0.3)))  # another order, and one that is new
    assert later.track_ids.tolist() == [right, left, 0]
    assert [row.get("track_id") for row in later.to_json()] == [right, left, 0]
