from __future__ import annotations

import pytest
import torch

from darknet_py.layers.deltas import (
    ClassLossOptions,
    finite,
    focal_slope,
    masked_mean,
    sum_of_squares,
    with_area,
    write_classes,
)
from darknet_py.layers.target_assignment import Grid

GRID = Grid(1, 1, 5, 1, 3)  # 3 cells; 2 entries, then 3 classes


def classes(slots: list[int], labels: list[int], options: ClassLossOptions | None = None) -> list[list[float]]:
    """Class deltas of the three cells; all probabilities are 0.25."""
    output = torch.full((1, 1, 5, 1, 3), 0.25)
    flat = GRID.zeros(output)
    write_classes(flat, GRID, output, 2, torch.tensor(slots), torch.tensor(labels), options or ClassLossOptions())
    return GRID.view(flat)[0, 0, 2:, 0].t().tolist()


def test_the_first_truth_sets_all_classes_and_later_ones_their_own() -> None:
    assert classes([1, 1], [0, 2]) == [[0, 0, 0], [0.75, -0.25, 0.75], [0, 0, 0]]


def test_label_smoothing_and_weights() -> None:
    options = ClassLossOptions(label_smoothing=0.2, weights=torch.tensor([2.0, 1, 1]), normalizer=3.0)
    (cell, *_) = classes([0], [0], options)
    assert cell == pytest.approx([(0.9 - 0.25) * 2 * 3, 0.1 - 0.25, 0.1 - 0.25])


def test_the_slot_to_be_discarded_is_not_written() -> None:
    assert classes([3], [1]) == [[0, 0, 0]] * 3


def test_focal_slope_is_a_multiple_of_the_derivative_of_the_focal_loss() -> None:
    p = torch.linspace(0.05, 0.95, 10, dtype=torch.float64, requires_grad=True)
    loss = -((1 - p) ** 2) * torch.log(p)
    (slope,) = torch.autograd.grad(loss.sum(), p)
    assert torch.allclose(focal_slope(p.detach()), -slope.detach() * p.detach() / 2)


def test_arithmetic() -> None:
    values = torch.tensor([1.0, float("nan"), float("inf"), -float("inf")])
    assert finite(values).tolist() == [1, 0, 0, 0]
    assert with_area(torch.tensor([1.0, 2, 0, 3])).tolist() == [1, 2, 1, 3]
    assert sum_of_squares(torch.tensor([3.0, 4.0])).dtype == torch.float64
    assert float(masked_mean(values, torch.tensor([True, False, False, False]))) == 1
    assert float(masked_mean(values, torch.zeros(4, dtype=torch.bool))) == 0
