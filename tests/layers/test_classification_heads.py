from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from darknet_py.errors import DarknetError
from darknet_py.layers.base import Shape, ShapeError, TrainState
from darknet_py.layers.classification_heads import CostSpec, SoftmaxSpec
from tests.layers import head_cases

NET = "[net]\nwidth=8\nheight=8\nchannels=3\n"


def softmax(options: str = "", size: int = 6):
    return head_cases.build(SoftmaxSpec, NET + "[softmax]\n" + options, (size, 1, 1))


def cost(options: str = ""):
    return head_cases.build(CostSpec, NET + "[cost]\n" + options, (6, 1, 1))


def test_softmax_groups_and_temperature() -> None:
    x = torch.randn(2, 6, 1, 1)
    expected = torch.cat(((x[:, :3] / 2).softmax(1), (x[:, 3:] / 2).softmax(1)), 1)
    assert torch.allclose(softmax("groups=2\ntemperature=2\n")(x), expected)


def test_softmax_runs_over_all_values_of_an_image() -> None:
    head = head_cases.build(SoftmaxSpec, NET + "[softmax]\nspatial=1\n", (3, 2, 2))
    x = torch.randn(2, 3, 2, 2)
    assert torch.allclose(head(x).flatten(1), x.flatten(1).softmax(1))
    assert head(x).shape == (2, 12, 1, 1)


def test_softmax_delta_is_truth_minus_output() -> None:
    x, truth = torch.randn(2, 6, 1, 1), torch.tensor([[0, 1, 0, 0, 0, 0], [0.5, 0, 0, 0, 0, 0.5]])
    report, delta = head_cases.run(softmax(), x, truth)
    p = x.flatten(1).softmax(1)
    np.testing.assert_allclose(delta[..., 0, 0], (truth - p).numpy(), atol=1e-7)
    # Darknet adds −log p of each class that is not 0, whatever its weight.
    assert float(report.cost) == pytest.approx(float(-p[truth > 0].log().sum()))


def test_a_cost_after_a_softmax_passes_through_it_unchanged() -> None:
    x = torch.randn(2, 6, 1, 1, requires_grad=True)
    truth = torch.eye(6)[:2]
    first, second = softmax(), cost("scale=.5\n")
    output = first(x)
    (first.loss(x, truth, TrainState()).total + second.loss(output, truth, TrainState()).total).backward()
    p = x.detach().flatten(1).softmax(1)
    assert x.grad is not None
    assert torch.allclose(-x.grad.flatten(1), 1.5 * (truth - p))
    assert torch.equal(output.detach(), first(x.detach()))


def test_noloss() -> None:
    report, delta = head_cases.run(softmax("noloss=1\n"), torch.randn(2, 6, 1, 1), torch.eye(6)[:2])
    assert float(report.cost) == 0
    assert not delta.any()


def test_softmax_over_a_tree(tmp_path: Path) -> None:
    (tmp_path / "a.tree").write_text("a -1\nb -1\nc 0\nd 0\ne 1\nf 1\n")
    head = softmax(f"tree={tmp_path}/a.tree\n")
    x = torch.randn(1, 6, 1, 1)
    flat = x.flatten(1)
    assert torch.allclose(head(x).flatten(1), torch.cat([part.softmax(1) for part in flat.split(2, 1)], 1))
    truth = torch.tensor([[1.0, 0, 0, 1, -1234, -1234]])
    report, delta = head_cases.run(head, x, truth)
    assert not delta[0, 4:].any()
    assert float(report.cost) == pytest.approx(float(-head(x)[0, [0, 3]].log().sum()))


@pytest.mark.parametrize(
    ("options", "expected_delta", "expected_cost"),
    [
        ("", [0.5, -2.0, 0, 1237.0], 0.25 + 4 + 1237.0**2),
        ("type=masked\nscale=2\n", [1.0, -4.0, 0, 0], 0.25 + 4),
        ("type=smooth\n", [0.5, -1, 0, 1], 0.25 + 3 + 2 * 1237 - 1),
        ("type=L1\n", [1, -1, -1, 1], 0.5 + 2 + 1237),
        ("type=seg\nnoobj=.25\n", [0.5, -0.5, 0, 1237.0], 0.25 + 1 + 1237.0**2),
        ("type=wgan\n", [1, -1, 1, 1], -1 + 2 - 3 - 4),
    ],
)
def test_cost_types(options: str, expected_delta: list[float], expected_cost: float) -> None:
    head = head_cases.build(CostSpec, NET + "[cost]\n" + options, (4, 1, 1))
    x, truth = torch.tensor([[1.0, 2, 3, 4]]), torch.tensor([[1.5, 0, 3, 1241]])
    if "masked" in options:
        truth[0, 3] = -1234
    report, delta = head_cases.run(head, x[:, :, None, None], truth)
    assert delta.flatten().tolist() == pytest.approx(expected_delta)
    assert float(report.cost) == pytest.approx(expected_cost)


def test_cost_passes_its_input_on() -> None:
    x = torch.randn(2, 6, 1, 1)
    assert torch.equal(cost()(x), x)


def test_errors_are_reported() -> None:
    with pytest.raises(ShapeError, match="expected inputs that divide into 4 groups, got 6"):
        head_cases.spec_of(SoftmaxSpec, NET + "[softmax]\ngroups=4\n")[0].infer([Shape(6, 1, 1)])
    with pytest.raises(DarknetError, match=r"expected truth of \(2, 6\) \(images, outputs\), got \(2, 5\)"):
        softmax().loss(torch.randn(2, 6, 1, 1), torch.zeros(2, 5), TrainState())
