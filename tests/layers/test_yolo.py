from __future__ import annotations

import json
import math
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from darknet_py.layers.base import Shape, ShapeError, TrainState
from darknet_py.layers.yolo import YoloSpec
from tests.layers import head_cases
from tests.layers.head_cases import reference_case, rows

NET = "[net]\nbatch=2\nwidth=64\nheight=48\nchannels=16\n"
BODY = "mask=1,2\nanchors=3,4, 8,7, 10,16\nnum=3\nclasses=3\n"
SHAPE = (16, 6, 8)


def yolo(options: str = "", section: str = "[yolo]\n"):
    return head_cases.build(YoloSpec, NET + section + BODY + options, SHAPE)


@pytest.mark.parametrize("name", head_cases.cases("yolo"))
def test_delta_and_cost_equal_c(name: str) -> None:
    head_cases.check(YoloSpec, name)


@pytest.mark.reference
def test_reference_heads(reference: Path, probe: ModuleType) -> None:
    with np.load(reference / "heads" / "heads.npz") as arrays:
        for name, case in json.loads((reference / "heads" / "heads.json").read_text()).items():
            if name.partition("_")[0] == "yolo":
                report, delta, expected = reference_case(YoloSpec, case, arrays, name, probe)
                np.testing.assert_allclose(delta, expected, rtol=1e-4, atol=1e-7, err_msg=name)
                assert float(report.cost) == pytest.approx(case["cost"], rel=1e-5), name


def test_decode_on_a_net_that_is_not_square() -> None:
    head = yolo("scale_x_y=1.2\n")
    x = torch.randn(2, *SHAPE)
    output = head(x)
    predictions = head.decode(output)
    slots = x.view(2, 2, 8, 6, 8)
    image, anchor, row, column = 1, 1, 4, 7
    tx, ty, tw, th, objectness, *classes = slots[image, anchor, :, row, column].tolist()
    at = (anchor * 6 + row) * 8 + column

    def logistic(v: float) -> float:
        return 1 / (1 + math.exp(-v))

    assert predictions.boxes.shape == (2, 2 * 6 * 8, 4)
    assert predictions.boxes[image, at].tolist() == pytest.approx(
        [
            (column + logistic(tx) * 1.2 - 0.1) / 8,
            (row + logistic(ty) * 1.2 - 0.1) / 6,
            math.exp(tw) * 10 / 64,
            math.exp(th) * 16 / 48,
        ],
        rel=1e-5,
    )
    assert predictions.objectness[image, at].item() == pytest.approx(logistic(objectness))
    assert predictions.scores[image, at].tolist() == pytest.approx(
        [logistic(objectness) * logistic(c) for c in classes]
    )


def test_the_input_size_may_change() -> None:
    head = yolo()
    output = head(torch.randn(1, *SHAPE))
    small = head.decode(output).boxes
    head.input_size = (128, 48)
    assert torch.allclose(head.decode(output).boxes * torch.tensor([1.0, 1, 2, 1]), small)


def test_new_coords_skips_the_logistic() -> None:
    head = yolo("new_coords=1\n")
    x = torch.rand(1, *SHAPE)
    assert torch.equal(head(x), x)
    w = x.view(1, 2, 8, 6, 8)[0, 0, 2, 0, 0].item()
    assert head.decode(x).boxes[0, 0, 2].item() == pytest.approx((2 * w) ** 2 * 8 / 64)


def test_images_do_not_influence_each_other() -> None:
    head = yolo("iou_loss=ciou\niou_thresh=.2\n")
    x = torch.randn(3, *SHAPE)
    truth = rows((0, 1, 0.3, 0.4, 0.2, 0.3), (2, 0, 0.7, 0.2, 0.1, 0.1), (0, 2, 0.31, 0.41, 0.2, 0.3))
    together = head_cases.run(head, x, truth)[1]
    for image in range(3):
        mine = truth[truth[:, 0] == image].clone()
        mine[:, 0] = 0
        assert np.allclose(head_cases.run(head, x[image : image + 1], mine)[1][0], together[image], atol=1e-7)


def test_comparing_in_chunks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    head = yolo("truth_thresh=.2\nignore_thresh=.1\n")
    x = torch.randn(2, *SHAPE) * 0.5
    truth = torch.cat((torch.randint(0, 2, (30, 1)), torch.randint(0, 3, (30, 1)), torch.rand(30, 4) * 0.5 + 0.2), 1)
    whole = head_cases.run(head, x, truth)[1]
    monkeypatch.setattr("darknet_py.layers.target_assignment._PAIRS", 200)
    assert np.array_equal(head_cases.run(head, x, truth)[1], whole)


def test_labels_out_of_range_are_skipped_and_centers_at_the_border_stay_inside() -> None:
    head = yolo()
    x = torch.randn(1, *SHAPE)
    none = head_cases.run(head, x, rows())[1]
    skipped = rows((0, 3, 0.5, 0.5, 0.2, 0.2), (0, -1, 0.5, 0.5, 0.2, 0.2), (0, 1, 0, 0.5, 0.2, 0.2))
    assert np.array_equal(head_cases.run(head, x, skipped)[1], none)
    report, delta = head_cases.run(head, x, rows((0, 1, 1, 1, 0.15, 0.15)))
    assert int(report.parts["count"]) == 1
    assert (delta - none)[:, :, :-1].any() == (delta - none)[..., :-1].any() == False  # noqa: E712


