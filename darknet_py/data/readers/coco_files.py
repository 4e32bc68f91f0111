"""Where the files of a COCO set are: annotations by split, and the folders of their images."""

from __future__ import annotations

import json
import mmap
import os
import re
from pathlib import Path

from darknet_py.errors import DataError

Splits = dict[str, tuple[Path, Path]]  # split → (annotations, folder of its images)
_NAMES = {"train": "train", "valid": "val", "val": "val", "test": "test"}  # how splits are called → our name
_FILE_NAME = re.compile(rb'"file_name"\s*:\s*("(?:[^"\\]|\\.)*")')
_PACKED = "_annotations.coco.json"  # beside the images of one split, as a site packs them


def coco_files(path: Path, images: Path | None = None) -> Splits:
    """The splits of a COCO file or folder.

    path: a JSON file, which is trained on (together with the file of the same name for val, if there is one), or a
    folder with annotations/*.json, *.json or SPLIT/_annotations.coco.json. images: the folder of all images (default:
    the first place where the first image is). Raises DataError.
    """
    files = _beside(path) if path.is_file() else _within(path)
    return {split: (file, images or _images(file, split)) for split, file in files.items()}


def _beside(file: Path) -> dict[str, Path]:
    """The file itself as `train` (or as the split that its name says), and the one it is to be validated on."""
    if file.name == _PACKED:
        packed = _within(file.parent.parent)
        return packed if file in packed.values() else {"train": file}
    split = _split(file.stem) or "train"
    found = {split: file}
    if split == "train":
        for word in ("val", "valid", "test"):
            other = file.with_name(file.name.replace("train", word))
            if other != file and other.is_file():
                return found | {"val": other}
    return found if split == "train" else {"train": file}


def has_coco_files(folder: Path) -> bool:
    return any(next(folder.glob(pattern), None) for pattern in ("annotations/*.json", "*.json", f"*/{_PACKED}"))


def _within(folder: Path) -> dict[str, Path]:
    packed = {file.parent.name: file for file in sorted(folder.glob(f"*/{_PACKED}"))}
    files = [file for place in (folder / "annotations", folder) for file in sorted(place.glob("*.json"))]
    instances = [file for file in files if file.name.startswith("instances_")] or files
    found = {_NAMES.get(name, name): file for name, file in packed.items()}
    for file in instances:
        found.setdefault(_split(file.stem) or "train", file)
    if not found:
        raise DataError(f"{folder}: expected COCO files (annotations/*.json), got none")
    if "train" not in found:
        raise DataError(f"{folder}: expected a COCO file with train in its name, got {', '.join(map(str, files))}")
    return {split: found[split] for split in ("train", "val", "test") if split in found}


def _split(stem: str) -> str | None:
    return next((name for word, name in _NAMES.items() if word in stem.lower()), None)


def _images(file: Path, split: str) -> Path:
    """Where the first image of the file is. Raises DataError naming the places."""
    name = _first_image(file)
    if not name:
        raise DataError(f"{file}: expected COCO JSON with images, got no file_name")
    word = file.stem.removeprefix("instances_")
    here, above = file.parent, file.parent.parent
    places = [
        folder / part
        for folder in (above, here)
        for part in (f"images/{word}", word, f"images/{split}", split, "images", "JPEGImages", ".")
    ]
    for place in places:
        if (place / name).is_file():
            return Path(os.path.normpath(place))
    raise DataError(f"{file}: its image {name} is in none of {', '.join(sorted({str(place) for place in places}))}")


def _first_image(file: Path) -> str:
    """Its file_name, without parsing a file that may hold hundreds of megabytes."""
    try:
        with open(file, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            match = _FILE_NAME.search(content)
            return str(json.loads(match[1])) if match else ""
    except OSError as error:
        raise DataError(f"{file}: cannot read: {error.strerror or error}") from None
    except ValueError:  # an empty file, or not UTF-8
        return ""
