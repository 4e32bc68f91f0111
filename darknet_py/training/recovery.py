"""What happens where a loss is not finite, or explodes: back to an earlier state, with half the learning rate."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from darknet_py.counted import counted
from darknet_py.training.state import LogState, StepState
from darknet_py.training.train_log import LogRow, TrainLogger
from darknet_py.training.train_step import Diverged, TrainStep

LIMIT = 3  # times that a training goes back
_INTERVAL = 25  # iterations between two states that are kept
_EXPLOSION = 10  # times its minimum: the running average of the loss
_FLOOR = 0.01  # of the first average, below which a minimum does not count: a small loss may well rise tenfold


class _Snapshot(NamedTuple):
    iteration: int
    step: StepState
    log: LogState
    last_evaluation: int


class Recovery:
    """Keeps an earlier state of a training in memory, and goes back to it.

    The last state that is kept need not be a good one: a training that ends in NaN has often been on its way there for
    some iterations. It goes back to the one before that, 25 to 50 iterations.

    Args:
        step: What it keeps and puts back.
        log: Rows of the iterations.
        last_evaluation: Iteration of the last evaluation.
    """

    def __init__(self, step: TrainStep, log: TrainLogger, last_evaluation: int):
        self.step, self.log = step, log
        self._candidate = self._good = self._snapshot(last_evaluation)
        self._watched = len(log.rows)
        self._first = self._lowest = math.nan

    @property
    def count(self) -> int:
        """How often the training has gone back."""
        return round(-math.log2(self.step.rate_factor))

    def watch(self) -> None:
        """Looks at the rows since the last call. Raises Diverged where the running average explodes."""
        rows, self._watched = self.log.rows[self._watched :], len(self.log.rows)
        for row in rows:
            self._watch(row)

    def _watch(self, row: LogRow) -> None:
        if math.isnan(self._first):
            self._first = self._lowest = row.average
        self._lowest = min(self._lowest, row.average)
        if row.average > _EXPLOSION * max(self._lowest, _FLOOR * self._first):
            raise Diverged(f"iteration {row.iteration}: the average loss is {row.average:.6g} after {self._lowest:.6g}")

    def keep(self, last_evaluation: int) -> None:
        """Keeps the state, if it is time to; call it when losses and weights were checked."""
        if self.is_due:
            self._good, self._candidate = self._candidate, self._snapshot(last_evaluation)

    @property
    def is_due(self) -> bool:
        """Whether it is time to keep a state."""
        return self.step.iteration >= self._candidate.iteration + _INTERVAL

    def go_back(self, problem: Diverged) -> int:
        """Puts the earlier state back, halves the rate and says so.

        Returns:
            Iteration of the last evaluation before that state.
        """
        good, factor = self._good, self.step.rate_factor / 2
        self._candidate = good
        self.step.load_state_dict(copy.deepcopy(good.step))
        self.step.rate_factor = factor
        self.log.go_back(good.log)
        self._watched = len(self.log.rows)
        self._lowest = math.nan if not self.log.rows else min(row.average for row in self.log.rows)
        self._first = self.log.rows[0].average if self.log.rows else math.nan
        self.log.warning(
            f"{problem.what}; back to iteration {good.iteration} with {factor:g} of the learning rate "
            f"({self.count} of {LIMIT} times)"
        )
        return good.last_evaluation

    def _snapshot(self, last_evaluation: int) -> _Snapshot:
        state = copy.deepcopy(self.step.state_dict())
        return _Snapshot(self.step.iteration, state, self.log.state_dict(), last_evaluation)


def likely_cause(batch: Sequence[tuple[Tensor, Tensor]], amp: str | None, rate: float, images: int) -> str:
    """What most likely lets a training diverge, and what to do about it.

    Args:
        batch: Images and truth of each mini-batch, empty where it is not known.
        amp: Mixed precision of the training.
        rate: Learning rate.
        images: Images per update.
    """
    if any(not part.isfinite().all() for pair in batch for part in pair):
        return "likely cause: this batch, whose images or labels hold values that are not finite"
    if amp == "fp16":
        return "likely cause: the range of fp16; --amp bf16, or no --amp, has a larger one"
    return (
        f"likely cause: a learning rate of {rate:.3g} is too high for {counted(images, 'image')} an update; "
        f"try --learning-rate {rate / 10:.1g}, or a longer --burn-in"
    )
