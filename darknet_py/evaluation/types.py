"""What an evaluation compares: boxes found and boxes labeled, one record per image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from darknet_py.boxes import iou
from darknet_py.errors import DataError

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]


class Found(NamedTuple):
    """Boxes found in one image, one row per (box, class).

    boxes: (K, 4) float center x, center y, width, height relative to the image. class_ids: (K,) int.
    scores: (K,) float, above 0. Rows keep the order in which Darknet would list them (it decides ties).
    """

    boxes: Floats
    class_ids: Ints
    scores: Floats


class GroundTruth(NamedTuple):
    """Boxes labeled in one image. boxes: (T, 4) float, as in `Found`. class_ids: (T,) int."""

    boxes: Floats
    class_ids: Ints


def check(found: Sequence[Found], truth: Sequence[GroundTruth], classes: int) -> None:
    """Raises DataError where records do not pair up or name a class outside 0 … classes − 1."""
    if len(found) != len(truth):
        raise DataError(f"expected one truth record per image, got {len(truth)} for {len(found)} images")
    for image, (hits, labels) in enumerate(zip(found, truth, strict=True)):
        _check_ids(f"found of image {image}", hits.boxes, hits.class_ids, classes)
        _check_ids(f"truth of image {image}", labels.boxes, labels.class_ids, classes)


def _check_ids(what: str, boxes: Floats, ids: Ints, classes: int) -> None:
    if len(ids) != len(boxes):
        raise DataError(f"{what}: {len(boxes)} boxes but {len(ids)} class ids")
    if len(ids) and not 0 <= ids.min() <= ids.max() < classes:
        bad = ids.max() if ids.max() >= classes else ids.min()
        raise DataError(f"{what}: expected classes 0 to {classes - 1}, got {bad}")


def iou_matrix(a: Floats, b: Floats) -> Floats:
    """(K, 4) and (T, 4) center boxes → (K, T) intersection over union in float32, as in C; 0 where undefined."""
    left, right = (torch.from_numpy(np.ascontiguousarray(side, np.float32)) for side in (a, b))
    return iou(left[:, None], right[None]).numpy()


class Matches(NamedTuple):
    """All boxes found in a set of images (D rows, images in order), each with the truth it hits.

    truth: index over all truths of the set, −1 for none. iou: with that truth (0 for none).
    difficult: hits no truth but a difficult object, which costs nothing on the curve.
    """

    class_ids: Ints
    scores: Floats
    truth: Ints
    iou: Floats
    difficult: NDArray[np.bool_]


def match(
    found: Sequence[Found],
    truth: Sequence[GroundTruth],
    iou_thresh: float,
    difficult: Sequence[GroundTruth] | None = None,
) -> Matches:
    """Gives each box found the truth of its class that it overlaps most, if that IoU exceeds `iou_thresh`.

    Several boxes may hit one truth; the caller decides which of them counts. Of equal overlaps the first truth wins
    (`validate_detector_map`).
    """
    parts = []
    offset = 0
    limit = np.float32(iou_thresh)
    for image, (hits, labels) in enumerate(zip(found, truth, strict=True)):
        index, overlap = _best(hits, labels, limit)
        hard = np.zeros(len(index), bool)
        if difficult is not None:
            hard = (index < 0) & (_best(hits, difficult[image], limit)[0] >= 0)
        parts.append((index + offset * (index >= 0), overlap, hard))
        offset += len(labels.boxes)
    none = [(np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(0, bool))]
    index, overlap, hard = (np.concatenate(column) for column in zip(*(parts or none), strict=True))
    return Matches(
        concatenate([hits.class_ids for hits in found]).astype(np.int64),
        concatenate([hits.scores for hits in found]).astype(np.float32),
        index,
        overlap,
        hard,
    )


def _best(hits: Found, labels: GroundTruth, limit: np.float32) -> tuple[Ints, Floats]:
    """Per box found: index of the best truth of its class within the image or −1, and the IoU with it."""
    if not len(hits.boxes) or not len(labels.boxes):
        return np.full(len(hits.boxes), -1, np.int64), np.zeros(len(hits.boxes), np.float32)
    overlap = iou_matrix(hits.boxes, labels.boxes)
    same = hits.class_ids[:, None] == labels.class_ids[None]
    overlap = np.where(same & (overlap > limit), overlap, np.float32(0))
    best = overlap.max(1)
    return np.where(best > 0, overlap.argmax(1), -1).astype(np.int64), best


def concatenate(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """The arrays end to end; an empty one for none."""
    return np.concatenate([*arrays, np.zeros(0, arrays[0].dtype if arrays else np.int64)])


def first_of_each(values: Ints) -> NDArray[np.bool_]:
    """True at the first occurrence of each value ≥ 0, False elsewhere."""
    first = np.zeros(len(values), bool)
    first[np.unique(values, return_index=True)[1]] = True
    return first & (values >= 0)
