"""Ultralytics data sets (a YAML file, images/ and labels/) → Darknet lists and labels."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from darknet_py.cfg.options import atoi
from darknet_py.data.datafile import read_list, write_list
from darknet_py.data.images import IMAGE_SUFFIXES
from darknet_py.data.labels import MAX_CLASSES, find_labels, load_labels, save_labels
from darknet_py.data.link_images import link_images
from darknet_py.data.readers.darknet_layout import ConversionResult, write_data_file
from darknet_py.data.yamlfile import Value, read_yaml
from darknet_py.errors import DataError
from darknet_py.files import make_folder
from darknet_py.untrusted import clean_names, read_file

SPLITS = "train", "val", "test"


def yolo_to_darknet(
    file: str | os.PathLike[str], out: str | os.PathLike[str], names: Sequence[str] | None = None, *, name: str = "yolo"
) -> ConversionResult:
    """Converts the data set of a data.yaml to Darknet's layout (see `darknet_layout` for the files in `out`).

    Polygons become their bounding boxes. An image without labels is a negative.

    Args:
        file: The data.yaml. The data set is only read.
        out: Folder to write.
        names: The class names in another order (default: that of the file).
        name: Name of the .data and .names files.

    Returns:
        The .data file, the counts, and a line for each invalid label, which is left out.

    Raises:
        DataError: The file has no class names or images, or its classes are not among `names`.
    """
    file, out = Path(file), Path(out)
    content = read_yaml(file)
    file_names = class_names(file, content)
    order = _class_order(file, file_names, names)
    return convert_labeled_images(yolo_splits(file, content), out, names or file_names, len(file_names), name, order)


def convert_labeled_images(
    splits: Mapping[str, Sequence[str]],
    out: Path,
    names: Sequence[str],
    classes: int,
    name: str,
    order: Sequence[int] | None = None,
) -> ConversionResult:
    """Converts images that have label files of `class x y …` beside them or in `labels`.

    Args:
        splits: Images by split, some of train, val and test.
        out: Folder to write.
        names: Class names to write.
        classes: Number of classes in the label files.
        name: Name of the .data and .names files.
        order: The number to write for each class, if it changes.
    """
    problems: list[str] = []
    count = boxes = 0
    for split, images in splits.items():
        folder = out / split / "JPEGImages"
        linked = link_images(images, folder)
        make_folder(out / split / "labels")
        for image, candidate in zip(images, linked, strict=True):
            target = (out / split / "labels" / candidate).with_suffix(".txt")
            boxes += _copy_labels(Path(find_labels(image)), target, classes, order, problems)
        write_list(out / f"{split}.txt", [str(folder.absolute() / candidate) for candidate in linked])
        count += len(images)
    train, valid = (split if split in splits else None for split in ("train", "val"))
    data = write_data_file(out, name, list(names), train, valid or ("test" if "test" in splits else None))
    return ConversionResult(data, count, boxes, problems)


def yolo_splits(file: Path, content: Mapping[str, Value]) -> dict[str, list[str]]:
    """Image paths per split. Raises DataError if there are none or an entry does not exist."""
    splits = {}
    for split in SPLITS:
        entries = content.get(split)
        if not entries:
            continue
        images = [
            image
            for entry in (entries if isinstance(entries, list) else [entries])
            for image in read_list(_resolve(file, content, split, entry))
        ]
        splits[split] = [image for image in images if image.lower().endswith(IMAGE_SUFFIXES)]
    if not splits:
        raise DataError(f"{file}: expected a line train: (or val:), got none")
    return splits


def class_names(file: Path, content: Mapping[str, Value]) -> list[str]:
    """Class names from `names` (a list or a mapping by number), or numbers up to `nc`. Raises DataError."""
    names = content.get("names")
    if isinstance(names, dict):
        numbers = [atoi(key) for key in names]
        if sorted(number for number in numbers if number is not None) != list(range(len(names))):
            raise DataError(f"{file}: names: expected the classes 0 to {len(names) - 1}, got {', '.join(names)}")
        names = [name for _, name in sorted(zip(numbers, names.values(), strict=True), key=lambda pair: pair[0] or 0)]
    texts = [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
    if texts and len(texts) == len(names or ""):
        return texts
    count = atoi(str(content.get("nc", "")))
    if names or not count or count < 1:
        raise DataError(f"{file}: expected class names in a line names:, got {str(names)[:60]!r}")
    if count > MAX_CLASSES:
        raise DataError(f"{file}: nc: expected at most {MAX_CLASSES}, got {count}")
    return [str(number) for number in range(count)]


def _resolve(file: Path, content: Mapping[str, Value], split: str, entry: Value) -> Path:
    """The folder or list of an entry, relative to `path`.

    `path` itself is relative to the folder of the file, the current folder, or the folder `datasets` next to the file.
    """
    if not isinstance(entry, str):
        raise DataError(f"{file}: {split}: expected a path, got {str(entry)[:60]!r}")
    base = str(content.get("path") or "")
    folder_of_file = file.absolute().parent
    # Roboflow writes ../train/images although train lies next to the file.
    candidates = [
        root / base / part
        for root in (folder_of_file, Path(), folder_of_file.parent / "datasets")
        for part in (entry, entry[3:])
    ]
    candidates += [folder_of_file / entry]
    for candidate in candidates if entry.startswith("../") else [*candidates[::2], candidates[-1]]:
        if os.path.exists(candidate):  # also for names that are too long
            return Path(os.path.normpath(candidate))
    tried = clean_names([str(candidates[0])])[0]
    raise DataError(f"{file}: {split}: expected images at {tried:.300}, got nothing there")


def _class_order(file: Path, file_names: list[str], names: Sequence[str] | None) -> list[int] | None:
    """The new number of each class, or None if nothing changes."""
    if not names or list(names) == file_names:
        return None
    missing = [name for name in file_names if name not in names]
    if missing:
        raise DataError(f"{file}: expected its classes among {', '.join(names)}, got {', '.join(missing)}")
    return [list(names).index(name) for name in file_names]


def _copy_labels(source: Path, target: Path, classes: int, order: Sequence[int] | None, problems: list[str]) -> int:
    """Writes the label file of one image; returns the number of boxes."""
    content = read_file(source, "labels") if os.path.lexists(source) else b""
    target.write_bytes(_polygons_to_boxes(content))
    labels = load_labels(target, classes)
    problems += [problem.replace(str(target), str(source), 1) for problem in labels.problems]
    if labels.problems or order:
        rows = labels.boxes.tolist()
        save_labels(target, [(order[int(row[0])] if order else row[0], *row[1:5]) for row in rows])
    return len(labels.boxes)


def _polygons_to_boxes(content: bytes) -> bytes:
    """Converts lines `class x y x y x y …` to boxes; other lines stay."""
    if all(len(line.split()) <= 5 for line in content.splitlines()):
        return content
    lines = []
    for line in content.splitlines():
        words = line.split()
        try:
            points = np.array(words[1:], np.float64).reshape(-1, 2)
        except ValueError:
            points = np.zeros((0, 2))
        if len(points) > 2:
            low, high = points.min(0), points.max(0)
            (x, y), (w, h) = ((low + high) / 2).tolist(), (high - low).tolist()
            line = words[0] + f" {x:.6f} {y:.6f} {w:.6f} {h:.6f}".encode()
        lines.append(line)
    return b"\n".join(lines) + b"\n"
