"""The record of a training while it runs: progress, log lines, tables and plots.

    NAME_log.csv        a row per iteration          chart_NAME.png    loss, mAP, validation loss
    NAME_map.json       a line per evaluation (of a classifier NAME_top1.json) with all of its metrics
    NAME_classes.csv    a row per evaluation and class
    NAME_confusion.png, NAME_precision_recall.png    of the best evaluation

Losses stay on the device until `flush`, so that a GPU does not wait at every iteration.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import math
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from darknet_py.cfg.net import NetSpec
from darknet_py.errors import TrainError
from darknet_py.files import write_atomically
from darknet_py.training.callbacks import EvaluationEvent, IterationEvent, TrainCallback
from darknet_py.training.checkpoint_dir import CheckpointDir
from darknet_py.training.duration import format_duration
from darknet_py.training.state import LogState
from darknet_py.training.tasks.task import EvalScore
from darknet_py.training.train_step import Diverged, StepResult
from darknet_py.view.figure import save_figure
from darknet_py.view.loss_chart import LossChart
from darknet_py.view.plots import confusion_plot, precision_recall_plot

logger = logging.getLogger(__name__)

_LINE_SECONDS = 10.0  # between lines about mini-batches, without a terminal
_BAR_SECONDS = 3.0  # an iteration that takes longer has a progress bar of its own
_MAX_PARTS = 2000
_COLUMNS = ("iteration", "loss", "average", "rate", "images", "seconds")


class LogRow(NamedTuple):
    """A row of NAME_log.csv.

    Attributes:
        iteration: Number of the iteration, from 1.
        loss: Darknet's printed loss.
        average: Darknet's running average of it.
        rate: Learning rate.
        images: Images since iteration 0.
        seconds: Time spent in training since iteration 0, without evaluations and saving.
    """

    iteration: int
    loss: float
    average: float
    rate: float
    images: int
    seconds: float


class EvalRow(NamedTuple):
    """An evaluation during training.

    Attributes:
        iteration: When it took place.
        value: The score, 0 … 1.
        loss: The validation loss; NaN where it is not known.
        metrics: All numbers, as JSON has them.
    """

    iteration: int
    value: float
    loss: float
    metrics: Mapping[str, object]

    @classmethod
    def from_json(cls, row: Mapping[str, object], metric: str) -> EvalRow:
        """Reads a row of NAME_map.json. metric: key of the score."""
        iteration, value, loss = (cast("float", row.get(key, math.nan)) for key in ("iteration", metric, "loss"))
        return cls(int(iteration), value, loss, row)

    def to_json(self, metric: str) -> dict[str, object]:
        """A row of NAME_map.json. metric: key of the score."""
        return {"iteration": self.iteration, metric: self.value, "loss": self.loss, **self.metrics}

    @property
    def classes(self) -> Sequence[Mapping[str, float | str]]:
        """Metrics of each class."""
        return cast("Sequence[Mapping[str, float | str]]", self.metrics.get("classes", ()))


class TrainLogger:
    """Rows of all iterations and evaluations, and where they are shown.

    Args:
        files: The folder that the tables and plots are written to.
        net: The cfg's `[net]`.
        metric_label: The score's name in messages.
        loss_label: Name of the loss of an evaluation.
        is_main_process: Whether this process logs and writes.
        quiet: Log nothing and show no progress bar.
        callbacks: What is told about iterations and evaluations; of the main process only.
    """

    def __init__(
        self,
        files: CheckpointDir,
        net: NetSpec,
        metric_label: str,
        loss_label: str = "validation loss",
        *,
        is_main_process: bool = True,
        quiet: bool = False,
        callbacks: Sequence[TrainCallback] = (),
    ):
        self.files = files
        self.net = net
        self.metric_label = metric_label
        self.loss_label = loss_label
        self.is_main_process = is_main_process
        self.quiet = quiet or not is_main_process
        self.callbacks = callbacks
        self.average = math.nan
        self.rows: list[LogRow] = []
        self.evaluations: list[EvalRow] = []
        self.parts: list[tuple[int, dict[str, float]]] = []
        self.seconds = 0.0
        self._pending: list[StepResult] = []
        self._bar: tqdm[Any] | None = None
        self._inner_bar: tqdm[Any] | None = None
        self._iteration_start = self._last_line = 0.0
        self._exit = ExitStack()
        self._clock = time.perf_counter()

    def start(self, iteration: int) -> None:
        """Shows the progress bar and opens the log, with the rows that were restored."""
        if self.is_main_process:
            write_atomically(self._csv, _log_table(self.rows, header=True), TrainError)
        for callback in self.callbacks:
            self._exit.callback(callback.on_end)
            callback.on_start(iteration)
        if not self.quiet and sys.stderr.isatty():
            self._bar = self._exit.enter_context(
                tqdm(total=self.net.max_batches, initial=iteration, unit="it", dynamic_ncols=True, smoothing=0.1)
            )
            self._exit.enter_context(logging_redirect_tqdm(_console_loggers()))
        self.restart_clock()

    def close(self) -> None:
        """Ends the progress bars and the callbacks."""
        self.end_iteration()
        self._exit.close()

    def info(self, message: str) -> None:
        """Logs a line, unless quiet."""
        if not self.quiet:
            logger.info(message)

    def warning(self, message: str) -> None:
        """Logs a warning, unless quiet."""
        if not self.quiet:
            logger.warning(message)

    def add_mini_batch(self, iteration: int, number: int, total: int) -> None:
        """Shows that `number` of the `total` mini-batches of an iteration are done, where that takes long.

        Called with 0 when the iteration begins.
        """
        if self.quiet or total == 1:
            return
        now = time.perf_counter()
        if number == 0:
            self._iteration_start = self._last_line = now
            return
        elapsed = now - self._iteration_start
        left = elapsed / number * (total - number)
        if self._bar is not None:
            if self._inner_bar is None and number < total and elapsed + left > _BAR_SECONDS:
                self._inner_bar = tqdm(total=total, desc=f"iteration {iteration}", leave=False, dynamic_ncols=True)
            if self._inner_bar is not None:
                self._inner_bar.update(number - self._inner_bar.n)
        elif number < total and now - self._last_line > _LINE_SECONDS:
            self._last_line = now
            self.info(
                f"iteration {iteration}: mini-batch {number} of {total} after {format_duration(elapsed)}, "
                f"about {format_duration(left)} to go"
            )

    def end_iteration(self) -> None:
        """Call after each iteration, finished or not."""
        if self._inner_bar is not None:
            self._inner_bar.close()
            self._inner_bar = None

    def add(self, step: StepResult) -> None:
        """Adds an iteration; `flush` reads its loss."""
        self._pending.append(step)

    def flush(self) -> None:
        """Reads the losses of the iterations since the last call and shows them.

        Raises:
            Diverged: A loss is not finite. The iterations before it are in the rows.
        """
        pending, self._pending = self._pending, []
        if not pending:
            return
        losses = torch.stack([step.loss for step in pending]).tolist()
        now = time.perf_counter()
        elapsed, self._clock = now - self._clock, now
        first = len(self.rows)
        for number, (step, loss) in enumerate(zip(pending, losses, strict=True), 1):
            if not math.isfinite(loss):
                raise Diverged(f"iteration {step.iteration}: the loss is {loss}", step, loss)
            # Darknet takes the first loss as the average, and again after a NaN.
            self.average = loss if math.isnan(self.average) else self.average * 0.9 + loss * 0.1
            seconds = self.seconds + elapsed * number / len(pending)
            images = step.iteration * self.net.batch_images
            self.rows.append(LogRow(step.iteration, loss, self.average, step.rate, images, seconds))
        self.seconds += elapsed
        self._add_parts(pending[-1])
        new = self.rows[first:]
        if self.is_main_process:
            speed = len(new) * self.net.batch_images / max(elapsed, 1e-9)
            self._append(new)
            self._show(new[-1], speed, elapsed / len(new))
            for row in new:
                for callback in self.callbacks:
                    callback.on_iteration(IterationEvent(*row, speed))

    def _add_parts(self, step: StepResult) -> None:
        """Notes the head's values of an iteration; of a long training every second, fourth … one."""
        values: dict[str, list[Tensor]] = {}
        for heads in step.parts:
            for parts in heads.values():
                for name, value in parts.items():
                    values.setdefault(name, []).append(value.float())
        if not values or not self.is_main_process:
            return
        means = torch.stack([torch.stack(tensors).nanmean() for tensors in values.values()]).tolist()
        self.parts.append((step.iteration, dict(zip(values, means, strict=True))))
        if len(self.parts) > _MAX_PARTS:
            del self.parts[1::2]

    def restart_clock(self) -> None:
        """Call after work that is not training, so that its time does not count."""
        self._clock = time.perf_counter()

    def add_evaluation(self, iteration: int, score: EvalScore, best: float, *, plot: bool) -> None:
        """Adds an evaluation to the tables.

        Args:
            iteration: When it took place.
            score: Its result.
            best: The best score so far.
            plot: Draw the confusion matrix and the precision-recall curves too.
        """
        self.evaluations.append(EvalRow(iteration, score.value, score.loss, score.to_json()))
        self.info(
            f" {iteration}: {self.metric_label} = {score.value:.2%}, best = {best:.2%}, "
            f"{self.loss_label} = {score.loss:.4f}{_best_threshold(score.metrics)}"
        )
        if not self.is_main_process:
            return
        lines = ",\n".join(json.dumps(row.to_json(self.files.metric)) for row in self.evaluations)
        write_atomically(self.files.path(f"{self.files.metric}.json"), f"[{lines}]\n".encode(), TrainError)
        table = _class_table(self.evaluations)
        if table:
            write_atomically(self.files.path("classes.csv"), table, TrainError)
        row = self.evaluations[-1]
        event = EvaluationEvent(iteration, self.files.metric, row.value, best, row.loss, row.metrics, row.classes)
        for callback in self.callbacks:
            callback.on_evaluation(event)
        if plot:
            self._plot(score)

    @property
    def scores(self) -> list[float]:
        """All scores so far."""
        return [row.value for row in self.evaluations]

    @property
    def rate(self) -> float:
        """The learning rate of the last iteration."""
        return self.rows[-1].rate if self.rows else 0.0

    def draw_chart(self) -> None:
        """Writes chart_NAME.png."""
        chart = LossChart(self.files.name, self.net.max_batches, self.net.max_chart_loss, self.metric_label)
        chart.loss_label = self.loss_label
        chart.losses = [(row.iteration, row.loss) for row in self.rows]
        chart.averages = [(row.iteration, row.average) for row in self.rows]
        chart.rates = [(row.iteration, row.rate) for row in self.rows]
        chart.validation = [(row.iteration, row.loss) for row in self.evaluations if not math.isnan(row.loss)]
        chart.maps = [(row.iteration, row.value) for row in self.evaluations]
        chart.save(self.files.chart)

    def state_dict(self) -> LogState:
        """All rows, for NAME_last.state."""
        return {
            "rows": torch.tensor(self.rows, dtype=torch.float64),
            "maps": [row.to_json(self.files.metric) for row in self.evaluations],
            "parts": [{"iteration": iteration, **values} for iteration, values in self.parts],
        }

    def go_back(self, state: LogState) -> None:
        """Drops the rows since `state_dict` gave this state. The time that they took stays counted."""
        seconds = self.seconds
        self.load_state_dict(state)
        self.seconds = seconds
        self._pending = []
        if self.is_main_process:
            write_atomically(self._csv, _log_table(self.rows, header=True), TrainError)

    def load_state_dict(self, state: LogState) -> None:
        """Restores the rows that `state_dict` gave."""
        self.rows = [LogRow(int(i), loss, avg, rate, int(n), s) for i, loss, avg, rate, n, s in state["rows"].tolist()]
        self.evaluations = [EvalRow.from_json(row, self.files.metric) for row in state["maps"]]
        self.parts = [
            (int(row["iteration"]), {name: value for name, value in row.items() if name != "iteration"})
            for row in state.get("parts", [])
        ]
        self.average = self.rows[-1].average if self.rows else math.nan
        self.seconds = self.rows[-1].seconds if self.rows else 0.0

    @property
    def _csv(self) -> Path:
        return self.files.path("log.csv")

    def _append(self, rows: list[LogRow]) -> None:
        try:
            with open(self._csv, "ab") as file:
                file.write(_log_table(rows))
        except OSError as error:
            raise TrainError(f"{self._csv}: cannot write: {error.strerror}") from error

    def _show(self, row: LogRow, speed: float, seconds: float) -> None:
        if self._bar is not None:
            last = f", {self.metric_label} {self.scores[-1]:.2%}" if self.evaluations else ""
            self._bar.set_postfix_str(
                f"loss {row.loss:.4g}, avg {row.average:.4g}, rate {row.rate:.3g}, {speed:.1f} images/s{last}", False
            )
            self._bar.update(row.iteration - self._bar.n)
            return
        hours = (self.net.max_batches - row.iteration) * seconds / 3600
        # Darknet's own line, so that scripts that read it still work.
        self.info(
            f" {row.iteration}: {row.loss:.6f}, {row.average:.6f} avg loss, {row.rate:.6f} rate, "
            f"{seconds:.6f} seconds, {row.images} images, {hours:.6f} hours left"
        )

    def _plot(self, score: EvalScore) -> None:
        title = f"{self.metric_label} = {score.value:.2%}"
        if score.confusion is not None:
            save_figure(self.files.path("confusion.png"), confusion_plot(title, score.names, score.confusion))
        if score.curves:
            curves = [(name, c.precision, c.recall) for name, c in zip(score.names, score.curves, strict=True)]
            save_figure(self.files.path("precision_recall.png"), precision_recall_plot(title, curves))


