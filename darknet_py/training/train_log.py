"""What a training tells while it runs: progress, log lines, its tables and its pictures.

    NAME_log.csv        a row per iteration          chart_NAME.png    loss, mAP, validation loss
    NAME_map.json       a line per measurement (of a classifier NAME_top1.json): all of its figures
    NAME_classes.csv    a row per measurement and class
    NAME_confusion.png, NAME_precision_recall.png    of the best measurement

Losses stay on the device until `flush`, so that a GPU is not made to wait at every iteration.
"""

from __future__ import annotations

import csv
import io
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from darknet_py.errors import TrainError
from darknet_py.files import write_atomically
from darknet_py.training.checkpoint_dir import CheckpointDir
from darknet_py.training.tensorboard import TensorBoardWriter
from darknet_py.training.train_step import StepResult
from darknet_py.view.draw import save_picture
from darknet_py.view.loss_chart import LossChart

if TYPE_CHECKING:
    from darknet_py.cfg.net import NetSpec
    from darknet_py.training.tasks.task import EvalScore

_COLUMNS = ("iteration", "loss", "average", "rate", "images", "seconds")


class LogRow(NamedTuple):
    """A line of NAME_log.csv. images, seconds: since iteration 0, time spent in training only."""

    iteration: int
    loss: float
    average: float
    rate: float
    images: int
    seconds: float


