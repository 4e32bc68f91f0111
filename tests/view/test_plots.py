"""Plots of evaluations."""

from __future__ import annotations

import numpy as np
import pytest

from darknet_py.view.draw import class_color
from darknet_py.view.figure import render_figure
from darknet_py.view.plots import _MATRIX_LEFT, _MATRIX_TOP, confusion_plot, precision_recall_plot


def shades(image: np.ndarray, rows: int, side: float) -> np.ndarray:
    """The red value of each cell, near its upper left corner."""
    at = np.arange(rows) * side + 4
    return image[np.ix_((_MATRIX_TOP + at).astype(int), (_MATRIX_LEFT + at).astype(int))][:, :, 0]


def test_cells_are_fractions_of_their_row() -> None:
    matrix = np.array([[6, 2, 0], [0, 5, 5], [1, 0, 0]])  # two classes, then false positives and missed objects
    image = render_figure(confusion_plot("predicted boxes", ["cat", "dog"], matrix))
    fraction = matrix / matrix.sum(1, keepdims=True)
    assert np.abs(shades(image, 3, 80) - (255 - 230 * fraction)).max() <= 1


def test_many_classes_and_no_boxes() -> None:
    rng = np.random.default_rng(0)
    matrix = np.diag(rng.integers(1, 90, 120))
    image = render_figure(confusion_plot("x", [str(k) for k in range(120)], matrix))
    side = 14
    assert image.shape[0] == _MATRIX_TOP + 50 * side + 40
    red = shades(image, 50, side)
    assert (np.diag(red) < 30).all() and (red[~np.eye(50, dtype=bool)] > 250).all()
    assert render_figure(confusion_plot("no boxes at all", ["a"], np.zeros((2, 2)))).shape[2] == 3


def test_precision_recall_curve_has_the_right_position() -> None:
    recall = np.linspace(0, 1, 50)
    image = render_figure(precision_recall_plot("t", [("a", 1 - recall / 2, recall), ("b", [], [])]))
    assert image.shape == (800, 900, 3)
    curve = np.argwhere((np.abs(image[:, 300:].astype(int) - class_color(0)) < 12).all(-1))  # the legend is on the left
    assert curve[curve[:, 1].argmax()] + [0, 300] == pytest.approx([56 + 682 / 2, 76 + 784], abs=3)
