"""Candidates and suppression against a slow re-telling of Darknet's loops (do_nms_sort, diounms_sort)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from darknet_py import boxes
from darknet_py.inference.detections import Detections
from darknet_py.inference.nms import _ALWAYS_GROUPED, postprocess
from darknet_py.layers.base import Predictions


def predictions(seed: int, images: int, count: int, classes: int, spread: float = 0.3) -> Predictions:
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.rand(*shape, generator=generator)  # noqa: E731
    box = torch.cat((draw(images, count, 2) * spread + 0.3, draw(images, count, 2) * 0.2 + 0.1), -1)
    objectness = draw(images, count)
    return Predictions(box, objectness, objectness[..., None] * draw(images, count, classes))


def one_by_one(
    box: Tensor, objectness: Tensor, scores: Tensor, thresh: float, nms: float, alike: Callable
) -> list[tuple[int, int, float]]:
    """(class, box, score) as Darknet's nested loops leave them."""
    rows = [i for i in range(len(box)) if objectness[i] > thresh]
    result = []
    for label in range(scores.shape[1]):
        left = {i: float(scores[i, label]) if scores[i, label] > thresh else 0.0 for i in rows}
        order = sorted(rows, key=lambda i: -left[i])
        for k, i in enumerate(order):
            for j in order[k + 1 :]:
                if left[i] and alike(box[i], box[j]) > nms:
                    left[j] = 0.0
        result += [(label, i, score) for i, score in left.items() if score]
    return sorted(result)


@pytest.mark.parametrize("kind", ["default", "cornersnms", "greedynms", "diounms"])
def test_equals_the_loops(kind: str) -> None:
    alike = {
        "default": boxes.iou,
        "cornersnms": boxes.iou,
        "greedynms": boxes.diou,
        "diounms": lambda a, b: boxes.diou(a, b, 0.9),
    }[kind]
    for seed in range(3):
        given = predictions(seed, 2, 50, 3)
        for image, found in enumerate(postprocess(given, 0.1, 0.3, kind, 0.9)):
            expected = one_by_one(*(part[image] for part in given), 0.1, 0.3, alike)
            rows = zip(found.class_ids.tolist(), found.candidate_ids.tolist(), found.confidences.tolist(), strict=True)
            assert sorted(rows) == expected
            assert np.array_equal(found.confidences, np.sort(found.confidences)[::-1])
            assert np.array_equal(found.boxes, given.boxes[image, found.candidate_ids])
            assert np.array_equal(found.objectness, given.objectness[image, found.candidate_ids])


@pytest.mark.parametrize(
    ("count", "classes", "one_each"), [(600, 1, False), (400, 5, False), (2500, 1, False), (1200, 6, True)]
)
def test_many_boxes_of_many_labels(count: int, classes: int, one_each: bool) -> None:
    """Of all classes, or each of one class: some of those have more rows than are always grouped."""
    given = predictions(7, 1, count, classes, spread=0.6)
    if one_each:
        labels = torch.arange(count) % (classes + 1) % classes  # the first class has twice as many
        given.scores[0, torch.arange(classes) != labels[:, None]] = 0
    (found,) = postprocess(given, 0.0, 0.4)
    assert int((given.scores > 0).sum((0, 1)).max()) > _ALWAYS_GROUPED
    for label in range(classes):
        mine = found.candidate_ids[found.class_ids == label]
        order = given.scores[0, :, label].argsort(descending=True)
        left = given.scores[0, :, label] > 0
        likeness = boxes.iou(given.boxes[0, :, None], given.boxes[0]) > 0.4
        for k, i in enumerate(order):
            if left[i]:
                later = order[k + 1 :]
                left[later] &= ~likeness[i, later]
        assert set(mine.tolist()) == set(left.nonzero().squeeze(1).tolist())


def test_objectness_gates_a_box_and_score_each_class() -> None:
    box = torch.tensor([[[0.5, 0.5, 0.2, 0.2], [0.2, 0.2, 0.1, 0.1]]])
    given = Predictions(box, torch.tensor([[0.9, 0.2]]), torch.tensor([[[0.8, 0.3, 0.1], [0.9, 0.9, 0.9]]]))
    (found,) = postprocess(given, 0.25, 0.45)
    assert found.class_ids.tolist() == [0, 1]
    assert found.confidences.tolist() == pytest.approx([0.8, 0.3])


def test_without_suppression_and_without_candidates() -> None:
    given = predictions(1, 3, 30, 2)
    assert sum(len(found) for found in postprocess(given, 0.5, 0.0)) == int(
        ((given.scores > 0.5) & (given.objectness[..., None] > 0.5)).sum()
    )
    for found in postprocess(given, 1.5, 0.45):
        assert isinstance(found, Detections)
        columns = (found.boxes, found.objectness, found.class_ids, found.confidences, found.candidate_ids)
        assert [column.shape for column in columns] == [(0, 4), (0,), (0,), (0,), (0,)]
    (none,) = postprocess(Predictions(torch.zeros(1, 0, 4), torch.zeros(1, 0), torch.zeros(1, 0, 2)), 0.1, 0.4)
    assert len(none) == 0


def test_nan_never_becomes_a_detection() -> None:
    given = predictions(2, 1, 10, 2)
    given.objectness[0, :5] = float("nan")
    given.scores[0, 5:, 0] = float("nan")
    (found,) = postprocess(given, 0.01, 0.45)
    assert set(found.class_ids.tolist()) == {1}
    assert found.candidate_ids.min() >= 5


def test_unknown_kind_is_named() -> None:
    with pytest.raises(ValueError, match="greedynms"):
        postprocess(predictions(1, 1, 3, 1), 0.1, 0.45, "soft")
