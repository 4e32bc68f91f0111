"""Charts drawn with OpenCV alone: the training chart `chart_NAME.png`, and precision over recall."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from darknet_py.view.draw import FONT, Color, Picture, color, save_picture
from darknet_py.view.sketch import GRID, INK

Points = Sequence[tuple[float, float]] | NDArray[np.float64]

_LOSS: Color = (165, 195, 240)
_AVERAGE: Color = (25, 85, 200)
_VALIDATION: Color = (20, 140, 110)
_MAP: Color = (205, 40, 40)
_SCALE = 2  # drawn at twice the size, then averaged: smooth lines and letters on every OpenCV
_SUBPIXEL = 4


@dataclass
class LossChart:
    """Loss and mAP over the iterations (Darknet's `draw_train_chart`, `draw_train_loss`).

    losses: (iteration, loss) of each iteration. averages: (iteration, running average). maps: (iteration, mAP 0 … 1).
    validation: (iteration, loss on the validation list).
    max_loss: the loss axis ends here at the latest (the cfg's max_chart_loss); it is shorter when the average is.
    Values that are not finite leave a gap. The lists are plain data, so that a checkpoint can hold them.
    """

    name: str
    max_iterations: int
    max_loss: float = 20.0
    map_label: str = "mAP@0.50"
    losses: list[tuple[int, float]] = field(default_factory=list)
    averages: list[tuple[int, float]] = field(default_factory=list)
    maps: list[tuple[int, float]] = field(default_factory=list)
    validation: list[tuple[int, float]] = field(default_factory=list)

    def draw(self, width: int = 1200, height: int = 800) -> Picture:
        """uint8 (height, width, 3) RGB. Time grows linearly with the points, the number of strokes does not."""
        last = max((x for x, _ in [*self.losses, *self.averages, *self.maps]), default=0)
        axes = _Axes(width, height, max(self.max_iterations, last, 1), self._loss_limit())
        axes.frame("Iteration", "Loss", self.map_label if self.maps else "")
        axes.line(self.losses, _LOSS, 1.0)
        axes.line(self.averages, _AVERAGE, 2.2)
        entries = [("loss", _LOSS), ("average loss", _AVERAGE)]
        if self.validation:
            axes.line(self.validation, _VALIDATION, 1.6, dots=True)
            entries.append(("validation loss", _VALIDATION))
        if self.maps:
            scaled = [(x, y * axes.limit) for x, y in self.maps]
            axes.line(scaled, _MAP, 2.2, dots=True)
            best = max(self.maps, key=lambda point: point[1])
            axes.note((best[0], best[1] * axes.limit), f"{best[1]:.1%}", _MAP)
            entries.append((self.map_label, _MAP))
        axes.title(self.name, self._standing())
        axes.legend(entries)
        return axes.picture()

    def save(self, path: str | Path) -> None:
        """Writes the chart in one step. Raises DataError when it cannot."""
        save_picture(path, self.draw())

    def _loss_limit(self) -> float:
        values = [y for _, y in self.averages or self.losses if math.isfinite(y)]
        return _round_up(min(max(values, default=1.0) * 1.05, self.max_loss))

    def _standing(self) -> str:
        parts = []
        if self.averages:
            iteration, average = self.averages[-1]
            parts = [f"iteration {iteration} of {self.max_iterations}", f"average loss {average:.4g}"]
        if self.maps:
            best = max(y for _, y in self.maps)
            parts.append(f"{self.map_label} {self.maps[-1][1]:.2%} (best {best:.2%})")
        return "    ".join(parts)


def precision_recall_chart(
    title: str, curves: Sequence[tuple[str, ArrayLike, ArrayLike]], width: int = 900, height: int = 800
) -> Picture:
    """Precision over recall: one line per (name, precision, recall). The legend names the first 20."""
    axes = _Axes(width, height, 1.0, 1.0)
    axes.frame("Recall", "Precision")
    for k, (_, precision, recall) in enumerate(curves):
        axes.line(np.stack([np.asarray(recall, float), np.asarray(precision, float)], 1), color(k), 2.0)
    axes.title(title, "")
    axes.legend([(name, color(k)) for k, (name, _, _) in enumerate(curves)][:20], low=True)
    return axes.picture()


class _Axes:
    """A plot area from (0, 0) to (x_limit, limit) with a frame; the right axis is 0 … 100 %."""

    def __init__(self, width: int, height: int, x_limit: float, limit: float):
        self.size = np.array([width, height]) * _SCALE
        self.x_limit, self.limit = float(x_limit), float(limit)
        self.left, self.right = 76 * _SCALE, (width - 76) * _SCALE
        self.top, self.bottom = 74 * _SCALE, (height - 62) * _SCALE
        self.canvas: Picture = np.full((self.size[1], self.size[0], 3), 255, np.uint8)

    def frame(self, x_label: str, left_label: str, right_label: str = "") -> None:
        for value in _ticks(self.x_limit):
            x, _ = self._at(value, 0)
            cv2.line(self.canvas, (x, self.top), (x, self.bottom), GRID, _SCALE)
            self._text(
                f"{value / 1000:g}k" if value >= 10000 else f"{value:g}", (x, self.bottom + 22 * _SCALE), "middle"
            )
        for value in _ticks(self.limit):
            _, y = self._at(0, value)
            cv2.line(self.canvas, (self.left, y), (self.right, y), GRID, _SCALE)
            self._text(f"{value:g}", (self.left - 10 * _SCALE, y + 5 * _SCALE), "right")
        cv2.rectangle(self.canvas, (self.left, self.top), (self.right, self.bottom), INK, _SCALE)
        self._text(x_label, ((self.left + self.right) // 2, self.bottom + 46 * _SCALE), "middle")
        self._text(left_label, (self.left, self.top - 18 * _SCALE), "middle")
        if right_label:
            for percent in range(0, 101, 10):
                _, y = self._at(0, self.limit * percent / 100)
                self._text(f"{percent}%", (self.right + 10 * _SCALE, y + 5 * _SCALE), "left", _MAP)
            self._text(right_label, (self.right, self.top - 18 * _SCALE), "middle", _MAP)

    def line(self, points: Points, ink: Color, weight: float, dots: bool = False) -> None:
        values = np.asarray(points, float).reshape(-1, 2)
        finite = np.flatnonzero(np.isfinite(values).all(1))
        runs = np.split(values[finite], np.flatnonzero(np.diff(finite) > 1) + 1)
        factor = 1 << _SUBPIXEL
        strokes = [(_thinned(self._pixels(run)) * factor).round().astype(np.int32) for run in runs if len(run)]
        if not strokes:
            return
        cv2.polylines(self.canvas, strokes, False, ink, round(weight * _SCALE), cv2.LINE_AA, _SUBPIXEL)
        if dots or any(len(stroke) == 1 for stroke in strokes):
            for x, y in np.concatenate([stroke for stroke in strokes if dots or len(stroke) == 1], 0).tolist():
                cv2.circle(self.canvas, (x, y), round(3.4 * _SCALE * factor), ink, cv2.FILLED, cv2.LINE_AA, _SUBPIXEL)

    def note(self, point: tuple[float, float], text: str, ink: Color) -> None:
        """A text beside a point, on white."""
        if not all(math.isfinite(value) for value in point):
            return
        half = 26 * _SCALE
        x, y = self._at(*point)
        x, y = min(max(x, self.left + half), self.right - half), y - 12 * _SCALE
        y = y if y > self.top + 18 * _SCALE else y + 36 * _SCALE
        self._text(text, (x, y), "middle", (255, 255, 255), weight=5)
        self._text(text, (x, y), "middle", ink)

    def title(self, text: str, standing: str) -> None:
        self._text(text, (self.left, 30 * _SCALE), "left", size=1.2, weight=2)
        self._text(standing, (self.right, 30 * _SCALE), "right")

    def legend(self, entries: Sequence[tuple[str, Color]], low: bool = False) -> None:
        """Within the frame: top right, or bottom left with `low`."""
        if not entries:
            return
        step, stroke, gap = 24 * _SCALE, 28 * _SCALE, 12 * _SCALE
        wide = max(self._width(text) for text, _ in entries) + stroke + 3 * gap
        high = step * len(entries) + gap
        left = self.left + gap if low else self.right - wide - gap
        top = self.bottom - high - gap if low else self.top + gap
        corner = (left + wide, top + high)
        cv2.rectangle(self.canvas, (left, top), corner, (255, 255, 255), cv2.FILLED)
        cv2.rectangle(self.canvas, (left, top), corner, GRID, _SCALE)
        for row, (text, ink) in enumerate(entries):
            y = top + step * row + step // 2 + gap // 2
            cv2.line(self.canvas, (left + gap, y), (left + gap + stroke, y), ink, 3 * _SCALE, cv2.LINE_AA)
            self._text(text, (left + 2 * gap + stroke, y + 5 * _SCALE), "left")

    def picture(self) -> Picture:
        size = (int(self.size[0]) // _SCALE, int(self.size[1]) // _SCALE)
        return np.asarray(cv2.resize(self.canvas, size, interpolation=cv2.INTER_AREA), np.uint8)

    def _pixels(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, 2) values → (n, 2) places on the canvas; values beyond the axis lie on its end."""
        x = self.left + points[:, 0] / self.x_limit * (self.right - self.left)
        y = self.bottom - np.clip(points[:, 1] / self.limit, 0, 1) * (self.bottom - self.top)
        return np.stack([x, y], 1)

    def _at(self, x: float, y: float) -> tuple[int, int]:
        place = self._pixels(np.array([[x, y]], float))[0].round()
        return int(place[0]), int(place[1])

    def _width(self, text: str, size: float = 1.0) -> int:
        return int(cv2.getTextSize(text, FONT, 0.5 * size * _SCALE, _SCALE)[0][0])

    def _text(
        self,
        text: str,
        at: tuple[int, int],
        anchor: str,
        ink: Color = INK,
        size: float = 1.0,
        weight: int = 1,
    ) -> None:
        start = at[0] - {"left": 0.0, "middle": 0.5, "right": 1.0}[anchor] * self._width(text, size)
        scale = 0.5 * size * _SCALE
        cv2.putText(self.canvas, text, (round(start), at[1]), FONT, scale, ink, weight * _SCALE, cv2.LINE_AA)


def _thinned(points: NDArray[np.float64], most: int = 4000) -> NDArray[np.float64]:
    """At most about `most` points: the lowest and the highest of each run of neighbours, so that peaks stay."""
    run = math.ceil(2 * len(points) / most)
    if run <= 2:
        return points
    starts = np.arange(0, len(points), run)
    x = points[starts, 0]
    low, high = np.minimum.reduceat(points[:, 1], starts), np.maximum.reduceat(points[:, 1], starts)
    return np.stack([np.stack([x, low], 1), np.stack([x, high], 1)], 1).reshape(-1, 2)


def _round_up(value: float) -> float:
    """The next of 1, 1.5, 2, 3, 4, 5, 6, 8, 10 times a power of ten."""
    if not value > 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if step * power >= value * (1 - 1e-9))


def _ticks(limit: float) -> list[float]:
    """About ten round values from 0 to limit."""
    power = 10.0 ** math.floor(math.log10(limit / 10))
    step = next(k * power for k in (1, 2, 2.5, 5, 10) if k * power >= limit / 12)
    return [i * step for i in range(int(limit / step + 1e-9) + 1)]
