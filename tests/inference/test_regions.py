"""Counting lines and zones: by the library supervision, on boxes whose ways are known."""

from __future__ import annotations

import numpy as np
import pytest

from darknet_py.inference.detections import Detections
from darknet_py.inference.regions import RegionCounter

pytest.importorskip("supervision")


def found_at(*centers: tuple[float, float]) -> Detections:
    """Tracked boxes of a tenth of the image."""
    boxes = np.array([[*center, 0.1, 0.1] for center in centers], np.float32).reshape(-1, 4)
    ids = np.arange(len(boxes))
    return Detections(boxes, ids * 0, np.ones(len(boxes), np.float32), ("a",), (200, 100), track_ids=ids + 1)


def test_lines_and_zones() -> None:
    """One object goes down across the line and back, another one up; both are in the left half at times."""
    line, zone = np.array([[0.0, 0.5], [1.0, 0.5]]), np.array([[0.0, 0.0], [0.5, 0.0], [0.5, 1.0], [0.0, 1.0]])
    counter = RegionCounter([line], [zone], (200, 100))
    ways = [((0.2, 0.2), (0.8, 0.9)), ((0.3, 0.4), (0.7, 0.7)), ((0.3, 0.7), (0.4, 0.3)), ((0.6, 0.2), (0.3, 0.2))]
    counts = [counter.update(found_at(*places)) for places in ways]
    assert [zones for _, zones in counts] == [[1], [1], [2], [1]]
    crossed = [(lines[0]["into"], lines[0]["out"]) for lines, _ in counts]
    assert crossed == [(0, 0), (0, 0), (1, 1), (2, 1)]  # into: upwards, the left side of a line to the right
    image = np.zeros((100, 200, 3), np.uint8)
    drawn = counter.draw(image)
    assert drawn.shape == image.shape and drawn.any() and not image.any()
    assert counter.update(found_at()) == ([{"into": 2, "out": 1}], [0])
