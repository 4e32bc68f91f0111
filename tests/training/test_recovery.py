"""A training that diverges: back to an earlier state, half the learning rate, and the end after three times."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch

import darknet_py
from darknet_py.errors import TrainError
from darknet_py.training import recovery
from darknet_py.training.checkpoint_dir import CheckpointDir
from darknet_py.training.recovery import Recovery, likely_cause
from darknet_py.training.train_log import LogRow, TrainLogger
from darknet_py.training.train_step import Diverged, TrainStep
from darknet_py.training.trainer import TrainResult

OPTIONS: dict[str, Any] = {"workers": 0, "device": "cpu", "map": False, "policy": "constant", "burn_in": 0}


def diverge(monkeypatch: pytest.MonkeyPatch, iteration: int, above: float) -> None:
    """Makes this iteration ruin weights, momentum and loss at a rate above that factor of the schedule's."""
    step = TrainStep.step

    def ruined(self: TrainStep, mini_batches: Any) -> Any:
        done = step(self, mini_batches)
        if done.iteration == iteration and self.rate_factor > above:
            for group in self.optimizer.param_groups:
                for tensor in group["params"]:
                    tensor.data.fill_(float("nan"))
                    self.optimizer.state[tensor]["update"].fill_(float("nan"))
            return done._replace(loss=done.loss * float("nan"))
        return done

    monkeypatch.setattr(TrainStep, "step", ruined)
    monkeypatch.setattr(recovery, "_INTERVAL", 2)


def rows(result: TrainResult) -> list[dict[str, str]]:
    return list(csv.DictReader(result.log.read_text().splitlines()))


@pytest.mark.parametrize("log_every", [1, 3])
def test_it_goes_back_with_half_the_rate(
    log_every: int,
    cfg: Path,
    shapes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    log: pytest.LogCaptureFixture,
) -> None:
    """States are kept at 0, 2 and 4: the one of 4 is not trusted yet when iteration 5 fails, so that it goes to 2."""
    diverge(monkeypatch, 5, 0.25)
    options = {**OPTIONS, "max_batches": 8, "out": tmp_path, "log_every": log_every}
    result = darknet_py.train(cfg, shapes, recover=True, **options)
    assert result.iterations == 8
    back = 2 if log_every == 1 else 0  # iterations are looked at when they are logged
    lines = [line for line in log.messages if "back to" in line]
    assert lines == [
        f"iteration 5: the loss is nan; back to iteration {back} with {factor}"
        f" of the learning rate ({count} of 3 times)"
        for count, factor in ((1, 0.5), (2, 0.25))
    ]
    assert [int(row["iteration"]) for row in rows(result)] == list(range(1, 9))
    rates = [float(row["rate"]) for row in rows(result)]
    assert rates == pytest.approx([0.001] * back + [0.00025] * (8 - back))
    assert torch.load(result.state, weights_only=True)["learner"]["rate_factor"] == 0.25
    network = darknet_py.load(cfg, result.weights)
    assert all(tensor.isfinite().all() for tensor in network.state_dict().values())

    monkeypatch.undo()  # the same as one that took the quarter from there on
    expected = TrainStep.step

    def quartered(self: TrainStep, mini_batches: Any) -> Any:
        self.rate_factor = 1.0 if self.iteration < back else 0.25
        return expected(self, mini_batches)

    monkeypatch.setattr(TrainStep, "step", quartered)
    other = darknet_py.train(cfg, shapes, **{**options, "out": tmp_path / "other"})
    assert result.weights.read_bytes() == other.weights.read_bytes()


def test_after_three_times_it_stops_with_batch_and_cause(
    cfg: Path, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    diverge(monkeypatch, 5, 0)
    with pytest.raises(TrainError) as caught:
        darknet_py.train(cfg, shapes, out=tmp_path, recover=True, quiet=True, max_batches=8, save_every=2, **OPTIONS)
    lines = str(caught.value).splitlines()
    assert lines[0] == "the training diverged again after going back 3 times"
    assert lines[1].startswith("iteration 5: the loss is nan (rate 0.000125)")
    assert lines[-1] == (
        "likely cause: a learning rate of 0.000125 is too high for 4 images an update; try --learning-rate 1e-05, or a "
        "longer --burn-in"
    )
    assert torch.load(tmp_path / "tiny_nonfinite.pt", weights_only=True)["iteration"] == 5
    state = torch.load(tmp_path / "tiny_last.state", weights_only=True)["learner"]
    assert state["iteration"] == 4 and state["rate_factor"] == 0.125


def test_without_it_the_first_time_ends_the_training(
    cfg: Path, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    diverge(monkeypatch, 3, 0)
    with pytest.raises(TrainError, match=r"^iteration 3: the loss is nan \(rate 0\.001\); its weights were not saved"):
        darknet_py.train(cfg, shapes, out=tmp_path, quiet=True, max_batches=8, **OPTIONS)


def test_a_loss_that_explodes(cfg: Path, tmp_path: Path) -> None:
    """The running average is compared with ten times its minimum, or a tenth of the first one if that is more."""
    network = darknet_py.load(cfg)
    train_log = TrainLogger(CheckpointDir(tmp_path, "tiny"), network.graph.net, "mAP", quiet=True)
    watcher = Recovery(TrainStep(network), train_log, 0)

    def add(*averages: float) -> None:
        for average in averages:
            train_log.rows.append(LogRow(len(train_log.rows) + 1, average, average, 0.001, 0, 0.0))
        watcher.watch()

    add(1000, 500, 20, 2, 99)  # the minimum does not count below 1 % of 1000
    with pytest.raises(Diverged, match=r"iteration 6: the average loss is 101 after 2"):
        add(101)
    train_log.rows.clear()
    watcher = Recovery(TrainStep(network), train_log, 0)
    add(30, 20, 199)
    with pytest.raises(Diverged):
        add(201)


def test_the_likely_cause() -> None:
    good = (torch.ones(1, 3, 2, 2), torch.zeros(1, 6))
    bad = (torch.full((1, 3, 2, 2), float("nan")), torch.zeros(1, 6))
    assert "this batch" in likely_cause([good, bad], "fp16", 0.1, 4)
    assert "fp16" in likely_cause([good], "fp16", 0.1, 4)
    assert "--learning-rate 0.01," in likely_cause([good], None, 0.1, 4)
