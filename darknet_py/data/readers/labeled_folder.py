"""Folders of images with Darknet's label files but without a .data file → Darknet lists and labels.

labelImg (`classes.txt` beside the images), Label Studio (`classes.txt`, images/, labels/), Roboflow's "YOLO Darknet"
(train/, valid/ and test/, each with `_darknet.labels`), and Ultralytics' folders without a YAML file.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from darknet_py.data.datafile import list_folder, read_names
from darknet_py.data.labels import find_labels, load_labels
from darknet_py.data.readers.darknet_layout import ConversionResult
from darknet_py.data.readers.ultralytics import convert_labeled_images
from darknet_py.errors import DataError

_SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_NAMES = "_darknet.labels", "classes.txt", "obj.names", "labels.txt"


def folder_to_darknet(
    root: str | os.PathLike[str], out: str | os.PathLike[str], names: Sequence[str] | None = None, *, name: str
) -> ConversionResult:
    """Converts such a folder to Darknet's layout (see `darknet_layout` for the files in `out`).

    Args:
        root: The folder, which is only read.
        out: Folder to write.
        names: Class names (default: those of a names file in the folder, else the class numbers).
        name: Name of the .data and .names files.

    Returns:
        The .data file, the counts, and a line for each invalid label, which is left out.

    Raises:
        DataError: No image has a label file.
    """
    root = Path(root)
    splits = labeled_images(root)
    class_names = list(names or _class_names(root) or _class_numbers(splits))
    return convert_labeled_images(splits, Path(out), class_names, len(class_names), name)


def labeled_images(root: Path) -> dict[str, list[str]]:
    """Images by split: folders train, valid and test, or images/train …; else all images are one split.

    Raises:
        DataError: No image has a label file.
    """
    splits: dict[str, list[str]] = {}
    for folder in sorted(_subfolders(root) + _subfolders(root / "images")):
        split = _SPLITS.get(folder.name.lower())
        images = list_folder(folder) if split else []
        if split and images:
            splits.setdefault(split, []).extend(images)
    if not splits:
        images = list_folder(root)
        splits = {"train": images} if images else {}
    if not any(os.path.isfile(find_labels(image)) for images in splits.values() for image in images):
        raise DataError(f"{root}: expected images with label files, got none")
    return {split: splits[split] for split in ("train", "val", "test") if split in splits}


def names_file(root: Path) -> Path | None:
    """The names file in the folder or in one of its splits."""
    folders = [root, *(folder for folder in _subfolders(root) if folder.name.lower() in (*_SPLITS, "images", "labels"))]
    for folder in folders:
        for file in (*(folder / name for name in _NAMES), *sorted(folder.glob("*.names"))):
            if file.is_file():
                return file
    return None


def _class_names(root: Path) -> list[str]:
    file = names_file(root)
    return read_names(file) if file else []


def _class_numbers(splits: dict[str, list[str]]) -> list[str]:
    """As many classes as the labels use."""
    labels = [load_labels(find_labels(image)).boxes for images in splits.values() for image in images]
    return [
        str(number) for number in range(max((int(rows[:, 0].max()) for rows in labels if len(rows)), default=0) + 1)
    ]


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
