"""The confidence threshold at which a detector does best: that of the largest F1, or one that is as good."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from darknet_py.evaluation.types import Doubles

_DIGITS = 4  # of a threshold, where so few separate the confidences
_PRECISION = 0.8  # from here on, four of five detections are right


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
    return _point(int(_f1(confidences, right, truths).argmax()), confidences, right, truths, minimum)


def auto_operating_point(
    confidences: Doubles, right: NDArray[np.bool_], truths: int, minimum: float
) -> OperatingPoint | None:
    """Finds the threshold that `--thresh auto` uses.

    It is that of the largest F1. Where fewer than four of five detections are right there, it is the next larger one at
    which they are, if its F1 is at most a standard error smaller: as good as the first one by so many labeled boxes,
    with fewer false alarms. The standard error of F1 is taken as that of a share of `truths`.

    Args:
        confidences: As of `best_operating_point`.
        right: As of `best_operating_point`.
        truths: As of `best_operating_point`.
        minimum: As of `best_operating_point`.

    Returns:
        The point; None where no detection is right.
    """
    if not right.any():
        return None
    f1 = _f1(confidences, right, truths)
    best = int(f1.argmax())
    error = math.sqrt(f1[best] * (1 - f1[best]) / max(truths, 1))
    precision = np.cumsum(right[: best + 1]) / np.arange(1, best + 2)
    good = np.flatnonzero((precision >= _PRECISION) & (f1[: best + 1] >= f1[best] - error))
    return _point(int(good[-1]) if len(good) else best, confidences, right, truths, minimum)


def _f1(confidences: Doubles, right: NDArray[np.bool_], truths: int) -> Doubles:
    """F1 of the detections down to each of them; −1 where no threshold ends there."""
    f1: Doubles = 2 * np.cumsum(right) / (np.arange(1, len(right) + 1) + max(truths, 1))
    f1[:-1][confidences[:-1] == confidences[1:]] = -1  # a threshold cannot part equal confidences
    return f1


def _point(last: int, confidences: Doubles, right: NDArray[np.bool_], truths: int, minimum: float) -> OperatingPoint:
    """The point whose last detection is `last`."""
    tp, count = int(right[: last + 1].sum()), last + 1
    lower = float(confidences[last + 1]) if last + 1 < len(confidences) else min(minimum, float(confidences[last]) / 2)
    thresh = (float(confidences[last]) + lower) / 2
    if lower <= round(thresh, _DIGITS) < confidences[last]:
        thresh = round(thresh, _DIGITS)
    return OperatingPoint(thresh, tp / count, tp / max(truths, 1), 2 * tp / (count + max(truths, 1)))
