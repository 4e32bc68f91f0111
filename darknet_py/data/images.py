"""Images: reading, Darknet's resize and letterbox, and how boxes map back.

An image is a uint8 array (H, W, C), RGB or gray. Resized for a network it is float32 (H, W, C) in 0..1.
"""

from __future__ import annotations

import os
import warnings
from functools import lru_cache
from io import BytesIO
from math import prod
from os import PathLike, fspath
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from darknet_py.counted import counted
from darknet_py.data.image_header import PNG, ImageHeader, image_header, png_chunks_fit
from darknet_py.data.jpeg import read_stb
from darknet_py.errors import CfgWarning, DataError
from darknet_py.untrusted import failed_download, first_line, read_file

Image = NDArray[np.uint8]
Pixels = NDArray[np.float32]

_READ_RGB: int | None = getattr(cv2, "IMREAD_COLOR_RGB", None)  # since OpenCV 4.11; saves a pass over the image
_ALWAYS = ".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".webp", ".npy"
_IN_SOME_BUILDS = ".gif", ".jp2", ".avif"  # of OpenCV
IMAGE_SUFFIXES = *_ALWAYS, *(suffix for suffix in _IN_SOME_BUILDS if cv2.haveImageWriter(suffix))
MAX_PIXELS = 178_956_970  # more is refused before anything is allocated, as by Pillow; see `max_pixels`
MAX_PIXELS_VARIABLE = "DARKNET_PY_MAX_PIXELS"
DARK = "16-bit image with values below 4096 is nearly black in 8 bits; multiply its values by 16 and save it again"
_STRIP = 32  # rows of a resized image that are computed together, so that they stay in the cache
_UNREADABLE = "unsupported or corrupt image file"
_dark_folders: set[str] = set()
_DARK = 16  # the highest value of 12-bit data in the upper 8 of 16 bits is 15


def load_image(path: str | PathLike[str], channels: int | None = 3, stb: bool = False) -> Image:
    """Reads an image: uint8 (H, W, channels). Three channels are RGB; EXIF rotation is applied, as OpenCV does.

    Besides what OpenCV reads: NumPy's .npy files of uint8 (H, W, channels), for any number of channels. channels: None
    accepts any such array, and reads all other images as RGB. stb: JPEGs to the last bit as C Darknet built without
    OpenCV reads them (`jpeg.read_stb`, extra `stb`), EXIF rotation left out.

    Raises DataError, naming the file, when it is missing, unreadable, cut off or has another number of channels.
    """
    name = fspath(path)
    return decode_image(read_file(name, "image"), channels, name, stb)


def decode_image(data: bytes, channels: int | None = 3, name: str = "<image>", stb: bool = False) -> Image:
    """`load_image` for the content of a file."""
    if not data:
        raise DataError(f"{name}: expected an image, got an empty file")
    if data.startswith(b"\x93NUMPY"):
        return _decode_npy(data, channels, name)
    channels = 3 if channels is None else channels
    header = image_header(data)
    if header is None:  # what OpenCV would allocate for it is not known
        raise DataError(f"{name}: {failed_download(data[:1024]) or _UNREADABLE}")
    if header.width * header.height > max_pixels():
        raise DataError(
            f"{name}: expected at most {counted(max_pixels(), 'pixel', ',')}, got {header.width} x {header.height} "
            "(resize or tile it, or raise --max-pixels)"
        )
    complete = data.endswith(b"\xff\xd9") or not data.startswith(b"\xff\xd8")
    if not complete and data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda"):
        # OpenCV would fill the missing part with gray and report nothing to the program.
        raise DataError(f"{name}: the JPEG is cut off (no end marker)")
    if data.startswith(PNG) and not png_chunks_fit(data):
        raise DataError(f"{name}: the PNG is cut off, or damaged")
    if stb and data.startswith(b"\xff\xd8"):
        return read_stb(data, channels, name)
    flag = {1: cv2.IMREAD_GRAYSCALE, 3: _READ_RGB or cv2.IMREAD_COLOR}.get(channels, cv2.IMREAD_UNCHANGED)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    except cv2.error:  # OpenCV refuses sizes above 2^30 pixels with an exception
        image = None
    if image is None:
        raise DataError(f"{name}: {_UNREADABLE}")
    if image.ndim == 2:
        image = image[:, :, None]
    elif flag != _READ_RGB and image.shape[2] in (3, 4):
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB if image.shape[2] == 3 else cv2.COLOR_BGRA2RGBA)
    if image.dtype == np.uint16:  # of four channels and more, which OpenCV does not convert
        image = np.right_shift(image, 8, dtype=np.uint16).astype(np.uint8)
    if image.dtype != np.uint8 or image.shape[2] != channels:
        raise DataError(
            f"{name}: expected {counted(channels, 'channel')} of 8 bits, got {image.shape[2]} of {image.dtype}"
        )
    pixels = np.asarray(image, np.uint8)  # which OpenCV's annotations cannot say
    if is_too_dark(header, pixels):
        _warn_of_dark_images(name)
    return pixels


