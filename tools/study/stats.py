"""Means over a few seeds and their confidence intervals by Student's t distribution."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple


class Interval(NamedTuple):
    """A mean and half the width of its confidence interval, which is NaN for fewer than two values."""

    mean: float
    half: float
    count: int

    @property
    def decides(self) -> bool:
        """Whether the interval excludes 0."""
        return abs(self.mean) > self.half


def interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """The confidence interval of the mean of independent values. Raises ValueError if there are none."""
    count = len(values)
    if not count:
        raise ValueError("expected at least one value, got none")
    mean = math.fsum(values) / count
    if count == 1:
        return Interval(mean, math.nan, 1)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
    return Interval(mean, t_quantile((1 + confidence) / 2, count - 1) * deviation / math.sqrt(count), count)


def t_quantile(probability: float, freedom: int) -> float:
    """Quantile of Student's t distribution with `freedom` degrees of freedom, for a probability above 0.5."""
    low, high = 0.0, 1.0
    while t_cumulative(high, freedom) < probability:
        high *= 2
    return _root(lambda t: t_cumulative(t, freedom) - probability, low, high)


def t_cumulative(t: float, freedom: int) -> float:
    """Probability of at most t >= 0, in closed form for integer freedom (Abramowitz and Stegun, 26.7.3-4)."""
    angle = math.atan(t / math.sqrt(freedom))
    odd = freedom % 2
    term = total = math.cos(angle) if odd else 1.0
    for k in range(1 + odd, freedom - 2, 2):
        term *= k / (k + 1) * math.cos(angle) ** 2
        total += term
    if odd:
        inside = 2 / math.pi * (angle + (math.sin(angle) * total if freedom > 1 else 0))
    else:
        inside = math.sin(angle) * total
    return 0.5 + inside / 2


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    """The root of an increasing function, by bisection."""
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if function(middle) < 0 else (low, middle)
    return (low + high) / 2
