from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from darknet_py.errors import CfgError, DarknetError, DataError
from darknet_py.layers.base import TrainState
from darknet_py.layers.class_hierarchy import ClassHierarchy
from darknet_py.layers.detection import DetectionSpec
from darknet_py.layers.region import RegionSpec
from tests.layers import head_cases
from tests.layers.test_yolo import reference_case, rows

REGION = "[net]\nwidth=64\nheight=48\nchannels=16\n[region]\nanchors=1,1.5, 2,1\nnum=2\nclasses=3\n"
SHAPE = (16, 6, 8)


@pytest.mark.parametrize("name", head_cases.cases("region"))
def test_delta_and_cost_equal_c(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(head_cases.GOLDEN)
    head_cases.check(RegionSpec, name)


@pytest.mark.parametrize("name", head_cases.cases("detection"))
def test_v1_delta_and_cost_equal_c(name: str) -> None:
    head_cases.check(DetectionSpec, name)


@pytest.mark.reference
def test_reference_heads(reference: Path, probe: ModuleType) -> None:
    """The figures' region deltas went through the conversion from (b, h, w, c) once too often: C hands (b, c, h, w)
    back to the layer before, as the deltas of reference/train, region_v2, show."""
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
    found = head.decode(head(x))
    slot = x.view(2, 8, 6, 8)[1, :, 4, 5]
    at = (6 + 4) * 8 + 5
    expected = torch.stack(
        ((5 + slot[0].sigmoid()) / 8, (4 + slot[1].sigmoid()) / 6, slot[2].exp() * 2 / 8, slot[3].exp() * 1 / 6)
    )
    assert torch.allclose(found.boxes[0, at], expected)
    assert torch.allclose(found.scores[0, at], slot[4].sigmoid() * slot[5:].softmax(0))
    assert torch.allclose(found.objectness[0, at], slot[4].sigmoid())


def test_the_pull_towards_anchors_ends_with_12800_images() -> None:
    head = head_cases.build(RegionSpec, REGION, SHAPE)
    x, none = torch.randn(4, *SHAPE), rows()
    during = head_cases.run(head, x, none, TrainState(seen=12795))[1].reshape(4, 2, 8, 48)
    after = head_cases.run(head, x, none, TrainState(seen=12796))[1].reshape(4, 2, 8, 48)
    assert during[:, :, :4].all()
    assert not after[:, :, :4].any()
    assert np.array_equal(during[:, :, 4:], after[:, :, 4:])


def test_tree_probabilities(tmp_path: Path) -> None:
    path = tmp_path / "a.tree"
    path.write_text("thing -1\nanimal 0\nvehicle 0\ncat 1\ndog 1\ncar 2\n")
    tree = ClassHierarchy.read(str(path), 6)
    x = torch.randn(2, 6, 3)
    p = tree.softmax(x, 1)
    assert torch.allclose(p[:, 0], torch.ones(2, 3))
    assert torch.allclose(p[:, 1:3], x[:, 1:3].softmax(1))
    assert torch.allclose(p[:, 3:5], x[:, 3:5].softmax(1))
    absolute = tree.absolute(p.movedim(1, 2))
    assert torch.allclose(absolute[..., 4], p[:, 0] * p[:, 1] * p[:, 4])
    assert torch.allclose(absolute[..., 3:].sum(-1), torch.ones(2, 3))
    head = head_cases.build(RegionSpec, REGION.replace("classes=3", f"classes=6\ntree={path}"), (22, 6, 8))
    scores = head.decode(head(torch.randn(1, 22, 6, 8) * 3)).scores
    assert ((scores > 0).sum(-1) == 1).all()
    assert (scores.amax(-1) > 0.5).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a -1\nb 3\n", ":2: expected a name and a parent from -1 to 0, got 'b 3'"),
        ("a -1\n", "expected 2 classes, got 1"),
        (None, "cannot read the class tree"),
    ],
)
def test_bad_trees_are_named(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "bad.tree"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError) as caught:
        ClassHierarchy.read(str(path), 2)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_other_coords_are_refused() -> None:
    with pytest.raises(CfgError, match="coords: expected 4"):
        head_cases.spec_of(RegionSpec, REGION + "coords=8\n")


V1 = "[net]\nwidth=4\nheight=4\nchannels=117\n[detection]\ncoords=4\nclasses=3\nnum=2\nside=3\nrescore=1\nsqrt=1\n"


def test_v1_rows_and_grid_teach_the_same() -> None:
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


def test_v1_decode() -> None:
    head = head_cases.build(DetectionSpec, V1, (117, 1, 1))
    x = torch.rand(1, 117, 1, 1)
    found = head.decode(head(x))
    flat, cell, box = x.flatten(), 5, 1  # row 1, column 2
    values = flat[27 + 18 + (cell * 2 + box) * 4 :][:4]
    at = cell * 2 + box
    assert found.boxes[0, at].tolist() == pytest.approx(
        [float((2 + values[0]) / 3), float((1 + values[1]) / 3), float(values[2] ** 2), float(values[3] ** 2)]
    )
    assert torch.allclose(found.scores[0, at], flat[27 + at] * flat[cell * 3 : cell * 3 + 3])


def test_v1_wrong_truth_is_named() -> None:
    head = head_cases.build(DetectionSpec, V1, (117, 1, 1))
    with pytest.raises(DarknetError, match=r"expected truth of \(N, 6\) or \(2, 72\), got \(2, 5\)"):
        head.loss(torch.rand(2, 117, 1, 1), torch.zeros(2, 5), TrainState())
