"""Histogram of the classes of a data set."""

from __future__ import annotations

import numpy as np

from darknet_py.view.class_histogram import _LEFT, _TOP, _WIDTH, class_histogram
from darknet_py.view.draw import class_color
from darknet_py.view.figure import render_figure


def lengths(image: np.ndarray, color: tuple[int, int, int]) -> list[int]:
    """The lengths of the bars of one color, from top to bottom."""
    rows = (image[_TOP:, _LEFT + 1 :] == color).all(-1).sum(1)
    starts = np.flatnonzero((rows[1:] > 0) & (rows[:-1] == 0)) + 1
    return [int(rows[start : start + 6].max()) for start in starts]


def test_bar_lengths_are_proportional_to_the_counts_and_sorted() -> None:
    counts = {"train": [10, 1000, 100], "valid": [100, 500, 0]}
    image = render_figure(class_histogram(["cat", "dog", "zebra"], counts))
    assert np.allclose(lengths(image, class_color(1)), np.array([1000, 10, 100]) * _WIDTH / 1000, atol=3)
    assert np.allclose(lengths(image, class_color(4)), np.array([500, 100]) * _WIDTH / 1000, atol=3)


def test_many_classes_and_no_classes() -> None:
    names = [str(k) for k in range(100)]
    figure = class_histogram(names, {"train": list(range(100))})
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == names[99:39:-1] and "60 most frequent of 100" in figure.texts[0].get_text()
    assert render_figure(class_histogram([], {})).shape[2] == 3