class TrainLogger:
    """Rows of all iterations, mAPs, and where they are shown.

    images: of an iteration. loud: whether this process prints and writes. average: Darknet's running average.
    board: for TensorBoard, of a process that is loud.
    """

    def __init__(
        self,
        backup: CheckpointDir,
        net: NetSpec,
        images: int,
        map_label: str,
        *,
        loud: bool,
        quiet: bool,
        board: TensorBoardWriter | None = None,
    ):
        self.backup = backup
        self.net = net
        self.images = images
        self.loud = loud
        self.quiet = quiet or not loud
        self.map_label = map_label
        self.board = board
        self.average = math.nan
        self.rows: list[LogRow] = []
        self.maps: list[dict[str, Any]] = []
        self.seconds = 0.0
        self._pending: list[StepResult] = []
        self._bar: tqdm[Any] | None = None
        self._clock = time.perf_counter()

    def start(self, iteration: int) -> None:
        """Shows the bar and opens the log, with what was restored."""
        if self.loud:
            write_atomically(self._csv, _table(self.rows, header=True), TrainError)
        if self.board:
            self.board.open(iteration)
        if not self.quiet and sys.stderr.isatty():
            self._bar = tqdm(
                total=self.net.max_batches, initial=iteration, unit="it", dynamic_ncols=True, smoothing=0.1
            )
        self._clock = time.perf_counter()

    def close(self) -> None:
        if self._bar:
            self._bar.close()
        if self.board:
            self.board.close()

    def say(self, line: str) -> None:
        """Prints a line without disturbing the bar."""
        if not self.quiet:
            tqdm.write(line, file=sys.stderr) if self._bar else print(line, file=sys.stderr, flush=True)

    def add(self, step: StepResult) -> None:
        self._pending.append(step)

    def flush(self, keep: Callable[[StepResult, float], list[str]]) -> None:
        """Reads the losses of the iterations since the last call and shows them.

        keep: called with an iteration whose loss is not finite, saves its batch and gives lines about it. Raises
        TrainError then.
        """
        pending, self._pending = self._pending, []
        if not pending:
            return
        losses = torch.stack([step.loss for step in pending]).tolist()
        now = time.perf_counter()
        spent, self._clock = now - self._clock, now
        first = len(self.rows)
        for number, (step, loss) in enumerate(zip(pending, losses, strict=True), 1):
            if not math.isfinite(loss):
                raise TrainError("\n".join([*_not_finite(step, loss), *keep(step, loss)]))
            # Darknet takes the first loss as the average, and again after a NaN.
            self.average = loss if math.isnan(self.average) else self.average * 0.9 + loss * 0.1
            at = self.seconds + spent * number / len(pending)
            images = step.iteration * self.images
            self.rows.append(LogRow(step.iteration, loss, self.average, step.rate, images, at))
        self.seconds += spent
        new = self.rows[first:]
        if self.loud:
            speed = len(new) * self.images / max(spent, 1e-9)
            self._append(new)
            self._show(new[-1], speed, spent / len(new))
            if self.board:
                self.board.trained(new, speed)

    def pause(self) -> None:
        """Call after work that is not training, so that its time is not counted."""
        self._clock = time.perf_counter()

    def measured(self, iteration: int, score: EvalScore, best: float, draw: bool) -> None:
        """Notes an evaluation in the tables; draw: and draws it."""
        self.maps.append({"iteration": iteration, self.backup.metric: score.value, "loss": score.loss, **score.figures})
        standing = f"best = {best:.2%}, validation loss = {score.loss:.4f}"
        self.say(f" {iteration}: {self.map_label} = {score.value:.2%}, {standing}")
        if not self.loud:
            return
        lines = ",\n".join(json.dumps(row) for row in self.maps)
        write_atomically(self.backup.path(f"{self.backup.metric}.json"), f"[{lines}]\n".encode(), TrainError)
        table = _class_table(self.maps)
        if table:
            write_atomically(self.backup.path("classes.csv"), table, TrainError)
        if self.board:
            self.board.measured(iteration, self.backup.metric, score)
        for name, picture in score.draw().items() if draw else ():
            save_picture(self.backup.path(f"{name}.png"), picture)

    @property
    def scores(self) -> list[float]:
        """All measurements so far."""
        return [row[self.backup.metric] for row in self.maps]

    @property
    def chart(self) -> Path:
        return self.backup.folder / f"chart_{self.backup.name}.png"

    def draw_chart(self) -> None:
        """Writes chart_NAME.png."""
        chart = LossChart(self.backup.name, self.net.max_batches, self.net.max_chart_loss, self.map_label)
        chart.losses = [(row.iteration, row.loss) for row in self.rows]
        chart.averages = [(row.iteration, row.average) for row in self.rows]
        chart.rates = [(row.iteration, row.rate) for row in self.rows]
        chart.validation = [(row["iteration"], row["loss"]) for row in self.maps if "loss" in row]
        chart.maps = [(row["iteration"], score) for row, score in zip(self.maps, self.scores, strict=True)]
        chart.save(self.chart)

    def state_dict(self) -> dict[str, Any]:
        return {"rows": torch.tensor(self.rows, dtype=torch.float64), "maps": self.maps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows = [LogRow(int(i), loss, avg, rate, int(n), s) for i, loss, avg, rate, n, s in state["rows"].tolist()]
        self.maps = state["maps"]
        self.average = self.rows[-1].average if self.rows else math.nan
        self.seconds = self.rows[-1].seconds if self.rows else 0.0

    @property
    def _csv(self) -> Path:
        return self.backup.path("log.csv")

    def _append(self, rows: list[LogRow]) -> None:
        try:
            with open(self._csv, "ab") as file:
                file.write(_table(rows))
        except OSError as error:
            raise TrainError(f"{self._csv}: cannot write: {error.strerror}") from error

    def _show(self, row: LogRow, speed: float, seconds: float) -> None:
        if self._bar:
            last = f", {self.map_label} {self.scores[-1]:.2%}" if self.maps else ""
            self._bar.set_postfix_str(
                f"loss {row.loss:.4g}, avg {row.average:.4g}, rate {row.rate:.3g}, {speed:.1f} images/s{last}", False
            )
            self._bar.update(row.iteration - self._bar.n)
        elif not self.quiet:
            hours = (self.net.max_batches - row.iteration) * seconds / 3600
            # Darknet's own line, so that scripts that read it go on working.
            print(
                f" {row.iteration}: {row.loss:.6f}, {row.average:.6f} avg loss, {row.rate:.6f} rate, "
                f"{seconds:.6f} seconds, {row.images} images, {hours:.6f} hours left",
                file=sys.stderr,
                flush=True,
            )


def _table(rows: list[LogRow], header: bool = False) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if header:
        writer.writerow(_COLUMNS)
    for row in rows:
        writer.writerow([row.iteration, *(f"{value:.8g}" for value in row[1:4]), row.images, f"{row.seconds:.3f}"])
    return text.getvalue().encode()


def _class_table(maps: list[dict[str, Any]]) -> bytes:
    rows = [
        {"iteration": row["iteration"], "class": number} | each
        for row in maps
        for number, each in enumerate(row.get("classes", ()))
    ]
    if not rows:
        return b""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[-1]), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _not_finite(step: StepResult, loss: float) -> list[str]:
    lines = [f"iteration {step.iteration}: the loss is {loss} (rate {step.rate:.6g}); no weights of it were saved"]
    for number, heads in enumerate(step.parts):
        for layer, figures in heads.items():
            shown = ", ".join(f"{name} {_number(value)}" for name, value in figures.items())
            lines.append(f"  mini-batch {number}, layer {layer}: {shown}")
    return lines


def _number(value: Tensor) -> str:
    return f"{float(value):.6g}"
