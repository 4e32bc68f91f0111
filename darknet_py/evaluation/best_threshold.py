"""The confidence threshold at which a detector does best: that of the largest F1."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from darknet_py.evaluation.types import Doubles

_DIGITS = 4  # of a threshold, where so few separate the confidences


class OperatingPoint(NamedTuple):
    """What a detector does at a confidence threshold.

    Attributes:
        thresh: The threshold; a detection counts where its confidence is larger.
        precision: Right detections among all.
        recall: Right detections among the labeled boxes.
        f1: Harmonic mean of both.
    """

    thresh: float
    precision: float
    recall: float
    f1: float


def best_operating_point(
    confidences: Doubles, right: NDArray[np.bool_], truths: int, minimum: float
) -> OperatingPoint | None:
    """Finds the threshold of the largest F1.

    Args:
        confidences: (D,) falling confidences of detections.
        right: (D,) whether each is the first one of a labeled box.
        truths: Number of labeled boxes.
        minimum: Confidence above which detections were looked for.

    Returns:
        The point, its threshold half way between two confidences; of equal F1 the one of the largest threshold. None
        where no detection is right.
    """
    if not right.any():
        return None
    tp, count = np.cumsum(right), np.arange(1, len(right) + 1)
    f1 = 2 * tp / (count + max(truths, 1))
    f1[:-1][confidences[:-1] == confidences[1:]] = -1  # a threshold cannot part equal confidences
    last = int(f1.argmax())
    lower = float(confidences[last + 1]) if last + 1 < len(confidences) else min(minimum, float(confidences[last]) / 2)
    thresh = (float(confidences[last]) + lower) / 2
    if lower <= round(thresh, _DIGITS) < confidences[last]:
        thresh = round(thresh, _DIGITS)
    return OperatingPoint(thresh, float(tp[last] / count[last]), float(tp[last] / max(truths, 1)), float(f1[last]))
