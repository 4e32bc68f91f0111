"""The built-in classification set: small pictures with one shape each, drawn by `drawing` on first use.

Of CIFAR's size, 32 x 32 pixels. The shape is a picture's class; its color, size and background say nothing about it.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from darknet_py.data.builtin import drawing
from darknet_py.data.builtin import store as builtin
from darknet_py.data.datafile import DataFile, write_list
from darknet_py.data.images import Image
from darknet_py.errors import DataError

NAME = "shape-classes"
NAMES = sorted(drawing.NAMES)  # by alphabet, as a folder of folders is read
SIZE = 32
TRAIN, VALID = 3000, 600
_VERSION = "1"
_BARS = 0.3  # share of the pictures with a line across
_CONTRAST = 24.0


def ensure_shape_classes(
    folder: str | os.PathLike[str] | None = None, *, train: int = TRAIN, valid: int = VALID
) -> DataFile:
    """Generates the set in `folder` unless it is there already, and says where it is.

    It holds train/CLASS/*.png, valid/CLASS/*.png and Darknet's lists of them, as many pictures of each class.
    folder: by default data/shape-classes of a checkout, else a folder in the user's cache. It appears complete or not
    at all, however many processes ask at once. Raises DataError where it cannot be written.
    """
    folder = Path(folder).absolute() if folder is not None else builtin.home(NAME)
    counts = {"train": train, "valid": valid}
    data = DataFile(
        path=folder,
        classes=len(NAMES),
        train=folder / "train.txt",
        valid=folder / "valid.txt",
        labels=folder / f"{NAME}.labels",
    )
    try:
        builtin.make(folder, f"{_VERSION} {train} {valid}\n", partial(_draw, counts=counts))
        for split, count in counts.items():
            builtin.refresh(folder / f"{split}.txt", [str(folder / _file(split, number)) for number in range(count)])
    except OSError as error:
        raise DataError(f"{folder}: cannot write the built-in data: {error.strerror or error}") from None
    return data


def draw_example(split: str, number: int) -> tuple[int, Image]:
    """Class and picture `number`, uint8 (32, 32, 3) RGB, of the split "train" or "valid": a pure function."""
    kind = number % len(NAMES)
    dice = drawing.Rng(2021, ("train", "valid").index(split), number)
    canvas = drawing.background(dice, SIZE, SIZE)
    radius = dice.number(7, 14)
    margin = radius * 0.9
    x, y = dice.number(margin, SIZE - margin), dice.number(margin, SIZE - margin)
    which = drawing.NAMES.index(NAMES[kind])
    drawing.blend(canvas, drawing.shape(dice, canvas, which, radius, x, y, own_color=0, contrast=_CONTRAST))
    if dice.number() < _BARS:
        drawing.blend(canvas, drawing.bar(dice, SIZE, SIZE, 1))
    canvas += dice.grain(canvas.shape)
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
