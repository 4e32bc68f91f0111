"""Training metrics for TensorBoard (extra `tensorboard`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from darknet_py.errors import MissingExtra

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from darknet_py.training.train_log import EvalRow, LogRow


class TensorBoardWriter:
    """Writes scalars to `folder`; iterations are the steps. Raises MissingExtra where TensorBoard is not installed."""

    def __init__(self, folder: Path):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingExtra("tensorboard", "tensorboard", "--tensorboard") from error
        self.folder = folder
        self._type = SummaryWriter
        self._writer: SummaryWriter | None = None

    def open(self, iteration: int) -> None:
        """Starts to write after `iteration`; what an earlier run wrote about later iterations is hidden."""
        self._writer = self._type(str(self.folder), purge_step=iteration + 1)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def add_iterations(self, rows: Iterable[LogRow], images_per_second: float) -> None:
        """Writes loss, running average and rate of iterations."""
        for row in rows:
            values = {"loss": row.loss, "average": row.average, "rate": row.rate}
            self._add("train", {**values, "images_per_second": images_per_second}, row.iteration)

    def add_evaluation(self, metric: str, row: EvalRow) -> None:
        """Writes an evaluation: its score, the validation loss, and per class the AP (of a classifier the recall)."""
        self._add("valid", {metric: row.value, "loss": row.loss}, row.iteration)
        for each in row.classes:
            key = "ap" if "ap" in each else "recall"
            self._add(key, {str(each["name"]): float(each[key])}, row.iteration)
        if self._writer is not None:
            self._writer.flush()

    def _add(self, group: str, values: Mapping[str, float], iteration: int) -> None:
        assert self._writer is not None, "open() comes first"
        for name, value in values.items():
            self._writer.add_scalar(f"{group}/{name}", value, iteration)