def test_half_precision_inputs_stay_finite() -> None:
    head = yolo("iou_loss=ciou\niou_thresh=.2\n")
    for dtype in (torch.bfloat16, torch.float16):
        x = (torch.randn(2, *SHAPE) * 3).to(dtype).requires_grad_()
        report = head.loss(x, rows((0, 1, 0.3, 0.4, 0.2, 0.3), (1, 0, 0.7, 0.2, 0.1, 0.1)), TrainState())
        assert report.total.dtype == torch.float32
        report.total.backward()
        assert x.grad is not None
        assert x.grad.dtype == dtype
        assert x.grad.isfinite().all()
        assert head(x).dtype == torch.float32


def test_a_nan_affects_only_its_own_slot() -> None:
    head = yolo("iou_loss=giou\n")
    x = torch.randn(1, *SHAPE)
    clean = head_cases.run(head, x, rows((0, 1, 0.3, 0.4, 0.2, 0.3)))[1]
    x[0, 4, 5, 7] = float("nan")  # an objectness far from the truth
    x = x.requires_grad_()
    output = head(x.detach())
    delta, _, _ = head._compute_delta(output, rows((0, 1, 0.3, 0.4, 0.2, 0.3)), TrainState())
    delta = delta.reshape(clean.shape).numpy()
    different = np.argwhere(delta != clean)
    assert [tuple(at) for at in different] == [(0, 4, 5, 7)]
    assert delta[0, 4, 5, 7] == 0


def test_bad_labels_are_filtered_with_running_statistics() -> None:
    net = NET + "max_batches=1000\nnum_sigmas_reject_badlabels=1\nbadlabels_rejection_percentage=1\n"
    head = head_cases.build(YoloSpec, net + "[yolo]\n" + BODY, SHAPE)
    x, given, state = torch.randn(2, *SHAPE), rows((0, 1, 0.3, 0.4, 0.2, 0.3)), TrainState(iteration=750)
    plain = head_cases.run(head, x, given, state)[1]
    assert state.delta_stats is None
    state.iteration = 990
    first = head_cases.run(head, x, given, state)[1]
    largest = float(state.delta_stats.largest)
    head_cases.run(head, x * 2, given, state)
    assert np.abs(first).max() < np.abs(plain).max()
    assert float(state.delta_stats.largest) > largest
    assert float(state.delta_stats.threshold) > 0


class _Waiting(TorchDispatchMode):
    """Names the operations that make the host wait for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        masked = "index" in str(func) and any(
            isinstance(i, Tensor) and i.dtype == torch.bool
            for arg in args
            if isinstance(arg, (list, tuple))
            for i in arg
        )
        if masked or any(name in str(func) for name in ("_local_scalar_dense", "nonzero", "unique", "masked_select")):
            self.operations.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "options", ["", "iou_loss=ciou\niou_thresh=.2\ncounters_per_class=1,2,3\n", "focal_loss=1\nobjectness_smooth=1\n"]
)
def test_the_loss_never_waits_for_the_device(options: str) -> None:
    head = yolo(options)
    x = torch.randn(2, *SHAPE, requires_grad=True)
    with _Waiting() as waiting:
        head.loss(x, rows((0, 1, 0.3, 0.4, 0.2, 0.3), (1, 0, 0.7, 0.2, 0.1, 0.1)), TrainState()).total.backward()
    assert waiting.operations == []


def test_delta_normalizer_counts_only_on_request() -> None:
    x = torch.randn(1, *SHAPE)
    plain, half = yolo(), yolo("delta_normalizer=.5\n")
    given = rows((0, 1, 0.3, 0.4, 0.2, 0.3))
    expected = head_cases.run(plain, x, given)[1]
    assert np.array_equal(head_cases.run(half, x, given)[1], expected)
    assert np.array_equal(head_cases.run(half, x, given, TrainState(scale_delta=True))[1], expected / 2)


def test_class_map(tmp_path: Path) -> None:
    (tmp_path / "map.txt").write_text("2\n0\n1\n")
    mapped = yolo(f"map={tmp_path}/map.txt\n")
    x = torch.randn(1, *SHAPE)
    box = (0.3, 0.4, 0.2, 0.3)
    assert np.array_equal(
        head_cases.run(mapped, x, rows((0, 0, *box)))[1], head_cases.run(yolo(), x, rows((0, 2, *box)))[1]
    )


def test_wrong_number_of_filters_is_reported() -> None:
    spec, _ = head_cases.spec_of(YoloSpec, NET + "[yolo]\n" + BODY)
    with pytest.raises(ShapeError, match=r"expected 16 input channels \(2 anchors x \(3 classes \+ 5\)\), got 18"):
        spec.infer([Shape(18, 6, 8)])
