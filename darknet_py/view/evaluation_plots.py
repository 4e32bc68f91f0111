"""The plots of an evaluation, drawn from its numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from numpy.typing import ArrayLike

from darknet_py.view.plots import confusion_plot, precision_recall_plot

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def evaluation_plots(
    title: str,
    names: Sequence[str],
    confusion: ArrayLike,
    curves: Sequence[tuple[ArrayLike, ArrayLike]] = (),
) -> dict[str, Figure]:
    """Draws the confusion matrix, and precision over recall where there are curves.

    Args:
        title: What was measured.
        names: Class names.
        confusion: Counts, as `confusion_plot` takes them.
        curves: (precision, recall) of each class, each (N,).

    Returns:
        The figures by the names of their files, without the ending.
    """
    figures = {"confusion": confusion_plot(title, names, confusion)}
    if curves:
        named = [(name, precision, recall) for name, (precision, recall) in zip(names, curves, strict=True)]
        figures["precision_recall"] = precision_recall_plot(title, named)
    return figures
