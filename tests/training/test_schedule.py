"""The rates of every policy, worked out by hand from Darknet's formulas."""

from __future__ import annotations

import math

import pytest

from darknet_py.cfg.net import NetSpec
from darknet_py.training.schedule import (
    learning_rate,
    next_evaluation,
    statistics_momentum,
    update_batch,
)


def rates(net: NetSpec, *iterations: int) -> list[float]:
    return [learning_rate(net, i) for i in iterations]


def test_constant_is_constant() -> None:
    assert rates(NetSpec(learning_rate=0.01), 1, 10, 10**6) == [0.01] * 3


def test_burn_in_rises_with_the_fourth_power_and_ends_before_its_last_iteration() -> None:
    net = NetSpec(learning_rate=0.001, burn_in=1000, power=4)
    assert rates(net, 1, 500, 999, 1000) == pytest.approx([1e-15, 0.001 / 16, 0.001 * 0.999**4, 0.001], rel=1e-12)


def test_step_scales_each_time_a_step_is_full() -> None:
    net = NetSpec(learning_rate=1.0, policy="step", step=100, scale=0.5)
    assert rates(net, 1, 99, 100, 199, 200) == [1, 1, 0.5, 0.5, 0.25]


def test_steps_scales_from_the_iteration_named() -> None:
    net = NetSpec(learning_rate=1.0, policy="steps", steps=(10, 20), scales=(0.1, 10.0))
    assert rates(net, 9, 10, 19, 20, 100) == pytest.approx([1, 0.1, 0.1, 1, 1])


def test_steps_out_of_order_stop_at_the_first_that_is_not_reached() -> None:
    net = NetSpec(learning_rate=1.0, policy="steps", steps=(20, 10), scales=(0.1, 0.1))
    assert rates(net, 15, 20) == pytest.approx([1, 0.01])


def test_exp() -> None:
    assert rates(NetSpec(learning_rate=2.0, policy="exp", gamma=0.9), 1, 3) == pytest.approx([1.8, 2 * 0.729])


def test_poly_falls_to_zero_and_stays_there() -> None:
    net = NetSpec(learning_rate=1.0, policy="poly", power=4, max_batches=100)
    assert rates(net, 50, 100, 101) == pytest.approx([0.0625, 0, 0])


def test_sigmoid_does_not_overflow() -> None:
    net = NetSpec(learning_rate=1.0, policy="sigmoid", gamma=1.0, step=100)
    assert rates(net, 100, 99) == pytest.approx([0.5, 1 / (1 + math.exp(-1))])
    assert learning_rate(net, 10**6) == pytest.approx(0, abs=1e-300)


def test_random_is_a_pure_function_of_seed_and_iteration() -> None:
    net = NetSpec(learning_rate=1.0, policy="random", power=1)
    assert learning_rate(net, 7, seed=1) == learning_rate(net, 7, seed=1)
    drawn = {learning_rate(net, i, seed) for i in range(1, 20) for seed in (1, 2)}
    assert len(drawn) == 38
    assert all(0 <= rate <= 1 for rate in drawn)


def test_sgdr_restarts_and_doubles_its_cycle() -> None:
    net = NetSpec(learning_rate=1.0, learning_rate_min=0.0, policy="sgdr", sgdr_cycle=100, sgdr_mult=2)
    # A cycle's last iteration still belongs to it: the restart shows one iteration later.
    assert rates(net, 50, 100, 101, 200, 300) == pytest.approx(
        [0.5, 0, 0.5 * (1 + math.cos(math.pi / 200)), 0.5, 0], abs=1e-8
    )


def test_running_statistics_follow_faster_in_short_trainings() -> None:
    def of(max_batches: int, subdivisions: int = 1) -> float:
        return statistics_momentum(NetSpec(max_batches=max_batches, subdivisions=subdivisions))

    assert [of(500500, 16), of(2000), of(500, 4), of(1000), of(200), of(10), of(0)] == [0.01, 0.01, 0.01, 0.02] + [
        0.1
    ] * 3


def test_update_batch_is_what_darknet_counts() -> None:
    net = NetSpec(batch=10, subdivisions=3, sequential_subdivisions=3)  # 3 mini-batches of 3
    assert (net.batch_images, update_batch(net)) == (9, 9)
    net = NetSpec(batch=16, subdivisions=8, sequential_subdivisions=4, time_steps=3)
    assert (net.batch_images, update_batch(net)) == (48, 96)


def test_intervals_of_evaluations_are_darknets() -> None:
    net = NetSpec(burn_in=1000, max_batches=6000, batch=64)
    assert next_evaluation(net, 0, 500, True, 4) == 1000  # not before burn_in
    assert next_evaluation(net, 1000, 500, True, 4) == 1100  # at least 100 iterations
    assert next_evaluation(net, 1100, 8000, True, 4) == 1600  # 4 epochs
    assert next_evaluation(net, 5900, 8000, True, 4) == 6000  # and at the end
    assert [next_evaluation(net, last, 8000, 250, 4) for last in (0, 250, 260)] == [250, 500, 500]
