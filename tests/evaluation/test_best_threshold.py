"""The confidence threshold of the largest F1."""

from __future__ import annotations

import numpy as np
import pytest

from darknet_py.evaluation.best_threshold import auto_operating_point, best_operating_point
from darknet_py.evaluation.darknet_map import darknet_map
from darknet_py.evaluation.types import match
from tests.evaluation.make import dataset


def test_by_hand() -> None:
    """4 labeled boxes. Down to .8: 1 right, F1 2/5. To .6: 3 of 3, F1 6/7. To .5: 3 of 4, 6/8. To .1: 4 of 6, 8/10."""
    confidences = np.array([0.8, 0.7, 0.6, 0.5, 0.3, 0.1])
    right = np.array([True, True, True, False, False, True])
    point = best_operating_point(confidences, right, 4, 0.005)
    assert point is not None
    assert point.thresh == pytest.approx(0.55) and (point.precision, point.recall) == (1.0, 0.75)
    assert point.f1 == pytest.approx(6 / 7)


def test_equal_confidences_are_not_parted_and_the_last_one_is_above_the_minimum() -> None:
    point = best_operating_point(np.array([0.5, 0.5, 0.25]), np.array([True, False, False]), 1, 0.005)
    assert point is not None and point.thresh == 0.375 and point.precision == 0.5
    point = best_operating_point(np.array([0.5]), np.array([True]), 2, 0.005)
    assert point is not None and point.thresh == 0.2525 and point.recall == 0.5
    close = np.array([0.50003, 0.50001])
    point = best_operating_point(close, np.array([True, False]), 1, 0.005)
    assert point is not None and 0.50001 < point.thresh < 0.50003  # more digits where it takes them
    assert best_operating_point(np.array([0.5]), np.array([False]), 1, 0.005) is None
    assert best_operating_point(np.zeros(0), np.zeros(0, bool), 0, 0.005) is None


@pytest.mark.parametrize(
    ("truths", "expected"),
    [
        # 100 labeled boxes. F1 of 80 right, 30 wrong: 160/210 = .762, standard error .043: .719 and more is as good
        (100, (70, 17)),  # 140/187 = .749, precision .805: the last point of at least .8
        # 1,000 labeled boxes: 160/1110 = .144, standard error .011; 140/1087 = .129 is not as good
        (1000, (80, 30)),
    ],
)
def test_four_of_five_are_right_where_that_costs_nothing(truths: int, expected: tuple[int, int]) -> None:
    right = np.array([*[False] * 17, *[True] * 70, *[False] * 13, *[True] * 10])
    confidences = np.linspace(0.99, 0.1, len(right))
    best = best_operating_point(confidences, right, truths, 0.005)
    auto = auto_operating_point(confidences, right, truths, 0.005)
    assert best is not None and best.precision == pytest.approx(80 / 110)
    assert auto is not None and auto.precision == pytest.approx(expected[0] / sum(expected))
    assert auto.thresh == best.thresh or auto.thresh > best.thresh


def test_a_precise_detector_keeps_the_threshold_of_its_best_f1() -> None:
    right = np.array([True, True, True, True, False, True])
    confidences = np.linspace(0.9, 0.4, 6)
    best = best_operating_point(confidences, right, 6, 0.005)
    assert best == auto_operating_point(confidences, right, 6, 0.005) and best is not None and best.precision > 0.8
    assert auto_operating_point(confidences, np.zeros(6, bool), 6, 0.005) is None


@pytest.mark.parametrize("seed", range(4))
def test_no_other_threshold_is_better(seed: int) -> None:
    """Of all detections above a threshold, each labeled box makes one right; all classes together and each alone."""
    found, truth = dataset(seed, ties=seed % 2 == 0)
    result = darknet_map(found, truth, ["a", "b", "c", "d"])
    matched = match(found, truth, 0.5)

    def f1(thresh: float, class_ids: list[int]) -> float:
        above = (matched.confidences > np.float32(thresh)) & np.isin(matched.class_ids, class_ids)
        right = len(set(matched.truth[above & (matched.truth >= 0)].tolist()))
        labels = sum(int(np.isin(labels.class_ids, class_ids).sum()) for labels in truth)
        return 2 * right / (int(above.sum()) + labels) if above.any() else 0.0

    for row, class_ids in [*((row, [k]) for k, row in enumerate(result.classes)), (result, [0, 1, 2, 3])]:
        others = max(f1(float(thresh) - 1e-6, class_ids) for thresh in np.unique(matched.confidences))
        if row.best_thresh is None:
            assert others == 0
            continue
        assert f1(row.best_thresh, class_ids) == pytest.approx(row.best_f1) == pytest.approx(others)
        precision, recall = row.best_precision, row.best_recall
        assert precision is not None and recall is not None
        assert row.best_f1 == pytest.approx(2 * precision * recall / (precision + recall))
