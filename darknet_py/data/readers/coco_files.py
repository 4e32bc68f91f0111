"""Finds the files of a COCO data set: annotations per split, and the folders of their images."""

from __future__ import annotations

import json
import mmap
import os
import re
from pathlib import Path

from darknet_py.errors import DataError
from darknet_py.untrusted import clean_names, open_regular

Splits = dict[str, tuple[Path, Path]]  # split → (annotations, folder of its images)
_SPLIT_NAMES = {"train": "train", "valid": "val", "val": "val", "test": "test"}  # part of a file name → split
_FILE_NAME = re.compile(rb'"file_name"\s*:\s*("(?:[^"\\]|\\.)*")')
_ROBOFLOW_FILE = "_annotations.coco.json"  # Roboflow: beside the images of each split


def coco_files(path: Path, images: Path | None = None) -> Splits:
    """The splits of a COCO file or folder.

    path: a JSON file for training (its counterpart for val is used too, if it exists), or a folder with
    annotations/*.json, *.json or SPLIT/_annotations.coco.json. images: the folder of all images (default: the first
    usual folder that contains the first image). Raises DataError.
    """
    files = _splits_beside(path) if os.path.isfile(path) else _splits_in_folder(path)
    return {split: (file, images or _image_folder(file, split)) for split, file in files.items()}


def _splits_beside(file: Path) -> dict[str, Path]:
    """The file itself as `train`, and its counterpart for validation if there is one."""
    if file.name == _ROBOFLOW_FILE:
        roboflow = _splits_in_folder(file.parent.parent)
        return roboflow if file in roboflow.values() else {"train": file}
    split = _split_of(file.stem) or "train"
    splits = {split: file}
    if split == "train":
        for part_of_name in ("val", "valid", "test"):
            other = file.with_name(file.name.replace("train", part_of_name))
            if other != file and other.is_file():
                return splits | {"val": other}
    return splits if split == "train" else {"train": file}


def has_coco_files(folder: Path) -> bool:
    return any(next(folder.glob(pattern), None) for pattern in ("annotations/*.json", "*.json", f"*/{_ROBOFLOW_FILE}"))


def _splits_in_folder(folder: Path) -> dict[str, Path]:
    roboflow = {file.parent.name: file for file in sorted(folder.glob(f"*/{_ROBOFLOW_FILE}"))}
    files = [file for candidate in (folder / "annotations", folder) for file in sorted(candidate.glob("*.json"))]
    instances = [file for file in files if file.name.startswith("instances_")] or files
    splits = {_SPLIT_NAMES.get(name, name): file for name, file in roboflow.items()}
    for file in instances:
        splits.setdefault(_split_of(file.stem) or "train", file)
    if not splits:
        raise DataError(f"{folder}: expected COCO files (annotations/*.json), got none")
    if "train" not in splits:
        raise DataError(f"{folder}: expected a COCO file with train in its name, got {', '.join(map(str, files))}")
    return {split: splits[split] for split in ("train", "val", "test") if split in splits}


def _split_of(stem: str) -> str | None:
    return next((name for part_of_name, name in _SPLIT_NAMES.items() if part_of_name in stem.lower()), None)


def _image_folder(file: Path, split: str) -> Path:
    """The folder that contains the first image of the file. Raises DataError that lists the folders tried."""
    name = _first_image(file)
    if not name:
        raise DataError(f"{file}: expected COCO JSON with images, got no file_name")
    return find_image_folder(file, split, name, file.stem.removeprefix("instances_"))


def find_image_folder(file: Path, split: str, image: str, stem: str) -> Path:
    """The usual folder that contains an image.

    Args:
        file: The annotations.
        split: Its split; stem: the part of its name that may name the folder, too.
        image: Path of an image, relative to the folder.

    Raises:
        DataError: None contains it. The message lists the folders tried.
    """
    folder, parent = file.parent, file.parent.parent
    candidates = [
        root / part
        for root in (parent, folder)
        for part in (f"images/{stem}", stem, f"images/{split}", split, "images", "JPEGImages", ".")
    ]
    for candidate in candidates:
        if os.path.isfile(candidate / image.replace("\\", "/")):
            return Path(os.path.normpath(candidate))
    tried = ", ".join(sorted({str(candidate) for candidate in candidates}))
    raise DataError(f"{file}: image {clean_names([image])[0]:.300} not found in {tried}")


def _first_image(file: Path) -> str:
    """The file_name of the first image, splits without parsing a file of possibly hundreds of megabytes."""
    try:
        with open_regular(file, "COCO file") as stream:
            content = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        with content:
            match = _FILE_NAME.search(content)
            return str(json.loads(match[1])) if match else ""
    except OSError as error:
        raise DataError(f"{file}: cannot read: {error.strerror or error}") from None
    except ValueError:  # an empty file, or not UTF-8
        return ""
