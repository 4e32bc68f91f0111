"""The images on which a detector errs most."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from darknet_py.evaluation.types import CollectedBoxes, GroundTruth, first_of_each, match
from darknet_py.inference.detections import Detections


class WorstImage(NamedTuple):
    """What is wrong with the detections of an image at a confidence threshold.

    Attributes:
        path: The image.
        truth: Its labeled boxes.
        is_missed: (T,) whether each has no detection.
        found: The detections above the threshold.
        is_wrong: (D,) whether each has no labeled box of its own.
    """

    path: str
    truth: GroundTruth
    is_missed: NDArray[np.bool_]
    found: Detections
    is_wrong: NDArray[np.bool_]

    @property
    def errors(self) -> int:
        """Missed objects and wrong detections."""
        return int(self.is_missed.sum() + self.is_wrong.sum())


def worst_images(
    boxes: CollectedBoxes, found: Sequence[Detections], thresh: float, iou_thresh: float, count: int
) -> list[WorstImage]:
    """Finds the images with the most errors.

    Args:
        boxes: Images and labels.
        found: The detections of each image.
        thresh: Confidence threshold.
        iou_thresh: IoU above which a detection matches a labeled box of its class.
        count: Number of images.

    Returns:
        At most `count` images with errors, the worst first, equal ones in the order of the list.
    """
    worst: list[WorstImage] = []
    for path, labels, detections in zip(boxes.paths, boxes.truth, found, strict=True):
        above = detections[detections.confidences > np.float32(thresh)]
        above = above[np.argsort(-above.confidences, kind="stable")]
        index = match([above], [labels], iou_thresh).truth
        is_missed = ~np.isin(np.arange(len(labels.boxes)), index)
        worst.append(WorstImage(path, labels, is_missed, above, ~first_of_each(index)))
        if len(worst) > 4 * count:
            worst = _first(worst, count)
    return _first(worst, count)


def _first(images: list[WorstImage], count: int) -> list[WorstImage]:
    return sorted((image for image in images if image.errors), key=lambda image: -image.errors)[:count]
