from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from darknet_py import boxes

side = st.floats(0.01, 1.0)
place = st.floats(0.0, 1.0)
box = st.tuples(place, place, side, side).map(lambda values: torch.tensor(values, dtype=torch.float64))


@given(box)
def test_corners(a: Tensor) -> None:
    corners = boxes.to_corners(a)
    assert torch.allclose((corners[:2] + corners[2:]) / 2, a[:2])
    assert torch.allclose(corners[2:] - corners[:2], a[2:])
    assert (corners[2:] > corners[:2]).all()


@given(box, box)
def test_iou_is_symmetric_and_bounded(a: Tensor, b: Tensor) -> None:
    for kind, low in (("iou", 0.0), ("giou", -1.0), ("diou", -1.0), ("ciou", -2.0)):
        value = float(boxes.iou_of_kind(a, b, kind))
        assert value == pytest.approx(float(boxes.iou_of_kind(b, a, kind)))
        assert low <= value <= float(boxes.iou(a, b)) + 1e-12
        assert float(boxes.iou_of_kind(a, a, kind)) == pytest.approx(1.0)


@given(box, box)
def test_iou_by_hand(a: Tensor, b: Tensor) -> None:
    (l1, t1, r1, b1), (l2, t2, r2, b2) = boxes.to_corners(a).tolist(), boxes.to_corners(b).tolist()
    inter = max(min(r1, r2) - max(l1, l2), 0) * max(min(b1, b2) - max(t1, t2), 0)
    union = (r1 - l1) * (b1 - t1) + (r2 - l2) * (b2 - t2) - inter
    assert float(boxes.iou(a, b)) == pytest.approx(inter / union, abs=1e-12)
    area = (max(r1, r2) - min(l1, l2)) * (max(b1, b2) - min(t1, t2))
    assert float(boxes.giou(a, b)) == pytest.approx(inter / union - (area - union) / area, abs=1e-9)
    diagonal = (max(r1, r2) - min(l1, l2)) ** 2 + (max(b1, b2) - min(t1, t2)) ** 2
    distance = float(((a[:2] - b[:2]) ** 2).sum())
    assert float(boxes.diou(a, b, 0.8)) == pytest.approx(inter / union - (distance / diagonal) ** 0.8, abs=1e-9)
    aspect = 4 / math.pi**2 * (math.atan(b[2] / b[3]) - math.atan(a[2] / a[3])) ** 2
    alpha = aspect / (1 - inter / union + aspect + 1e-6)
    assert float(boxes.ciou(a, b)) == pytest.approx(inter / union - distance / diagonal - alpha * aspect, abs=1e-9)


def test_boxes_without_area() -> None:
    point, other = torch.tensor([0.5, 0.5, 0.0, 0.0]), torch.tensor([0.5, 0.5, 0.2, 0.2])
    for kind in boxes.KINDS:
        for a in (point, other):
            assert boxes.iou_of_kind(a, point, kind) <= 0 or kind == "ciou"
    assert boxes.iou(point, point) == 0


def test_pairs_broadcast() -> None:
    a, b = torch.rand(3, 4), torch.rand(5, 4)
    assert boxes.iou(a[:, None], b).shape == (3, 5)
    assert boxes.iou_gradient(a[:, None], b, "ciou").shape == (3, 5, 4)


@pytest.mark.parametrize("kind", ["iou", "giou"])
def test_gradient_is_the_derivative_with_sizes_doubled(kind: str) -> None:
    p = torch.tensor([[0.5, 0.5, 0.3, 0.2], [0.4, 0.6, 0.2, 0.4]], dtype=torch.float64, requires_grad=True)
    t = torch.tensor([[0.45, 0.52, 0.22, 0.25], [0.5, 0.5, 0.3, 0.3]], dtype=torch.float64)
    (exact,) = torch.autograd.grad(boxes.iou_of_kind(p, t, kind).sum(), p)
    ours = boxes.iou_gradient(p.detach(), t, kind)
    assert torch.allclose(ours, exact * torch.tensor([1.0, 1, 2, 2], dtype=torch.float64))


def test_gradient_of_boxes_apart_points_at_the_truth() -> None:
    p, t = torch.tensor([0.2, 0.2, 0.1, 0.1]), torch.tensor([0.8, 0.7, 0.1, 0.1])
    for kind in ("giou", "diou", "ciou"):
        assert (boxes.iou_gradient(p, t, kind)[:2] > 0).all()
    # Where both axes are apart Darknet's plain IoU sees two negative extents, and their product as an overlap.
    assert boxes.iou_gradient(p, t, "iou").isfinite().all()
