from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from darknet_py.layers.gaussian_yolo import GaussianYoloSpec
from tests.layers import head_cases
from tests.layers.head_cases import reference_case

NET = "[net]\nbatch=2\nwidth=64\nheight=48\nchannels=16\n"
BODY = "mask=1,2\nanchors=3,4, 8,7, 10,16\nnum=3\nclasses=3\n"


@pytest.mark.parametrize("name", head_cases.cases("Gaussian_yolo"))
def test_delta_and_cost_equal_c(name: str) -> None:
    head_cases.check(GaussianYoloSpec, name)


@pytest.mark.reference
def test_reference_heads(reference: Path, probe: ModuleType) -> None:
    with np.load(reference / "heads" / "heads.npz") as arrays:
        for name, case in json.loads((reference / "heads" / "heads.json").read_text()).items():
            if name.partition("_")[0] == "gaussian":
                report, delta, expected = reference_case(GaussianYoloSpec, case, arrays, name, probe)
                np.testing.assert_allclose(delta, expected, rtol=1e-4, atol=1e-7, err_msg=name)
                assert float(report.cost) == pytest.approx(case["cost"], rel=1e-5), name


def test_scores_fall_with_the_deviation() -> None:
    head = head_cases.build(GaussianYoloSpec, NET + "[Gaussian_yolo]\n" + BODY + "yolo_point=left_top\n", (24, 6, 8))
    x = torch.randn(1, 24, 6, 8)
    predictions = head.decode(head(x))
    slot = x.view(2, 12, 6, 8)[1, :, 2, 3]
    deviation = slot[1:8:2].sigmoid().mean()
    at = (6 + 2) * 8 + 3
    expected = slot[8].sigmoid() * slot[9:].sigmoid() * (1 - deviation)
    assert torch.allclose(predictions.scores[0, at], expected)
    left = (3 + slot[0].sigmoid()) / 8
    assert predictions.boxes[0, at, 0].item() == pytest.approx(float(left + slot[4].exp() * 10 / 64 / 2), rel=1e-5)
