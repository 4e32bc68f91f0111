"""Darknet's layout of a data set, which the readers of other formats write.

OUT/JPEGImages, or OUT/SPLIT/JPEGImages   link to the images (a copy where links are not possible)
OUT/labels, or OUT/SPLIT/labels           one label file per image, where Darknet expects it
OUT/SPLIT.txt, OUT/NAME.names, OUT/NAME.data
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from darknet_py.data.datafile import DataFile, write_list
from darknet_py.data.image_header import image_file_header
from darknet_py.data.images import load_image
from darknet_py.data.labels import save_labels
from darknet_py.errors import DataError
from darknet_py.files import make_folder
from darknet_py.untrusted import clean_names

Row = tuple[int, float, float, float, float]  # class, cx, cy, w, h relative to the image


class ConversionResult(NamedTuple):
    """Result of a conversion.

    problems: one line for each object or image that was left out, and a `WrongSize` for each image whose size is not
    that of its annotation; its boxes are taken relative to the size in the annotation.
    """

    data: DataFile
    images: int
    boxes: int
    problems: list[str]

    @property
    def left_out(self) -> list[str]:
        return clean_names(line for line in self.problems if not isinstance(line, WrongSize))

    @property
    def wrong_sizes(self) -> list[str]:
        return clean_names(line for line in self.problems if isinstance(line, WrongSize))


class WrongSize(str):
    """A line about an annotation that gives another size than that of its image."""


class AnnotatedImage:
    """An image and the size that its annotation gives, in whose pixels the boxes are.

    Tools that ignore EXIF annotate the stored image. Where its size tells so (orientation 5 to 8), boxes are turned
    with it, as images are read upright.

    Attributes:
        where: The annotation, for messages.
        wrong_size: A line where the annotation has another size than the image, else nothing.
    """

    def __init__(self, path: str | os.PathLike[str], size: tuple[float, float] | None, where: str):
        self.where = where
        header = image_file_header(path)
        upright = header.upright if header else None if size else image_size(path)
        self.size = size or upright or (0.0, 0.0)
        self.orientation = 1
        self.wrong_size: list[str] = []
        if header and self.size != header.upright:
            if self.size == (header.width, header.height):
                self.orientation = header.orientation
            else:
                width, height = self.size
                expected = f"{header.upright[0]} x {header.upright[1]}"
                line = f"{where}: expected the size of {path}, {expected}, got {width:g} x {height:g}"
                self.wrong_size = [WrongSize(line)]

    def row(self, class_id: int, corners: Sequence[float]) -> Row | None:
        """The label row of a box (x0, y0, x1, y1) in pixels of the annotation; None if nothing of it is inside."""
        row = relative_box(class_id, corners, self.size)
        if row is None or self.orientation < 5:
            return row
        _, x, y, w, h = row
        x, y = (1 - y if self.orientation in (6, 7) else y), (1 - x if self.orientation in (7, 8) else x)
        return class_id, x, y, h, w


def path_inside(name: str) -> str:
    """A path relative to the image folder, as an annotation gives it, with `/` between folders.

    Raises:
        DataError: It leads out of the folder, or no list can hold it.
    """
    path = os.path.normpath(name.replace("\\", "/"))
    if os.path.isabs(path) or path.split("/")[0] in ("..", ".") or re.match("[A-Za-z]:/", path):
        raise DataError(f"{name!r} leads out of the image folder")
    if any(char in name for char in "\0\r\n"):
        raise DataError(f"{name!r} is not a file name")
    return path


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
        path = (folder / path_inside(name)).with_suffix(".txt")
        if path.parent != folder:
            make_folder(path.parent)
        save_labels(path, rows)
    return sum(len(rows) for rows in images.values())


def write_data_file(out: Path, name: str, names: Sequence[str], train: str | None, valid: str | None) -> DataFile:
    """Writes OUT/NAME.names and OUT/NAME.data, whose lists are OUT/TRAIN.txt and OUT/VALID.txt."""
    write_list(out / f"{name}.names", clean_names(names))
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
