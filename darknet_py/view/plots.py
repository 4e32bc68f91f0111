"""Which class is taken for which."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from darknet_py.view.draw import Color
from darknet_py.view.sketch import GRID, INK, Sketch

_MOST = 50  # classes
_PLOT = 640  # side of the matrix, unless its cells would be too small or too large
_LEFT, _TOP = 210, 96
_FULL = np.array([25, 85, 200])  # RGB of a cell that has all of its row
_COUNTED = 26  # up to so many rows the counts are written into the cells


def confusion_plot(title: str, names: Sequence[str], matrix: ArrayLike) -> Sketch:
    """A cell per (label, class found), the darker the larger its share of the label's row.

    matrix: (classes, classes) counts, row = label, column = class found; (classes + 1, classes + 1) where the last row
    counts what was found on nothing and the last column what was missed. At most 50 classes are drawn, those with most
    labels.
    """
    counts = np.asarray(matrix, np.int64)
    classes = len(names)
    order = np.sort(np.argsort(-counts[:classes].sum(1), kind="stable")[:_MOST])
    shown = np.append(order, np.arange(classes, len(counts)))
    cells = counts[np.ix_(shown, shown)]
    share = cells / counts[shown].sum(1, keepdims=True).clip(min=1)
    side = min(max(_PLOT / len(shown), 14), 80)
    edge = side * len(shown)
    sketch = Sketch(round(_LEFT + max(edge, 480) + 40), round(_TOP + edge + 40))
    more = f" (the {_MOST} most frequent of {classes})" if classes > _MOST else ""
    sketch.words(title + more, 14, 28, size=16)
    sketch.words("row: label, column: class found; darker: a larger share of the row", 14, 50)
    for row, number in enumerate(shown.tolist()):
        words = f"{number}: {names[number]}" if number < classes else "nothing there"
        middle = _TOP + side * (row + 0.5)
        sketch.words(words[:26], _LEFT - 10, middle + 4, "end", size=min(13, side - 1))
        head = str(number) if number < classes else "missed" if side > 40 else "-"
        sketch.words(head, _LEFT + side * (row + 0.5), _TOP - 10, "middle", size=min(13, side * 0.7))
        for column in range(len(shown)):
            left, top = _LEFT + side * column, _TOP + side * row
            sketch.box(left, top, left + side, top + side, _shade(share[row, column]))
            if cells[row, column] and len(shown) <= _COUNTED:
                ink = (255, 255, 255) if share[row, column] > 0.5 else INK
                count = str(cells[row, column])
                size = min(13.0, 1.5 * side / len(count))
                sketch.words(count, left + side / 2, middle + 4, "middle", ink, size)
    for line in range(len(shown) + 1):
        place = side * line
        sketch.line(_LEFT + place, _TOP, _LEFT + place, _TOP + edge, GRID)
        sketch.line(_LEFT, _TOP + place, _LEFT + edge, _TOP + place, GRID)
    sketch.box(_LEFT, _TOP, _LEFT + edge, _TOP + edge, INK, 1)
    return sketch


def _shade(share: float) -> Color:
    red, green, blue = (255 + (_FULL - 255) * share).round().astype(int).tolist()
    return red, green, blue
