"""Learning rate by iteration: pure functions of `[net]` (Darknet's `get_current_rate` and its neighbors).

Darknet counts the images of a batch before it updates, so the first update asks for iteration 1. All functions here
take that number: the count of batches whose gradients are complete, the current one included.
"""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from darknet_py.cfg.net import NetSpec

_PI = 3.14159265  # Darknet's, so that sgdr gives its figures


def learning_rate(net: NetSpec, iteration: int, seed: int = 0) -> float:
    """The rate of update number `iteration`, 1 being the first (`get_current_rate`).

    `seed` matters for `policy=random` only: Darknet draws afresh at each call, we draw a pure function of
    (seed, iteration), so that a resumed run goes on with the same rates.
    """
    base = net.learning_rate
    if iteration < net.burn_in:
        return base * float((iteration / net.burn_in) ** net.power)
    match net.policy:
        case "step":
            return base * net.scale ** (iteration // net.step)
        case "steps":
            for step, scale in zip(net.steps, net.scales, strict=True):
                if step > iteration:
                    break
                base *= scale
            return base
        case "exp":
            return base * net.gamma**iteration
        case "poly":
            # Past max_batches C raises a negative number to a power; we stay at zero.
            return base * float(max(1 - iteration / max(net.max_batches, 1), 0.0) ** net.power)
        case "random":
            return base * float(random.Random(f"{seed}/{iteration}").random() ** net.power)
        case "sigmoid":
            return base / (1 + math.exp(min(net.gamma * (iteration - net.step), 700.0)))
        case "sgdr":
            return _cosine_restarts(net, iteration)
    return base


def _cosine_restarts(net: NetSpec, iteration: int) -> float:
    start, length = 0, max(net.sgdr_cycle, 1)
    while start + length < iteration:
        start += length
        length *= net.sgdr_mult
    low, high = net.learning_rate_min, net.learning_rate
    return low + 0.5 * (high - low) * (1 + math.cos((iteration - start) * _PI / length))


def statistics_momentum(net: NetSpec) -> float:
    """Momentum of batch norm's running statistics, which see one value per mini-batch.

    Darknet's GPU build has .01, which takes hundreds of mini-batches to follow the weights; its CPU build .1. We take
    .01, and more where training is shorter than 2,000 mini-batches, so that the statistics are those of its last
    twentieth: otherwise the weights of a short training look far worse than they are.
    """
    return min(max(20 / max(net.max_batches * net.subdivisions, 1), 0.01), 0.1)


def update_batch(net: NetSpec) -> int:
    """What an update divides the summed gradient by (`update_network_gpu`): the images of a batch, times the length
    of a sequence where subdivisions are taken in sequence (`get_sequence_value`)."""
    return net.batch_images * max(net.subdivisions // net.sequential_subdivisions, 1)


def next_measurement(net: NetSpec, last: int, images: int, batch: int, every: bool | int, epochs: int) -> int:
    """The iteration at which mAP is measured next (`train_detector`).

    last: iteration of the last measurement, or where training began. images: of the training list. every: iterations,
    or True for Darknet's: `epochs` epochs, at least 100 iterations, not before burn_in. It is also due at max_batches.
    """
    if every is not True:
        return min((last // every + 1) * every, net.max_batches)
    return min(max(last + max(epochs * images // batch, 100), net.burn_in), net.max_batches)
