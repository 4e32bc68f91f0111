"""The picture of a confusion matrix."""

from __future__ import annotations

import numpy as np

from darknet_py.view.plots import _LEFT, _TOP, confusion_plot


def shades(picture: np.ndarray, rows: int, side: float) -> np.ndarray:
    """The red of each cell, read near its upper left corner."""
    at = np.arange(rows) * side + 4
    return picture[np.ix_((_TOP + at).astype(int), (_LEFT + at).astype(int))][:, :, 0]


def test_cells_are_shares_of_their_row() -> None:
    matrix = np.array([[6, 2, 0], [0, 5, 5], [1, 0, 0]])  # two classes, and what was found on nothing or missed
    picture = confusion_plot("boxes found", ["cat", "dog"], matrix).picture()
    share = matrix / matrix.sum(1, keepdims=True)
    assert np.abs(shades(picture, 3, 80) - (255 - 230 * share)).max() <= 1


def test_many_classes_and_none() -> None:
    dice = np.random.default_rng(0)
    matrix = np.diag(dice.integers(1, 90, 120))
    picture = confusion_plot("x", [str(k) for k in range(120)], matrix).picture()
    side = 14
    assert picture.shape[0] == _TOP + 50 * side + 40
    red = shades(picture, 50, side)
    assert (np.diag(red) < 30).all() and (red[~np.eye(50, dtype=bool)] > 250).all()
    assert confusion_plot("no boxes at all", ["a"], np.zeros((2, 2))).picture().shape[2] == 3
