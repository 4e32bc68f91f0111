"""`Detections`: rows as items and as arrays, boxes in pixels, JSON, drawing."""

from __future__ import annotations

import json

import numpy as np
import pytest

from darknet_py.inference.detections import Detection, Detections


def detections() -> Detections:
    boxes = np.array([[0.5, 0.5, 0.5, 0.25], [0.25, 0.75, 0.5, 0.5], [0.5, 0.5, 1, 1]], np.float32)
    confidences = np.array([0.875, 0.5, 0.25], np.float32)
    return Detections(boxes, np.array([1, 0, 7]), confidences, ("dont_show cat", "dog"), (200, 100))


def test_items_in_order() -> None:
    found = detections()
    assert len(found) == 3 and found.names == ["dog", "dont_show cat", "7"]
    assert next(iter(found)) == found[0] == Detection(1, "dog", 0.875, (0.5, 0.5, 0.5, 0.25))
    assert found[-1].name == "7"
    with pytest.raises(IndexError):
        found[3]


def test_pixels() -> None:
    found = detections()
    assert found.xywh.tolist()[0] == [100, 50, 100, 25]
    assert found.xyxy.tolist()[:2] == [[50, 37.5, 150, 62.5], [0, 50, 100, 100]]


def test_selection() -> None:
    found = detections()
    assert found[found.confidences > 0.4].class_ids.tolist() == [1, 0]
    assert found[1:].class_ids.tolist() == [0, 7] and found[[2, 0]].names == ["7", "dog"]
    assert len(found[[]]) == 0 and found[[]].xyxy.shape == (0, 4)
    assert found.visible().names == ["dog", "7"]


def test_json_is_darknets() -> None:
    found = detections()[:1]
    (entry,) = json.loads(json.dumps(found.to_json()))
    assert entry == {
        "class_id": 1,
        "name": "dog",
        "relative_coordinates": {"center_x": 0.5, "center_y": 0.5, "width": 0.5, "height": 0.25},
        "confidence": 0.875,
    }
    assert list(found.to_frame(3, "a.jpg")) == ["frame_id", "filename", "objects"]
    assert "filename" not in found.to_frame(3)


def test_plot_leaves_the_image() -> None:
    image = np.full((100, 200, 3), 90, np.uint8)
    plotted = detections().plot(image)
    assert (image == 90).all() and plotted.shape == image.shape and (plotted != 90).any()
    assert repr(detections()[:1]) == "<Detections: dog 88%>"
