"""Boxes and labels on an image, and pictures to files."""

from __future__ import annotations

import colorsys
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from darknet_py.errors import DataError
from darknet_py.files import write_atomically

Picture = NDArray[np.uint8]
Color = tuple[int, int, int]

INK: Color = (40, 44, 52)  # text and frames
GRID: Color = (226, 229, 234)

FONT = cv2.FONT_HERSHEY_SIMPLEX
_UTF8 = int(cv2.__version__.partition(".")[0]) >= 5  # before, OpenCV's fonts have ASCII only
ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")


class Drawable(Protocol):
    """What `model.predict.Detection` has."""

    @property
    def class_id(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def confidence(self) -> float: ...
    @property
    def box(self) -> tuple[float, float, float, float]: ...


def color(class_id: int) -> Color:
    """RGB of a class; the same in every picture, neighbors far apart (hue by the golden ratio)."""
    red, green, blue = colorsys.hsv_to_rgb((0.02 + class_id * 0.618034) % 1, 0.85 - class_id % 2 * 0.2, 0.95)
    return round(red * 255), round(green * 255), round(blue * 255)


def draw(image: Picture, detections: Iterable[Drawable]) -> Picture:
    """A copy of the image with a box and a label per detection; lines and letters grow with the image.

    image: uint8 (H, W, 3) RGB, (H, W, 1) or (H, W) gray; of other channels see `rgb`. detections: boxes relative to the
    image (cx, cy, w, h), cut at its edges; boxes outside or with a value that is not finite are left out, and so are
    classes that are not to be shown (`shown`). The surest are drawn last.
    Returns uint8 (H, W, 3). Raises DataError on anything but such an image.
    """
    picture = rgb(image)
    height, width = picture.shape[:2]
    line = max(1, round(min(height, width) / 250))
    placed = [
        (found, _edges(found.box, width, height))
        for found in sorted(detections, key=lambda found: found.confidence)
        if is_visible_class(found.name)
    ]
    for found, edges in placed:
        if edges is not None:
            cv2.rectangle(picture, edges[:2], edges[2:], color(found.class_id), line)
    for found, edges in placed:
        if edges is not None:
            _label(picture, f"{_printable(found)} {found.confidence:.2f}", edges, line, color(found.class_id))
    return picture


def save_picture(path: str | Path, image: Picture) -> None:
    """Writes an RGB (or gray) uint8 picture in one step, in the format of the path's ending.

    Raises DataError: an unknown ending, something that is not a picture, or a place that cannot be written.
    """
    ending = Path(path).suffix.lower()
    if ending not in ENDINGS:
        raise DataError(f"{path}: expected a picture file ending in {', '.join(ENDINGS)}, got {ending or 'no ending'}")
    try:
        done, data = cv2.imencode(ending, cv2.cvtColor(rgb(image), cv2.COLOR_RGB2BGR))
    except cv2.error:  # larger than the format allows
        done = False
    if not done:
        raise DataError(f"{path}: this picture cannot be encoded as {ending}")
    write_atomically(path, data.tobytes())


def rgb(image: Picture) -> Picture:
    """A contiguous copy with three channels: the first three, or the first alone as gray. Raises DataError."""
    if image.dtype != np.uint8 or image.ndim not in (2, 3):
        raise DataError(f"expected a uint8 picture of (height, width, channels), got {image.dtype} {image.shape}")
    if not image.size:
        raise DataError(f"expected a picture of at least one pixel, got {image.shape}")
    image = image.reshape(*image.shape[:2], -1)
    return np.array(image[:, :, :3] if image.shape[2] >= 3 else np.repeat(image[:, :, :1], 3, 2), np.uint8, order="C")


def _edges(box: tuple[float, float, float, float], width: int, height: int) -> tuple[int, int, int, int] | None:
    """Left, top, right, bottom pixel inside the image, or None where nothing of the box is in it."""
    cx, cy, w, h = (float(value) for value in box)
    corners = np.array([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]) * [width, height, width, height]
    if not np.isfinite(corners).all():
        return None
    left, top, right, bottom = corners
    if right <= 0 or bottom <= 0 or left >= width or top >= height:
        return None
    cut = np.clip(np.round(corners), 0, [width - 1, height - 1] * 2).astype(int)
    return int(cut[0]), int(cut[1]), int(cut[2]), int(cut[3])


def _label(picture: Picture, text: str, edges: tuple[int, int, int, int], line: int, fill: Color) -> None:
    """A filled strip with the text above the box; inside it where there is no room above."""
    height, width = picture.shape[:2]
    size = float(np.clip(min(height, width) * 0.033, 9, 64))  # height of a letter in pixels
    scale = size / cv2.getTextSize("H", FONT, 1, 1)[0][1]
    weight = max(1, round(size / 14))
    margin = max(2, round(size / 4))
    (text_width, text_height), below = cv2.getTextSize(text, FONT, scale, weight)
    if text_width + 2 * margin > width:  # a small picture: shrink as far as one can read it
        scale *= max((width - 2 * margin) / text_width, 7 / size)
        (text_width, text_height), below = cv2.getTextSize(text, FONT, scale, weight)
    strip = text_height + below + margin
    start = max(0, min(edges[0] - line // 2, width - text_width - 2 * margin))
    above = edges[1] - line // 2 - strip
    top = above if above >= 0 else max(min(edges[1] + line, height - strip), 0)
    cv2.rectangle(picture, (start, top), (start + text_width + 2 * margin, top + strip - 1), fill, cv2.FILLED)
    ink = (0, 0, 0) if np.dot(fill, (0.299, 0.587, 0.114)) > 120 else (255, 255, 255)
    at = (start + margin, top + margin // 2 + text_height)
    cv2.putText(picture, text, at, FONT, scale, ink, weight, cv2.LINE_AA)


def is_visible_class(name: str) -> bool:
    """Whether Darknet names and draws objects of this class: not where its name starts with dont_show."""
    return not name.startswith("dont_show")


def plain_text(text: str) -> str:
    """A text as OpenCV's font can write it: where that has ASCII only, letters lose their accents, others become ?."""
    if _UTF8:
        return text
    letters = (unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode() or "?" for letter in text)
    return "".join(letters)


def _printable(detection: Drawable) -> str:
    """The name; where the font has ASCII only, without accents, and the class number if too little is left."""
    if _UTF8:
        return detection.name or f"class {detection.class_id}"
    plain = unicodedata.normalize("NFKD", detection.name).encode("ascii", "ignore").decode()
    return plain if 2 * len(plain) > len(detection.name) else f"class {detection.class_id}"
