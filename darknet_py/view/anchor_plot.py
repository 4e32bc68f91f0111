"""Box sizes and the anchors that stand for them."""

from __future__ import annotations

import numpy as np

from darknet_py.data.anchors import AnchorQuality, Sizes, best_anchor
from darknet_py.view.draw import color
from darknet_py.view.sketch import GRID, INK, Sketch

_MOST = 3000  # dots; more are sampled
_SIDE = 640  # of the plot area
_LEFT, _TOP, _WIDE = 70, 60, 300  # the last: for the legend


def anchor_plot(title: str, sizes: Sizes, anchors: Sizes, found: AnchorQuality, size: tuple[int, int]) -> Sketch:
    """A dot per box at (width, height), in the color of its best anchor; a cross and a number for each anchor.

    size: width and height of the network input, in the units of the sizes; the axes end there, or at a quarter, half
    or three quarters of it where no box is larger.
    """
    largest = max(float((both / size).max()) for both in (sizes, anchors))
    limits = np.array(size) * next((part for part in (0.25, 0.5, 0.75) if largest <= part), 1.0)
    width, height = (_SIDE * limits / limits.max()).tolist()
    sketch = Sketch(round(_LEFT + width + _WIDE), round(_TOP + max(height, 60 + 22 * len(anchors)) + 60))
    _axes(sketch, limits, width, height)

    def place(sizes: Sizes) -> Sizes:
        x, y = (sizes / limits).clip(0, 1).T
        return np.stack([_LEFT + x * width, _TOP + height - y * height], 1)

    shown = sizes if len(sizes) <= _MOST else sizes[np.random.default_rng(0).choice(len(sizes), _MOST, replace=False)]
    owner, _ = best_anchor(shown, anchors)
    dots = place(shown)
    for number in range(len(anchors)):
        sketch.dots(map(tuple, dots[owner == number].tolist()), color(number), 1.6)
    for number, (x, y) in enumerate(place(anchors).tolist()):
        for dx, dy, weight, ink in ((7, 7, 5, (255, 255, 255)), (6, 6, 2, INK)):
            sketch.line(x - dx, y - dy, x + dx, y + dy, ink, weight)
            sketch.line(x - dx, y + dy, x + dx, y - dy, ink, weight)
        sketch.words(str(number), x + 9, y - 6, size=15)
    sketch.words(title, _LEFT, 26, size=16)
    fact = f"{len(sizes)} boxes, average IoU {found.average_iou:.2%}, recall at IoU 0.5 {found.recall:.2%}"
    sketch.words(fact, _LEFT, 46)
    for number, ((w, h), count) in enumerate(zip(anchors.tolist(), found.counts, strict=True)):
        y = _TOP + 16 + 22 * number
        sketch.box(_LEFT + width + 24, y - 10, _LEFT + width + 36, y + 2, color(number))
        share = count / max(len(sizes), 1)
        sketch.words(f"{number}: {w:.5g} x {h:.5g}, {count} boxes, {share:.1%}", _LEFT + width + 46, y)
    return sketch


def _axes(sketch: Sketch, limits: Sizes, width: float, height: float) -> None:
    right, bottom = _LEFT + width, _TOP + height
    for part in range(5):
        x, y = _LEFT + width * part / 4, bottom - height * part / 4
        sketch.line(x, _TOP, x, bottom, GRID)
        sketch.line(_LEFT, y, right, y, GRID)
        sketch.words(f"{limits[0] * part / 4:g}", x, bottom + 20, "middle")
        sketch.words(f"{limits[1] * part / 4:g}", _LEFT - 10, y + 5, "end")
    sketch.box(_LEFT, _TOP, right, bottom, INK, 1)
    sketch.words("width of a box", (_LEFT + right) / 2, bottom + 44, "middle")
    sketch.words("height", _LEFT - 10, _TOP - 12, "end")
