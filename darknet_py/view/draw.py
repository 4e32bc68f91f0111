"""Draws boxes and labels on images; writes images to files."""

from __future__ import annotations

import colorsys
import math
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import repeat
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from darknet_py.data.images import Image
from darknet_py.errors import DataError
from darknet_py.files import write_atomically

Color = tuple[int, int, int]

INK: Color = (40, 44, 52)  # text and frames
GRID: Color = (226, 229, 234)

FONT = cv2.FONT_HERSHEY_SIMPLEX
_UTF8 = int(cv2.__version__.partition(".")[0]) >= 5  # the fonts of older versions have only ASCII
ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")


class Drawable(Protocol):
    """A detection that can be drawn, such as `darknet_py.inference.detections.Detection`."""

    @property
    def class_id(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def confidence(self) -> float: ...
    @property
    def box(self) -> tuple[float, float, float, float]: ...


def class_color(class_id: int) -> Color:
    """RGB color of a class: the same in every image; consecutive classes differ clearly (hue by the golden ratio)."""
    red, green, blue = colorsys.hsv_to_rgb((0.02 + class_id * 0.618034) % 1, 0.85 - class_id % 2 * 0.2, 0.95)
    return round(red * 255), round(green * 255), round(blue * 255)


def draw(image: Image, detections: Iterable[Drawable], track_ids: Sequence[int] = ()) -> Image:
    """Draws a box and a label per detection; line width and font size grow with the image.

    Args:
        image: uint8 (H, W, 3) RGB, or (H, W, 1) or (H, W) gray; for other numbers of channels see `rgb`.
        detections: Boxes as (cx, cy, w, h) relative to the image; they are clipped to it. Boxes outside the image or
            with non-finite values are skipped, and so are classes that are not drawn (`is_visible_class`). The most
            confident ones are drawn last.
        track_ids: A number per detection, which is drawn before its name; 0 is left out. Empty: no numbers.

    Returns:
        A copy of the image, uint8 (H, W, 3) RGB.

    Raises:
        DataError: The image is not a uint8 array of two or three dimensions.
    """
    canvas = rgb(image)
    draw_on(canvas, detections, track_ids)
    return canvas


def draw_on(canvas: Image, detections: Iterable[Drawable], track_ids: Sequence[int] = ()) -> None:
    """As `draw`, on the image itself: uint8 (H, W, 3) RGB, contiguous."""
    height, width = canvas.shape[:2]
    line = max(1, round(min(height, width) / 250))
    by_confidence = sorted(zip(detections, track_ids or repeat(0), strict=False), key=lambda pair: pair[0].confidence)
    visible = [
        (detection, track_id, edges)
        for detection, track_id in by_confidence
        if is_visible_class(detection.name) and (edges := _edges(detection.box, width, height)) is not None
    ]
    for detection, track_id, edges in visible:
        cv2.rectangle(canvas, edges[:2], edges[2:], class_color(track_id or detection.class_id), line)
    for detection, track_id, edges in visible:
        text = f"{f'#{track_id} ' if track_id else ''}{_printable(detection)} {detection.confidence:.2f}"
        _label(canvas, text, edges, line, class_color(detection.class_id))


def save_image(path: str | Path, image: Image) -> None:
    """Writes an image atomically, in the format that the file extension names.

    It is not synced: that takes longer than encoding it, and whoever made it can make it again.

    Args:
        path: The file, with one of `ENDINGS`.
        image: uint8 (H, W, 3) RGB or (H, W) gray.

    Raises:
        DataError: An unknown extension, an array that is not an image, or a path that cannot be written.
    """
    ending = Path(path).suffix.lower()
    if ending not in ENDINGS:
        raise DataError(f"{path}: expected an image file ending in {', '.join(ENDINGS)}, got {ending or 'no ending'}")
    try:
        done, data = cv2.imencode(ending, cv2.cvtColor(_three_channels(image), cv2.COLOR_RGB2BGR))
    except cv2.error:  # larger than the format allows
        done = False
    if not done:
        raise DataError(f"{path}: cannot encode this image as {ending}")
    write_atomically(path, data.tobytes(), sync=False)


def rgb(image: Image) -> Image:
    """Converts an image to three channels.

    Args:
        image: uint8 (H, W) or (H, W, C).

    Returns:
        A contiguous copy, uint8 (H, W, 3): the first three channels, or the first channel three times if C < 3.

    Raises:
        DataError: Another type or shape, or no pixels.
    """
    return np.array(_three_channels(image), np.uint8, order="C")


def _three_channels(image: Image) -> Image:
    """As `rgb`, but where the image has three channels it is no copy."""
    if image.dtype != np.uint8 or image.ndim not in (2, 3):
        raise DataError(f"expected a uint8 image of shape (height, width, channels), got {image.dtype} {image.shape}")
    if not image.size:
        raise DataError(f"expected an image of at least one pixel, got {image.shape}")
    image = image.reshape(*image.shape[:2], -1)
    return image[:, :, :3] if image.shape[2] >= 3 else np.repeat(image[:, :, :1], 3, 2)


def _edges(box: tuple[float, float, float, float], width: int, height: int) -> tuple[int, int, int, int] | None:
    """Left, top, right and bottom pixel within the image, or None if the box is outside."""
    cx, cy, w, h = (float(value) for value in box)
    left, right = (cx - w / 2) * width, (cx + w / 2) * width
    top, bottom = (cy - h / 2) * height, (cy + h / 2) * height
    if not all(map(math.isfinite, (left, top, right, bottom))):
        return None
    if right <= 0 or bottom <= 0 or left >= width or top >= height:
        return None
    ends = width - 1, height - 1, width - 1, height - 1
    left, top, right, bottom = (
        min(max(round(edge), 0), end) for edge, end in zip((left, top, right, bottom), ends, strict=True)
    )
    return left, top, right, bottom


def _label(canvas: Image, text: str, edges: tuple[int, int, int, int], line: int, fill: Color) -> None:
    """Draws a filled strip with the text above the box, or inside the box if there is no room above."""
    height, width = canvas.shape[:2]
    size = min(max(min(height, width) * 0.033, 9.0), 64.0)  # height of a letter in pixels
    scale = size / cv2.getTextSize("H", FONT, 1, 1)[0][1]
    weight = max(1, round(size / 14))
    margin = max(2, round(size / 4))
    (text_width, text_height), below = cv2.getTextSize(text, FONT, scale, weight)
    if text_width + 2 * margin > width:  # a small image: shrink as far as the text is legible
        scale *= max((width - 2 * margin) / text_width, 7 / size)
        (text_width, text_height), below = cv2.getTextSize(text, FONT, scale, weight)
    strip = text_height + below + margin
    start = max(0, min(edges[0] - line // 2, width - text_width - 2 * margin))
    above = edges[1] - line // 2 - strip
    top = above if above >= 0 else max(min(edges[1] + line, height - strip), 0)
    cv2.rectangle(canvas, (start, top), (start + text_width + 2 * margin, top + strip - 1), fill, cv2.FILLED)
    brightness = 0.299 * fill[0] + 0.587 * fill[1] + 0.114 * fill[2]
    ink = (0, 0, 0) if brightness > 120 else (255, 255, 255)
    at = (start + margin, top + margin // 2 + text_height)
    cv2.putText(canvas, text, at, FONT, scale, ink, weight, cv2.LINE_AA)


def is_visible_class(name: str) -> bool:
    """Whether Darknet lists and draws objects of this class: not if its name starts with dont_show."""
    return not name.startswith("dont_show")


def plain_text(text: str) -> str:
    """A text in the letters of OpenCV's font; if that is ASCII only, without accents and with `?` for other letters."""
    if _UTF8:
        return text
    letters = (unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode() or "?" for letter in text)
    return "".join(letters)


def _printable(detection: Drawable) -> str:
    """The class name; with an ASCII font without accents, or the class number if few letters remain."""
    if _UTF8:
        return detection.name or f"class {detection.class_id}"
    plain = unicodedata.normalize("NFKD", detection.name).encode("ascii", "ignore").decode()
    return plain if 2 * len(plain) > len(detection.name) else f"class {detection.class_id}"
