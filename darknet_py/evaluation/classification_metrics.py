"""Accuracy of classifiers, and confusion matrices of classifiers and detectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from darknet_py.errors import DataError
from darknet_py.evaluation.darknet_map import ratio
from darknet_py.evaluation.types import Floats, GroundTruth, Ints, check, first_of_each, iou_matrix
from darknet_py.inference.detections import Detections


def top_k(scores: ArrayLike, labels: ArrayLike, k: int = 1) -> float:
    """Share of images whose label is among the k best scores (`validate_classifier_single`).

    Args:
        scores: (B, classes). Of equal scores the first class ranks first; NaN ranks last.
        labels: (B,) class of each image.
        k: Number of classes.

    Returns:
        The share, 0 … 1; 0 without images.

    Raises:
        DataError: k or the shapes do not fit.
    """
    values, expected = np.asarray(scores, np.float64), np.asarray(labels, np.int64)
    if values.ndim != 2 or expected.shape != values.shape[:1]:
        raise DataError(
            f"expected scores (images, classes) and a label per image, got {values.shape}, {expected.shape}"
        )
    images, classes = values.shape
    if not 1 <= k <= classes:
        raise DataError(f"top-k: expected k from 1 to {classes}, got {k}")
    _check_labels(expected, classes)
    if not images:
        return 0.0
    values = np.where(np.isnan(values), -np.inf, values)
    own = values[np.arange(images), expected][:, None]
    earlier = np.arange(classes) < expected[:, None]
    rank = ((values > own) | ((values == own) & earlier)).sum(1)
    return float((rank < k).mean())


def confusion_matrix(predicted: ArrayLike, labels: ArrayLike, classes: int) -> Ints:
    """Counts images per label and predicted class.

    Args:
        predicted: (B,) predicted classes.
        labels: (B,) labels.
        classes: Number of classes.

    Returns:
        (classes, classes) counts; row = label, column = predicted class.

    Raises:
        DataError: A class is out of range.
    """
    rows, columns = np.asarray(labels, np.int64), np.asarray(predicted, np.int64)
    _check_labels(rows, classes)
    _check_labels(columns, classes)
    return np.bincount(rows * classes + columns, minlength=classes * classes).reshape(classes, classes)


class ClassCounts(NamedTuple):
    """A classifier's results on one class. truths: images of it; precision, recall and f1: 0 … 1."""

    name: str
    truths: int
    tp: int
    fp: int
    fn: int
    precision: float
    recall: float
    f1: float


def class_counts(matrix: Ints, names: Sequence[str]) -> list[ClassCounts]:
    """The results on each class, from a classifier's confusion matrix; ratios without denominator are 0."""
    rows = []
    for k, name in enumerate(names):
        truths, tp, predicted = (int(count) for count in (matrix[k].sum(), matrix[k, k], matrix[:, k].sum()))
        ratios = ratio(tp, predicted), ratio(tp, truths), ratio(2 * tp, predicted + truths)
        rows.append(ClassCounts(name, truths, tp, predicted - tp, truths - tp, *ratios))
    return rows


def detection_confusion(
    found: Sequence[Detections],
    truth: Sequence[GroundTruth],
    classes: int,
    thresh: float = 0.25,
    iou_thresh: float = 0.5,
) -> Ints:
    """The confusion matrix of a detector.

    Detections and truths are paired across classes, the largest IoU first, each used once.

    Args:
        found: The detections of each image.
        truth: The labeled boxes of each image.
        classes: Number of classes.
        thresh: Confidence above which a detection counts.
        iou_thresh: IoU that a pair must exceed.

    Returns:
        (classes + 1, classes + 1) counts; row = label, column = predicted class. The last row counts detections without
        a truth, the last column truths that were missed.

    Raises:
        DataError: The records do not fit together.
    """
    check(found, truth, classes)
    matrix = np.zeros((classes + 1, classes + 1), np.int64)
    for detections, labels in zip(found, truth, strict=True):
        keep = detections.confidences > thresh
        ids = detections.class_ids[keep]
        rows, columns = _pair(iou_matrix(labels.boxes, detections.boxes[keep]), iou_thresh)
        np.add.at(matrix, (labels.class_ids[rows], ids[columns]), 1)
        matrix[:-1, -1] += np.bincount(np.delete(labels.class_ids, rows), minlength=classes)
        matrix[-1, :-1] += np.bincount(np.delete(ids, columns), minlength=classes)
    return matrix


def _pair(iou: Floats, iou_thresh: float) -> tuple[Ints, Ints]:
    """Rows and columns of a greedy one-to-one pairing by falling IoU.

    In each round every row and column that are each other's best are taken, which gives the same pairs as taking
    one at a time; rounds are few.
    """
    rows, columns = np.nonzero(iou > iou_thresh)
    order = np.argsort(-iou[rows, columns], kind="stable")
    rows, columns = rows[order], columns[order]
    taken: list[tuple[Ints, Ints]] = [(rows[:0], columns[:0])]
    while len(rows):
        best = first_of_each(rows) & first_of_each(columns)
        taken.append((rows[best], columns[best]))
        free = ~(np.isin(rows, rows[best]) | np.isin(columns, columns[best]))
        rows, columns = rows[free], columns[free]
    return np.concatenate([pair[0] for pair in taken]), np.concatenate([pair[1] for pair in taken])


def _check_labels(labels: Ints, classes: int) -> None:
    if labels.size and not 0 <= labels.min() <= labels.max() < classes:
        bad = labels.max() if labels.max() >= classes else labels.min()
        raise DataError(f"expected classes 0 to {classes - 1}, got {bad}")
