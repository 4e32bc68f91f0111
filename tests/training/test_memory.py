"""The memory estimate of a training, against values worked out by hand."""

from __future__ import annotations

from darknet_py.graph.graph import parse_text
from darknet_py.training.memory import estimate_memory

NET = """
[net]
batch=2
width=8
height=8
channels=3
{}
[convolutional]
batch_normalize=1
filters=4
size=3
stride=2
pad=1
activation=leaky

[convolutional]
filters=2
size=1
activation=linear
"""


def test_sums() -> None:
    graph = parse_text(NET.format(""))
    parameters = (4 * 3 * 9 + 4 * 4) + (2 * 4 + 2)
    values = 3 * 8 * 8 + 3 * (4 * 4 * 4) + 2 * 4 * 4
    estimate = estimate_memory(graph, images=5)
    assert estimate == (parameters * 4, parameters * 8, values * 5 * 4)
    assert estimate.total == parameters * 12 + values * 20
    assert estimate_memory(graph, 5, mixed_precision=True).activations == values * 5 * 2
    assert estimate_memory(graph, 5, scale=2.0).activations == values * 5 * 8


def test_adam_and_averages_take_more() -> None:
    plain, adam, ema = (estimate_memory(parse_text(NET.format(key)), 1) for key in ("", "adam=1", "ema_alpha=.9"))
    assert adam.optimizer == plain.optimizer * 3 // 2
    assert ema.weights == plain.weights * 2
