"""Every kind of detection layer trains, and so do the keys of [net] that change an iteration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import darknet_py
from darknet_py.errors import TrainError
from darknet_py.model.network import Network
from darknet_py.training.train_step import StepResult, TrainStep
from tests.training.conftest import CFG

NET = """
[net]
batch=4
subdivisions=2
width=64
height=64
channels=3
learning_rate={rate}
max_batches=30

[convolutional]
batch_normalize=1
filters=8
size=3
stride=4
pad=1
activation=leaky

[convolutional]
batch_normalize=1
filters=8
size=3
stride=4
pad=1
activation=leaky
"""
HEADS = {
    "v1": """
[connected]
output=176
activation=linear

[detection]
classes=1
coords=4
rescore=1
side=4
num=2
sqrt=1
random=1
noobject_scale=.5
coord_scale=5
""",
    "v2": """
[convolutional]
filters=18
size=1
activation=linear

[region]
anchors=1,1, 2,2, 3,3
classes=1
coords=4
num=3
softmax=1
rescore=1
object_scale=5
thresh=.6
""",
    "gaussian": """
[convolutional]
filters=30
size=1
activation=linear

[Gaussian_yolo]
mask=0,1,2
anchors=8,8, 16,16, 32,32
classes=1
num=3
uc_normalizer=0.1
""",
}


def learner(text: str) -> TrainStep:
    torch.manual_seed(0)
    return TrainStep(Network(darknet_py.parse_text(text)))


def steps(learner: TrainStep, count: int) -> list[StepResult]:
    dice = torch.Generator().manual_seed(1)
    images = torch.rand(2, 3, 64, 64, generator=dice)
    truth = torch.tensor([[0, 0, 0.3, 0.4, 0.3, 0.3], [1, 0, 0.7, 0.6, 0.2, 0.4]])
    return [learner.step([(images, truth)] * 2) for _ in range(count)]


@pytest.mark.parametrize(("kind", "rate"), [("v1", 0.005), ("v2", 0.01), ("gaussian", 0.01)])
def test_the_loss_falls(kind: str, rate: float) -> None:
    losses = [float(step.loss) for step in steps(learner(NET.format(rate=rate) + HEADS[kind]), 20)]
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.parametrize("kind", HEADS)
def test_the_trainer_takes_it(kind: str, shapes: Path, tmp_path: Path) -> None:
    cfg = tmp_path / "head.cfg"
    head = HEADS[kind].replace("classes=1", "classes=6").replace("output=176", "output=256")
    head = head.replace("filters=18", "filters=33").replace("filters=30", "filters=45")
    cfg.write_text(NET.format(rate=0.001) + head)
    result = darknet_py.train(cfg, shapes, out=tmp_path, workers=0, quiet=True, device="cpu", max_batches=2, map=2)
    assert result.map is not None and result.loss > 0


def test_self_adversarial_training_changes_half_of_the_mini_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    text = CFG.replace("burn_in=3", "burn_in=1\nadversarial_lr=.5").replace("classes=6", "classes=6")
    plain = TrainStep._adversarial_images
    changes: list[bool] = []

    def attacked(self: TrainStep, images: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        before = {name: value.clone() for name, value in self.network.state_dict().items()}
        result = plain(self, images, truth)
        assert all(torch.equal(before[name], value) for name, value in self.network.state_dict().items())
        assert result.shape == images.shape and 0 <= result.min() <= result.max() <= 1
        changes.append(not torch.equal(result, images))
        return result

    monkeypatch.setattr(TrainStep, "_adversarial_images", attacked)
    done = steps(learner(text), 10)
    assert 4 <= len(changes) <= 14
    assert all(torch.isfinite(step.loss) for step in done)


def test_try_fix_nan_goes_on_after_a_bad_mini_batch() -> None:
    for text, survives in ((CFG, False), (CFG.replace("burn_in=3", "burn_in=3\ntry_fix_nan=1"), True)):
        one = learner(text)
        images = torch.full((2, 3, 64, 64), float("nan"))
        one.step([(images, torch.zeros(0, 6))] * 2)
        values = [value for value in one.network.state_dict().values() if value.is_floating_point()]
        assert all(value.isfinite().all() for value in values) is survives


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attention": 1}, "attention is not supported"),
        ({"weights_reject_freq": 100}, "weights_reject_freq is not supported"),
        ({"unsupervised": 1}, "unsupervised is not supported for a detector"),
        ({"dynamic_minibatch": 1, "track": 1}, "dynamic_minibatch=1 is not supported with time_steps or track"),
        ({"track": 1, "sequential_subdivisions": 1}, "one sequence per subdivision"),
        ({"contrastive": 1, "batch": 2, "subdivisions": 2}, "mini-batches of at least 2"),
    ],
)
def test_what_is_not_supported_is_refused(
    changes: dict[str, Any], message: str, cfg: Path, shapes: Path, tmp_path: Path
) -> None:
    with pytest.raises(TrainError, match=message):
        darknet_py.train(cfg, shapes, out=tmp_path, quiet=True, **changes)


@pytest.mark.parametrize("changes", [{"dynamic_minibatch": 1}, {"contrastive": 1}, {"track": 1}])
def test_what_the_loader_does_for_it_trains(changes: dict[str, Any], cfg: Path, shapes: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"workers": 0, "quiet": True, "device": "cpu", "max_batches": 12, "map": False}
    result = darknet_py.train(cfg, shapes, out=tmp_path, **options, **changes)
    assert result.iterations == 12 and result.loss > 0
