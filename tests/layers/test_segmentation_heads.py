"""pjreddie's [logistic] and [iseg] against his C (tests/golden/segment.json, recorded from a build of it)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from darknet_py.errors import DarknetError
from darknet_py.layers.base import HeadLayer, TrainState
from darknet_py.layers.segmentation_heads import IsegLayer, IsegSpec, LogisticLayer

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "segment.json").read_text())


def _x() -> torch.Tensor:
    return torch.tensor(GOLDEN["x"]).view(GOLDEN["shape"])


@pytest.mark.parametrize(
    ("name", "head", "truth"),
    [
        ("logistic", LogisticLayer(), torch.tensor(GOLDEN["targets"]).view(2, -1)),
        ("iseg", IsegLayer(IsegSpec(classes=3, ids=2)), torch.tensor(GOLDEN["instances"])),
    ],
)
def test_output_delta_and_cost_are_cs(name: str, head: HeadLayer, truth: torch.Tensor) -> None:
    expected, x = GOLDEN[name], _x().requires_grad_()
    report = head.loss(x, truth, TrainState())
    report.total.backward()
    assert x.grad is not None
    assert torch.allclose(head(x).flatten(), torch.tensor(expected["output"]), atol=1e-6)
    assert torch.allclose(-x.grad.flatten(), torch.tensor(expected["delta"]), atol=1e-6)
    assert float(report.cost) == pytest.approx(expected["cost"], rel=1e-5)


def test_truth_that_does_not_fit_is_told() -> None:
    with pytest.raises(DarknetError, match=r"expected truth of \(images, instances, 13\), got"):
        IsegLayer(IsegSpec(classes=3, ids=2)).loss(_x(), torch.zeros(2, 3, 12), TrainState())
    with pytest.raises(DarknetError, match="expected classes 0…2, got 7"):
        IsegLayer(IsegSpec(classes=3, ids=2)).loss(_x(), torch.full((2, 1, 13), 7.0), TrainState())
    with pytest.raises(DarknetError, match=r"expected truth of \(2, 5, 3, 4\), got"):
        LogisticLayer().loss(_x(), torch.zeros(2, 3), TrainState())
