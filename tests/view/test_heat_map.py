"""Where objects were found."""

from __future__ import annotations

import numpy as np

from darknet_py.inference.detections import Detections
from darknet_py.view.heat_map import HeatMap


def test_boxes_are_counted_once_whatever_their_classes() -> None:
    heat_map = HeatMap()
    boxes = np.array([[0.25, 0.5, 0.5, 1.0], [0.25, 0.5, 0.5, 1.0], [0.5, 0.9, 2.0, 0.5]], np.float32)
    found = Detections(boxes, np.array([0, 1, 0]), np.ones(3, np.float32), ("a", "b"), (80, 40))
    heat_map.add(found)
    heat_map.add(found[:1])
    quarters = heat_map.counts[::128, ::128]
    assert quarters.tolist() == [[2, 2, 0, 0], [2, 2, 0, 0], [2, 2, 0, 0], [3, 3, 1, 1]]
    image = np.full((40, 80, 3), 100, np.uint8)
    drawn = heat_map.draw(image)
    assert (drawn[0, 79] == 100).all()
    red, blue = drawn[38, 2].astype(int), drawn[38, 78].astype(int)
    assert red[0] > red[2] and blue[2] > blue[0]
    assert (HeatMap().draw(image) == image).all()
