"""What a training tells TensorBoard (extra `tensorboard`)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darknet_py.errors import MissingExtra

if TYPE_CHECKING:
    from darknet_py.training.tasks.task import EvalScore
    from darknet_py.training.train_log import LogRow


class TensorBoardWriter:
    """Scalars in `folder`; iterations are the steps. Raises MissingExtra where TensorBoard is not installed."""

    def __init__(self, folder: Path):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingExtra("tensorboard", "tensorboard", "--tensorboard") from error
        self.folder = folder
        self._kind = SummaryWriter
        self._writer: Any = None

    def open(self, iteration: int) -> None:
        """iteration: the last one done; what an earlier run wrote about later ones is hidden."""
        self._writer = self._kind(str(self.folder), purge_step=iteration + 1)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def trained(self, rows: Iterable[LogRow], speed: float) -> None:
        """speed: images per second."""
        for row in rows:
            for name in ("loss", "average", "rate"):
                self._writer.add_scalar(f"train/{name}", getattr(row, name), row.iteration)
            self._writer.add_scalar("train/images_per_second", speed, row.iteration)

    def measured(self, iteration: int, metric: str, score: EvalScore) -> None:
        """metric: what is measured. Of each class its AP; a classifier's has its recall instead."""
        self._writer.add_scalar(f"valid/{metric}", score.value, iteration)
        self._writer.add_scalar("valid/loss", score.loss, iteration)
        for row in score.figures.get("classes", ()):
            key = "ap" if "ap" in row else "recall"
            self._writer.add_scalar(f"{key}/{row['name']}", row[key], iteration)
        self._writer.flush()
