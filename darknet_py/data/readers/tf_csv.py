"""CSV files with a box a line, as TensorFlow's tutorials and Roboflow write them → Darknet lists and labels.

The first line names the columns: `filename,width,height,class,xmin,ymin,xmax,ymax`, in any order. Without such a line
the columns are those of keras-retinanet, `path,x1,y1,x2,y2,class_name`, where an image without boxes has a line with
its path alone.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from darknet_py.counted import counted
from darknet_py.data.datafile import write_list
from darknet_py.data.readers.coco_files import find_image_folder
from darknet_py.data.readers.darknet_layout import (
    AnnotatedImage,
    ConversionResult,
    Row,
    link_image_folder,
    path_inside,
    write_data_file,
    write_labels,
)
from darknet_py.data.text_encoding import decode_any
from darknet_py.errors import DataError
from darknet_py.untrusted import checked_text, open_regular, read_file

_SPLITS = {"train": "train", "valid": "val", "val": "val", "test": "test"}  # part of a file name → split
_CORNERS = "xmin", "ymin", "xmax", "ymax"
_REQUIRED = "filename", "class", *_CORNERS
_RETINANET = "filename", *_CORNERS, "class"
_ALIASES = {"image": "filename", "image_path": "filename", "file_name": "filename", "path": "filename"}
_ALIASES |= {"label": "class", "class_name": "class", "x1": "xmin", "y1": "ymin", "x2": "xmax", "y2": "ymax"}


def csv_to_darknet(
    files: Mapping[str, Path], out: str | os.PathLike[str], names: Sequence[str] | None = None, *, name: str
) -> ConversionResult:
    """Converts CSV files to Darknet's layout (see `darknet_layout` for the files in `out`).

    Args:
        files: The file of each split (train, val, test).
        out: Folder to write.
        names: Class names in order (default: those of all files, sorted).
        name: Name of the .data and .names files.

    Returns:
        The .data file, the counts, and a line for each image or box that was left out.

    Raises:
        DataError: A file cannot be read or has other columns.
    """
    out = Path(out)
    rows = {split: _read(file) for split, file in files.items()}
    classes = list(names or sorted({row["class"] for lines in rows.values() for _, row in lines if row["class"]}))
    problems: list[str] = []
    count = boxes = 0
    for split, lines in rows.items():
        file = files[split]
        folder = find_image_folder(file, split, lines[0][1]["filename"], file.stem.removesuffix("_labels"))
        labels = _label_rows(file, folder, lines, classes, problems)
        link_image_folder(folder, out / split / "JPEGImages")
        boxes += write_labels(labels, out / split / "labels")
        count += len(labels)
        images = (out / split / "JPEGImages").absolute()
        write_list(out / f"{split}.txt", [str(images / image) for image in labels])
    train, valid = (split if split in files else None for split in ("train", "val"))
    data = write_data_file(out, name, classes, train, valid or ("test" if "test" in files else None))
    return ConversionResult(data, count, boxes, problems)


def csv_files(path: Path) -> dict[str, Path]:
    """The CSV file of each split: of a folder, of its split folders, or beside a file for training.

    Raises:
        DataError: The folder has no such file.
    """
    if os.path.isfile(path):
        files = {"train": path}
        for part in ("val", "valid", "test"):
            other = path.with_name(path.name.replace("train", part))
            if other != path and "val" not in files and other.is_file():
                files["val"] = other
        return files
    files = {}
    for file in sorted([*path.glob("*.csv"), *path.glob("annotations/*.csv"), *path.glob("*/_annotations.csv")]):
        text = (file.parent.name if file.name == "_annotations.csv" else file.stem).lower()
        if _has_columns(file):
            files.setdefault(next((split for part, split in _SPLITS.items() if part in text), "train"), file)
    if not files:
        raise DataError(f"{path}: expected CSV files with the columns {', '.join(_REQUIRED)}, got none")
    return {split: files[split] for split in ("train", "val", "test") if split in files}


def _has_columns(file: Path) -> bool:
    with suppress(DataError, OSError), open_regular(file, "CSV file") as stream:
        return set(_REQUIRED) <= set(_header(decode_any(stream.readline(10_000))[0])[0])
    return False


def _header(line: str) -> tuple[list[str], int]:
    """The columns, and how many lines name them: the first, or none of keras-retinanet's, where it is a box already."""
    words = [word.strip().strip('"') for word in line.replace(";", ",").replace("\t", ",").split(",")]
    is_box = bool(_numbers(*words[1:5])) or not any(words[1:])  # or an image without boxes
    if len(words) == len(_RETINANET) and words[0] and is_box:
        return list(_RETINANET), 0
    names = [word.lower() for word in words]
    return [name if _ALIASES.get(name) in names else _ALIASES.get(name, name) for name in names], 1


