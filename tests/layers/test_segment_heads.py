"""pjreddie's [logistic] and [iseg] against his C (tests/golden/segment.json, read off a build of it)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from darknet_py.errors import DarknetError
from darknet_py.layers.base import Head, TrainState
from darknet_py.layers.segment import Iseg, IsegHead, LogisticHead

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "segment.json").read_text())


def _x() -> torch.Tensor:
    return torch.tensor(GOLDEN["x"]).view(GOLDEN["shape"])


@pytest.mark.parametrize(
    ("name", "head", "truth"),
    [
        ("logistic", LogisticHead(), torch.tensor(GOLDEN["targets"]).view(2, -1)),
        ("iseg", IsegHead(Iseg(3, 2)), torch.tensor(GOLDEN["instances"])),
    ],
)
def test_output_delta_and_cost_are_cs(name: str, head: Head, truth: torch.Tensor) -> None:
    wanted, x = GOLDEN[name], _x().requires_grad_()
    report = head.loss(x, truth, TrainState())
    report.total.backward()
    assert x.grad is not None
    assert torch.allclose(head(x).flatten(), torch.tensor(wanted["output"]), atol=1e-6)
    assert torch.allclose(-x.grad.flatten(), torch.tensor(wanted["delta"]), atol=1e-6)
    assert float(report.cost) == pytest.approx(wanted["cost"], rel=1e-5)


def test_truth_that_does_not_fit_is_told() -> None:
    with pytest.raises(DarknetError, match=r"wanted truth of \(images, instances, 13\), found"):
        IsegHead(Iseg(3, 2)).loss(_x(), torch.zeros(2, 3, 12), TrainState())
    with pytest.raises(DarknetError, match="wanted classes 0…2, found 7"):
        IsegHead(Iseg(3, 2)).loss(_x(), torch.full((2, 1, 13), 7.0), TrainState())
    with pytest.raises(DarknetError, match=r"wanted truth of \(2, 5, 3, 4\), found"):
        LogisticHead().loss(_x(), torch.zeros(2, 3), TrainState())
