"""The training chart."""

from __future__ import annotations

import gc
import math
import tracemalloc
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import pytest

from darknet_py.view import loss_chart
from darknet_py.view.loss_chart import LossChart
from tests.call_count import count_calls


def pixels(image: np.ndarray, ink: str, tolerance: int = 12) -> np.ndarray:
    """Rows and columns of the pixels of this color, below the legend."""
    below = np.where(np.arange(len(image))[:, None, None] < 70, 999, image.astype(int))
    return np.argwhere((np.abs(below - list(bytes.fromhex(ink[1:]))) < tolerance).all(-1))


def filled(n: int = 300) -> LossChart:
    losses = [(i, 10 - i / 40) for i in range(1, n + 1)]
    return LossChart("test", 400, losses=losses, averages=losses, maps=[(i, i / 400) for i in range(50, n + 1, 50)])


def test_curves_have_the_right_position() -> None:
    chart = filled()
    image = chart.draw()
    assert image.shape == (800, 1200, 3) and image.dtype == np.uint8
    average = pixels(image, loss_chart.AVERAGE)
    assert average[:, 1].max() == pytest.approx(76 + 300 / 400 * 1048, abs=4)
    first, last = average[average[:, 1].argmin()][0], average[average[:, 1].argmax()][0]
    limit, height = 15, 800 - 62 - 74
    assert first == pytest.approx(738 - 10 / limit * height, abs=5)
    assert last == pytest.approx(738 - 2.5 / limit * height, abs=5)
    assert len(pixels(image, loss_chart.MAP)) > 500


def test_validation_loss_is_on_the_axis_of_the_loss() -> None:
    chart = filled()
    assert not len(pixels(chart.draw(), loss_chart.VALIDATION))
    chart.validation = [(100, 7.5), (300, 3.0)]
    drawn = pixels(chart.draw(), loss_chart.VALIDATION)
    height = 800 - 62 - 74
    assert drawn[drawn[:, 1].argmin()].tolist() == pytest.approx([738 - 7.5 / 15 * height, 76 + 1048 / 4], abs=6)
    assert drawn[drawn[:, 1].argmax()].tolist() == pytest.approx([738 - 3 / 15 * height, 76 + 1048 * 3 / 4], abs=6)


def test_saved_chart_reads_back(tmp_path: Path) -> None:
    filled().save(tmp_path / "chart_test.png")
    assert cv2.imread(str(tmp_path / "chart_test.png")).shape == (800, 1200, 3)


def test_unusual_values() -> None:
    LossChart("empty", 0).draw()
    LossChart("not a number", 10, losses=[(1, 2.0)], validation=[(1, math.nan)]).draw()
    LossChart("one", 10, losses=[(1, 2.0)], averages=[(1, 2.0)], maps=[(1, 1.0)]).draw()
    points = list(enumerate([math.nan, math.inf, 1.0, math.nan, 2.0, 3.0], 1))
    nan = LossChart("nan", 10, losses=points, averages=points, maps=[points[0], points[2]])
    assert len(pixels(nan.draw(), loss_chart.AVERAGE)) > 50
    LossChart("zero", 10, losses=[(1, 0.0)], averages=[(1, 0.0)]).draw()
    LossChart("beyond", 10, averages=[(50, 1e9)], losses=[(50, -5.0)]).draw(300, 200)


def test_axis_ends() -> None:
    ends = [loss_chart._round_up(value) for value in (0.7, 20, 12.3, 0.0, 0.031)]
    assert ends == pytest.approx([0.8, 20, 15, 1, 0.04])


def test_learning_rate_is_drawn_below_its_maximum() -> None:
    chart = filled()
    assert not len(pixels(chart.draw()[:736, 78:1122], loss_chart.RATE))
    chart.rates = [(i, 0.001 if i < 200 else 0.0001) for i in range(1, 301)]
    drawn = pixels(chart.draw()[:736, 78:1122], loss_chart.RATE, 30)
    height = 800 - 62 - 74
    assert drawn[:, 0].min() == pytest.approx(74 + 0.02 * height, abs=3)
    assert drawn[:, 0].max() == pytest.approx(74 + (1 - 0.098) * height, abs=3)


def test_half_a_million_points_need_few_calls_per_point() -> None:
    chart = LossChart("long", 500_500)
    chart.losses = [(i, 1.0 + i % 7) for i in range(1, 500_001)]
    chart.averages = [(i, 4.0) for i in range(1, 500_001)]
    assert count_calls(chart.draw) < 5 * 500_000


def test_drawing_is_deterministic_and_leaks_nothing() -> None:
    chart = filled(3000)
    first = chart.draw()
    settings = dict(matplotlib.rcParams)
    tracemalloc.start()
    try:
        for _ in range(3):
            assert (chart.draw() == first).all()
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(10):
            chart.draw()
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 1_000_000  # one chart has three million bytes
    assert dict(matplotlib.rcParams) == settings


def test_thinning_keeps_peaks() -> None:
    y = np.zeros(100_000)
    y[51_234] = 9.0
    thin = loss_chart._thinned(np.stack([np.arange(100_000.0), y], 1))
    assert len(thin) <= 4000 and thin[:, 1].max() == 9
