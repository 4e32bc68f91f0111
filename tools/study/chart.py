"""Draws means and confidence intervals as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from stats import interval

from darknet_py.view.draw import INK
from darknet_py.view.figure import add_axes, add_text, figure_svg, new_figure, plot_style, rgb_fraction

WIDTH, _LEFT, _RIGHT, _TOP, _ROW, _BOTTOM = 760, 250, 30, 48, 30, 34
_DOT, _NOTE = "#3f7ee8", "#5d6a80"
_DARK = (  # for a dark system theme
    "@media (prefers-color-scheme:dark){#page path,#plot path{fill:#10141b!important}"
    "text{fill:#e8edf5!important}[id^=matplotlib] text,[id^=note] text{fill:#95a3ba!important}"
    "[id^=matplotlib] path{stroke:#232c3a!important}[id^=bar] path{stroke:#e8edf5!important}"
    "[id^=mean] use,[id^=mean] path{fill:#e8edf5!important}}"
)


class Line(NamedTuple):
    """A network. values: one per seed."""

    name: str
    note: str
    values: Sequence[float]


def chart(title: str, lines: Sequence[Line]) -> str:
    """The SVG text. Each line shows its values as dots, their mean and its confidence interval."""
    height = _ROW * len(lines)
    with plot_style():
        figure = new_figure(WIDTH, _TOP + height + _BOTTOM)
        add_text(figure, title, 16, 28)
        axes = add_axes(figure, _LEFT, _TOP, WIDTH - _LEFT - _RIGHT, height)
        for number, line in enumerate(lines):
            mean = interval(line.values)
            half = 0 if math.isnan(mean.half) else mean.half
            y = _TOP + _ROW * (number + 0.5)
            add_text(figure, line.name, 16, y - 1)
            add_text(figure, line.note, 16, y + 11, 10)
            figure.texts[-1].set(color=_NOTE, gid=f"note-{number}")
            axes.plot(
                [mean.mean - half, mean.mean + half],
                [number, number],
                color=rgb_fraction(INK),
                lw=2,
                gid=f"bar-{number}",
            )
            axes.scatter(line.values, [number] * len(line.values), 50, _DOT, alpha=0.45, lw=0, gid=f"seeds-{number}")
            axes.scatter([mean.mean], [number], 38, [rgb_fraction(INK)], lw=0, zorder=3, gid=f"mean-{number}")
        axes.set_ylim(len(lines) - 0.5, -0.5)
        axes.set_yticks([])
        axes.spines[["left", "top", "right", "bottom"]].set_visible(False)
        axes.tick_params(length=0, colors=_NOTE)
        figure.patch.set_gid("page")
        axes.patch.set_gid("plot")
    return figure_svg(figure).replace("</style>", f"{_DARK}</style>", 1)
