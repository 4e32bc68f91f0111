"""A histogram of the classes of a data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from darknet_py.view.draw import class_color
from darknet_py.view.figure import TITLE, add_axes, add_text, new_figure, plot_style, rgb_fraction

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MAX_CLASSES = 60
_LEFT, _TOP, _WIDTH, _RIGHT = 190, 66, 560, 90  # pixels


def class_histogram(names: Sequence[str], counts: Mapping[str, Sequence[int]]) -> Figure:
    """Draws a bar per class and split, most frequent class first; at most 60 classes are drawn.

    Args:
        names: Class names.
        counts: Number of boxes by split, then by class.

    Returns:
        The figure, for `figure.save_figure` or `figure.render`.
    """
    values = np.array([list(counts[split]) for split in counts], int).reshape(len(counts), len(names))
    order = np.argsort(-values.sum(0), kind="stable")[:_MAX_CLASSES]
    largest = int(values.max(initial=0)) or 1
    title = "boxes by class" + (f", the {len(order)} most frequent of {len(names)}" if len(order) < len(names) else "")
    row = max(24, 6 + 10 * len(counts))
    height = row * max(len(order), 1)
    with plot_style():
        figure = new_figure(_LEFT + _WIDTH + _RIGHT, _TOP + height + 12)
        add_text(figure, title, 14, 26, TITLE)
        axes = add_axes(figure, _LEFT, _TOP, _WIDTH, height)
        axes.set(xlim=(0, largest), ylim=(max(len(order), 1) - 0.5, -0.5))
        axes.set_yticks(range(len(order)), [names[number][:26] for number in order])
        axes.tick_params(axis="y", length=0)
        axes.tick_params(axis="x", bottom=False, labelbottom=False)
        axes.grid(False)
        axes.spines[["top", "right", "bottom"]].set_visible(False)
        thickness = (1 - 6 / row) / max(len(counts), 1)
        for number, (split, split_values) in enumerate(zip(counts, values, strict=True)):
            y = np.arange(len(order)) + thickness * (number - (len(counts) - 1) / 2)
            label = f"{split}: {split_values.sum()}"
            fill = rgb_fraction(class_color(1 + 3 * number))
            bars = axes.barh(y, split_values[order], thickness * 0.9, color=fill, label=label)
            axes.bar_label(bars, padding=4, fontsize=min(11, row * thickness))
        if counts:
            figure.legend(
                loc="upper left",
                bbox_to_anchor=(14 / figure.bbox.width, 1 - 32 / figure.bbox.height),
                borderaxespad=0,
                borderpad=0.2,
                ncols=len(counts),
                frameon=False,
                handlelength=0.9,
                handleheight=0.9,
            )
    return figure
