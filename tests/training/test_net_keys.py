"""Keys of [net] that steer an update: each does what Darknet's does, or a line says that it does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import darknet_py
from darknet_py.graph.graph import parse_text
from darknet_py.model.network import Network
from darknet_py.training.train_step import TrainStep
from tests.training.conftest import CFG
from tests.training.test_heads import NET

# Nothing drawn by chance, plain gradient descent: what an update moved is the gradient over the divisor.
PLAIN = CFG.replace("[dropout]\nprobability=.3\n", "").replace("burn_in=3", "burn_in=0")
PLAIN = PLAIN.replace("momentum=0.9", "momentum=0").replace("decay=0.0005", "decay=0")

SMALL = NET.format(rate=0.001)


def images(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(seed))
    return x, torch.tensor([[k, k, 0.3 + 0.1 * k, 0.4, 0.3, 0.3] for k in range(count)])


def learner(text: str, **options: Any) -> TrainStep:
    torch.manual_seed(0)
    return TrainStep(Network(parse_text(text)), **options)


def moved(text: str, batches: list[tuple[torch.Tensor, torch.Tensor]], steps: int = 1) -> torch.Tensor:
    """How far the head's bias and weights are from where they began."""
    one = learner(text)
    layer = one.network.layers[-2]
    before = torch.cat([layer.weight.flatten(), layer.bias]).detach().clone()
    for _ in range(steps):
        one.step(batches)
    return torch.cat([layer.weight.flatten(), layer.bias]).detach() - before


def test_loss_scale_cancels_out_and_is_where_fp16_begins() -> None:
    """C's heads multiply by it and its updates divide (`backward_yolo_layer_gpu`, `update_convolutional_layer_gpu`)."""
    batches = [images(2)] * 2
    scaled = PLAIN.replace("burn_in=0", "burn_in=0\nloss_scale=64")
    assert torch.equal(moved(PLAIN, batches), moved(scaled, batches))
    assert learner(scaled, amp="fp16").scaler.get_scale() == 64
    assert learner(PLAIN, amp="fp16").scaler.get_scale() == 128
    assert learner(scaled, amp="bf16").scaler.get_scale() == 1


def test_sequential_subdivisions_divide_the_update() -> None:
    """`get_sequence_value`: 2 subdivisions in one sequence count twice, with and without track."""
    batches = [images(2), images(2, 1)]
    one = moved(PLAIN.replace("burn_in=0", "burn_in=0\nsequential_subdivisions=1"), batches)
    assert torch.allclose(2 * one, moved(PLAIN, batches), rtol=1e-3, atol=1e-7) and one.abs().max() > 1e-4


def test_dynamic_minibatch_divides_by_what_was_taken() -> None:
    batches = [images(3), images(3, 1)]
    dynamic = moved(PLAIN.replace("burn_in=0", "burn_in=0\ndynamic_minibatch=1"), batches)
    assert torch.equal(dynamic, moved(PLAIN.replace("batch=4", "batch=6"), batches))


@pytest.mark.parametrize(
    "key", ["badlabels_rejection_percentage=5", "num_sigmas_reject_badlabels=1", "equidistant_point=2"]
)
def test_labels_are_rejected_late_and_not_before(key: str) -> None:
    """The last quarter of max_batches=12 begins after iteration 9; equidistant_point after the one it names."""
    starts = 3 if key.startswith("equidistant") else 10
    batches = [images(2)] * 2
    changed = PLAIN.replace("burn_in=0", f"burn_in=0\n{key}")
    plain, other = learner(PLAIN), learner(changed)
    for iteration in range(1, 13):
        plain.step(batches)
        other.step(batches)
        same = torch.equal(plain.network.layers[-2].bias, other.network.layers[-2].bias)
        if iteration <= starts:
            assert same, iteration
    assert not same


@pytest.mark.parametrize("changes", [{}, {"adam": 1}, {"ema": 0.5}, {"amp": "bf16"}, {"amp": "fp16", "try_fix_nan": 1}])
def test_frozen_layers_are_bit_identical_in_the_file(
    changes: dict[str, Any], cfg: Path, shapes: Path, tmp_path: Path
) -> None:
    """`stopbackward=1` on the second convolution: the first, statistics included, stays as it was loaded."""
    second = CFG.index("[convolutional]", CFG.index("[dropout]")) + len("[convolutional]")
    cfg.write_text(CFG[:second] + "\nstopbackward=1" + CFG[second:])
    start = Network(parse_text(CFG))
    start.layers[0].mean.uniform_(-1, 1)
    start.save_weights(tmp_path / "start.weights")
    options: dict[str, Any] = {"workers": 0, "quiet": True, "device": "cpu", "map": False, "chart": False, **changes}
    result = darknet_py.train(cfg, shapes, tmp_path / "start.weights", out=tmp_path, max_batches=4, **options)
    end = darknet_py.load(cfg, result.weights).layers
    old, new = ({**layers[0].state_dict()} for layers in (start.layers, end))
    assert all(torch.equal(old[name], new[name]) for name in old)
    assert not torch.equal(start.layers[3].weight, end[3].weight)
