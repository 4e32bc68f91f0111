"""Times of several functions, measured in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch

_WARM_UP = 3  # rounds; compilation takes place in the first
SETTLING = 0.1  # seconds between runtimes: onnxruntime's threads look for work for half of that after a call


def time_in_turns(
    functions: Mapping[str, Callable[[], object]],
    device: torch.device,
    seconds: float,
    rounds: tuple[int, int] = (10, 2000),
    settling: float = 0.0,
) -> dict[str, list[float]]:
    """Times functions in rounds, so that a busy machine slows down all of them.

    Args:
        functions: What is called, without arguments.
        device: The device that they use; its work counts until it is finished.
        seconds: No round begins after this time.
        rounds: The least and the largest number of rounds.
        settling: Seconds for which each is called before its call is timed. Where they are of several runtimes, the
            threads of the one before may still look for work (`SETTLING`).

    Returns:
        Seconds of each call, by name.
    """
    times_by_name: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(_WARM_UP):
        for function in functions.values():
            function()
    end = now(device) + seconds
    for count in range(rounds[1]):
        if count >= rounds[0] and now(device) > end:
            break
        for name, function in functions.items():
            settled = now(device) + settling
            while now(device) < settled:
                function()
            start = now(device)
            function()
            times_by_name[name].append(now(device) - start)
    return times_by_name


def now(device: torch.device) -> float:
    """Time in seconds after the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
