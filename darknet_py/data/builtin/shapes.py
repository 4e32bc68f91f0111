"""The built-in detection data: six shapes on textured backgrounds, drawn on first use.

The pixels are the same on every machine; only the JPEG encoder is OpenCV's.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from darknet_py.data.builtin import store
from darknet_py.data.builtin.drawing import NAMES, Field, Rng, Stroke, background, bar, blend, shape
from darknet_py.data.datafile import DataFile, write_list
from darknet_py.data.images import Image
from darknet_py.data.labels import save_labels
from darknet_py.errors import DataError
from darknet_py.shipped import find, is_shipped

TRAIN, VALID = 600, 120
# Most objects have the color of their class, so that a network learns something within minutes. The others, and a high
# mAP, require the shape.
_OWN_COLOR = 0.9
_VERSION = "2"
_SIZES = ((320, 240), (240, 320), (288, 288))
_NEGATIVES = 0.06
_MIN_VISIBLE = 0.5  # fraction of an object that is never covered
_QUALITY = 92


class ShapeImage(NamedTuple):
    """image: uint8 (H, W, 3) RGB. rows: labels (class, cx, cy, w, h), relative to the image."""

    image: Image
    rows: list[tuple[float, ...]]


def open_darknet_data(path: str | os.PathLike[str] | None = None) -> DataFile:
    """Reads a `.data` file.

    Args:
        path: The file; None or our own `shapes.data`: the built-in data, which is generated if missing.

    Returns:
        The data set.

    Raises:
        DataError: The file cannot be read, or the built-in data cannot be written.
    """
    if path is None:
        return ensure_shapes()
    path = find(path, ".data file")
    if store.is_builtin(path, "shapes"):
        if is_shipped(path):  # its folder may be that of an installed package
            return ensure_shapes()
        ensure_shapes(path.parent / "shapes")
    return DataFile.read(path)


def ensure_shapes(
    folder: str | os.PathLike[str] | None = None,
    *,
    train: int = TRAIN,
    valid: int = VALID,
    progress: Callable[[int, int], None] | None = None,
) -> DataFile:
    """Generates the built-in detection data if missing.

    The folder is complete or absent, also if the process is killed or if several processes run at the same time.

    Args:
        folder: Default: data/shapes of a checkout, or a folder in the user's cache.
        train: Number of training images.
        valid: Number of validation images.
        progress: Called with the number of images done and the total.

    Returns:
        The data set.

    Raises:
        DataError: The folder cannot be written.
    """
    folder = Path(folder).absolute() if folder is not None else store.dataset_folder("shapes")
    counts = {"train": train, "valid": valid}
    data = DataFile(
        path=folder / "shapes.data",
        classes=len(NAMES),
        train=folder / "train.txt",
        valid=folder / "valid.txt",
        names=folder / "shapes.names",
        eval="coco",
    )
    try:
        store.create_folder(folder, f"{_VERSION} {train} {valid}\n", partial(_draw, counts=counts, progress=progress))
        for split, count in counts.items():
            store.update_list(folder / f"{split}.txt", [str(folder / split / f"{k:05}.jpg") for k in range(count)])
        if not data.path.is_file():
            lines = [f"{key} = {folder / name}" for key, name in (("train", "train.txt"), ("valid", "valid.txt"))]
            write_list(data.path, [f"classes = {len(NAMES)}", *lines, f"names = {data.names}", "eval = coco"])
    except OSError as error:
        raise DataError(f"{folder}: cannot write the built-in data: {error.strerror or error}") from None
    return data


def draw_image(split: str, number: int) -> ShapeImage:
    """Draws image `number` of the split "train" or "valid"; the same arguments give the same image."""
    rng = Rng(2020, ("train", "valid").index(split), number)
    width, height = rng.pick(_SIZES)
    canvas = background(rng, width, height)
    owner = np.full((height, width), -1)  # index of the object that a pixel shows
    areas: list[int] = []
    rows: list[tuple[float, ...]] = []
    objects = 0 if rng.number() < _NEGATIVES else 1 + rng.below(6)
    hard = rng.number() < 0.15  # low contrast and more occlusion
    for _ in range(objects):
        kind, stroke = _object(rng, canvas, hard)
        solid = stroke.cover >= 0.5
        window = owner[stroke.top : stroke.top + solid.shape[0], stroke.left : stroke.left + solid.shape[1]]
        if not solid.any() or _hides(window, solid, owner, areas):
            continue
        blend(canvas, stroke)
        window[solid] = len(areas)
        areas.append(int(np.count_nonzero(solid)))
        rows.append((kind, *_box(stroke, solid, width, height)))
    for _ in range(rng.below(4) if hard else rng.below(2)):
        line = bar(rng, width, height)
        if not _hides(owner, line.cover >= 0.5, owner, areas):
            blend(canvas, line)
            owner[line.cover >= 0.5] = -1
    canvas += rng.grain(canvas.shape)
    return ShapeImage(np.clip(canvas, 0, 255, out=canvas).astype(np.uint8), rows)


def _object(rng: Rng, canvas: Field, hard: bool) -> tuple[int, Stroke]:
    """Draws one shape: mostly of medium size, some tiny, some up to half of the image."""
    height, width = canvas.shape[:2]
    kind = rng.below(len(NAMES))
    size = rng.number()
    if size < 0.1:
        radius = rng.number(5, 12)
    elif size < 0.85:
        radius = rng.number(18, 52)
    else:
        radius = rng.number(52, 76)
    margin = radius * 0.6  # up to a fifth of it may be outside
    x, y = rng.number(margin, width - margin), rng.number(margin, height - margin)
    own_color, contrast = (0.0, 28.0) if hard else (_OWN_COLOR, 40.0)
    return kind, shape(rng, canvas, kind, radius, x, y, own_color=own_color, contrast=contrast)


def _hides(window: NDArray[np.int_], solid: NDArray[np.bool_], owner: NDArray[np.int_], areas: list[int]) -> bool:
    """Whether drawing over `solid` would cover too much of an earlier object."""
    for number in set(window[solid].tolist()) - {-1}:
        lost = np.count_nonzero(window[solid] == number)
        if np.count_nonzero(owner == number) - lost < areas[number] * _MIN_VISIBLE:
            return True
    return False


def _box(stroke: Stroke, solid: NDArray[np.bool_], width: int, height: int) -> tuple[float, ...]:
    rows, columns = np.flatnonzero(solid.any(1)), np.flatnonzero(solid.any(0))
    top, bottom = stroke.top + int(rows[0]), stroke.top + int(rows[-1]) + 1
    left, right = stroke.left + int(columns[0]), stroke.left + int(columns[-1]) + 1
    return (left + right) / 2 / width, (top + bottom) / 2 / height, (right - left) / width, (bottom - top) / height


def _draw(folder: Path, counts: dict[str, int], progress: Callable[[int, int], None] | None) -> None:
    done, total = 0, sum(counts.values())
    for split, count in counts.items():
        (folder / split).mkdir()
        for number in range(count):
            image, rows = draw_image(split, number)
            _, data = cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
            (folder / split / f"{number:05}.jpg").write_bytes(data.tobytes())
            save_labels(folder / split / f"{number:05}.txt", rows)
            done += 1
            if progress:
                progress(done, total)
    write_list(folder / "shapes.names", NAMES)
