"""Accuracy and confusion."""

from __future__ import annotations

import numpy as np
import pytest

from darknet_py.errors import DataError
from darknet_py.evaluation.classification_metrics import confusion_matrix, detection_confusion, top_k
from darknet_py.evaluation.types import GroundTruth, iou_matrix
from darknet_py.inference.detections import Detections
from tests.evaluation import make


def test_top_k_by_hand() -> None:
    scores = [[0.1, 0.7, 0.2], [0.5, 0.3, 0.2], [0.4, 0.4, 0.2]]
    assert top_k(scores, [1, 2, 1]) == pytest.approx(1 / 3)
    assert top_k(scores, [1, 2, 1], 2) == pytest.approx(2 / 3)
    assert top_k(scores, [1, 2, 1], 3) == 1
    assert top_k([[np.nan, 0.1]], [0]) == 0
    assert top_k(np.zeros((0, 3)), []) == 0


def test_top_k_refuses_what_does_not_fit() -> None:
    with pytest.raises(DataError, match="k from 1 to 2, got 5"):
        top_k([[0.1, 0.2]], [0], 5)
    with pytest.raises(DataError, match="classes 0 to 1, got 2"):
        top_k([[0.1, 0.2]], [2])
    with pytest.raises(DataError, match="label per image"):
        top_k([[0.1, 0.2]], [0, 1])


def test_confusion_matrix() -> None:
    assert confusion_matrix([0, 1, 1, 2], [0, 0, 1, 2], 3).tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 1]]
    with pytest.raises(DataError, match="got -1"):
        confusion_matrix([-1], [0], 3)


def test_detections_by_hand() -> None:
    a, b, far = [0.3, 0.3, 0.2, 0.2], [0.7, 0.7, 0.2, 0.2], [0.1, 0.9, 0.1, 0.1]
    truth = GroundTruth(np.array([a, b], np.float32), np.array([0, 1]))
    near = [0.3, 0.31, 0.2, 0.2]
    found = Detections(
        np.array([near, a, far, b], np.float32), np.array([0, 1, 1, 1]), np.array([0.9, 0.5, 0.8, 0.2], np.float32)
    )
    # the truth of class 0 pairs with the box that fits best, of class 1; the box of score .2 is below the threshold
    assert detection_confusion([found], [truth], 2).tolist() == [[0, 1, 0], [0, 0, 1], [1, 1, 0]]


@pytest.mark.parametrize("seed", range(6))
def test_detections_equal_one_pair_at_a_time(seed: int) -> None:
    found, truth = make.dataset(seed)
    slow = np.zeros((5, 5), int)
    for hits, labels in zip(found, truth, strict=True):
        keep = hits.confidences > 0.25
        iou = iou_matrix(labels.boxes, hits.boxes[keep])
        ids = hits.class_ids[keep]
        rows, columns = set(range(len(labels.boxes))), set(range(len(ids)))
        for flat in np.argsort(-iou, axis=None, kind="stable"):
            i, j = divmod(int(flat), max(len(ids), 1))
            if iou[i, j] > 0.5 and i in rows and j in columns:
                rows.remove(i)
                columns.remove(j)
                slow[labels.class_ids[i], ids[j]] += 1
        for i in rows:
            slow[labels.class_ids[i], 4] += 1
        for j in columns:
            slow[4, ids[j]] += 1
    assert detection_confusion(found, truth, 4).tolist() == slow.tolist()
