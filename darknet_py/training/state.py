"""What NAME_last.state holds: all that a training needs to resume with the same bits.

The keys are part of the file format and stay as they are.
"""

from __future__ import annotations

from typing import TypedDict

from torch import Tensor
from typing_extensions import NotRequired


class StepState(TypedDict):
    """All that an iteration changes (`TrainStep.state_dict`)."""

    iteration: int
    seed: int
    rate_factor: NotRequired[float]  # since 0.3
    network: dict[str, Tensor]
    optimizer: dict[str, object]
    ema: list[Tensor]
    scaler: dict[str, object]
    rolling: dict[str, Tensor]
    memory: dict[str, list[Tensor]]


class LogState(TypedDict):
    """Rows of all iterations, and evaluations as NAME_map.json has them (`TrainLogger.state_dict`)."""

    rows: Tensor
    maps: list[dict[str, object]]


class TrainingState(TypedDict):
    """The whole state. best: the best score, −1 before the first. measured: iteration of the last evaluation."""

    learner: StepState
    journal: LogState
    best: float
    measured: int
