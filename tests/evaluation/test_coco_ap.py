"""pycocotools' AP from our arrays."""

from __future__ import annotations

import contextlib
import io
import json

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from darknet_py.errors import DataError
from darknet_py.evaluation.coco_ap import METRICS, coco_ap
from darknet_py.evaluation.types import GroundTruth
from darknet_py.inference.detections import Detections
from tests.evaluation import make

NAMES = ["a", "b", "c", "d"]


def plain(found, truth, sizes):
    """pycocotools in one go, from boxes worked out here."""

    def pixels(box, size):
        cx, cy, w, h = (float(v) for v in box)
        return [(cx - w / 2) * size[0], (cy - h / 2) * size[1], w * size[0], h * size[1]]

    def cut(box, size):
        x, y, w, h = pixels(box, size)
        left, top = max(x, 0), max(y, 0)
        return [left, top, min(x + w, size[0]) - left, min(y + h, size[1]) - top]

    gt, dt = COCO(), []
    labels = []
    for image, (hits, record, size) in enumerate(zip(found, truth, sizes, strict=True)):
        for box, k in zip(record.boxes, record.class_ids, strict=True):
            b = pixels(box, size)
            row = {"id": len(labels) + 1, "image_id": image + 1, "category_id": int(k) + 1, "bbox": b}
            labels.append(row | {"area": b[2] * b[3], "iscrowd": 0})
        for box, k, score in zip(hits.boxes, hits.class_ids, hits.confidences, strict=True):
            dt.append({"image_id": image + 1, "category_id": int(k) + 1, "bbox": cut(box, size), "score": float(score)})
    gt.dataset = {
        "images": [{"id": i + 1} for i in range(len(found))],
        "annotations": labels,
        "categories": [{"id": k + 1} for k in range(4)],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        gt.createIndex()
        ours = COCOeval(gt, gt.loadRes(dt), "bbox")
        ours.evaluate()
        ours.accumulate()
        ours.summarize()
    return ours.stats


@pytest.mark.parametrize("seed", range(3))
def test_equals_pycocotools_in_one_go(seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    found, truth = make.dataset(seed, images=10, ties=False)
    sizes = [(320 + 40 * i, 500 - 20 * i) for i in range(10)]
    result = coco_ap(found, truth, sizes, NAMES)
    expected = plain(found, truth, sizes)
    got = [-1 if result.metrics[name] is None else result.metrics[name] for name in METRICS]
    np.testing.assert_allclose(got, expected, atol=1e-12)
    assert capsys.readouterr().out == ""
    defined = [row.ap for row in result.classes if row.ap is not None]
    assert result.ap == pytest.approx(sum(defined) / len(defined))
    json.dumps(result.to_json())


def test_by_hand() -> None:
    """One truth met at IoU .6 counts at .50, .55 (and .60 by pycocotools' tolerance): AP is 2/10 or 3/10."""
    box = np.array([[0.5, 0.5, 0.5, 0.5]], np.float32)
    low = np.array([[0.5, 0.5, 0.5, 0.31]], np.float32)
    result = coco_ap(
        [Detections(low, np.array([0]), np.array([0.9]))], [GroundTruth(box, np.array([0]))], [(200, 200)], ["a"]
    )
    assert result.metrics["AP50"] == pytest.approx(1.0)
    assert result.metrics["AP75"] == pytest.approx(0.0)
    assert result.ap == pytest.approx(0.3)  # IoU .62
    assert result.metrics["APs"] is None and result.metrics["APl"] == pytest.approx(0.3)


def test_no_images_no_boxes_and_classes_without_truth() -> None:
    empty = coco_ap([], [], [], NAMES)
    assert set(empty.metrics.values()) == {None}
    found, truth = make.dataset(0, images=1)
    nothing = Detections(np.zeros((0, 4), np.float32), np.zeros(0, int), np.zeros(0, np.float32))
    result = coco_ap([nothing], truth, [(64, 64)], [*NAMES, "never"])
    assert result.classes[4].ap is None and result.classes[4].truths == 0
    assert result.ap == 0
    with pytest.raises(DataError):
        coco_ap(found, truth, [(64, 64)], ["a"])
