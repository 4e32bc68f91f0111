"""Means over a few seeds: confidence intervals and paired tests by Student's t distribution, Holm's correction."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple


class Interval(NamedTuple):
    """A mean and half the width of its confidence interval, which is NaN for fewer than two values."""

    mean: float
    half: float
    count: int


def interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """The confidence interval of the mean of independent values. Raises ValueError if there are none."""
    count = len(values)
    if not count:
        raise ValueError("expected at least one value, got none")
    mean = math.fsum(values) / count
    if count == 1:
        return Interval(mean, math.nan, 1)
    half = t_quantile((1 + confidence) / 2, count - 1) * _deviation(values) / math.sqrt(count)
    return Interval(mean, half, count)


def p_value(differences: Sequence[float]) -> float:
    """Student's two-sided p value of a mean of 0; NaN for fewer than two values."""
    count, mean = len(differences), math.fsum(differences) / max(len(differences), 1)
    if count < 2:
        return math.nan
    error = _deviation(differences) / math.sqrt(count)
    return 2 * (1 - t_cumulative(abs(mean) / error, count - 1)) if error else float(mean == 0)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's corrected p values (1979): of k sorted ones each is multiplied by k, k - 1, … and none is below the one
    before it. NaN (too few values to test) stays and does not count."""
    order = sorted((p, index) for index, p in enumerate(p_values) if not math.isnan(p))
    corrected, largest = [math.nan] * len(p_values), 0.0
    for rank, (p, index) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p))
        corrected[index] = largest
    return corrected


def effect_size(differences: Sequence[float]) -> Interval:
    """Paired differences in units of their standard deviation (Cohen's d_z, with Hedges' correction), with its 95 %
    interval by the large-sample standard error (Hedges and Olkin, 1985)."""
    count, deviation = len(differences), _deviation(differences)
    if count < 3 or not deviation:
        return Interval(math.nan, math.nan, count)
    size = math.fsum(differences) / count / deviation * (1 - 3 / (4 * (count - 1) - 1))
    return Interval(size, 1.959964 * math.sqrt(1 / count + size**2 / (2 * count)), count)


def _deviation(values: Sequence[float]) -> float:
    count, mean = len(values), math.fsum(values) / max(len(values), 1)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1)) if count > 1 else math.nan


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
