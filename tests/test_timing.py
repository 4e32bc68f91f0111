"""Functions are timed in turns."""

from __future__ import annotations

from itertools import groupby

import pytest
import torch

from darknet_py import timing
from darknet_py.timing import time_in_turns

CPU = torch.device("cpu")


def test_each_is_called_for_a_while_before_it_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock that shows 0.06 s more at each look, a while are two calls."""
    seconds = iter(range(10**6))
    monkeypatch.setattr(timing, "now", lambda device: 0.06 * next(seconds))
    order: list[str] = []
    spent = time_in_turns({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, CPU, 0, (4, 4), 0.1)
    runs = [(name, len(list(calls))) for name, calls in groupby(order)]
    assert runs == 3 * [("a", 1), ("b", 1)] + 4 * [("a", 2), ("b", 2)]
    assert {name: len(times) for name, times in spent.items()} == {"a": 4, "b": 4}
    assert spent["a"] == pytest.approx([0.06] * 4)


def test_without_such_calls() -> None:
    order: list[str] = []
    spent = time_in_turns({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, CPU, 0)
    assert order == (3 + 10) * ["a", "b"] and len(spent["a"]) == 10