def max_pixels() -> int:
    """The largest image that is decoded: MAX_PIXELS, or what the environment variable says, which workers inherit."""
    text = os.environ.get(MAX_PIXELS_VARIABLE, "")
    return int(text) if text.isdecimal() else MAX_PIXELS


def is_too_dark(header: ImageHeader | None, image: Image) -> bool:
    """Whether an image of 16 bits holds fewer: 12-bit data is nearly black once its upper 8 bits are taken."""
    return header is not None and header.bits == 16 and 0 < int(image.max()) < _DARK


def _warn_of_dark_images(name: str) -> None:
    """Warns once per process and folder."""
    folder = os.path.dirname(name)
    if folder not in _dark_folders:
        _dark_folders.add(folder)
        warnings.warn(f"{name}: {DARK}", CfgWarning, stacklevel=3)


def _decode_npy(data: bytes, channels: int | None, name: str) -> Image:
    try:
        if _claimed_bytes(data) > len(data):  # before NumPy allocates them
            raise ValueError("cut off")
        image = np.load(BytesIO(data), allow_pickle=False)
    except Exception as error:  # NumPy parses the header as Python; what damaged ones raise is not documented
        raise DataError(f"{name}: cannot read the array: {first_line(error)}") from None
    if image.ndim == 2:
        image = image[:, :, None]
    right = image.ndim == 3 and channels in (None, image.shape[2])
    if not right or image.dtype != np.uint8 or 0 in image.shape:
        raise DataError(
            f"{name}: expected uint8 (height, width, {channels or 'channels'}), got {image.dtype} {image.shape}"
        )
    return np.ascontiguousarray(image)


def _claimed_bytes(data: bytes) -> int:
    """The size of an array by its header."""
    stream = BytesIO(data)
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)
    if any(side < 0 for side in shape):
        raise ValueError(f"shape {shape}")
    return prod(shape) * dtype.itemsize


def resize(image: Image | Pixels, width: int, height: int, out: Pixels | None = None) -> Pixels:
    """Darknet's `resize_image`: bilinear with aligned corners, in float32.

    image: (H, W, C), uint8 (scaled to 0..1) or float32 (taken as it is). out: contiguous memory for the result. Returns
    float32 (height, width, C).
    """
    image = _checked_image(image, width, height)
    channels = image.shape[2]
    unit = np.float32(1 / 255 if image.dtype == np.uint8 else 1)
    rows = None if image.shape[0] == height else _samples(image.shape[0], height, 1, unit)
    # One weight per value, so that NumPy's innermost loop is a row instead of a pixel.
    columns = None if image.shape[1] == width else _samples(image.shape[1], width, channels, 1 if rows else unit)
    resized = np.empty((height, width, channels), np.float32) if out is None else out
    if rows is None:
        if columns is None:
            np.divide(image, np.float32(255 if image.dtype == np.uint8 else 1), out=resized)
            return resized
        return _blend(image.take(columns.low, 1), image.take(columns.high, 1), columns.weights, resized)
    needed = None
    if columns is not None and image.shape[1] > 2 * width:  # most columns of a large photo are never looked at
        needed = np.stack((columns.low, columns.high), 1).ravel()
        columns = columns._replace(low=np.arange(0, 2 * width, 2), high=np.arange(1, 2 * width, 2))
    for start in range(0, height, _STRIP):
        strip = slice(start, start + _STRIP)
        low, high = image.take(rows.low[strip], 0), image.take(rows.high[strip], 0)
        if needed is not None:
            low, high = low.take(needed, 1), high.take(needed, 1)
        blended = _blend(low, high, rows.weights[:, strip, None], resized[strip] if columns is None else None)
        if columns is not None:
            _blend(blended.take(columns.low, 1), blended.take(columns.high, 1), columns.weights, resized[strip])
    return resized


class _Samples(NamedTuple):
    """Between which two samples of an axis each new one lies, so that first and last samples coincide.

    low, high: (N,) their indices. weights: (2, N) float32, theirs.
    """

    low: NDArray[np.intp]
    high: NDArray[np.intp]
    weights: Pixels


