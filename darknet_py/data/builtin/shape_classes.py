"""The built-in classification data: images of one shape each, drawn on first use.

They have 32 x 32 pixels, as in CIFAR. The shape is the class; color, size and background are independent of it.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from darknet_py.data.builtin import drawing, store
from darknet_py.data.datafile import DataFile, write_list
from darknet_py.data.images import Image
from darknet_py.errors import DataError

NAME = "shape-classes"
NAMES = sorted(drawing.NAMES)  # sorted, as the folders of classes are read
SIZE = 32
TRAIN, VALID = 3000, 600
_VERSION = "1"
_BARS = 0.3  # fraction of the images with a line
_CONTRAST = 24.0


def ensure_shape_classes(
    folder: str | os.PathLike[str] | None = None, *, train: int = TRAIN, valid: int = VALID
) -> DataFile:
    """Generates the built-in classification data if missing.

    The folder contains train/CLASS/*.png, valid/CLASS/*.png and Darknet's lists of them, with the same number of images
    per class. It is complete or absent, also if several processes run at the same time.

    Args:
        folder: Default: data/shape-classes of a checkout, or a folder in the user's cache.
        train: Number of training images.
        valid: Number of validation images.

    Returns:
        The data set.

    Raises:
        DataError: The folder cannot be written.
    """
    folder = Path(folder).absolute() if folder is not None else store.dataset_folder(NAME)
    counts = {"train": train, "valid": valid}
    data = DataFile(
        path=folder,
        classes=len(NAMES),
        train=folder / "train.txt",
        valid=folder / "valid.txt",
        labels=folder / f"{NAME}.labels",
    )
    try:
        store.create_folder(folder, f"{_VERSION} {train} {valid}\n", partial(_draw, counts=counts))
        for split, count in counts.items():
            store.update_list(folder / f"{split}.txt", [str(folder / _file(split, number)) for number in range(count)])
    except OSError as error:
        raise DataError(f"{folder}: cannot write the built-in data: {error.strerror or error}") from None
    return data


def draw_example(split: str, number: int) -> tuple[int, Image]:
    """Class and image `number` of the split "train" or "valid", uint8 (32, 32, 3) RGB; deterministic."""
    kind = number % len(NAMES)
    rng = drawing.Rng(2021, ("train", "valid").index(split), number)
    canvas = drawing.background(rng, SIZE, SIZE)
    radius = rng.number(7, 14)
    margin = radius * 0.9
    x, y = rng.number(margin, SIZE - margin), rng.number(margin, SIZE - margin)
    which = drawing.NAMES.index(NAMES[kind])
    drawing.blend(canvas, drawing.shape(rng, canvas, which, radius, x, y, own_color=0, contrast=_CONTRAST))
    if rng.number() < _BARS:
        drawing.blend(canvas, drawing.bar(rng, SIZE, SIZE, 1))
    canvas += rng.grain(canvas.shape)
    return kind, np.clip(canvas, 0, 255, out=canvas).astype(np.uint8)


def _file(split: str, number: int) -> Path:
    return Path(split, NAMES[number % len(NAMES)], f"{number:05}.png")


def _draw(folder: Path, counts: dict[str, int]) -> None:
    for split, count in counts.items():
        for name in NAMES:
            (folder / split / name).mkdir(parents=True)
        for number in range(count):
            _, data = cv2.imencode(".png", draw_example(split, number)[1][:, :, ::-1])
            (folder / _file(split, number)).write_bytes(data.tobytes())
    write_list(folder / f"{NAME}.labels", [f"/{name}/" for name in NAMES])
