"""Scatter plots of networks."""

from __future__ import annotations

import random
from xml.etree import ElementTree

import pytest

from darknet_py.view import graph_plot
from darknet_py.view.graph_plot import Point, pareto_front, scatter

SVG = "{http://www.w3.org/2000/svg}"


def test_names_are_escaped() -> None:
    text = scatter([Point("<b>&", "f", 1, 1), Point("other", "g", 2, 3)], "x < y", "&", "</svg>")
    assert ElementTree.fromstring(text).findtext(f"{SVG}title") == "</svg>"


@pytest.mark.parametrize(
    "values",
    [[1], [0], [5, 5], [0.1, 0.11], [75.8, 77.9], [-3, 4], [0.25, 140], [1, 21], [1e6, 4e8], [0, 1000], [1e-9, 1]],
)
def test_axes_hold_their_values_and_have_round_ticks(values: list[float]) -> None:
    points = [Point(str(at), str(at), value, 1) for at, value in enumerate(values)]
    axes = graph_plot.scatter_figure(points, "", "", "").axes[0]
    low, high = axes.get_xlim()
    ticks = axes.get_xticks()
    assert all(low <= value <= high for value in values)
    log = axes.get_xscale() == "log"
    assert log == (min(values) > 0 and max(values) > 20 * min(values))
    assert 2 <= len(ticks) <= (40 if log else 14)
    assert all(len(f"{tick:g}".lstrip("-0.").replace(".", "").rstrip("0").split("e")[0]) <= 4 for tick in ticks)


def test_line_connects_pareto_optimal_points_only() -> None:
    points = [
        Point(name, name, x, y) for name, x, y in (("a", 1, 10), ("b", 2, 9), ("c", 3, 12), ("d", 3, 11), ("e", 4, 12))
    ]
    assert [point.name for point in pareto_front(points)] == ["a", "c"]
    assert [point.name for point in pareto_front(points, more_is_better=False)] == ["a", "b"]


def test_names_do_not_overlap() -> None:
    draw = random.Random(1)
    spots = [(draw.uniform(100, 800), draw.uniform(80, 480)) for _ in range(14)]
    names = [f"network-{at}" for at in range(len(spots))]
    positions = graph_plot._labels(names, spots)
    boxes = [
        graph_plot._box(position, 0.58 * 12.5 * len(name)) for name, position in zip(names, positions, strict=True)
    ]
    shared = [graph_plot._overlap(a, b) for at, a in enumerate(boxes) for b in boxes[at + 1 :]]
    assert sum(area > 0 for area in shared) <= 1
