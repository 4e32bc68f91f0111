"""COCO's AP by pycocotools, on the boxes that Darknet's `detector valid` writes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from darknet_py.evaluation.types import Doubles, Floats, GroundTruth, check, concatenate
from darknet_py.inference.detections import Detections, clipped, corners

THRESH = 0.001
NMS = 0.6
PROTOCOL = f"COCO (pycocotools): AP over IoU .50 to .95, thresh {THRESH}, NMS {NMS} as `detector valid`"
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
_MAX_PER_IMAGE = 100  # boxes per image and class that pycocotools looks at


@dataclass(frozen=True)
class ClassAP:
    """One class. None: no truth of this class, so undefined."""

    name: str
    ap: float | None
    ap50: float | None
    ar: float | None
    truths: int


@dataclass(frozen=True)
class CocoResult:
    """COCO's metrics. Object sizes count a box's area in pixels of the image, as label files hold no outline.

    Attributes:
        protocol: In words, what this AP is.
        images: Number of images.
        truths: Number of labeled boxes.
        metrics: pycocotools' twelve, by the names in `METRICS`, 0 … 1; None where undefined (no truth of that size).
        classes: AP of each class.
    """

    protocol: str
    images: int
    truths: int
    metrics: dict[str, float | None]
    classes: tuple[ClassAP, ...]

    @property
    def ap(self) -> float | None:
        return self.metrics["AP"]

    def to_json(self) -> dict[str, object]:
        """Plain numbers, strings, lists and dicts."""
        return asdict(self) | {"classes": [asdict(row) for row in self.classes]}


def coco_ap(
    found: Sequence[Detections], truth: Sequence[GroundTruth], sizes: Sequence[tuple[int, int]], names: Sequence[str]
) -> CocoResult:
    """Computes COCO's twelve metrics and each class's AP by pycocotools, class by class to save memory.

    Args:
        found: The detections of each image.
        truth: The labeled boxes of each image.
        sizes: (width, height) of each image in pixels.
        names: Class names.

    Returns:
        The metrics.

    Raises:
        DataError: The records do not fit together.
    """
    check(found, truth, len(names))
    pixels = [clipped(record.boxes, size) for record, size in zip(found, sizes, strict=True)]
    precisions, recalls = [], []
    with redirect_stdout(io.StringIO()):
        total = COCOeval(iouType="bbox")
        for k in range(len(names)):
            one = _class_eval(k, found, truth, sizes, pixels)
            precisions.append(one["precision"])
            recalls.append(one["recall"])
        total.params.catIds = list(range(len(names)))
        total.eval = {"precision": np.concatenate(precisions, 2), "recall": np.concatenate(recalls, 1)}
        total.summarize()
    counts = np.bincount(concatenate([labels.class_ids for labels in truth], np.int64), minlength=len(names))
    rows = tuple(
        ClassAP(
            name,
            _mean(precisions[k][:, :, 0, 0, -1]),
            _mean(precisions[k][0, :, 0, 0, -1]),
            _mean(recalls[k][:, 0, 0, -1]),
            int(counts[k]),
        )
        for k, name in enumerate(names)
    )
    metrics = {name: _mean(np.array([value])) for name, value in zip(METRICS, total.stats, strict=True)}
    return CocoResult(PROTOCOL, len(found), int(counts.sum()), metrics, rows)


def _class_eval(
    k: int,
    found: Sequence[Detections],
    truth: Sequence[GroundTruth],
    sizes: Sequence[tuple[int, int]],
    pixels: Sequence[Doubles],
) -> dict[str, Any]:
    """pycocotools' precision (10, 101, 1, 4, 3) and recall (10, 1, 4, 3) of class k."""
    labels: list[dict[str, Any]] = []
    hits: list[dict[str, Any]] = []
    for image, (record, label, size) in enumerate(zip(found, truth, sizes, strict=True)):
        edges = corners(label.boxes[label.class_ids == k], size)
        _add(labels, image, np.concatenate([edges[:, :2], edges[:, 2:] - edges[:, :2]], 1))
        rows = np.flatnonzero(record.class_ids == k)
        rows = rows[np.argsort(-record.confidences[rows], kind="stable")][:_MAX_PER_IMAGE]
        _add(hits, image, pixels[image][rows], record.confidences[rows])
    images = [{"id": image} for image in sorted({row["image_id"] for row in labels + hits})]
    sides = []
    for rows_of in (labels, hits):
        side = COCO()
        side.dataset = {"images": images, "annotations": rows_of, "categories": [{"id": 0}]}
        side.createIndex()
        sides.append(side)
    one = COCOeval(*sides, iouType="bbox")
    one.evaluate()
    one.accumulate()
    result: dict[str, Any] = one.eval
    return result


def _add(rows: list[dict[str, Any]], image: int, boxes: Doubles, scores: Floats | None = None) -> None:
    for i, (x, y, w, h) in enumerate(boxes.tolist()):
        row = {"id": len(rows) + 1, "image_id": image, "category_id": 0, "bbox": [x, y, w, h], "area": w * h}
        rows.append(row | ({"iscrowd": 0} if scores is None else {"score": float(scores[i])}))


def _mean(values: Doubles) -> float | None:
    """Mean of the defined values; pycocotools marks the others with −1."""
    values = values[values > -1]
    return float(values.mean()) if values.size else None
