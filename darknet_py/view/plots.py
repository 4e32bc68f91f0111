"""Plots of an evaluation and of anchors: precision over recall, the confusion matrix, box sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from darknet_py.counted import counted
from darknet_py.data.anchors import AnchorQuality, Sizes, best_anchor
from darknet_py.view.draw import GRID, INK, class_color
from darknet_py.view.figure import TITLE, add_axes, add_text, new_figure, plot_style, rgb_fraction

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LEGEND = 20  # classes that a legend names
_MAX_CLASSES = 50  # of a confusion matrix
_MATRIX_LEFT, _MATRIX_TOP, _MATRIX = 210, 96, 640  # pixels; the side is larger or smaller to keep cells legible
_FULL = (25, 85, 200)  # color of a cell with 100 % of its row
_MAX_COUNTED = 26  # rows; with more, the counts are not written into the cells
_MAX_DOTS = 3000  # box sizes; more are sampled
_SIZES_LEFT, _SIZES_TOP, _SIZES, _SIZES_RIGHT = 78, 60, 640, 350  # pixels


def precision_recall_plot(
    title: str, curves: Sequence[tuple[str, ArrayLike, ArrayLike]], width: int = 900, height: int = 800
) -> Figure:
    """Draws precision over recall.

    Args:
        title: The title.
        curves: (name, precision, recall) of each class; precision and recall of shape (N,), from 0 to 1.
        width: Width of the image in pixels.
        height: Height of the image in pixels.

    Returns:
        The figure. Its legend names the first 20 classes.
    """
    with plot_style():
        figure = new_figure(width, height)
        axes = add_axes(figure, 76, 56, width - 116, height - 118)
        for k, (name, precision, recall) in enumerate(curves):
            label = name if k < _LEGEND else None
            values = np.asarray(recall, float), np.asarray(precision, float)
            axes.plot(*values, color=rgb_fraction(class_color(k)), lw=2, label=label, clip_on=False)
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="recall", ylabel="precision")
        axes.set_xticks(np.linspace(0, 1, 11))
        axes.set_yticks(np.linspace(0, 1, 11))
        add_text(figure, title, 76, 32, TITLE)
        if curves:
            axes.legend(loc="lower left", framealpha=0.9)
    return figure


def confusion_plot(title: str, names: Sequence[str], matrix: ArrayLike) -> Figure:
    """Draws a cell per (label, predicted class), the darker the larger its fraction of the row.

    Args:
        title: The title.
        names: Class names.
        matrix: Counts (classes, classes), row = label, column = predicted class; or (classes + 1, classes + 1), where
            the last row counts predictions without an object and the last column missed objects.

    Returns:
        The figure. At most 50 classes are drawn, those with the most labels.
    """
    from matplotlib.colors import LinearSegmentedColormap

    counts = np.asarray(matrix, np.int64)
    classes = len(names)
    order = np.sort(np.argsort(-counts[:classes].sum(1), kind="stable")[:_MAX_CLASSES])
    rows = np.append(order, np.arange(classes, len(counts)))
    cells = counts[np.ix_(rows, rows)]
    fraction = cells / counts[rows].sum(1, keepdims=True).clip(min=1)
    cell = min(max(_MATRIX / len(rows), 14), 80)
    edge = cell * len(rows)
    more = f" (the {_MAX_CLASSES} most frequent of {classes})" if classes > _MAX_CLASSES else ""
    with plot_style():
        figure = new_figure(_MATRIX_LEFT + max(round(edge), 480) + 40, _MATRIX_TOP + round(edge) + 40)
        add_text(figure, title + more, 14, 28, TITLE)
        add_text(figure, "rows: labels, columns: predicted classes; darker: a larger fraction of the row", 14, 52)
        axes = add_axes(figure, _MATRIX_LEFT, _MATRIX_TOP, edge, edge)
        colors = LinearSegmentedColormap.from_list("fraction", [(1.0, 1.0, 1.0), rgb_fraction(_FULL)], 1024)
        axes.imshow(fraction, colors, vmin=0, vmax=1, aspect="auto", interpolation="nearest")
        labels = [f"{number}: {names[number]}"[:26] if number < classes else "background" for number in rows.tolist()]
        heads = [str(number) if number < classes else "missed" if cell > 50 else "–" for number in rows.tolist()]
        axes.xaxis.tick_top()
        axes.set_xticks(range(len(rows)), heads, fontsize=min(13, cell * 0.6))
        axes.set_yticks(range(len(rows)), labels, fontsize=min(13, cell - 2))
        axes.tick_params(length=0)
        axes.set_xticks(np.arange(len(rows) - 1) + 0.5, minor=True)
        axes.set_yticks(np.arange(len(rows) - 1) + 0.5, minor=True)
        axes.tick_params(which="minor", length=0)
        axes.grid(False)
        axes.grid(which="minor", color=rgb_fraction(GRID))
        axes.set_axisbelow(False)
        if len(rows) <= _MAX_COUNTED:
            for (row, column), count in np.ndenumerate(cells):
                if count:
                    ink = "white" if fraction[row, column] > 0.5 else rgb_fraction(INK)
                    size = min(13.0, 1.5 * cell / len(str(count)))
                    axes.text(column, row, str(count), color=ink, fontsize=size, ha="center", va="center")
    return figure


def anchor_plot(
    title: str, sizes: Sizes, anchors: Sizes, quality: AnchorQuality, input_size: tuple[int, int]
) -> Figure:
    """Draws a dot per box at (width, height), in the color of its best anchor, and a numbered cross per anchor.

    Args:
        title: The title.
        sizes: Width and height of each box, (N, 2), in the units of `input_size`.
        anchors: Width and height of each anchor, (K, 2), in the same units.
        quality: How well the anchors cover the boxes.
        input_size: Width and height of the network input. The axes end there, or at a quarter, half or three quarters
            of it where no box is larger.

    Returns:
        The figure.
    """
    largest = max(float((both / input_size).max()) for both in (sizes, anchors))
    limits = np.array(input_size) * next((part for part in (0.25, 0.5, 0.75) if largest <= part), 1.0)
    width, height = (_SIZES * limits / limits.max()).tolist()
    shown = sizes
    if len(sizes) > _MAX_DOTS:
        shown = sizes[np.random.default_rng(0).choice(len(sizes), _MAX_DOTS, replace=False)]
    owner, _ = best_anchor(shown, anchors)
    below = max(height, 60 + 22 * len(anchors))
    with plot_style():
        figure = new_figure(round(_SIZES_LEFT + width + _SIZES_RIGHT), round(_SIZES_TOP + below + 60))
        add_text(figure, title, _SIZES_LEFT, 26, TITLE)
        boxes = counted(len(sizes), "box")
        summary = f"{boxes}, average IoU {quality.average_iou:.2%}, recall at IoU 0.5 {quality.recall:.2%}"
        add_text(figure, summary, _SIZES_LEFT, 46)
        axes = add_axes(figure, _SIZES_LEFT, _SIZES_TOP, width, height)
        axes.set(xlim=(0, limits[0]), ylim=(0, limits[1]), xlabel="box width", ylabel="box height")
        axes.set_xticks(np.linspace(0, limits[0], 5))
        axes.set_yticks(np.linspace(0, limits[1], 5))
        for number, ((w, h), count) in enumerate(zip(anchors.tolist(), quality.counts, strict=True)):
            label = f"{number}: {w:.5g} × {h:.5g}, {counted(count, 'box')}, {count / max(len(sizes), 1):.1%}"
            dots = shown[owner == number].clip(0, limits)
            axes.plot(*dots.T, "o", color=rgb_fraction(class_color(number)), ms=3.4, mew=0, label=label, clip_on=False)
        for ms, mew, ink in ((14.0, 5.0, "white"), (12.0, 2.0, rgb_fraction(INK))):
            axes.plot(*anchors.clip(0, limits).T, "x", color=ink, ms=ms, mew=mew, clip_on=False)
        for number, anchor in enumerate(anchors.clip(0, limits).tolist()):
            box = {"boxstyle": "square,pad=0.05", "facecolor": "white", "edgecolor": "none", "alpha": 0.7}
            axes.annotate(str(number), anchor, (9, 6), textcoords="offset points", fontsize=14, weight="bold", bbox=box)
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, markerscale=3, handletextpad=0.2)
    return figure
