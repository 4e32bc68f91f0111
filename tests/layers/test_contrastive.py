from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from darknet_py.errors import CfgError, DarknetError
from darknet_py.layers.base import HeadLayer, Node, Shape, ShapeError, TrainState
from darknet_py.layers.contrastive import ContrastiveSpec
from darknet_py.layers.yolo import YoloSpec
from tests.layers import head_cases

NET = "[net]\nwidth=8\nheight=8\nchannels=3\n"


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


def test_contrastive_without_tracks_has_no_loss() -> None:
    text = NET + "[contrastive]\nyolo_layer=-1\n"
    head = head_cases.build(ContrastiveSpec, text, (8, 2, 3), index=2)
    report, delta = head_cases.run(head, torch.randn(2, 8, 2, 3), torch.zeros(0, 6))
    assert float(report.cost) == 0
    assert not delta.any()


def test_contrastive_errors_are_reported() -> None:
    with pytest.raises(CfgError, match=r"yolo_layer: expected a \[yolo\] before layer 1, got '7'"):
        head_cases.spec_of(ContrastiveSpec, NET + "[contrastive]\nyolo_layer=7\n")
    with pytest.raises(ShapeError, match="expected one embedding per image"):
        head_cases.spec_of(ContrastiveSpec, NET + "[contrastive]\n")[0].infer([Shape(8, 4, 4)])
    head = head_cases.build(ContrastiveSpec, NET + "[contrastive]\nclasses=3\n", (8, 1, 1))
    with pytest.raises(DarknetError, match="expected truth of 2 images, got 3"):
        head.loss(torch.randn(2, 8, 1, 1), torch.eye(3), TrainState())