@lru_cache(maxsize=16)  # photos of a list mostly have few sizes
def _samples(old: int, size: int, repeats: int, unit: float | np.float32) -> _Samples:
    """repeats: how often each weight stands there. unit: a factor of all weights."""
    scale = np.float32(old - 1) / np.float32(max(size - 1, 1))
    position = np.arange(size, dtype=np.float32) * scale
    position[-1] = old - 1  # exactly the last sample, whatever the rounding
    low = np.minimum(position.astype(np.intp), old - 1)
    weight = (position - low).astype(np.float32).repeat(repeats)
    return _Samples(low, np.minimum(low + 1, old - 1), np.stack((1 - weight, weight)) * np.float32(unit))


def _blend(low: NDArray[Any], high: NDArray[Any], weights: Pixels, out: Pixels | None = None) -> Pixels:
    """low · weights[0] + high · weights[1], of (H, W, C) with all values of a row beside each other.

    low and high are overwritten. out: where the result is written.
    """
    rows = len(low)
    below, above = (side.reshape(rows, -1).astype(np.float32, copy=False) for side in (low, high))
    below *= weights[0]
    above *= weights[1]
    total = below if out is None else out.reshape(rows, -1)
    return np.add(below, above, out=total).reshape(low.shape)


def letterbox(image: Image | Pixels, width: int, height: int, out: Pixels | None = None) -> Pixels:
    """Darknet's `letterbox_image`: the complete image at its own aspect ratio, centered, the rest .5.

    out: memory for the result.
    """
    image = _checked_image(image, width, height)
    new_width, new_height = letterbox_size(image.shape[1], image.shape[0], width, height)
    boxed = np.empty((height, width, image.shape[2]), np.float32) if out is None else out
    boxed.fill(0.5)
    top, left = (height - new_height) // 2, (width - new_width) // 2
    boxed[top : top + new_height, left : left + new_width] = resize(image, new_width, new_height)
    return boxed


def letterbox_size(image_width: int, image_height: int, width: int, height: int) -> tuple[int, int]:
    """Width and height of the image within the letterbox, at least one pixel."""
    if np.float32(width) / np.float32(image_width) < np.float32(height) / np.float32(image_height):
        return width, max(image_height * width // image_width, 1)
    return max(image_width * height // image_height, 1), height


def center_crop(image: Image | Pixels, width: int, height: int) -> Pixels:
    """Input of Darknet's classifiers: the shorter side resized to `width`, then a center crop (`resize_min`).

    Where the crop is higher than the resized image, its border pixels are repeated.
    """
    rows, columns = image.shape[:2]
    size = (width, rows * width // columns) if columns < rows else (columns * width // rows, width)
    resized = resize(image, *size)
    y = int((size[1] - height) / 2) + np.arange(height)
    x = int((size[0] - width) / 2) + np.arange(width)
    return resized.take(y.clip(0, size[1] - 1), 0).take(x.clip(0, size[0] - 1), 1)


def from_letterbox(boxes: Tensor, image_size: tuple[int, int], net_size: tuple[int, int]) -> Tensor:
    """Boxes of a letterboxed input → boxes of the image (Darknet's `correct_yolo_boxes`).

    boxes: (…, 4) center x, center y, width, height relative to the network input; the result is relative to the
    image. Sizes are (width, height) in pixels. A stretched input needs no mapping.
    """
    scale, offset = _letterbox_map(image_size, net_size)
    return torch.cat([(boxes[..., :2] - boxes.new_tensor(offset)), boxes[..., 2:4]], -1) / boxes.new_tensor(scale * 2)


def to_letterbox(boxes: Tensor, image_size: tuple[int, int], net_size: tuple[int, int]) -> Tensor:
    """The inverse of `from_letterbox`: boxes relative to the image → relative to the letterboxed input."""
    scale, offset = _letterbox_map(image_size, net_size)
    scaled = boxes[..., :4] * boxes.new_tensor(scale * 2)
    return torch.cat([scaled[..., :2] + boxes.new_tensor(offset), scaled[..., 2:]], -1)


def _letterbox_map(image_size: tuple[int, int], net_size: tuple[int, int]) -> tuple[list[float], list[float]]:
    inner = letterbox_size(*image_size, *net_size)
    scale = [part / complete for part, complete in zip(inner, net_size, strict=True)]
    offset = [(complete - part) / 2 / complete for part, complete in zip(inner, net_size, strict=True)]
    return scale, offset


def _checked_image(image: Image | Pixels, width: int, height: int) -> Image | Pixels:
    if image.ndim == 2:
        image = image[:, :, None]
    if image.ndim != 3 or 0 in image.shape:
        raise DataError(f"expected an image (height, width, channels), got shape {image.shape}")
    if image.dtype not in (np.uint8, np.float32):
        raise DataError(f"expected an image of uint8 or float32, got {image.dtype}")
    if width < 1 or height < 1:
        raise DataError(f"expected a size of at least 1 x 1, got {width} x {height}")
    return image
