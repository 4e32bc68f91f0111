"""Functions are timed in turns."""

from __future__ import annotations

from collections.abc import Callable

import torch

from darknet_py.timing import time_in_turns

CPU = torch.device("cpu")


def calls(names: str) -> tuple[list[str], dict[str, Callable[[], object]]]:
    order: list[str] = []
    return order, {name: lambda name=name: order.append(name) for name in names}  # type: ignore[misc]


def test_each_is_called_once_before_it_is_timed() -> None:
    order, functions = calls("ab")
    spent = time_in_turns(functions, CPU, 0, (4, 4))
    assert "".join(order) == 3 * "ab" + 4 * "aabb"
    assert [len(times) for times in spent.values()] == [4, 4]


def test_one_alone_needs_no_such_call() -> None:
    order, functions = calls("a")
    spent = time_in_turns(functions, CPU, 0)
    assert len(order) == 3 + 10 and len(spent["a"]) == 10
