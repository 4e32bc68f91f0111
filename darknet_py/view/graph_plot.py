"""Scatter plots of networks, accuracy over cost, as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple
from xml.etree import ElementTree

from darknet_py.view.figure import add_axes, figure_svg, new_figure, plot_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 860, 560
_LEFT, _RIGHT, _TOP, _BOTTOM = 74, 30, 54, 62
_SIZE = 12.5  # of names
_LETTER = 0.58  # mean width of a letter, relative to the font size
_COLORS = ("#3f7ee8", "#dc4b4b", "#2f9e5b", "#8a5bd6", "#e08a1e", "#0f9aa8", "#c2549d", "#7b8794")
_LINE = "#93a0b5"
# Over matplotlib's style attributes: a halo around names, and the colors for a dark system theme.
_STYLE = (
    "[id^=name] text{paint-order:stroke;stroke:#fff;stroke-width:4px;stroke-linejoin:round}"
    "@media (prefers-color-scheme:dark){text{fill:#e8edf5!important}[id^=name] text{stroke:#10141b}"
    "#page path,#plot path{fill:#10141b!important}[id^=grid] path{stroke:#232c3a!important}"
    "[id^=spine] path,#front path{stroke:#66748c!important}}"
)
_SVG = "http://www.w3.org/2000/svg"


class Point(NamedTuple):
    """A network. Points of one family (a network at several sizes) have one color and are connected by a line.

    faint: drawn small and gray, with its name under the pointer only.
    """

    name: str
    family: str
    x: float
    y: float
    faint: bool = False


def scatter(points: Sequence[Point], x_label: str, y_label: str, title: str, more_is_better: bool = True) -> str:
    """Draws networks as points.

    Args:
        points: The networks.
        x_label: What x is, for example a cost.
        y_label: What y is.
        title: The title.
        more_is_better: Whether a larger y is better. A smaller x always is.

    Returns:
        The SVG text. Each point shows its values under the pointer; a dashed line connects the Pareto-optimal points.
    """
    root = ElementTree.fromstring(figure_svg(scatter_figure(points, x_label, y_label, title, more_is_better)))
    style, name = ElementTree.Element(f"{{{_SVG}}}style"), ElementTree.Element(f"{{{_SVG}}}title")
    style.text, name.text = _STYLE, title
    root[:0] = [name, style]
    root.set("role", "img")
    groups = {group.get("id"): group for group in root.iter(f"{{{_SVG}}}g")}
    for at, point in enumerate(points):
        values = ElementTree.SubElement(groups[f"point-{at}"], f"{{{_SVG}}}title")
        values.text = f"{point.name}: {point.x:.4g}, {point.y:.4g}"
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", "http://www.w3.org/1999/xlink")
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def scatter_figure(
    points: Sequence[Point], x_label: str, y_label: str, title: str, more_is_better: bool = True
) -> Figure:
    """See `scatter`."""
    with plot_style():
        figure = new_figure(WIDTH, HEIGHT)
        axes = add_axes(figure, _LEFT, _TOP, WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM)
        axes.set_title(title, loc="left", weight="bold", pad=14)
        _set_scale(axes, "x", [point.x for point in points], x_label)
        _set_scale(axes, "y", [point.y for point in points], y_label)
        front = pareto_front(points, more_is_better)
        if len(front) > 1:
            axes.plot([point.x for point in front], [point.y for point in front], "--", color=_LINE, lw=1, gid="front")
        families = list(dict.fromkeys(point.family for point in points if not point.faint))
        colors = {family: _COLORS[at % len(_COLORS)] for at, family in enumerate(families)}
        for family, color in colors.items():
            members = sorted((point for point in points if point.family == family), key=lambda point: point.x)
            axes.plot([point.x for point in members], [point.y for point in members], color=color, lw=2)
        for at, point in enumerate(points):
            color, size = (_LINE, 5) if point.faint else (colors[point.family], 11)
            axes.plot([point.x], [point.y], "o", color=color, ms=size, mew=0, zorder=3, gid=f"point-{at}")
        named = [point for point in points if not point.faint]
        spots = [(x, HEIGHT - y) for x, y in axes.transData.transform([(point.x, point.y) for point in named])]
        for at, (x, y, anchor) in enumerate(_labels([point.name for point in named], spots)):
            position = x / WIDTH, 1 - y / HEIGHT
            figure.text(*position, named[at].name, fontsize=_SIZE, ha=anchor, va="baseline", gid=f"name-{at}")
        _identify(figure, axes)
    return figure


def _set_scale(axes: Axes, side: str, values: Sequence[float], label: str) -> None:
    """Round ticks around all values; logarithmic where they spread over more than a factor of 20. side: x or y."""
    from matplotlib.ticker import MaxNLocator, NullLocator

    axis = axes.xaxis if side == "x" else axes.yaxis
    low, high = min(values), max(values)
    log = low > 0 and high / low > 20
    if log:
        decades = range(math.floor(math.log10(low)) - 1, math.floor(math.log10(high)) + 2)
        around = [digit * 10.0**decade for decade in decades for digit in (1, 2, 5)]
        start, end = max(tick for tick in around if tick < low), min(tick for tick in around if tick > high)
        ticks = [tick for tick in around if start <= tick <= end]
        axes.set(**{f"{side}scale": "log"})
        axis.set_minor_locator(NullLocator())
    else:
        room = (high - low) * 0.12 or abs(high) * 0.1 or 1.0
        start = max(low - room, 0) if low >= 0 else low - room
        ticks = list(MaxNLocator(8, steps=[1, 2, 2.5, 5, 10]).tick_values(start, high + room))
    axes.set(**{f"{side}lim": (ticks[0], ticks[-1]), f"{side}ticks": ticks})
    axes.set(**{f"{side}label": label + " (logarithmic)" * log})
    axis.set_major_formatter("{x:g}")
    axis.set_tick_params(length=0, pad=8)


def _identify(figure: Figure, axes: Axes) -> None:
    """Sets the ids that the style sheet refers to."""
    figure.patch.set_gid("page")
    axes.patch.set_gid("plot")
    axes.spines[["top", "right"]].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_gid(f"spine-{side}")
        axes.spines[side].set_edgecolor(_LINE)
    for at, line in enumerate([*axes.get_xgridlines(), *axes.get_ygridlines()]):
        line.set_gid(f"grid-{at}")


def pareto_front(points: Sequence[Point], more_is_better: bool = True) -> list[Point]:
    """The Pareto-optimal points, cheapest first."""
    sign = 1 if more_is_better else -1
    front: list[Point] = []
    for point in sorted(points, key=lambda point: (point.x, -sign * point.y)):
        if not front or sign * point.y > sign * front[-1].y:
            front.append(point)
    return front


def _labels(names: Sequence[str], spots: Sequence[tuple[float, float]]) -> list[tuple[float, float, str]]:
    """A position for each name beside its point, with as little overlap as possible."""
    taken = [(x - 7, y - 7, x + 7, y + 7) for x, y in spots]
    positions = []
    for name, (x, y) in zip(names, spots, strict=True):
        width = _LETTER * _SIZE * len(name)
        choices = [
            (x + 10, y + 4.5, "left"),
            (x - 10, y + 4.5, "right"),
            (x, y - 11, "center"),
            (x, y + 20, "center"),
            (x + 8, y - 9, "left"),
            (x + 8, y + 18, "left"),
            (x - 8, y - 9, "right"),
            (x - 8, y + 18, "right"),
        ]
        boxes = [_box(choice, width) for choice in choices]
        costs = [sum(_overlap(box, other) for other in taken) + 10 * _outside(box) for box in boxes]
        best = min(range(len(choices)), key=costs.__getitem__)
        taken.append(boxes[best])
        positions.append(choices[best])
    return positions


Box = tuple[float, float, float, float]  # left, top, right, bottom


def _box(position: tuple[float, float, str], width: float) -> Box:
    x, y, anchor = position
    left = x - width * {"left": 0.0, "center": 0.5, "right": 1.0}[anchor]
    return left, y - _SIZE, left + width, y + 4


def _overlap(a: Box, b: Box) -> float:
    return max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)


def _outside(box: Box) -> float:
    over = (
        max(_LEFT - box[0], 0)
        + max(box[2] - WIDTH + 4, 0)
        + max(_TOP - 14 - box[1], 0)
        + max(box[3] - HEIGHT + _BOTTOM, 0)
    )
    return over * _SIZE
