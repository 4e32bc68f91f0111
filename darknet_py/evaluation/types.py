"""What an evaluation compares: detections and labeled boxes, one record per image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from darknet_py.boxes import iou
from darknet_py.counted import counted
from darknet_py.errors import DataError
from darknet_py.inference.detections import Detections

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]


class GroundTruth(NamedTuple):
    """The labeled boxes of one image.

    Attributes:
        boxes: (T, 4) center x, center y, width, height, relative to the image.
        class_ids: (T,) classes.
    """

    boxes: Floats
    class_ids: Ints


@dataclass(frozen=True)
class CollectedBoxes:
    """Everything that was compared, one entry per readable image, in the order of the list.

    Attributes:
        paths: The images.
        sizes: (width, height) of each in pixels.
        truth: The labeled boxes.
        found: The detections of each protocol, with its own thresholds. Those of "darknet" are in the order in which
            Darknet lists them, which decides ties.
        difficult: The difficult objects; None without such a list.
        costs: Darknet's cost of each mini-batch, where they were asked for.
    """

    paths: list[str]
    sizes: list[tuple[int, int]]
    truth: list[GroundTruth]
    found: dict[str, list[Detections]]
    difficult: list[GroundTruth] | None
    costs: list[Tensor]

    @property
    def loss(self) -> float | None:
        """Darknet's cost per image, as a training prints it; None where it was not asked for."""
        return float(torch.stack(self.costs).sum()) / len(self.paths) if self.costs else None


def check(found: Sequence[Detections], truth: Sequence[GroundTruth], classes: int) -> None:
    """Raises DataError where records do not pair up or have a class outside 0 … classes − 1."""
    if len(found) != len(truth):
        raise DataError(f"expected one truth record per image, got {len(truth)} for {counted(len(found), 'image')}")
    for image, (detections, labels) in enumerate(zip(found, truth, strict=True)):
        _check_ids(f"detections of image {image}", detections.boxes, detections.class_ids, classes)
        _check_ids(f"truth of image {image}", labels.boxes, labels.class_ids, classes)


def _check_ids(what: str, boxes: Floats, ids: Ints, classes: int) -> None:
    if len(ids) != len(boxes):
        raise DataError(f"{what}: {counted(len(boxes), 'box')} but {len(ids)} class ids")
    if len(ids) and not 0 <= ids.min() <= ids.max() < classes:
        bad = ids.max() if ids.max() >= classes else ids.min()
        raise DataError(f"{what}: expected classes 0 to {classes - 1}, got {bad}")


def iou_matrix(a: Floats, b: Floats) -> Floats:
    """(K, 4) and (T, 4) center boxes → (K, T) intersection over union in float32, as in C; 0 where undefined."""
    left, right = (torch.from_numpy(np.ascontiguousarray(side, np.float32)) for side in (a, b))
    matrix: Floats = iou(left[:, None], right[None]).numpy()
    return matrix


class Matches(NamedTuple):
    """All detections of a set of images, D rows, images in order, each with the truth that it matches.

    Attributes:
        class_ids: (D,) classes.
        confidences: (D,) confidences.
        truth: (D,) index over all truths of the set, −1 for none.
        iou: (D,) IoU with that truth, 0 for none.
        difficult: (D,) whether it matches no truth but a difficult object, which costs nothing on the curve.
    """

    class_ids: Ints
    confidences: Floats
    truth: Ints
    iou: Floats
    difficult: NDArray[np.bool_]


def match(
    found: Sequence[Detections],
    truth: Sequence[GroundTruth],
    iou_thresh: float,
    difficult: Sequence[GroundTruth] | None = None,
) -> Matches:
    """Matches each detection with the truth of its class of the largest IoU, if that exceeds `iou_thresh`.

    Several detections may match one truth; the caller decides which of them counts. Of equal IoUs the first truth wins
    (`validate_detector_map`).
    """
    parts = []
    offset = 0
    limit = np.float32(iou_thresh)
    for image, (detections, labels) in enumerate(zip(found, truth, strict=True)):
        index, overlap = _best(detections, labels, limit)
        hard = np.zeros(len(index), bool)
        if difficult is not None:
            hard = (index < 0) & (_best(detections, difficult[image], limit)[0] >= 0)
        parts.append((index + offset * (index >= 0), overlap, hard))
        offset += len(labels.boxes)
    none = [(np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(0, bool))]
    index, overlap, hard = (np.concatenate(column) for column in zip(*(parts or none), strict=True))
    return Matches(
        concatenate([detections.class_ids for detections in found], np.int64),
        concatenate([detections.confidences for detections in found], np.float32),
        index,
        overlap,
        hard,
    )


def _best(found: Detections, labels: GroundTruth, limit: np.float32) -> tuple[Ints, Floats]:
    """Per detection: index of the best truth of its class within the image or −1, and the IoU with it."""
    if not len(found) or not len(labels.boxes):
        return np.full(len(found), -1, np.int64), np.zeros(len(found), np.float32)
    overlap = iou_matrix(found.boxes, labels.boxes)
    same = found.class_ids[:, None] == labels.class_ids[None]
    overlap = np.where(same & (overlap > limit), overlap, np.float32(0))
    best: Floats = overlap.max(1)
    return np.where(best > 0, overlap.argmax(1), -1).astype(np.int64), best


Scalar = TypeVar("Scalar", bound=np.generic)


def concatenate(arrays: Sequence[NDArray[Scalar]], dtype: type[Scalar]) -> NDArray[Scalar]:
    """The arrays end to end, as `dtype`; an empty one for none."""
    return np.concatenate([*arrays, np.zeros(0, dtype)], dtype=dtype, casting="unsafe")


def first_of_each(values: Ints) -> NDArray[np.bool_]:
    """True at the first occurrence of each value ≥ 0, False elsewhere."""
    first = np.zeros(len(values), bool)
    first[np.unique(values, return_index=True)[1]] = True
    return first & (values >= 0)
