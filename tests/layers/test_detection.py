from __future__ import annotations

import numpy as np
import pytest
import torch

from darknet_py.errors import DarknetError
from darknet_py.layers.base import TrainState
from darknet_py.layers.detection import DetectionSpec
from tests.layers import head_cases
from tests.layers.head_cases import rows

V1 = "[net]\nwidth=4\nheight=4\nchannels=117\n[detection]\ncoords=4\nclasses=3\nnum=2\nside=3\nrescore=1\nsqrt=1\n"


@pytest.mark.parametrize("name", head_cases.cases("detection"))
def test_delta_and_cost_equal_c(name: str) -> None:
    head_cases.check(DetectionSpec, name)


def test_rows_and_grid_give_the_same_delta() -> None:
    head = head_cases.build(DetectionSpec, V1, (117, 1, 1))
    x = torch.rand(2, 117, 1, 1)
    # The second object falls into the first one's cell and does not count.
    truth = rows((0, 2, 0.5, 0.25, 0.3, 0.2), (0, 1, 0.4, 0.2, 0.5, 0.6), (1, 0, 0.9, 0.9, 0.2, 0.1))
    grid = torch.zeros(2, 9, 8)
    grid[0, 1] = torch.tensor([1, 0, 0, 1, 0.5, 0.75, 0.3, 0.2])
    grid[1, 8] = torch.tensor([1, 1, 0, 0, 0.7, 0.7, 0.2, 0.1])
    report, delta = head_cases.run(head, x, truth)
    other, expected = head_cases.run(head, x, grid.flatten(1))
    assert np.allclose(delta, expected, atol=1e-6)
    assert float(report.cost) == pytest.approx(float(other.cost), rel=1e-5)
    assert int(report.parts["count"]) == 2


def test_decode() -> None:
    head = head_cases.build(DetectionSpec, V1, (117, 1, 1))
    x = torch.rand(1, 117, 1, 1)
    predictions = head.decode(head(x))
    flat, cell, box = x.flatten(), 5, 1  # row 1, column 2
    values = flat[27 + 18 + (cell * 2 + box) * 4 :][:4]
    at = cell * 2 + box
    assert predictions.boxes[0, at].tolist() == pytest.approx(
        [float((2 + values[0]) / 3), float((1 + values[1]) / 3), float(values[2] ** 2), float(values[3] ** 2)]
    )
    assert torch.allclose(predictions.scores[0, at], flat[27 + at] * flat[cell * 3 : cell * 3 + 3])


def test_wrong_truth_is_reported() -> None:
    head = head_cases.build(DetectionSpec, V1, (117, 1, 1))
    with pytest.raises(DarknetError, match=r"expected truth of \(N, 6\) or \(2, 72\), got \(2, 5\)"):
        head.loss(torch.rand(2, 117, 1, 1), torch.zeros(2, 5), TrainState())
