"""Means and confidence intervals, line by line, as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from stats import interval

WIDTH, _LEFT, _RIGHT, _TOP, _ROW = 760, 250, 30, 58, 30
_STYLE = (
    ".page{fill:#fff}.ink{fill:#18202c}.faint{fill:#5d6a80}.grid{stroke:#e3e8f0}.seed{fill:#3f7ee8;fill-opacity:.45}"
    ".bar{stroke:#18202c;stroke-width:2}.mean{fill:#18202c}"
    "text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'Liberation Sans',Arial,sans-serif;font-size:13px}"
    "@media (prefers-color-scheme:dark){.page{fill:#10141b}.ink,.mean{fill:#e8edf5}.faint{fill:#95a3ba}"
    ".grid{stroke:#232c3a}.bar{stroke:#e8edf5}}"
)


class Line(NamedTuple):
    """A network. values: one for each seed."""

    name: str
    note: str
    values: Sequence[float]


def chart(title: str, lines: Sequence[Line]) -> str:
    """The SVG text: for each line its values as dots, their mean, and its confidence interval."""
    means = [interval(line.values) for line in lines]
    reach = [0 if math.isnan(found.half) else found.half for found in means]
    ends = [found.mean + side * half for found, half in zip(means, reach, strict=True) for side in (-1, 1)]
    ends += [value for line in lines for value in line.values]
    step = _step(max(ends) - min(ends))
    low, high = math.floor(min(ends) / step) * step, math.ceil(max(ends) / step) * step
    high = max(high, low + step)
    height = _TOP + _ROW * len(lines) + 34

    def x(value: float) -> float:
        return round(_LEFT + (value - low) / (high - low) * (WIDTH - _LEFT - _RIGHT), 1)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">',
        f"<style>{_STYLE}</style>",
        f'<rect class="page" width="{WIDTH}" height="{height}"/>',
        f'<text class="ink" x="16" y="28" font-weight="600">{escape(title)}</text>',
    ]
    bottom = _TOP + _ROW * len(lines)
    for k in range(round((high - low) / step) + 1):
        at = low + k * step
        parts.append(f'<line class="grid" x1="{x(at)}" x2="{x(at)}" y1="{_TOP - 10}" y2="{bottom}"/>')
        parts.append(f'<text class="faint" x="{x(at)}" y="{bottom + 20}" text-anchor="middle">{at:g}</text>')
    for number, (line, found, half) in enumerate(zip(lines, means, reach, strict=True)):
        y = _TOP + _ROW * number + _ROW / 2
        parts.append(f'<text class="ink" x="16" y="{y - 1}">{escape(line.name)}</text>')
        parts.append(f'<text class="faint" x="16" y="{y + 11}" style="font-size:10px">{escape(line.note)}</text>')
        ends_x = x(found.mean - half), x(found.mean + half)
        parts.append(f'<line class="bar" x1="{ends_x[0]}" x2="{ends_x[1]}" y1="{y}" y2="{y}"/>')
        parts += [f'<circle class="seed" cx="{x(value)}" cy="{y}" r="4"/>' for value in line.values]
        parts.append(f'<circle class="mean" cx="{x(found.mean)}" cy="{y}" r="3.5"/>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _step(span: float) -> float:
    """A round number of which about six make the span."""
    rough = max(span, 1e-6) / 6
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
