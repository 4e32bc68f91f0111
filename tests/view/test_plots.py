"""Plots of evaluations."""

from __future__ import annotations

import numpy as np
import pytest

from darknet_py.view.draw import color
from darknet_py.view.figure import render
from darknet_py.view.plots import _MATRIX_LEFT, _MATRIX_TOP, confusion_plot, precision_recall_plot


def shades(picture: np.ndarray, rows: int, side: float) -> np.ndarray:
    """The red of each cell, read near its upper left corner."""
    at = np.arange(rows) * side + 4
    return picture[np.ix_((_MATRIX_TOP + at).astype(int), (_MATRIX_LEFT + at).astype(int))][:, :, 0]


def test_cells_are_shares_of_their_row() -> None:
    matrix = np.array([[6, 2, 0], [0, 5, 5], [1, 0, 0]])  # two classes, and what was found on nothing or missed
    picture = render(confusion_plot("predicted boxes", ["cat", "dog"], matrix))
    share = matrix / matrix.sum(1, keepdims=True)
    assert np.abs(shades(picture, 3, 80) - (255 - 230 * share)).max() <= 1


def test_many_classes_and_none() -> None:
    dice = np.random.default_rng(0)
    matrix = np.diag(dice.integers(1, 90, 120))
    picture = render(confusion_plot("x", [str(k) for k in range(120)], matrix))
    side = 14
    assert picture.shape[0] == _MATRIX_TOP + 50 * side + 40
    red = shades(picture, 50, side)
    assert (np.diag(red) < 30).all() and (red[~np.eye(50, dtype=bool)] > 250).all()
    assert render(confusion_plot("no boxes at all", ["a"], np.zeros((2, 2)))).shape[2] == 3


def test_precision_recall_curves_run_where_they_should() -> None:
    recall = np.linspace(0, 1, 50)
    picture = render(precision_recall_plot("t", [("a", 1 - recall / 2, recall), ("b", [], [])]))
    assert picture.shape == (800, 900, 3)
    curve = np.argwhere((np.abs(picture[:, 300:].astype(int) - color(0)) < 12).all(-1))  # the legend is on the left
    assert curve[curve[:, 1].argmax()] + [0, 300] == pytest.approx([56 + 682 / 2, 76 + 784], abs=3)
