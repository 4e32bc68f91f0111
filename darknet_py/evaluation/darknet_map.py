"""Darknet's own mAP: what `detector map` prints (`validate_detector_map`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from darknet_py.errors import DataError
from darknet_py.evaluation.best_threshold import OperatingPoint, auto_operating_point, best_operating_point
from darknet_py.evaluation.types import (
    Doubles,
    GroundTruth,
    Ints,
    Matches,
    check,
    concatenate,
    first_of_each,
    match,
)
from darknet_py.inference.detections import Detections

_POINT_FIELDS = ("best_thresh", "best_precision", "best_recall", "best_f1")
_NO_POINT = (None,) * len(_POINT_FIELDS)
THRESH = 0.005  # a box enters the curve above this confidence
NMS = 0.45


@dataclass(frozen=True)
class ClassResult:
    """One class. ap: 0 … 1. tp, fp, fn, precision, recall, f1, average_iou: at the result's confidence threshold.

    best_…: the same at the threshold of its own largest F1; None where no detection is right.
    """

    name: str
    ap: float
    truths: int
    detections: int
    tp: int
    fp: int
    fn: int
    precision: float
    recall: float
    f1: float
    average_iou: float
    best_thresh: float | None
    best_precision: float | None
    best_recall: float | None
    best_f1: float | None


@dataclass(frozen=True)
class DarknetResult:
    """Darknet's mAP and its counts at one confidence threshold. A ratio without a denominator is 0 (Darknet: nan).

    Attributes:
        protocol: In words, what this mAP is.
        map: Mean of the classes' APs, 0 … 1; as in Darknet, a class without truths counts as 0.
        iou_thresh: IoU above which a detection matches a truth.
        points: 0 is the area under the curve, else the number of recall points.
        thresh: Confidence threshold of the counts.
        images: Number of images.
        truths: Number of labeled boxes.
        detections: Number of detections on the curve.
        tp: True positives.
        fp: False positives.
        fn: False negatives.
        precision: tp / (tp + fp).
        recall: tp / truths.
        f1: Harmonic mean of both.
        average_iou: Sum of the IoUs of true positives divided by tp + fp, Darknet's definition.
        best_thresh: Confidence threshold of the largest F1 over all classes together; None where no detection is right.
        best_precision: Precision at that threshold.
        best_recall: Recall at that threshold.
        best_f1: F1 at that threshold.
        auto_thresh: The threshold that `--thresh auto` uses, see `best_threshold.auto_operating_point`.
        auto_precision: Precision at that threshold.
        auto_recall: Recall at that threshold.
        classes: The same for each class.
    """

    protocol: str
    map: float
    iou_thresh: float
    points: int
    thresh: float
    images: int
    truths: int
    detections: int
    tp: int
    fp: int
    fn: int
    precision: float
    recall: float
    f1: float
    average_iou: float
    best_thresh: float | None
    best_precision: float | None
    best_recall: float | None
    best_f1: float | None
    auto_thresh: float | None
    auto_precision: float | None
    auto_recall: float | None
    classes: tuple[ClassResult, ...]

    def to_json(self) -> dict[str, object]:
        """Plain numbers, strings, lists and dicts."""
        return asdict(self) | {"classes": [asdict(row) for row in self.classes]}


class Curve(NamedTuple):
    """Precision over recall of one class, by falling confidence.

    Attributes:
        confidences: (D,) confidence of each detection.
        precision: (D,) precision down to that detection.
        recall: (D,) recall down to it.
    """

    confidences: Doubles
    precision: Doubles
    recall: Doubles

    def at(self, recalls: Doubles) -> Doubles:
        """The best precision at these recalls or beyond, of the same shape; 0 beyond the last recall reached."""
        if not len(self.recall):
            return np.zeros(len(recalls))
        envelope = np.maximum.accumulate(self.precision[::-1])[::-1]
        return np.append(envelope, 0.0)[np.searchsorted(self.recall, recalls)]


def darknet_map(
    found: Sequence[Detections],
    truth: Sequence[GroundTruth],
    names: Sequence[str],
    *,
    iou_thresh: float = 0.5,
    points: int = 0,
    thresh: float = 0.25,
    difficult: Sequence[GroundTruth] | None = None,
) -> DarknetResult:
    """Computes Darknet's mAP (`validate_detector_map`).

    Args:
        found: The detections of each image, of confidence above .005 after NMS .45, in Darknet's order.
        truth: The labeled boxes of each image.
        names: Class names.
        iou_thresh: IoU above which a detection matches a truth.
        points: 0 is the area under the curve, else the number of recall points: 11, 101 or any from 2 up.
        thresh: Confidence threshold of the counts.
        difficult: Objects of each image, besides `truth`, that are not counted when missed and cost nothing on the
            curve when detected.

    Returns:
        The mAP and counts.

    Raises:
        DataError: The records do not fit together.
    """
    if points < 0 or points == 1:
        raise DataError(f"points: expected 0 (area under the curve) or at least 2, got {points}")
    check(found, truth, len(names))
    matched = match(found, truth, iou_thresh, difficult)
    counts = np.bincount(concatenate([labels.class_ids for labels in truth], np.int64), minlength=len(names))
    curves = precision_recall(matched, counts)
    aps = [average_precision(curve, points) for curve in curves]

    # At the threshold a truth goes to the first detection in Darknet's order that matches it, whatever its confidence,
    # and a detection of a difficult object is a false positive, unlike on the curve: both as in Darknet.
    above = matched.confidences > np.float32(thresh)
    good = above & first_of_each(matched.truth)
    wrong = above & ~good
    tps = np.bincount(matched.class_ids[good], minlength=len(names))
    fps = np.bincount(matched.class_ids[wrong], minlength=len(names))
    overlap = np.bincount(matched.class_ids[good], matched.iou[good].astype(float), minlength=len(names))
    listed = np.bincount(matched.class_ids[~matched.difficult], minlength=len(names))
    rows_on_curve, right = _ranked(matched)
    confidences = matched.confidences[rows_on_curve].astype(float)
    best = _best_points(confidences, right, matched.class_ids[rows_on_curve], counts)
    auto = auto_operating_point(confidences, right, int(counts.sum()), THRESH)

    rows = tuple(
        ClassResult(
            name,
            aps[k],
            int(counts[k]),
            int(listed[k]),
            int(tps[k]),
            int(fps[k]),
            int(counts[k] - tps[k]),
            ratio(tps[k], tps[k] + fps[k]),
            ratio(tps[k], counts[k]),
            ratio(2 * tps[k], tps[k] + fps[k] + counts[k]),
            ratio(overlap[k], tps[k] + fps[k]),
            *(best[k] or _NO_POINT),
        )
        for k, name in enumerate(names)
    )
    tp, fp, truths = int(tps.sum()), int(fps.sum()), int(counts.sum())
    precision, recall = ratio(tp, tp + fp), ratio(tp, truths)
    return DarknetResult(
        protocol=label(iou_thresh, points),
        map=ratio(sum(aps), len(names)),
        iou_thresh=iou_thresh,
        points=points,
        thresh=thresh,
        images=len(found),
        truths=truths,
        detections=int(listed.sum()),
        tp=tp,
        fp=fp,
        fn=truths - tp,
        precision=precision,
        recall=recall,
        f1=ratio(2 * precision * recall, precision + recall),
        average_iou=ratio(overlap.sum(), tp + fp),
        **dict(zip(_POINT_FIELDS, best[-1] or _NO_POINT, strict=True)),
        auto_thresh=auto and auto.thresh,
        auto_precision=auto and auto.precision,
        auto_recall=auto and auto.recall,
        classes=rows,
    )


def label(iou_thresh: float, points: int) -> str:
    """In words, what distinguishes this mAP from others."""
    way = f"{points} recall points" if points else "area under the curve"
    return f"Darknet `detector map`: mAP@{iou_thresh:.2f}, {way}, thresh {THRESH}, NMS {NMS}"


def precision_recall(matched: Matches, truths: Ints) -> list[Curve]:
    """The curve of each class. truths: (classes,) number of truths per class.

    By falling confidence over the whole set; the first detection that matches a truth is right, later ones are wrong.
    """
    rows, right = _ranked(matched)
    curves = []
    for count, mine in zip(truths, _by_class(matched.class_ids[rows], len(truths)), strict=True):
        tp = np.cumsum(right[mine], dtype=float)
        confidences = matched.confidences[rows[mine]].astype(float)
        curves.append(Curve(confidences, tp / np.arange(1, len(mine) + 1), tp / max(int(count), 1)))
    return curves


def _ranked(matched: Matches) -> tuple[Ints, NDArray[np.bool_]]:
    """The detections on the curve by falling confidence, and whether each is the first one on its truth."""
    rows = np.flatnonzero(~matched.difficult)
    rows = rows[np.argsort(-matched.confidences[rows], kind="stable")]
    return rows, first_of_each(matched.truth[rows])


def _by_class(class_ids: Ints, classes: int) -> list[Ints]:
    """The positions of each class, in order."""
    order = np.argsort(class_ids, kind="stable")
    return np.split(order, np.searchsorted(class_ids[order], np.arange(1, classes))) if classes else []


def _best_points(
    confidences: Doubles, right: NDArray[np.bool_], class_ids: Ints, truths: Ints
) -> list[OperatingPoint | None]:
    """The threshold of the largest F1 of each class, and last of all classes together. Columns: see `_ranked`."""
    groups = [*_by_class(class_ids, len(truths)), np.arange(len(class_ids))]
    counts = [*truths.tolist(), int(truths.sum())]
    return [
        best_operating_point(confidences[group], right[group], count, THRESH)
        for group, count in zip(groups, counts, strict=True)
    ]


def average_precision(curve: Curve, points: int = 0) -> float:
    """Area under the curve's envelope, or the mean of the envelope at `points` evenly spaced recalls."""
    if points:
        return float(curve.at(np.arange(points) / (points - 1)).sum() / points)
    return float(np.sum(np.diff(curve.recall, prepend=0.0) * curve.at(curve.recall)))


def ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else 0.0
