"""A drawing of lines, boxes, dots and words that can be written as SVG or as pixels."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from darknet_py.errors import DataError
from darknet_py.files import write_atomically
from darknet_py.view.draw import ENDINGS, FONT, Color, Picture, plain_text, save_picture

INK: Color = (40, 44, 52)
GRID: Color = (226, 229, 234)
_SCALE = 2  # pixels are drawn at twice the size, then averaged
_SUBPIXEL = 4
_LETTER = 0.036  # OpenCV's font scale per unit of text size


class _Box(NamedTuple):
    corners: tuple[float, float, float, float]  # left, top, right, bottom
    ink: Color
    weight: float  # 0: filled


class _Line(NamedTuple):
    ends: tuple[float, float, float, float]
    ink: Color
    weight: float


class _Dots(NamedTuple):
    places: tuple[tuple[float, float], ...]
    ink: Color
    radius: float


class _Words(NamedTuple):
    text: str
    at: tuple[float, float]  # on the base line
    anchor: str  # start, middle or end
    ink: Color
    size: float


class Sketch:
    """width x height units on white; things are drawn in the order they were added."""

    def __init__(self, width: int, height: int):
        self.width, self.height = width, height
        self._things: list[_Box | _Line | _Dots | _Words] = []

    def box(self, left: float, top: float, right: float, bottom: float, ink: Color, weight: float = 0) -> None:
        """Filled, or an outline of `weight`."""
        self._things.append(_Box((left, top, right, bottom), ink, weight))

    def line(self, x0: float, y0: float, x1: float, y1: float, ink: Color = GRID, weight: float = 1) -> None:
        self._things.append(_Line((x0, y0, x1, y1), ink, weight))

    def dots(self, places: Iterable[tuple[float, float]], ink: Color, radius: float) -> None:
        self._things.append(_Dots(tuple(places), ink, radius))

    def words(self, text: str, x: float, y: float, anchor: str = "start", ink: Color = INK, size: float = 13) -> None:
        self._things.append(_Words(text, (x, y), anchor, ink, size))

    def save(self, path: str | Path) -> None:
        """By the ending: .svg, or a picture format. Raises DataError."""
        if Path(path).suffix.lower() == ".svg":
            write_atomically(path, self.svg().encode())
        else:
            save_picture(path, self.picture())

    def svg(self) -> str:
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" '
            f'width="{self.width}" height="{self.height}" font-family="sans-serif">\n'
            '<rect width="100%" height="100%" fill="#fff"/>'
        )
        return "\n".join([head, *map(_as_svg, self._things), "</svg>\n"])

    def picture(self) -> Picture:
        """uint8 (height, width, 3) RGB."""
        canvas: Picture = np.full((self.height * _SCALE, self.width * _SCALE, 3), 255, np.uint8)
        for thing in self._things:
            _paint(canvas, thing)
        return np.asarray(cv2.resize(canvas, (self.width, self.height), interpolation=cv2.INTER_AREA), np.uint8)


def check_ending(path: str | Path) -> None:
    """Raises DataError for a file that `Sketch.save` cannot write, before any work is done for it."""
    if Path(path).suffix.lower() not in (".svg", *ENDINGS):
        raise DataError(f"{path}: expected a picture file ending in .svg, .png or .jpg")


def _as_svg(thing: _Box | _Line | _Dots | _Words) -> str:
    ink = "#{:02x}{:02x}{:02x}".format(*thing.ink)
    if isinstance(thing, _Box):
        left, top, right, bottom = thing.corners
        look = f'fill="none" stroke="{ink}" stroke-width="{thing.weight:g}"' if thing.weight else f'fill="{ink}"'
        return f'<rect x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" height="{bottom - top:.1f}" {look}/>'
    if isinstance(thing, _Line):
        x0, y0, x1, y1 = thing.ends
        place = f'x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}"'
        return f'<line {place} stroke="{ink}" stroke-width="{thing.weight:g}"/>'
    if isinstance(thing, _Dots):
        dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{thing.radius:g}"/>' for x, y in thing.places)
        return f'<g fill="{ink}">{dots}</g>'
    x, y = thing.at
    look = f'font-size="{thing.size:g}" text-anchor="{thing.anchor}" fill="{ink}" stroke="#fff" paint-order="stroke"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {look} stroke-width="3">{escape(thing.text)}</text>'


def _paint(canvas: Picture, thing: _Box | _Line | _Dots | _Words) -> None:
    if isinstance(thing, _Box):
        left, top, right, bottom = (round(value * _SCALE) for value in thing.corners)
        weight = max(round(thing.weight * _SCALE), 1) if thing.weight else cv2.FILLED
        cv2.rectangle(canvas, (left, top), (right, bottom), thing.ink, weight)
    elif isinstance(thing, _Line):
        x0, y0, x1, y1 = (round(value * _SCALE) for value in thing.ends)
        cv2.line(canvas, (x0, y0), (x1, y1), thing.ink, max(round(thing.weight * _SCALE), 1), cv2.LINE_AA)
    elif isinstance(thing, _Dots):
        factor = _SCALE << _SUBPIXEL
        radius = round(thing.radius * factor)
        for x, y in thing.places:
            place = round(x * factor), round(y * factor)
            cv2.circle(canvas, place, radius, thing.ink, cv2.FILLED, cv2.LINE_AA, _SUBPIXEL)
    else:
        text, scale = plain_text(thing.text), thing.size * _LETTER * _SCALE
        wide = cv2.getTextSize(text, FONT, scale, _SCALE)[0][0]
        x = thing.at[0] * _SCALE - {"start": 0.0, "middle": 0.5, "end": 1.0}[thing.anchor] * wide
        start = round(x), round(thing.at[1] * _SCALE)
        cv2.putText(canvas, text, start, FONT, scale, thing.ink, _SCALE, cv2.LINE_AA)
