"""Contact sheets: many small images with captions in one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from darknet_py.data.images import Image
from darknet_py.view.draw import FONT, INK, Color, class_color, is_visible_class, plain_text, rgb

_EMPTY: Color = (214, 217, 222)
MARKED: Color = (255, 30, 30)
_GAP, _LINE = 10, 15
_SCALE = 0.4  # of the font
_MIN_BOX = 9  # pixels; smaller boxes get a frame of that size


class TileBox(NamedTuple):
    """box: center, width and height relative to the image. ink: color of the frame."""

    box: tuple[float, float, float, float]  # cx, cy, w, h
    name: str
    ink: Color


class Tile(NamedTuple):
    """image: uint8 (H, W, C), or None if it cannot be read. lines: caption."""

    image: Image | None
    boxes: Sequence[TileBox]
    lines: Sequence[str]


def class_box(row: Sequence[float], names: Sequence[str]) -> TileBox | None:
    """A label row (class, cx, cy, w, h) in the color of its class; None for classes that are not drawn."""
    number = int(row[0])
    name = names[number] if 0 <= number < len(names) else str(number)
    return TileBox((row[1], row[2], row[3], row[4]), name, class_color(number)) if is_visible_class(name) else None


def contact_sheet(title: str, tiles: Sequence[Tile], columns: int = 4, side: int = 280) -> Image:
    """Draws images with boxes and captions side by side.

    Args:
        title: Title at the top.
        tiles: The images.
        columns: Number of images per row.
        side: Largest width and height of an image in pixels. Images keep their aspect ratio; boxes that reach beyond an
            image are drawn too.

    Returns:
        uint8 (height, width, 3) RGB.
    """
    columns = min(columns, max(len(tiles), 1))
    below = max((len(tile.lines) for tile in tiles), default=0) * _LINE + _GAP
    rows = -(-len(tiles) // columns)
    width, height = columns * (side + _GAP) + _GAP, 40 + rows * (side + below + _GAP)
    sheet: Image = np.full((height, max(width, 420), 3), 255, np.uint8)
    _write(sheet, title, _GAP, 26, sheet.shape[1] - 2 * _GAP, 0.6)
    for number, tile in enumerate(tiles):
        left = _GAP + number % columns * (side + _GAP)
        top = 40 + number // columns * (side + below + _GAP)
        canvas = _draw_tile(tile, side)
        y, x = top + (side - canvas.shape[0]), left + (side - canvas.shape[1]) // 2
        sheet[y : y + canvas.shape[0], x : x + canvas.shape[1]] = canvas
        for line, text in enumerate(tile.lines):
            _write(sheet, text, left, top + side + _LINE * (line + 1), side, _SCALE)
    return sheet


def _draw_tile(tile: Tile, side: int) -> Image:
    if tile.image is None:
        empty: Image = np.full((side * 3 // 4, side, 3), _EMPTY, np.uint8)
        bottom = side * 3 // 4
        for y, other in ((0, bottom), (bottom, 0)):
            cv2.line(empty, (0, y), (side, other), (255, 255, 255), 2, cv2.LINE_AA)
        return empty
    boxes = [box for box in tile.boxes if np.isfinite(box.box).all()]
    # Room around the image for boxes that reach beyond it, up to half its size on each side.
    corners = np.array([(x - w / 2, y - h / 2, x + w / 2, y + h / 2) for x, y, w, h in (box.box for box in boxes)])
    room = np.clip([-corners[:, :2].min(), corners[:, 2:].max() - 1], 0, 0.5).max() if len(boxes) else 0.0
    room = room + 0.03 if room > 0.001 else 0.0
    height, width = tile.image.shape[:2]
    scale = side / max(width, height) / (1 + 2 * room)
    inner = max(round(width * scale), 1), max(round(height * scale), 1)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    small = cv2.resize(rgb(tile.image), inner, interpolation=method)
    border = round(inner[0] * room), round(inner[1] * room)
    canvas: Image = np.full((inner[1] + 2 * border[1], inner[0] + 2 * border[0], 3), _EMPTY, np.uint8)
    canvas[border[1] : border[1] + inner[1], border[0] : border[0] + inner[0]] = small
    for box in boxes:
        _draw_box(canvas, box, inner, border)
    return canvas


def _draw_box(canvas: Image, box: TileBox, inner: tuple[int, int], border: tuple[int, int]) -> None:
    x, y, w, h = box.box
    half = [max(extent * length / 2, _MIN_BOX / 2) for extent, length in zip((w, h), inner, strict=True)]
    center = x * inner[0] + border[0], y * inner[1] + border[1]
    corners = [center[0] - half[0], center[1] - half[1], center[0] + half[0], center[1] + half[1]]
    left, top, right, bottom = (round(min(max(value, -9999), 9999)) for value in corners)
    cv2.rectangle(canvas, (left, top), (right, bottom), (255, 255, 255), 3)
    cv2.rectangle(canvas, (left, top), (right, bottom), box.ink, 1)
    if not box.name:
        return
    text = plain_text(box.name)
    wide, high = cv2.getTextSize(text, FONT, _SCALE, 1)[0]
    x, y = max(left, 0), min(max(top - 2, high + 2), canvas.shape[0] - 2)
    cv2.rectangle(canvas, (x, y - high - 2), (x + wide + 2, y + 2), box.ink, cv2.FILLED)
    ink = (0, 0, 0) if np.dot(box.ink, (0.299, 0.587, 0.114)) > 120 else (255, 255, 255)
    cv2.putText(canvas, text, (x + 1, y), FONT, _SCALE, ink, 1, cv2.LINE_AA)


def _write(sheet: Image, text: str, x: int, y: int, width: int, scale: float) -> None:
    """Writes a text; of one wider than `width` only the start and the end."""
    text = plain_text(text)
    length = len(text)
    shortened = text
    while length > 8 and cv2.getTextSize(shortened, FONT, scale, 1)[0][0] > width:
        length -= 2
        shortened = f"{text[: length // 2]}...{text[-(length - length // 2) :]}"
    cv2.putText(sheet, shortened, (x, y), FONT, scale, INK, 1, cv2.LINE_AA)
