"""Draws the built-in data: shapes on textured backgrounds, with the same pixels on every machine.

Random numbers are raw bits of PCG64. Drawing uses only operations that IEEE 754 defines exactly: no sine, and no sums
whose order depends on the processor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from darknet_py.data.images import resize

T = TypeVar("T")
Field = NDArray[Any]  # float32

NAMES = ("circle", "square", "triangle", "star", "ring", "cross")
_COLORS = ((214, 48, 44), (52, 96, 224), (236, 196, 44), (204, 60, 204), (44, 176, 72), (52, 204, 220))


class Stroke(NamedTuple):
    """Something to draw in a window of the image: coverage (0 to 1) and color of each pixel."""

    top: int
    left: int
    cover: Field
    paint: Field  # (h, w, 3)


class Rng:
    """Random numbers from raw bits, which numpy guarantees never to change."""

    def __init__(self, *key: int):
        self._bits = np.random.PCG64(np.random.SeedSequence(key))

    def numbers(self, *shape: int) -> Field:
        """Uniform in [0, 1)."""
        raw = np.asarray(self._bits.random_raw(math.prod(shape)))
        values: Field = ((raw >> np.uint64(40)) * 2.0**-24).astype(np.float32).reshape(shape)
        return values

    def grain(self, shape: tuple[int, ...]) -> Field:
        """Uniform noise from -8 to 8, eight values per random number."""
        count = math.prod(shape)
        raw = np.asarray(self._bits.random_raw(-(-count // 8))).astype("<u8").view(np.uint8)
        values: Field = (raw[:count].astype(np.float32) * np.float32(1 / 16) - np.float32(8)).reshape(shape)
        return values

    def number(self, low: float = 0, high: float = 1) -> float:
        return low + float(self.numbers(1)[0]) * (high - low)

    def below(self, count: int) -> int:
        return int(self.number() * count)

    def pick(self, choices: Sequence[T]) -> T:
        return choices[self.below(len(choices))]


def background(rng: Rng, width: int, height: int) -> Field:
    """A muted color that changes slowly, with lightness noise on two finer scales and sometimes stripes."""
    canvas = resize(rng.numbers(4, 4, 3) * 30 + rng.numbers(3) * 30 + rng.number(40, 170), width, height)
    light = resize(rng.numbers(9, 9, 1) * 60 - 30, width, height)
    light += resize(rng.numbers(32, 32, 1) * 32 - 16, width, height)
    if rng.number() < 0.3:
        period, across, down = 8 + rng.below(24), rng.below(3), 1 + rng.below(2)
        phase = (np.arange(width) * across + np.arange(height)[:, None] * down) % period
        light += np.where(phase < period // 2, np.float32(rng.number(-18, 18)), np.float32(0))[:, :, None]
    canvas += light
    return canvas


def shape(
    rng: Rng, canvas: Field, kind: int, radius: float, x: float, y: float, *, own_color: float, contrast: float
) -> Stroke:
    """A shape around (x, y), rotated and stretched slightly.

    kind: index in NAMES. own_color: probability that it has the color of its class. contrast: minimum difference of
    lightness to the background.
    """
    height, width = canvas.shape[:2]
    turn = rng.number(-1, 1) * (0.25 if NAMES[kind] in ("square", "cross") else 1)
    stretch = rng.number(0.85, 1.18)
    reach = int(radius * 1.5) + 2
    top, left = max(int(y) - reach, 0), max(int(x) - reach, 0)
    rows = np.arange(top, min(int(y) + reach, height), dtype=np.float32)[:, None]
    columns = np.arange(left, min(int(x) + reach, width), dtype=np.float32)
    cos, sin = (1 - turn * turn) / (1 + turn * turn), 2 * turn / (1 + turn * turn)
    dx, dy = (columns + 0.5 - x) / radius, (rows + 0.5 - y) / radius
    u, v = (dx * cos + dy * sin) / stretch, (dy * cos - dx * sin) * stretch
    distance = _DISTANCE[NAMES[kind]](u, v) * radius
    own = bool(own_color) and rng.number() < own_color
    color = np.array(_COLORS[kind], np.float32) + (rng.numbers(3) * 40 - 20) if own else rng.numbers(3) * 255
    fill = _contrast(rng, canvas[int(y), int(x)], color, contrast)
    paint = np.broadcast_to(fill, (*u.shape, 3)).copy()
    style = rng.below(4)
    if style == 1:
        paint += (v * 22)[:, :, None]
    elif style == 2:
        paint += ((np.floor(u * 3) % 2) * 26 - 13)[:, :, None]
    elif style == 3:
        paint = np.where((distance > -max(radius * 0.12, 1.2))[:, :, None], fill * np.float32(0.55), paint)
    return Stroke(top, left, np.clip(0.5 - distance, 0, 1), paint)


def bar(rng: Rng, width: int, height: int, thick: float = 4) -> Stroke:
    """A line across the image, up to twice `thick` pixels wide, which occludes objects."""
    rows, columns = np.arange(height, dtype=np.float32)[:, None], np.arange(width, dtype=np.float32)
    turn = rng.number(-1, 1)
    cos, sin = (1 - turn * turn) / (1 + turn * turn), 2 * turn / (1 + turn * turn)
    x, y = rng.number(0, width), rng.number(0, height)
    distance = abs((columns - x) * sin + (rows - y) * cos) - rng.number(thick / 4, thick)
    return Stroke(0, 0, np.clip(0.5 - distance, 0, 1), np.broadcast_to(rng.numbers(3) * 200, (height, width, 3)))


def _contrast(rng: Rng, local: Field, color: Field, minimum: float) -> Field:
    """`color`, made lighter or darker if its lightness differs by less than `minimum` from the background."""
    level = float(local[0]) * 0.3 + float(local[1]) * 0.6 + float(local[2]) * 0.1
    own = float(color[0]) * 0.3 + float(color[1]) * 0.6 + float(color[2]) * 0.1
    gap = minimum + rng.number() * 30
    if abs(own - level) >= gap:
        return np.clip(color, 0, 255)
    goal = level - gap if (own < level and level - gap > 10) or level + gap > 245 else level + gap
    return np.clip(color + (goal - own), 0, 255)


def blend(canvas: Field, stroke: Stroke) -> None:
    part = canvas[stroke.top : stroke.top + stroke.cover.shape[0], stroke.left : stroke.left + stroke.cover.shape[1]]
    touched = stroke.cover > 0
    part[touched] += (stroke.paint[touched] - part[touched]) * stroke.cover[touched][:, None]


def _circle(u: Field, v: Field) -> Field:
    distance: Field = np.sqrt(u * u + v * v) - 0.95
    return distance


def _ring(u: Field, v: Field) -> Field:
    distance: Field = abs(np.sqrt(u * u + v * v) - 0.76) - 0.2
    return distance


def _square(u: Field, v: Field) -> Field:
    distance: Field = np.maximum(abs(u), abs(v)) - 0.8
    return distance


def _triangle(u: Field, v: Field) -> Field:
    return np.maximum(v, abs(u) * 0.8660254037844386 - v * 0.5) - 0.5


def _cross(u: Field, v: Field) -> Field:
    across = np.maximum(abs(u) - 0.95, abs(v) - 0.3)
    distance: Field = np.minimum(across, np.maximum(abs(u) - 0.3, abs(v) - 0.95))
    return distance


def _star(u: Field, v: Field) -> Field:
    """A star with five points: inside at least four of the five half-planes of a pentagram."""
    first = second = np.full_like(u, -np.inf)
    for x, y in _PENTAGON:
        side = u * x + v * y
        second = np.maximum(second, np.minimum(first, side))
        first = np.maximum(first, side)
    return second - 0.36


_PENTAGON = (
    (0.0, 1.0),
    (0.9510565162951535, 0.30901699437494745),
    (-0.9510565162951535, 0.30901699437494745),
    (0.5877852522924731, -0.8090169943749475),
    (-0.5877852522924731, -0.8090169943749475),
)
_DISTANCE: dict[str, Callable[[Field, Field], Field]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "ring": _ring,
    "cross": _cross,
}
