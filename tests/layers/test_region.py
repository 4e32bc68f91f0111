from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from darknet_py.errors import CfgError
from darknet_py.layers.base import TrainState
from darknet_py.layers.region import RegionSpec
from tests.layers import head_cases
from tests.layers.head_cases import reference_case, rows

REGION = "[net]\nwidth=64\nheight=48\nchannels=16\n[region]\nanchors=1,1.5, 2,1\nnum=2\nclasses=3\n"
SHAPE = (16, 6, 8)


@pytest.mark.parametrize("name", head_cases.cases("region"))
def test_delta_and_cost_equal_c(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(head_cases.GOLDEN)
    head_cases.check(RegionSpec, name)


@pytest.mark.reference
def test_reference_heads(reference: Path, probe: ModuleType) -> None:
    """The reference deltas of [region] were converted from (b, h, w, c) once too often: C passes (b, c, h, w) back to
    the previous layer, as the deltas of reference/train, region_v2, show."""
    with np.load(reference / "heads" / "heads.npz") as arrays:
        for name, case in json.loads((reference / "heads" / "heads.json").read_text()).items():
            if name.startswith("region"):
                report, delta, expected = reference_case(RegionSpec, case, arrays, name, probe)
                batch, channels = expected.shape[:2]
                expected = expected.reshape(batch, channels, -1).transpose(0, 2, 1).reshape(expected.shape)
                np.testing.assert_allclose(delta, expected, rtol=1e-4, atol=1e-7, err_msg=name)
                assert float(report.cost) == pytest.approx(case["cost"], rel=1e-5), name


def test_decode() -> None:
    head = head_cases.build(RegionSpec, REGION + "softmax=1\n", SHAPE)
    x = torch.randn(1, *SHAPE)
    predictions = head.decode(head(x))
    slot = x.view(2, 8, 6, 8)[1, :, 4, 5]
    at = (6 + 4) * 8 + 5
    expected = torch.stack(
        ((5 + slot[0].sigmoid()) / 8, (4 + slot[1].sigmoid()) / 6, slot[2].exp() * 2 / 8, slot[3].exp() * 1 / 6)
    )
    assert torch.allclose(predictions.boxes[0, at], expected)
    assert torch.allclose(predictions.scores[0, at], slot[4].sigmoid() * slot[5:].softmax(0))
    assert torch.allclose(predictions.objectness[0, at], slot[4].sigmoid())


def test_the_pull_towards_anchors_ends_with_12800_images() -> None:
    head = head_cases.build(RegionSpec, REGION, SHAPE)
    x, none = torch.randn(4, *SHAPE), rows()
    during = head_cases.run(head, x, none, TrainState(seen=12795))[1].reshape(4, 2, 8, 48)
    after = head_cases.run(head, x, none, TrainState(seen=12796))[1].reshape(4, 2, 8, 48)
    assert during[:, :, :4].all()
    assert not after[:, :, :4].any()
    assert np.array_equal(during[:, :, 4:], after[:, :, 4:])


def test_a_tree_gives_one_class_per_box(tmp_path: Path) -> None:
    path = tmp_path / "a.tree"
    path.write_text("thing -1\nanimal 0\nvehicle 0\ncat 1\ndog 1\ncar 2\n")
    head = head_cases.build(RegionSpec, REGION.replace("classes=3", f"classes=6\ntree={path}"), (22, 6, 8))
    scores = head.decode(head(torch.randn(1, 22, 6, 8) * 3)).scores
    assert ((scores > 0).sum(-1) == 1).all()
    assert (scores.amax(-1) > 0.5).all()


def test_other_coords_are_refused() -> None:
    with pytest.raises(CfgError, match="coords: expected 4"):
        head_cases.spec_of(RegionSpec, REGION + "coords=8\n")
