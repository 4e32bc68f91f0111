"""Darknet's own lines on standard output while a detector or classifier is trained, for scripts that read them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import cast

from darknet_py.cli.darknet_output import detection_layer_lines, map_lines
from darknet_py.evaluation.darknet_map import ClassResult, DarknetResult
from darknet_py.training.callbacks import EvaluationEvent, IterationEvent, TrainCallback
from darknet_py.training.plan import TrainingPlan

_SMALL_BATCH = 64  # below which C warns
_KEPT = 0.99  # share of the estimate before that the time left keeps


class DarknetLines(TrainCallback):
    """What `train_detector` and `train_classifier` print.

    C's progress, the time that loading took and its control characters are left out: it clears the screen at each
    iteration.

    Args:
        plan: What is trained.
    """

    def __init__(self, plan: TrainingPlan):
        self._plan, self._net = plan, plan.net
        self._is_detector = bool(plan.graph.detection_specs)
        self._seconds = 0.0  # at the end of the last iteration
        self._end = time.perf_counter()
        self._hours = -1.0
        self._last_evaluation = self._first = 0
        self._score, self._best = 0.0, 0.0

    def on_start(self, iteration: int) -> None:
        self._last_evaluation = self._first = iteration
        self._end = time.perf_counter()
        _print(self._start_lines())

    def on_iteration(self, event: IterationEvent) -> None:
        net, seconds = self._net, time.perf_counter() - self._end
        lines = list(
            self._detector_lines(event, seconds) if self._is_detector else self._classifier_lines(event, seconds)
        )
        left = (net.max_batches - event.iteration) * seconds / 3600
        self._hours = left if self._hours < 0 else left * (1 - _KEPT) + self._hours * _KEPT
        _print(lines)
        self._end = time.perf_counter()

    def on_evaluation(self, event: EvaluationEvent) -> None:
        self._last_evaluation, self._score = event.iteration, event.score
        if self._is_detector:
            result = _darknet_result(event.metrics)
            _print(map_lines(self._plan.graph, result))
            _print([f"\n mean_average_precision (mAP@{result.iou_thresh:0.2f}) = {event.score:f} "])
            if event.score >= self._best:
                _print(["New best mAP!"])
        else:
            _print([f"\n accuracy TOP1 = {event.score:f} "])
        self._best = max(self._best, event.score)
        self._end = time.perf_counter()

    def _start_lines(self) -> Iterator[str]:
        net, file = self._net, self._plan.task.file
        yield self._plan.files.name
        if self._is_detector:
            if net.batch_images < _SMALL_BATCH:
                yield (
                    f"\n Warning: You set batch={net.batch_images} lower than 64! "
                    "It is recommended to set batch=64 subdivision=64 "
                )
            numbered = file.saveweights or (1000 if net.max_batches < 10000 else 10000)
            yield (
                f"Weights are saved after: {numbered} iterations. "
                f"Last weights (*_last.weight) are stored every {file.savelast} iterations. "
            )
        yield f"Learning Rate: {net.learning_rate:g}, Momentum: {net.momentum:g}, Decay: {net.decay:g}"
        yield from detection_layer_lines(self._plan.graph)

    def _detector_lines(self, event: IterationEvent, seconds: float) -> Iterator[str]:
        net, options = self._net, self._plan.options
        before, accuracy = "", ""
        if self._plan.task.evaluates:
            epochs = int(options.map_epochs * self._plan.task.train_size / net.batch_images)
            following = max(self._last_evaluation + max(epochs, 100), net.burn_in)
            before = f"\n (next mAP calculation at {following} iterations) "
            if self._score > 0:
                label = f"mAP@{options.iou_thresh:0.2f}"
                before += f"\n Last accuracy {label} = {self._score * 100:2.2f} %, best = {self._best * 100:2.2f} % "
                accuracy = f" map={self._score:0.2f} best={self._best:0.2f}"
        progress = f"{event.iteration}/{net.max_batches}: loss={event.loss:0.1f}{accuracy}"
        yield f"{before}{progress} hours left={self._hours:0.1f}"
        yield (
            f" {event.iteration}: {event.loss:f}, {event.average:f} avg loss, {event.rate:f} rate, "
            f"{seconds:f} seconds, {event.images} images, {self._hours:f} hours left"
        )

    def _classifier_lines(self, event: IterationEvent, seconds: float) -> Iterator[str]:
        epochs = event.images / max(self._plan.task.train_size, 1)
        yield (
            f"{event.iteration}, {epochs:.3f}: {event.loss:f}, {event.average:f} avg, {event.rate:f} rate, "
            f"{seconds:f} seconds, {event.images} images, {self._hours:f} hours left"
        )


END_LINE = "If you want to train from the beginning, then use flag in the end of training command: -clear "


def _print(lines: Iterator[str] | list[str]) -> None:
    print("".join(f"{line}\n" for line in lines), end="", flush=True)


def _darknet_result(metrics: Mapping[str, object]) -> DarknetResult:
    """The result whose JSON a training's table has."""
    names = DarknetResult.__dataclass_fields__.keys() & metrics.keys()
    rows = cast("list[dict[str, object]]", metrics["classes"])
    classes = tuple(ClassResult(**cast("dict[str, float]", row)) for row in rows)  # type: ignore[arg-type]
    values = {name: metrics[name] for name in names if name != "classes"}
    return DarknetResult(**values, classes=classes)  # type: ignore[arg-type]
