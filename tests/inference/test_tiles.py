"""Large images in overlapping tiles."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from darknet_py.errors import DarknetError
from darknet_py.graph.graph import Graph, parse_text
from darknet_py.inference.detect import DetectOptions, detect
from darknet_py.inference.detections import Detections
from darknet_py.inference.tiles import merge_tiles, tile_corners
from darknet_py.layers.base import Predictions

CFG = (
    "[net]\nwidth=32\nheight=32\nchannels=3\n[convolutional]\nfilters=7\n"
    "[yolo]\nnum=1\nmask=0\nclasses=2\nanchors=9,9\n"
)


class RedSquares:
    """A detector that finds the box of the red pixels in its input, if there are at least two of them."""

    names: Sequence[str] = ("red", "other")
    device = torch.device("cpu")
    nms_kind = ("default", 0.6)

    def __init__(self) -> None:
        self.graph: Graph = parse_text(CFG)
        self.batches: list[int] = []

    def predict(self, x: Tensor, hier: float = 0.5) -> Predictions:
        self.batches.append(len(x))
        boxes, objectness = torch.zeros(len(x), 1, 4), torch.zeros(len(x), 1)
        for image in range(len(x)):
            rows, columns = (x[image, 0] > 0.5).nonzero(as_tuple=True)
            if len(rows) > 1:
                left, right = columns.min() / 32, (columns.max() + 1) / 32
                top, bottom = rows.min() / 32, (rows.max() + 1) / 32
                boxes[image, 0] = torch.stack([(left + right) / 2, (top + bottom) / 2, right - left, bottom - top])
                objectness[image] = 0.9
        scores = torch.stack([objectness, torch.zeros_like(objectness)], -1)
        return Predictions(boxes, objectness, scores)


def test_where_tiles_are() -> None:
    assert tile_corners((50, 40), 64, 0.2) == [(0, 0, 50, 40)]
    assert tile_corners((64, 64), 64, 0.2) == [(0, 0, 64, 64)]
    # 100 - 64 = 36 is less than one step of 52: the second tile is moved back to the edge
    assert tile_corners((100, 64), 64, 0.2) == [(0, 0, 64, 64), (36, 0, 100, 64), (0, 0, 100, 64)]
    regions = tile_corners((200, 30), 64, 0.25)  # step 48
    assert regions == [*((x, 0, x + 64, 30) for x in (0, 48, 96, 136)), (0, 0, 200, 30)]
    covered = np.zeros((30, 200), int)
    for left, top, right, bottom in regions[:-1]:
        covered[top:bottom, left:right] += 1
    assert covered.min() == 1


def test_small_objects_are_found_in_tiles() -> None:
    """2 x 2 pixels of 128 x 128 are half a pixel of the input: nothing, as a whole."""
    image = np.zeros((128, 128, 3), np.uint8)
    image[70:72, 101:103, 0] = 255
    net = RedSquares()
    assert len(detect(net, image)[0]) == 0
    (found,) = detect(net, image, DetectOptions(tiles=32, overlap=0.5, batch=4))
    assert found.xyxy.tolist() == [[101, 70, 103, 72]] and found.image_size == (128, 128)
    assert found.names == ["red"] and found.confidences.tolist() == pytest.approx([0.9])
    assert max(net.batches) == 4 and sum(net.batches) == 1 + 7 * 7 + 1


def test_an_object_across_tiles_is_one() -> None:
    """Cut by the edges of all tiles, it is whole in the image as a whole; its parts give way."""
    image = np.zeros((64, 64, 3), np.uint8)
    image[8:56, 8:56, 0] = 255
    (found,) = detect(RedSquares(), image, DetectOptions(tiles=32, overlap=0.25))
    assert len(found) == 1
    np.testing.assert_allclose(found.xyxy, [[8, 8, 56, 56]], atol=2)  # of a pixel of the input


def test_images_that_fit_into_a_tile_are_as_without() -> None:
    image = np.zeros((40, 60, 3), np.uint8)
    image[5:20, 9:30, 0] = 255
    net = RedSquares()
    (expected,) = detect(net, image)
    (found,) = detect(net, image, DetectOptions(tiles=60))
    assert len(expected) == 1 and found.boxes.tolist() == expected.boxes.tolist()
    assert found.candidate_ids.tolist() == expected.candidate_ids.tolist() and net.batches == [1, 1]


def part(*rows: tuple[float, float, float, float, float, int], size: tuple[int, int] = (100, 100)) -> Detections:
    """left, top, right, bottom in pixels of the tile, confidence, class."""
    values = np.array(rows, np.float32).reshape(-1, 6)
    low, high = values[:, :2] / size, values[:, 2:4] / size
    boxes = np.concatenate([(low + high) / 2, high - low], 1).astype(np.float32)
    return Detections(
        boxes,
        values[:, 5].astype(np.int64),
        values[:, 4],
        ("a", "b"),
        size,
        values[:, 4],
        np.arange(len(values)),
    )


PLACES = [(0, 0, 100, 100), (80, 0, 180, 100), (0, 0, 180, 100)]


def merged(parts: Sequence[Detections], nms: float = 0.45, agnostic: bool = False) -> list[tuple[float, int]]:
    found = merge_tiles(parts, PLACES, (180, 100), nms, ("default", 0.6), agnostic)
    assert len(set(found.candidate_ids.tolist())) == len(found) and found.image_size == (180, 100)
    return [(round(row.confidence, 2), row.class_id) for row in found]


def test_merging() -> None:
    whole = part(size=(180, 100))
    # x 70 … 100 is cut by the first tile; x 75 … 120 lies completely in … no tile but the image
    cut_left, cut_right = part((70, 10, 100, 40, 0.95, 0)), part((0, 10, 40, 40, 0.9, 0))
    complete = part((70, 10, 120, 40, 0.5, 0), size=(180, 100))
    assert merged([cut_left, cut_right, complete]) == [(0.5, 0)]
    assert merged([cut_left, cut_right, whole]) == [(0.95, 0), (0.9, 0)]  # each has less than half of the other
    assert merged([cut_left, cut_right, complete], nms=0) == [(0.95, 0), (0.9, 0), (0.5, 0)]
    # the same object in both tiles; another class stays unless classes count together
    twice = part((82, 10, 98, 40, 0.8, 0)), part((2, 10, 18, 40, 0.7, 0), (3, 10, 18, 40, 0.6, 1))
    assert merged([*twice, whole]) == [(0.8, 0), (0.6, 1)]
    assert merged([*twice, whole], agnostic=True) == [(0.8, 0)]
    # a small box inside a large one of the same class is an object of its own where it is not cut
    assert merged([part((20, 20, 30, 30, 0.6, 0)), part(), part((10, 10, 90, 90, 0.9, 0), size=(180, 100))]) == [
        (0.9, 0),
        (0.6, 0),
    ]


def test_wrong_values() -> None:
    for options in ({"tiles": -1}, {"tiles": 64, "overlap": 1.0}):
        with pytest.raises(DarknetError, match="expected tiles of at least 0 pixels and an overlap from 0 to 1"):
            DetectOptions(**options)  # type: ignore[arg-type]
