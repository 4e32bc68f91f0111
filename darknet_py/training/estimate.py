"""How long a training takes."""

from __future__ import annotations

from typing import NamedTuple

from darknet_py.counted import counted
from darknet_py.training.duration import format_duration


class Speed(NamedTuple):
    """What was measured on the machine.

    Attributes:
        iteration: Seconds of an iteration, loading included.
        evaluation: Seconds of one evaluation of the validation list; 0 without one.
        setup: Seconds until the first iteration is done, beyond that iteration.
    """

    iteration: float
    evaluation: float = 0.0
    setup: float = 0.0


class Estimate(NamedTuple):
    """The time of a training that is ahead.

    Attributes:
        iterations: Number of iterations.
        evaluations: Number of evaluations.
        speed: What one of each takes.
    """

    iterations: int
    evaluations: int
    speed: Speed

    @property
    def seconds(self) -> float:
        """All together."""
        return self.iterations * self.speed.iteration + self.evaluations * self.speed.evaluation + self.speed.setup

    def __str__(self) -> str:
        parts = [f"{counted(self.iterations, 'iteration', ',')} of {format_duration(self.speed.iteration)}"]
        if self.evaluations:
            parts.append(f"{self.evaluations} evaluations of {format_duration(self.speed.evaluation)}")
        return f"about {format_duration(self.seconds)}: {', '.join(parts)}"
