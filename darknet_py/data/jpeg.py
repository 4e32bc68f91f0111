"""JPEG files as C Darknet reads them without OpenCV: by stb_image, to the last bit.

OpenCV's libjpeg rounds a little differently (a gray level in one pixel of twenty), which moves confidences in the
second decimal. libstb (the extra `stb`) compiles the stb_image.h that C Darknet reads images with.
"""

from __future__ import annotations

import re

import cv2
import numpy as np
from numpy.typing import NDArray

from darknet_py.errors import DataError, MissingExtra

_MAX_PIXELS = 1 << 28  # more are refused before anything is allocated
_MAX_DIFFERENCE = 32  # gray levels; between the two decoders it is at most 6 for an intact file
_FRAME = re.compile(rb"\xff[\xc0-\xc2]..\x08....(.)(.)..(.?)..(.?)", re.DOTALL)


def read_stb(data: bytes, channels: int = 3, name: str = "<image>") -> NDArray[np.uint8]:
    """Decodes a JPEG file's content by stb_image. EXIF rotation is not applied.

    Args:
        data: The content of the file.
        channels: 1 (gray) or 3 (RGB).
        name: The file's name, for messages.

    Returns:
        uint8 (H, W, channels).

    Raises:
        DataError: stb_image cannot read the file, for example for arithmetic coding or 12 bits, or it is damaged.
        MissingExtra: libstb is not installed.
    """
    try:
        import libstb
    except ImportError:
        raise MissingExtra("libstb", "stb", "reading JPEGs as stb_image does (--stb)") from None
    if channels not in (1, 3):
        raise DataError(f"{name}: expected 1 or 3 channels for a JPEG, got {channels}")
    if not data.startswith(b"\xff\xd8"):
        raise DataError(f"{name}: cannot read this JPEG: it has no start marker")
    try:
        image = libstb.Image.open(data, channels=channels, max_bytes=_MAX_PIXELS * channels)
    except libstb.Error as error:
        raise DataError(f"{name}: cannot read this JPEG: {error}") from None
    pixels: NDArray[np.uint8] = image.numpy()
    if _is_damaged(data, pixels):
        raise DataError(f"{name}: cannot read this JPEG: it is damaged")
    return pixels


def _is_damaged(data: bytes, pixels: NDArray[np.uint8]) -> bool:
    """Whether libjpeg sees another image: where data is missing, stb_image returns memory as it finds it."""
    frame = _FRAME.search(data)
    if frame and (frame[1] == b"\4" or frame[2] + frame[3] + frame[4] == b"RGB"):
        return False  # OpenCV takes these colors for others
    flag = cv2.IMREAD_GRAYSCALE if pixels.shape[2] == 1 else cv2.IMREAD_COLOR
    other = cv2.imdecode(np.frombuffer(data, np.uint8), flag | cv2.IMREAD_IGNORE_ORIENTATION)
    if other is None or other.shape[:2] != pixels.shape[:2]:
        return True
    other = other[:, :, None] if other.ndim == 2 else other[:, :, ::-1]
    return int(cv2.absdiff(np.ascontiguousarray(other), pixels).max()) > _MAX_DIFFERENCE
