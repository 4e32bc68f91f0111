"""The page about a training: one HTML file that needs no network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from darknet_py.view.data_uri import data_uri
from darknet_py.view.figure import TITLE, add_axes, add_text, new_figure, plot_style
from darknet_py.view.graph_svg import render
from darknet_py.view.loss_chart import AVERAGE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TYPES = {".png": "image/png", ".jpg": "image/jpeg"}
_COLUMNS, _WIDTH, _HEIGHT, _GAP = 3, 390, 200, 64  # of the small charts, in pixels


@dataclass(frozen=True)
class RunReport:
    """What the page says.

    Attributes:
        title: Name of the training.
        status: Where it stands.
        is_running: Whether the page is going to be written again; the browser then loads it every minute.
        commands: Commands by what they do.
        results: Values by name.
        class_columns: Headings of the table of classes.
        class_rows: Its rows.
        images: (caption, file, whether it is a photograph) of charts and contact sheets; missing files are left out.
        plan: All decisions of the training, in words.
        environment: Values by name.
    """

    title: str
    status: str
    is_running: bool
    commands: Mapping[str, str]
    results: Mapping[str, str]
    class_columns: Sequence[str]
    class_rows: Sequence[Sequence[str]]
    images: Sequence[tuple[str, Path, bool]]
    plan: str
    environment: Mapping[str, str]

    def to_html(self) -> str:
        """The page."""
        images = [(caption, uri, photo) for caption, path, photo in self.images if (uri := _data_uri(path))]
        return render("run_report.html.jinja", report=self, images=images)


def _data_uri(path: Path) -> str:
    try:
        return data_uri(path.read_bytes(), _TYPES[path.suffix])
    except OSError:
        return ""


def loss_parts_plot(points: Sequence[tuple[int, Mapping[str, float]]]) -> Figure:
    """Draws a small chart for each part of the loss.

    Args:
        points: (iteration, values by name); values that are not finite leave a gap.
    """
    names = list(dict.fromkeys(name for _, values in points for name in values))
    iterations = [iteration for iteration, _ in points]
    rows = math.ceil(len(names) / _COLUMNS)
    with plot_style():
        figure = new_figure(_COLUMNS * (_WIDTH + _GAP) + 20, 60 + max(rows, 1) * (_HEIGHT + _GAP))
        add_text(figure, "what the heads report, averaged over heads and mini-batches", _GAP, 28, TITLE)
        for number, name in enumerate(names):
            left, top = _GAP + number % _COLUMNS * (_WIDTH + _GAP), 70 + number // _COLUMNS * (_HEIGHT + _GAP)
            axes = add_axes(figure, left, top, _WIDTH - 20, _HEIGHT)
            axes.set_title(name, loc="left", fontsize=13)
            values = np.array([values.get(name, math.nan) for _, values in points])
            axes.plot(iterations, np.where(np.isfinite(values), values, np.nan), color=AVERAGE, lw=1.2)
    return figure