def _console_loggers() -> list[logging.Logger]:
    """The loggers that write our lines to the terminal, which must not disturb the progress bar."""
    return [
        each
        for each in (logging.getLogger(), logging.getLogger("darknet_py"))
        if any(isinstance(h, logging.StreamHandler) and h.stream in (sys.stdout, sys.stderr) for h in each.handlers)
    ]


def _best_threshold(metrics: Mapping[str, object]) -> str:
    """Of a detector that finds something."""
    if metrics.get("best_thresh") is None:
        return ""
    words = f", best F1 = {metrics['best_f1']:.2f} at confidence {metrics['best_thresh']:.2f}"
    if metrics["auto_thresh"] == metrics["best_thresh"]:
        return words
    return f"{words}, precision {metrics['auto_precision']:.2f} at {metrics['auto_thresh']:.2f}"


def _log_table(rows: list[LogRow], header: bool = False) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if header:
        writer.writerow(_COLUMNS)
    for row in rows:
        writer.writerow([row.iteration, *(f"{value:.8g}" for value in row[1:4]), row.images, f"{row.seconds:.3f}"])
    return text.getvalue().encode()


def _class_table(evaluations: list[EvalRow]) -> bytes:
    rows = [
        {"iteration": evaluation.iteration, "class": number, **row}
        for evaluation in evaluations
        for number, row in enumerate(evaluation.classes)
    ]
    if not rows:
        return b""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[-1]), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()
