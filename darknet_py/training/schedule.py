"""Learning rate by iteration: pure functions of `[net]` (Darknet's `get_current_rate` and related functions).

Darknet counts the images of a batch before it updates, so the first update asks for iteration 1. All functions here
take that number: the count of batches whose gradients are complete, the current one included.
"""

from __future__ import annotations

import math
import random

from darknet_py.cfg.net import NetSpec

_PI = 3.14159265  # Darknet's, so that sgdr gives its rates


def learning_rate(net: NetSpec, iteration: int, seed: int = 0) -> float:
    """The learning rate of an update (`get_current_rate`).

    Args:
        net: The cfg's `[net]`.
        iteration: Number of the update, from 1.
        seed: Matters for `policy=random` only: Darknet draws a new number at each call, here the rate is a pure
            function of (seed, iteration), so that a resumed training continues with the same rates.

    Returns:
        The rate.
    """
    base = net.learning_rate
    if iteration < net.burn_in:
        return float(base * (iteration / net.burn_in) ** net.power)
    match net.policy:
        case "step":
            return float(base * net.scale ** (iteration // net.step))
        case "steps":
            for step, scale in zip(net.steps, net.scales, strict=True):
                if step > iteration:
                    break
                base *= scale
            return base
        case "exp":
            return float(base * net.gamma**iteration)
        case "poly":
            # Past max_batches C raises a negative number to a power; here the rate stays at zero.
            return float(base * max(1 - iteration / max(net.max_batches, 1), 0.0) ** net.power)
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
    """Momentum of batch norm's running statistics, which get one value per mini-batch.

    Darknet's GPU build has .01, which takes hundreds of mini-batches to follow the weights; its CPU build has .1. The
    default here is .01, and more where training is shorter than 2,000 mini-batches, so that the statistics are those
    of its last twentieth: otherwise the weights of a short training evaluate far worse than they are.
    """
    return min(max(20 / max(net.max_batches * net.subdivisions, 1), 0.01), 0.1)


def update_batch(net: NetSpec) -> int:
    """What an update divides the summed gradient by (`update_network_gpu`): the images of a batch, times the length
    of a sequence where subdivisions are taken in sequence (`get_sequence_value`)."""
    return net.batch_images * max(net.subdivisions // net.sequential_subdivisions, 1)


def next_evaluation(net: NetSpec, last: int, images: int, every: bool | int, epochs: int) -> int:
    """The iteration of the next evaluation (`train_detector`).

    Args:
        net: The cfg's `[net]`.
        last: Iteration of the last evaluation, or where training began.
        images: Number of images in the training list.
        every: Iterations between evaluations; True for Darknet's rule: `epochs` epochs, at least 100 iterations, not
            before burn_in.
        epochs: See `every`.

    Returns:
        The iteration, at most max_batches.
    """
    if every is not True:
        return min((last // every + 1) * every, net.max_batches)
    return min(max(last + max(epochs * images // net.batch_images, 100), net.burn_in), net.max_batches)
