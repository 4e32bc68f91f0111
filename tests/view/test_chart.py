"""The training chart."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from darknet_py.view import chart
from darknet_py.view.chart import LossChart, precision_recall_chart
from tests.effort import calls


def pixels(picture: np.ndarray, ink: tuple[int, int, int]) -> np.ndarray:
    """Rows and columns of pixels of that color."""
    return np.argwhere((np.abs(picture.astype(int) - ink) < 12).all(-1))


def filled(n: int = 300) -> LossChart:
    losses = [(i, 10 - i / 40) for i in range(1, n + 1)]
    return LossChart("test", 400, losses=losses, averages=losses, maps=[(i, i / 400) for i in range(50, n + 1, 50)])


def test_curves_run_where_they_should() -> None:
    made = filled()
    picture = made.draw()
    assert picture.shape == (800, 1200, 3) and picture.dtype == np.uint8
    average = pixels(picture[:, :900], chart._AVERAGE)  # the legend is further right
    assert average[:, 1].max() == pytest.approx(76 + 300 / 400 * 1048, abs=4)
    first, last = average[average[:, 1].argmin()][0], average[average[:, 1].argmax()][0]
    limit, height = 15, 800 - 62 - 74
    assert first == pytest.approx(738 - 10 / limit * height, abs=5)
    assert last == pytest.approx(738 - 2.5 / limit * height, abs=5)
    assert len(pixels(picture, chart._MAP)) > 500


def test_validation_loss_is_on_the_axis_of_the_loss() -> None:
    made = filled()
    assert not len(pixels(made.draw(), chart._VALIDATION))
    made.validation = [(100, 7.5), (300, 3.0)]
    found = pixels(made.draw()[:, :900], chart._VALIDATION)
    height = 800 - 62 - 74
    assert found[found[:, 1].argmin()].tolist() == pytest.approx([738 - 7.5 / 15 * height, 76 + 1048 / 4], abs=6)
    assert found[found[:, 1].argmax()].tolist() == pytest.approx([738 - 3 / 15 * height, 76 + 1048 * 3 / 4], abs=6)


def test_saved_chart_reads_back(tmp_path: Path) -> None:
    filled().save(tmp_path / "chart_test.png")
    assert cv2.imread(str(tmp_path / "chart_test.png")).shape == (800, 1200, 3)


def test_edges() -> None:
    LossChart("empty", 0).draw()
    LossChart("not a number", 10, losses=[(1, 2.0)], validation=[(1, math.nan)]).draw()
    LossChart("one", 10, losses=[(1, 2.0)], averages=[(1, 2.0)], maps=[(1, 1.0)]).draw()
    points = list(enumerate([math.nan, math.inf, 1.0, math.nan, 2.0, 3.0], 1))
    nan = LossChart("nan", 10, losses=points, averages=points, maps=[points[0], points[2]])
    assert len(pixels(nan.draw(), chart._AVERAGE)) > 50
    LossChart("zero", 10, losses=[(1, 0.0)], averages=[(1, 0.0)]).draw()
    LossChart("beyond", 10, averages=[(50, 1e9)], losses=[(50, -5.0)]).draw(300, 200)


def test_axis_ends() -> None:
    assert [chart._round_up(value) for value in (0.7, 20, 12.3, 0.0, 0.031)] == pytest.approx([0.8, 20, 15, 1, 0.04])
    assert chart._ticks(20)[-1] == 20 and 8 <= len(chart._ticks(500500)) <= 13


def test_half_a_million_points_draw_with_a_few_calls_each() -> None:
    made = LossChart("long", 500_500)
    made.losses = [(i, 1.0 + i % 7) for i in range(1, 500_001)]
    made.averages = [(i, 4.0) for i in range(1, 500_001)]
    assert calls(made.draw) < 5 * 500_000


def test_thinning_keeps_peaks() -> None:
    y = np.zeros(100_000)
    y[51_234] = 9.0
    thin = chart._thinned(np.stack([np.arange(100_000.0), y], 1))
    assert len(thin) <= 4000 and thin[:, 1].max() == 9


def test_precision_recall_picture() -> None:
    recall = np.linspace(0, 1, 50)
    picture = precision_recall_chart("t", [("a", 1 - recall / 2, recall), ("b", [], [])])
    assert picture.shape == (800, 900, 3) and (picture != 255).any()
