"""What a training tells others while it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class IterationEvent:
    """An iteration that is done.

    Attributes:
        iteration: Its number, from 1.
        loss: Darknet's printed loss.
        average: Darknet's running average of it.
        rate: Learning rate.
        images: Images since iteration 0.
        seconds: Time spent in training since iteration 0, without evaluations and saving.
        images_per_second: Speed since the last log line.
    """

    iteration: int
    loss: float
    average: float
    rate: float
    images: int
    seconds: float
    images_per_second: float


@dataclass(frozen=True)
class EvaluationEvent:
    """An evaluation of the validation list.

    Attributes:
        iteration: When it took place.
        metric: Name of the score: `map`, `top1` or `likelihood`.
        score: The score, 0 … 1.
        best: The best score so far.
        loss: The validation loss; NaN where it is not known.
        metrics: All numbers, as NAME_map.json has them.
        classes: Of each class its name and its numbers, such as `ap`.
    """

    iteration: int
    metric: str
    score: float
    best: float
    loss: float
    metrics: Mapping[str, object]
    classes: Sequence[Mapping[str, float | str]]


class TrainCallback:
    """Base of what listens to a training (`darknet_py.train(…, callbacks=[…])`); every method may be left out.

    With several processes only the main one calls it. A training that goes back (`recover`) tells the iterations since
    then once more. An exception ends the training.
    """

    def on_start(self, iteration: int) -> None:
        """The training starts after this iteration: 0, or where it resumes."""

    def on_iteration(self, event: IterationEvent) -> None:
        """An iteration is done; called when it is logged, which on a GPU is every ten iterations."""

    def on_evaluation(self, event: EvaluationEvent) -> None:
        """The validation list has been evaluated."""

    def on_end(self) -> None:
        """The training ends, in whichever way."""
