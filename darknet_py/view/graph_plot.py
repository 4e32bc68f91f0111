"""Networks as points: what they reach over what they cost, as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from darknet_py.view.graph_layout import number

WIDTH, HEIGHT = 860, 560
_LEFT, _RIGHT, _TOP, _BOTTOM = 74, 30, 54, 62
_SIZE = 12.5  # of names
_LETTER = 0.58  # mean width of a letter, of its size
_COLOURS = ("#3f7ee8", "#dc4b4b", "#2f9e5b", "#8a5bd6", "#e08a1e", "#0f9aa8", "#c2549d", "#7b8794")
_STYLE = (
    ".page{fill:#fff}.ink{fill:#18202c}.faint{fill:#5d6a80}.grid{stroke:#e3e8f0}.axis{stroke:#93a0b5;fill:none}"
    ".front{stroke:#93a0b5;fill:none;stroke-dasharray:5 4}.halo{stroke:#fff}.way{fill:none;stroke-width:2}"
    "text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'Liberation Sans',Arial,sans-serif}"
    "@media (prefers-color-scheme:dark){.page{fill:#10141b}.ink{fill:#e8edf5}.faint{fill:#95a3ba}"
    ".grid{stroke:#232c3a}.axis,.front{stroke:#66748c}.halo{stroke:#10141b}}"
)


class Point(NamedTuple):
    """A network. Points of one family (a network at several sizes) have one colour and are joined by a line."""

    name: str
    family: str
    x: float
    y: float


class Axis(NamedTuple):
    """From low to high; logarithmic where values spread over more than a factor of 20."""

    low: float
    high: float
    log: bool
    ticks: tuple[float, ...]

    def at(self, value: float) -> float:
        """0 … 1 along the axis."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def scatter(points: Sequence[Point], x_label: str, y_label: str, title: str, more_is_better: bool = True) -> str:
    """The SVG text. more_is_better: of y; cheaper is always better. The dashed line joins the points no other beats."""
    x_axis, y_axis = axis([point.x for point in points]), axis([point.y for point in points])

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            _LEFT + x_axis.at(x) * (WIDTH - _LEFT - _RIGHT),
            HEIGHT - _BOTTOM - y_axis.at(y) * (HEIGHT - _TOP - _BOTTOM),
        )

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'role="img"><title>{escape(title)}</title><style>{_STYLE}</style>',
        '<rect class="page" width="100%" height="100%"/>',
        f'<text class="ink" x="{_LEFT}" y="30" font-size="16" font-weight="600">{escape(title)}</text>',
    ]
    right, bottom = WIDTH - _RIGHT, HEIGHT - _BOTTOM
    for tick in x_axis.ticks:
        x, _ = place(tick, y_axis.low)
        parts.append(f'<path class="grid" d="M{number(x)} {_TOP}V{bottom}"/>')
        parts.append(_text(f"{tick:g}", x, bottom + 20, "middle", "faint"))
    for tick in y_axis.ticks:
        _, y = place(x_axis.low, tick)
        parts.append(f'<path class="grid" d="M{_LEFT} {number(y)}H{right}"/>')
        parts.append(_text(f"{tick:g}", _LEFT - 9, y + 4, "end", "faint"))
    parts.append(f'<path class="axis" d="M{_LEFT} {_TOP}V{bottom}H{right}"/>')
    scale = " (logarithmic)"
    parts.append(_text(x_label + scale * x_axis.log, (_LEFT + right) / 2, HEIGHT - 18, "middle"))
    middle = (_TOP + bottom) / 2
    label = _text(y_label + scale * y_axis.log, 20, middle, "middle")
    parts.append(f'<g transform="rotate(-90 20 {number(middle)})">{label}</g>')

    front = [place(point.x, point.y) for point in unbeaten(points, more_is_better)]
    if len(front) > 1:
        parts.append(f'<path class="front" d="M{_joined(front)}"/>')
    families = list(dict.fromkeys(point.family for point in points))
    for at, family in enumerate(families):
        way = [place(point.x, point.y) for point in sorted(points, key=lambda p: p.x) if point.family == family]
        if len(way) > 1:
            parts.append(f'<path class="way" stroke="{_COLOURS[at % len(_COLOURS)]}" d="M{_joined(way)}"/>')
    spots = [place(point.x, point.y) for point in points]
    for point, (x, y) in zip(points, spots, strict=True):
        colour = _COLOURS[families.index(point.family) % len(_COLOURS)]
        parts.append(
            f'<circle cx="{number(x)}" cy="{number(y)}" r="5.5" fill="{colour}"><title>{escape(point.name)}: '
            f"{point.x:.4g}, {point.y:.4g}</title></circle>"
        )
    for point, (x, y, anchor) in zip(points, _labels([point.name for point in points], spots), strict=True):
        parts.append(_text(point.name, x, y, anchor, "ink", _SIZE, halo=True))
    return "\n".join([*parts, "</svg>\n"])