def _read(file: Path) -> list[tuple[int, dict[str, str]]]:
    """Line numbers and rows by column."""
    text = checked_text(decode_any(read_file(file, "CSV file"))[0], file, "the CSV file")
    lines = text.splitlines() or [""]
    columns, first = _header(lines[0])
    missing = [name for name in _REQUIRED if name not in columns]
    if missing:
        raise DataError(f"{file}:1: expected the columns {', '.join(_REQUIRED)}, got {lines[0][:100]!r}")
    separator = next((separator for separator in ";\t" if separator in lines[0]), ",")
    try:
        rows = [
            (number, {column: value.strip() for column, value in zip(columns, values, strict=False)})
            for number, values in enumerate(csv.reader(lines[first:], delimiter=separator), first + 1)
            if any(values)
        ]
    except csv.Error as error:
        raise DataError(f"{file}: expected CSV, got: {error}") from None
    for number, row in rows:
        short = [name for name in _REQUIRED if name not in row]
        if short:
            raise DataError(f"{file}:{number}: expected {counted(len(columns), 'value')}, got {len(row)}")
    if not rows:
        raise DataError(f"{file}: expected a box a line, got none")
    return rows


def _label_rows(
    file: Path,
    folder: Path,
    lines: Sequence[tuple[int, dict[str, str]]],
    classes: Sequence[str],
    problems: list[str],
) -> dict[str, list[Row]]:
    """Label rows by image file name, for existing images."""
    index = {name: number for number, name in enumerate(classes)}
    images: dict[str, AnnotatedImage | None] = {}
    labels: dict[str, list[Row]] = {}
    for number, row in lines:
        where = f"{file}:{number}"
        try:
            name = path_inside(row["filename"])
        except DataError as error:
            problems.append(f"{where}: {error}")
            continue
        if name not in images:
            size = _numbers(row.get("width", ""), row.get("height", ""))
            exists = os.path.isfile(folder / name)
            images[name] = image = AnnotatedImage(folder / name, _size(size), where) if exists else None
            if image is None:
                problems.append(f"{where}: {folder / name!s:.300} not found")
            else:
                labels[name] = []
                problems += image.wrong_size
        image = images[name]
        if image is None or not (row["class"] or any(row[corner] for corner in _CORNERS)):  # an image without boxes
            continue
        corners = _numbers(*(row[corner] for corner in _CORNERS))
        if row["class"] not in index:
            problems.append(f"{where}: expected one of the classes {', '.join(classes)}, got {row['class']!r}")
            continue
        box = image.row(index[row["class"]], corners) if corners else None
        if box is None:
            problems.append(f"{where}: expected a box inside the image, got {[row[corner] for corner in _CORNERS]}")
        else:
            labels[name].append(box)
    return labels


def _numbers(*words: str) -> tuple[float, ...]:
    """The numbers; none where one is not a number."""
    try:
        return tuple(float(word) for word in words)
    except ValueError:
        return ()


def _size(numbers: tuple[float, ...]) -> tuple[float, float] | None:
    return (numbers[0], numbers[1]) if numbers and min(numbers) > 0 else None
