"""Darknet's layout of a data set, which the readers of other formats write.

OUT/JPEGImages, or OUT/SPLIT/JPEGImages   link to the images (a copy where links are not possible)
OUT/labels, or OUT/SPLIT/labels           one label file per image, where Darknet expects it
OUT/SPLIT.txt, OUT/NAME.names, OUT/NAME.data
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from darknet_py.data.datafile import DataFile, write_list
from darknet_py.data.images import load_image
from darknet_py.data.labels import save_labels
from darknet_py.errors import DataError
from darknet_py.files import make_folder

Row = tuple[int, float, float, float, float]  # class, cx, cy, w, h relative to the image


class ConversionResult(NamedTuple):
    """Result of a conversion. problems: one line for each object or image that was left out."""

    data: DataFile
    images: int
    boxes: int
    problems: list[str]


def relative_box(class_id: int, corners: Sequence[float], size: tuple[float, float]) -> Row | None:
    """Converts (x0, y0, x1, y1) in pixels to a label row clipped to the image; None if nothing remains."""
    low, high = np.clip(np.reshape(corners, (2, 2)) / size, 0, 1)
    if not (high > low).all():  # NaN included
        return None
    (x, y), (w, h) = (low + high) / 2, high - low
    return class_id, float(x), float(y), float(w), float(h)


def link_image_folder(source: Path, target: Path) -> None:
    """Links `target` to the folder `source`, or copies it. Raises DataError."""
    if target.exists() and target.samefile(source):
        return
    if target.exists() or target.is_symlink():
        raise DataError(f"{target}: already exists and is not {source}")
    make_folder(target.parent)
    try:
        target.symlink_to(source.absolute(), target_is_directory=True)
    except OSError:
        try:
            shutil.copytree(source, target)
        except OSError as error:
            raise DataError(f"{target}: cannot link or copy {source}: {error.strerror or error}") from None


def write_labels(images: Mapping[str, Sequence[Row]], folder: Path) -> int:
    """Writes a label file per image (path relative to the image folder); returns the number of rows."""
    make_folder(folder)
    for name, rows in images.items():
        path = (folder / name).with_suffix(".txt")
        if path.parent != folder:
            make_folder(path.parent)
        save_labels(path, rows)
    return sum(len(rows) for rows in images.values())


def write_data_file(out: Path, name: str, names: Sequence[str], train: str | None, valid: str | None) -> DataFile:
    """Writes OUT/NAME.names and OUT/NAME.data, whose lists are OUT/TRAIN.txt and OUT/VALID.txt."""
    write_list(out / f"{name}.names", names)
    lines = [f"classes = {len(names)}"]
    for key, split in (("train", train), ("valid", valid)):
        if split is not None:
            lines.append(f"{key} = {(out / f'{split}.txt').absolute()}")
    lines += [f"names = {(out / f'{name}.names').absolute()}", "backup = backup", f"eval = {name}"]
    write_list(out / f"{name}.data", lines)
    return DataFile.read(out / f"{name}.data")


def image_size(image: str | os.PathLike[str]) -> tuple[int, int]:
    """Width and height in pixels; arrays may have any number of channels. Raises DataError."""
    height, width = load_image(image, None).shape[:2]
    return width, height
