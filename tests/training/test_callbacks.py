"""What a training tells its callbacks."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

import darknet_py
from darknet_py import EvaluationEvent, IterationEvent, TrainCallback

OPTIONS: dict[str, Any] = {"workers": 0, "device": "cpu", "quiet": True, "map": 2, "burn_in": 0, "steps": 9}


class Recorder(TrainCallback):
    def __init__(self) -> None:
        self.told: list[Any] = []

    def on_start(self, iteration: int) -> None:
        self.told.append(iteration)

    def on_iteration(self, event: IterationEvent) -> None:
        self.told.append(event)

    def on_evaluation(self, event: EvaluationEvent) -> None:
        self.told.append(event)

    def on_end(self) -> None:
        self.told.append("end")


def test_iterations_and_evaluations_in_order(cfg: Path, shapes: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    result = darknet_py.train(
        cfg, shapes, out=tmp_path, max_batches=3, callbacks=[recorder, TrainCallback()], **OPTIONS
    )
    start, first, second, evaluation, third, last, end = recorder.told
    assert (start, end) == (0, "end")
    rows = list(csv.DictReader(result.log.read_text().splitlines()))
    for event, row in zip((first, second, third), rows, strict=True):
        assert (event.iteration, event.images) == (int(row["iteration"]), int(row["images"]))
        assert [event.loss, event.average, event.rate] == pytest.approx(
            [float(row[name]) for name in ("loss", "average", "rate")], rel=1e-6
        )
        assert event.images_per_second > 0
    stored, _ = json.loads((tmp_path / "tiny_map.json").read_text())
    assert last.iteration == 3 and last.best == result.best_map
    assert (evaluation.iteration, evaluation.metric, evaluation.score) == (2, "map", stored["map"])
    assert (evaluation.best, evaluation.loss) == (stored["map"], stored["loss"])
    assert [each["ap"] for each in evaluation.classes] == [each["ap"] for each in stored["classes"]]

    resumed = Recorder()
    darknet_py.train(cfg, shapes, out=tmp_path, max_batches=4, resume=True, callbacks=[resumed], **OPTIONS)
    assert resumed.told[0] == 3 and resumed.told[1].iteration == 4


def test_an_exception_ends_the_training_and_every_callback(cfg: Path, shapes: Path, tmp_path: Path) -> None:
    class Failing(TrainCallback):
        def on_iteration(self, event: IterationEvent) -> None:
            raise ZeroDivisionError

    recorder = Recorder()
    with pytest.raises(ZeroDivisionError):
        darknet_py.train(cfg, shapes, out=tmp_path, max_batches=3, callbacks=[Failing(), recorder], **OPTIONS)
    assert recorder.told == [0, "end"]
