"""Training metrics for TensorBoard (extra `tensorboard`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from darknet_py.errors import MissingExtra
from darknet_py.training.callbacks import EvaluationEvent, IterationEvent, TrainCallback

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TensorBoardWriter(TrainCallback):
    """Writes scalars to `folder`; iterations are the steps. Raises MissingExtra where TensorBoard is not installed."""

    def __init__(self, folder: Path):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingExtra("tensorboard", "tensorboard", "--tensorboard") from error
        self.folder = folder
        self._type = SummaryWriter
        self._writer: SummaryWriter | None = None

    def on_start(self, iteration: int) -> None:
        """Starts to write after `iteration`; what an earlier run wrote about later iterations is hidden."""
        self._writer = self._type(str(self.folder), purge_step=iteration + 1)

    def on_iteration(self, event: IterationEvent) -> None:
        """Writes loss, running average, rate and speed."""
        values = {"loss": event.loss, "average": event.average, "rate": event.rate}
        self._add("train", {**values, "images_per_second": event.images_per_second}, event.iteration)

    def on_evaluation(self, event: EvaluationEvent) -> None:
        """Writes an evaluation: its score, the validation loss, and per class the AP (of a classifier the recall)."""
        self._add("valid", {event.metric: event.score, "loss": event.loss}, event.iteration)
        for each in event.classes:
            key = "ap" if "ap" in each else "recall"
            self._add(key, {str(each["name"]): float(each[key])}, event.iteration)
        if self._writer is not None:
            self._writer.flush()

    def on_end(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def _add(self, group: str, values: Mapping[str, float], iteration: int) -> None:
        assert self._writer is not None, "on_start() comes first"
        for name, value in values.items():
            self._writer.add_scalar(f"{group}/{name}", value, iteration)
