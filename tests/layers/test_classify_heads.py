from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from darknet_py.errors import CfgError, DarknetError
from darknet_py.layers.base import HeadLayer, Node, Shape, ShapeError, TrainState
from darknet_py.layers.classification_heads import CostSpec, SoftmaxSpec
from darknet_py.layers.contrastive import ContrastiveSpec
from darknet_py.layers.yolo import YoloSpec
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


def test_a_cost_after_a_softmax_reaches_through_it_unchanged() -> None:
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
    ("options", "wanted_delta", "wanted_cost"),
    [
        ("", [0.5, -2.0, 0, 1237.0], 0.25 + 4 + 1237.0**2),
        ("type=masked\nscale=2\n", [1.0, -4.0, 0, 0], 0.25 + 4),
        ("type=smooth\n", [0.5, -1, 0, 1], 0.25 + 3 + 2 * 1237 - 1),
        ("type=L1\n", [1, -1, -1, 1], 0.5 + 2 + 1237),
        ("type=seg\nnoobj=.25\n", [0.5, -0.5, 0, 1237.0], 0.25 + 1 + 1237.0**2),
        ("type=wgan\n", [1, -1, 1, 1], -1 + 2 - 3 - 4),
    ],
)
def test_cost_types(options: str, wanted_delta: list[float], wanted_cost: float) -> None:
    head = head_cases.build(CostSpec, NET + "[cost]\n" + options, (4, 1, 1))
    x, truth = torch.tensor([[1.0, 2, 3, 4]]), torch.tensor([[1.5, 0, 3, 1241]])
    if "masked" in options:
        truth[0, 3] = -1234
    report, delta = head_cases.run(head, x[:, :, None, None], truth)
    assert delta.flatten().tolist() == pytest.approx(wanted_delta)
    assert float(report.cost) == pytest.approx(wanted_cost)


def test_cost_hands_its_input_on() -> None:
    x = torch.randn(2, 6, 1, 1)
    assert torch.equal(cost()(x), x)


def test_faults_are_named() -> None:
    with pytest.raises(ShapeError, match="expected inputs that divide into 4 groups, got 6"):
        head_cases.spec_of(SoftmaxSpec, NET + "[softmax]\ngroups=4\n")[0].infer([Shape(6, 1, 1)])
    with pytest.raises(DarknetError, match=r"expected truth of \(2, 6\) \(images, outputs\), got \(2, 5\)"):
        softmax().loss(torch.randn(2, 6, 1, 1), torch.zeros(2, 5), TrainState())


def contrastive_cases() -> list[str]:
    return list(json.loads((head_cases.GOLDEN / "heads_contrastive.json").read_text()))


@pytest.mark.parametrize("name", contrastive_cases())
def test_contrastive_delta_and_cost_equal_c(name: str) -> None:
    case = json.loads((head_cases.GOLDEN / "heads_contrastive.json").read_text())[name]
    x, truth, state = torch.tensor(case["x"]), torch.tensor(case["truth"]), TrainState()
    if "yolo" in case:
        spec, net_spec = head_cases.spec_of(YoloSpec, case["net"] + case["yolo"])
        shape = Shape(*case["yolo_shape"][1:])
        yolo = spec.build(Node(1, "yolo", 1, spec, None, (0,), (shape,), shape, net=net_spec))
        assert isinstance(yolo, HeadLayer)
        yolo.loss(torch.zeros(case["yolo_shape"]), truth, state)
    head = head_cases.build(ContrastiveSpec, case["net"] + case["contrastive"], tuple(x.shape[1:]), index=2)
    report, delta = head_cases.run(head, x, truth, state)
    np.testing.assert_allclose(delta, np.array(case["delta"]), rtol=1e-3, atol=1e-5)
    assert float(report.cost) == pytest.approx(case["cost"], rel=1e-3)


def test_contrastive_without_tracks_teaches_nothing() -> None:
    text = NET + "[contrastive]\nyolo_layer=-1\n"
    head = head_cases.build(ContrastiveSpec, text, (8, 2, 3), index=2)
    report, delta = head_cases.run(head, torch.randn(2, 8, 2, 3), torch.zeros(0, 6))
    assert float(report.cost) == 0
    assert not delta.any()


def test_contrastive_faults_are_named() -> None:
    with pytest.raises(CfgError, match=r"yolo_layer: expected a \[yolo\] before layer 1, got '7'"):
        head_cases.spec_of(ContrastiveSpec, NET + "[contrastive]\nyolo_layer=7\n")
    with pytest.raises(ShapeError, match="expected one embedding per image"):
        head_cases.spec_of(ContrastiveSpec, NET + "[contrastive]\n")[0].infer([Shape(8, 4, 4)])
    head = head_cases.build(ContrastiveSpec, NET + "[contrastive]\nclasses=3\n", (8, 1, 1))
    with pytest.raises(DarknetError, match="expected truth of 2 images, got 3"):
        head.loss(torch.randn(2, 8, 1, 1), torch.eye(3), TrainState())
