"""Darknet's label files: their paths, rows and errors."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from darknet_py.errors import DataError
from darknet_py.untrusted import MAX_TEXT, read_file

Boxes = NDArray[np.float32]  # rows (class, center x, center y, width, height, track), relative to the image

MAX_CLASSES = 1_000_000  # of a data set; a number such as 1e30 would make as many names
_FOLDERS = (
    ("/images/train2017/", "/labels/train2017/"),
    ("/images/val2017/", "/labels/val2017/"),
    ("/JPEGImages/", "/labels/"),
    ("/images/train2014/", "/labels/train2014/"),
    ("/images/val2014/", "/labels/val2014/"),
)
_FILES = _OBJECTS = 4000  # Darknet's max_obj_img: objects of different files rarely share an identity


@dataclass
class Labels:
    """Boxes of one image, and the problems of its label file (`file:line: …`)."""

    boxes: Boxes
    problems: list[str] = field(default_factory=list)
    missing: bool = False


def label_path(image: str | os.PathLike[str]) -> str:
    """Where Darknet looks for an image's labels (`replace_image_to_label`).

    `/JPEGImages/` and COCO's `/images/train2017/` (val, 2014) become `/labels/…`, and the ending becomes `.txt`.
    """
    path = os.fspath(image).replace("\\", "/") if os.sep == "\\" else os.fspath(image)
    for folder, labels in _FOLDERS:
        path = path.replace(folder, labels, 1)
    return os.path.splitext(path)[0] + ".txt"


def find_labels(image: str | os.PathLike[str]) -> str:
    """`label_path`; where that file does not exist, the same path with the last folder `images` as `labels`."""
    path = label_path(image)
    head, images, tail = path.rpartition("/images/")
    if images and not os.path.exists(path):
        other = f"{head}/labels/{tail}"
        if os.path.exists(other):
            return other
    return path


def load_labels(path: str | os.PathLike[str], classes: int = MAX_CLASSES) -> Labels:
    """Reads a label file: rows `class cx cy w h`, relative to the image.

    A row that Darknet's `fill_truth_detection` would drop with "Wrong annotation" (class outside 0 … classes-1, box
    outside the image, center 0 0), or that holds no five finite numbers (Darknet stops reading or trains on NaN), is
    left out and reported. A missing file means no boxes and is reported as missing. The last column identifies the
    object (Darknet's track_id). Without `classes`, MAX_CLASSES counts.
    """
    name = os.fspath(path)
    try:
        text = read_file(name, "labels", limit=MAX_TEXT).decode("utf-8-sig", "replace")
    except DataError as error:
        absent = isinstance(error.__cause__, FileNotFoundError)
        problem = f"{name}: no label file; the image counts as a negative" if absent else str(error)
        return Labels(_NO_BOXES, [problem], missing=True)
    lines = [(number, line.split()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        return Labels(_NO_BOXES)
    rows = _parse_rows(lines)
    if rows is None or not _is_valid(rows, classes).all():
        rows, problems = _check_rows(name, lines, classes)
    else:
        problems = []
    boxes = np.empty((len(rows), 6), np.float32)
    boxes[:, :5] = rows
    boxes[:, 5] = np.arange(len(rows)) + crc32(name.encode("utf-8", "surrogateescape")) % _FILES * _OBJECTS
    return Labels(boxes, problems)


def check_labels(images: Sequence[str], classes: int, limit: int = 3) -> None:
    """Reads all labels before a training. Raises one DataError naming the first `limit` wrong rows.

    A missing label file is a negative; it is an error only if all are missing.
    """
    problems: list[str] = []
    missing = 0
    for image in images:
        labels = load_labels(find_labels(image), classes)
        missing += labels.missing
        if not labels.missing:
            problems += labels.problems
    if images and missing == len(images):
        if not any(os.path.exists(image) for image in images):
            raise DataError(f"{images[0]:.300}: image not found; none of the {len(images)} images exists")
        raise DataError(f"{find_labels(images[0])}: no label file; none of the {len(images)} images has labels")
    if problems:
        more = f" (and {len(problems) - limit} more)" if len(problems) > limit else ""
        raise DataError(f"{'; '.join(problems[:limit])}{more} (--skip-bad-labels trains without such rows)")


def save_labels(path: str | os.PathLike[str], rows: Iterable[Sequence[float]]) -> None:
    """Writes a label file from rows (class, cx, cy, w, h). Raises DataError."""
    lines = (f"{int(row[0])} " + " ".join(f"{value:.6f}" for value in row[1:5]) + "\n" for row in rows)
    try:  # not `write_atomically`, which syncs each file: there are thousands of them
        Path(path).write_text("".join(lines), encoding="utf-8")
    except OSError as error:
        raise DataError(f"{os.fspath(path)}: cannot write: {error.strerror or error}") from None


_NO_BOXES: Boxes = np.zeros((0, 6), np.float32)


def _parse_rows(lines: list[tuple[int, list[str]]]) -> NDArray[np.float64] | None:
    """All rows as numbers (N, 5); None if a row does not have five numbers."""
    try:
        rows = np.array([words for _, words in lines], np.float64)
    except ValueError:
        return None
    return rows if rows.ndim == 2 and rows.shape[1] == 5 else None


def _is_valid(rows: NDArray[np.float64], classes: int) -> NDArray[np.bool_]:
    with np.errstate(invalid="ignore"):
        return _fits_float32(rows).all(1) & _has_known_class(rows, classes) & _is_inside(rows)


def _fits_float32(rows: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether each number is finite, also as float32."""
    with np.errstate(over="ignore"):
        finite: NDArray[np.bool_] = np.isfinite(rows.astype(np.float32))
    return finite


def _has_known_class(rows: NDArray[np.float64], classes: int) -> NDArray[np.bool_]:
    kind = rows[:, 0]
    known: NDArray[np.bool_] = (kind >= 0) & (kind == np.floor(kind)) & (kind < classes)
    return known


def _is_inside(rows: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether at least a part is inside the image; Darknet ignores boxes with the center 0 0."""
    _, x, y, w, h = rows.T
    near = (abs(x - 0.5) <= 0.5 + w / 2) & (abs(y - 0.5) <= 0.5 + h / 2)
    valid: NDArray[np.bool_] = near & ((x != 0) | (y != 0)) & (w >= 0) & (h >= 0)
    return valid


def _check_rows(name: str, lines: list[tuple[int, list[str]]], classes: int) -> tuple[NDArray[np.float64], list[str]]:
    """Checks row by row; returns the valid rows and a message for each of the others."""
    rows, problems = [], []
    for number, words in lines:
        row = _parse_rows([(number, words)])
        if row is None:
            text_of_row = " ".join(words)
            problems.append(f"{name}:{number}: expected 'class cx cy w h', got {text_of_row[:60]!r}")
        elif not _fits_float32(row).all():
            problems.append(f"{name}:{number}: expected finite numbers, got {' '.join(words)!r}")
        elif not _has_known_class(row, classes).all():
            problems.append(f"{name}:{number}: expected a class of 0 to {classes - 1}, got {words[0]}")
        elif not _is_inside(row).all():
            problems.append(f"{name}:{number}: expected a box inside the image, got {' '.join(words[1:])}")
        else:
            rows.append(row[0])
    return np.array(rows, np.float64).reshape(-1, 5), problems