def unbeaten(points: Sequence[Point], more_is_better: bool = True) -> list[Point]:
    """The points than which no other is both cheaper and better, cheapest first."""
    sign = 1 if more_is_better else -1
    found: list[Point] = []
    for point in sorted(points, key=lambda point: (point.x, -sign * point.y)):
        if not found or sign * point.y > sign * found[-1].y:
            found.append(point)
    return found


def axis(values: Sequence[float]) -> Axis:
    """An axis with round ends around all values."""
    low, high = min(values), max(values)
    if low > 0 and high / low > 20:
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high) + 1e-9)
        ticks = [digit * 10.0**power for power in range(first, last + 1) for digit in (1, 2, 5)]
        start = max(tick for tick in ticks if tick <= low * (1 - 1e-9)) if ticks[0] < low else low / 2
        end = min(tick for tick in ticks if tick >= high * (1 + 1e-9))
        return Axis(start, end, True, tuple(tick for tick in ticks if start <= tick <= end))
    room = (high - low) * 0.12 or abs(high) * 0.1 or 1.0
    power = 10.0 ** math.floor(math.log10((high - low + 2 * room) / 4))
    step = next(k * power for k in (1, 2, 2.5, 5, 10) if k * power >= (high - low + 2 * room) / 8)
    first, last = math.floor((low - room) / step), math.ceil((high + room) / step)
    first = max(first, 0) if low >= 0 else first
    ticks = [round(index * step, 12) for index in range(first, last + 1)]
    return Axis(ticks[0], ticks[-1], False, tuple(ticks))


def _labels(names: Sequence[str], spots: Sequence[tuple[float, float]]) -> list[tuple[float, float, str]]:
    """A place for each name beside its point, over no point and no other name where there is one."""
    taken = [(x - 7, y - 7, x + 7, y + 7) for x, y in spots]
    found = []
    for name, (x, y) in zip(names, spots, strict=True):
        width = _LETTER * _SIZE * len(name)
        choices = [
            (x + 10, y + 4.5, "start"),
            (x - 10, y + 4.5, "end"),
            (x, y - 11, "middle"),
            (x, y + 20, "middle"),
            (x + 8, y - 9, "start"),
            (x + 8, y + 18, "start"),
            (x - 8, y - 9, "end"),
            (x - 8, y + 18, "end"),
        ]
        boxes = [_box(choice, width) for choice in choices]
        costs = [sum(_shared(box, other) for other in taken) + 10 * _outside(box) for box in boxes]
        best = min(range(len(choices)), key=costs.__getitem__)
        taken.append(boxes[best])
        found.append(choices[best])
    return found


Box = tuple[float, float, float, float]  # left, top, right, bottom


def _box(place: tuple[float, float, str], width: float) -> Box:
    x, y, anchor = place
    left = x - width * {"start": 0.0, "middle": 0.5, "end": 1.0}[anchor]
    return left, y - _SIZE, left + width, y + 4


def _shared(a: Box, b: Box) -> float:
    return max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)


def _outside(box: Box) -> float:
    over = (
        max(_LEFT - box[0], 0)
        + max(box[2] - WIDTH + 4, 0)
        + max(_TOP - 14 - box[1], 0)
        + max(box[3] - HEIGHT + _BOTTOM, 0)
    )
    return over * _SIZE


def _text(text: str, x: float, y: float, anchor: str, look: str = "ink", size: float = 13, halo: bool = False) -> str:
    around = (
        ' class="ink halo" paint-order="stroke" stroke-width="4" stroke-linejoin="round"'
        if halo
        else f' class="{look}"'
    )
    return (
        f'<text{around} x="{number(x)}" y="{number(y)}" font-size="{size}" text-anchor="{anchor}">{escape(text)}</text>'
    )


def _joined(places: Sequence[tuple[float, float]]) -> str:
    return "L".join(f"{number(x)} {number(y)}" for x, y in places)
