"""Mixed precision: every head trains as in float32, near enough, and resuming takes up the loss scale."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import darknet_py
from darknet_py.cli import main
from darknet_py.data.datafile import DataFile
from darknet_py.graph.graph import parse_text
from darknet_py.inference.fuse import fuse
from darknet_py.model.network import Network
from darknet_py.training.train_step import TrainStep
from tests.training.conftest import CFG
from tests.training.tasks.test_classification_task import CFG as CLASSIFIER
from tests.training.test_heads import HEADS, NET

KINDS = [*HEADS, "yolo", "classifier"]


def text_of(kind: str) -> str:
    return {"yolo": CFG, "classifier": CLASSIFIER}.get(kind) or NET.format(rate=0.001) + HEADS[kind]


def batch_of(kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    dice = torch.Generator().manual_seed(1)
    if kind == "classifier":
        return torch.rand(4, 3, 16, 16, generator=dice), torch.eye(3)[[0, 1, 2, 0]]
    return torch.rand(2, 3, 64, 64, generator=dice), torch.tensor(
        [[0, 0, 0.3, 0.4, 0.3, 0.3], [1, 0, 0.7, 0.6, 0.2, 0.4]]
    )


@pytest.mark.parametrize("kind", KINDS)
def test_losses_are_those_of_float32_nearly(kind: str) -> None:
    """16 bits leave three (bf16: two and a half) digits of what reaches a head; the heads themselves keep float32."""
    losses = {}
    for amp in (None, "bf16", "fp16"):
        torch.manual_seed(0)
        learner = TrainStep(Network(parse_text(text_of(kind))), amp=amp)
        losses[amp] = [float(learner.step([batch_of(kind)] * 2).loss) for _ in range(4)]
        state = learner.network.state_dict()
        assert all(value.dtype == torch.float32 and value.isfinite().all() for value in state.values())
    assert losses["fp16"] == pytest.approx(losses[None], rel=1e-2)
    assert losses["bf16"] == pytest.approx(losses[None], rel=3e-2)
    assert losses["bf16"] != losses[None] != losses["fp16"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("amp", [torch.bfloat16, torch.float16])
def test_heads_compute_in_float32(kind: str, amp: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network(parse_text(text_of(kind)))
    (_, head) = network.heads[-1]
    plain, seen = head.loss, []

    def watched(x: torch.Tensor, truth: torch.Tensor, state: Any) -> Any:
        seen.append((x.dtype, torch.is_autocast_enabled("cpu")))
        return plain(x, truth, state)

    monkeypatch.setattr(head, "loss", watched)
    with torch.autocast("cpu", amp):
        network.loss(*batch_of(kind)).total.backward()
    assert seen == [(torch.float32, False)]


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_resumed_it_ends_with_the_same_bits(amp: str, cfg: Path, shapes: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"workers": 0, "quiet": True, "device": "cpu", "amp": amp, "map": False, "burn_in": 2}
    whole = darknet_py.train(cfg, shapes, out=tmp_path / "a", max_batches=6, steps=5, **options)
    darknet_py.train(cfg, shapes, out=tmp_path / "b", max_batches=3, steps=5, **options)
    resumed = darknet_py.train(cfg, shapes, out=tmp_path / "b", max_batches=6, steps=5, resume=True, **options)
    assert resumed.weights.read_bytes() == whole.weights.read_bytes()


def test_the_loss_scale_is_kept_and_an_overflow_is_left_out() -> None:
    learner = TrainStep(Network(parse_text(CFG)), amp="fp16")
    x, truth = batch_of("yolo")
    learner.step([(x, truth)] * 2)
    before = [value.clone() for value in learner.network.parameters()]
    learner.scaler.update(1e30)  # gradients of the next step overflow
    learner.step([(x, truth)] * 2)
    assert all(torch.equal(old, new) for old, new in zip(before, learner.network.parameters(), strict=True))
    assert learner.scaler.get_scale() == pytest.approx(5e29)
    other = TrainStep(Network(parse_text(CFG)), amp="fp16")
    other.load_state_dict(learner.state_dict())
    assert other.scaler.get_scale() == learner.scaler.get_scale() and other.iteration == 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_inference_and_its_loss(kind: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    network = Network(parse_text(text_of(kind))).eval()
    x, truth = batch_of(kind)
    with torch.inference_mode():
        exact, near = network.forward_with_loss(x, truth), fuse(network, dtype).forward_with_loss(x, truth)
    assert float(near[1]) == pytest.approx(float(exact[1]), rel=2e-2)
    for one, other in zip(exact[0], near[0], strict=True):
        assert torch.allclose(one, other, rtol=5e-2, atol=2e-2)


def test_commands(cfg: Path, shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Network(parse_text(CFG)).save_weights(tmp_path / "x.weights")
    run = [str(cfg), "--weights", str(tmp_path / "x.weights"), "--data", str(shapes), "--thresh", ".01"]
    losses, boxes = [], []
    for more in ([], ["--amp", "bf16"], ["--amp", "fp16"]):
        assert main(["evaluate", *run, "--json", "--loss", "--workers", "0", "--protocol", "darknet", *more]) == 0
        losses.append(json.loads(capsys.readouterr().out)["loss"])
        image = DataFile.read(shapes).valid_images()[0]
        assert main(["detect", *run, image, "--json", "--no-pictures", *more]) == 0
        boxes.append(capsys.readouterr().out)
    assert losses[1:] == pytest.approx([losses[0]] * 2, rel=1e-2) and len(set(losses)) == len(set(boxes)) == 3
