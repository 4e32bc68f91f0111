"""COCO instance files → Darknet lists and labels, and back."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from darknet_py.data.datafile import write_list
from darknet_py.data.labels import find_labels, load_labels
from darknet_py.data.readers.darknet_layout import (
    ConversionResult,
    Row,
    image_size,
    link_image_folder,
    relative_box,
    write_data_file,
    write_labels,
)
from darknet_py.errors import DataError
from darknet_py.files import write_atomically


def coco_to_darknet(
    splits: Mapping[str, tuple[str | os.PathLike[str], str | os.PathLike[str]]],
    out: str | os.PathLike[str],
    names: Sequence[str] | None = None,
    *,
    crowd: bool = False,
    name: str = "coco",
) -> ConversionResult:
    """Converts COCO JSON files: {"train2017": (instances.json, folder of its images), …}.

    names: the classes in order, by the names in the JSON (default: its categories by id, which is Darknet's order of
    the 80). crowd: keep boxes marked iscrowd. See `convert` for what appears in `out`. Images of the JSON that are not
    in the folder are left out and reported. Trains on the first split that starts with "train", validates on the
    first that starts with "val" or "test". Raises DataError with the file.
    """
    out = Path(out)
    problems: list[str] = []
    count = boxes = 0
    classes = list(names or [])
    for split, (file, folder) in splits.items():
        file, folder = Path(file), Path(folder)
        content = _load(file)
        categories = {entry["id"]: str(entry["name"]) for entry in sorted(content["categories"], key=lambda e: e["id"])}
        classes = classes or list(categories.values())
        labels = _labels(file, folder, content, categories, classes, crowd, problems)
        link_image_folder(folder, out / split / "JPEGImages")
        boxes += write_labels(labels, out / split / "labels")
        count += len(labels)
        images = (out / split / "JPEGImages").absolute()
        write_list(out / f"{split}.txt", [str(images / image) for image in labels])
    train = next((split for split in splits if split.startswith("train")), None)
    valid = next((split for split in splits if split.startswith(("val", "test"))), None)
    return ConversionResult(write_data_file(out, name, classes, train, valid), count, boxes, problems)


def darknet_to_coco(
    images: Sequence[str],
    names: Sequence[str],
    out: str | os.PathLike[str] | None = None,
    *,
    category_ids: Sequence[int] | None = None,
    file_names: Sequence[str] | None = None,
    sizes: Sequence[tuple[int, int]] | None = None,
) -> dict[str, Any]:
    """Darknet labels of `images` → a COCO instance file (written to `out` if given).

    Image ids count from 1 (or are the file name's number, where all names are numbers); category ids from 1 or as
    given. file_names: what the file calls the images (default: their names without folders). sizes: (width, height) of
    each, where known. Wrong label rows are left out. Raises DataError for an unreadable image.
    """
    category_ids = list(category_ids or range(1, len(names) + 1))
    if len(category_ids) != len(names):
        raise DataError(f"expected {len(names)} category ids, one per class, got {len(category_ids)}")
    stems = [Path(image).stem for image in images]
    numbered = all(stem.isdecimal() for stem in stems) and len({int(stem) for stem in stems}) == len(stems)
    content: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": number, "name": name} for number, name in zip(category_ids, names, strict=True)],
    }
    for position, image in enumerate(images, 1):
        width, height = sizes[position - 1] if sizes else image_size(image)
        number = int(stems[position - 1]) if numbered else position
        name = file_names[position - 1] if file_names else Path(image).name
        content["images"].append({"id": number, "file_name": name, "width": width, "height": height})
        for kind, x, y, w, h, _ in load_labels(find_labels(image), len(names)).boxes.tolist():
            corner = [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height]
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": number,
                    "category_id": category_ids[int(kind)],
                    "bbox": [round(value, 3) for value in corner],
                    "area": round(corner[2] * corner[3], 3),
                    "iscrowd": 0,
                }
            )
    if out is not None:
        write_atomically(Path(out), json.dumps(content).encode())
    return content


_SCHEMA = {
    "images": ("id", "file_name"),
    "annotations": ("image_id", "category_id", "bbox"),
    "categories": ("id", "name"),
}


def _load(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes())
    except OSError as error:
        raise DataError(f"{file}: cannot read: {error.strerror or error}") from None
    except ValueError as error:
        raise DataError(f"{file}: expected COCO JSON, got: {error}") from None
    for key, expected in _SCHEMA.items():
        entries = content.get(key) if isinstance(content, dict) else None
        if not isinstance(entries, list):
            raise DataError(f"{file}: expected COCO JSON with a list {key!r}, got none")
        for number, entry in enumerate(entries):
            missing = [field for field in expected if not isinstance(entry, dict) or field not in entry]
            if missing:
                raise DataError(f"{file}: {key}[{number}]: expected {', '.join(missing)}, got {str(entry)[:60]}")
    return content


def _labels(
    file: Path,
    folder: Path,
    content: dict[str, Any],
    categories: dict[int, str],
    classes: Sequence[str],
    crowd: bool,
    problems: list[str],
) -> dict[str, list[Row]]:
    """Label rows by image file name, for the images that are there."""
    index = {name: number for number, name in enumerate(classes)}
    images: dict[Any, tuple[str, tuple[float, float]]] = {}
    labels: dict[str, list[Row]] = {}
    for entry in content["images"]:
        path = folder / entry["file_name"]
        if not path.is_file():
            problems.append(f"{file}: image {entry['id']}: {path} is not there")
            continue
        size = entry.get("width"), entry.get("height")
        images[entry["id"]] = entry["file_name"], size if all(size) else image_size(path)
        labels[entry["file_name"]] = []
    missing = {entry["id"] for entry in content["images"]} - images.keys()
    for entry in content["annotations"]:
        where = f"{file}: annotation {entry.get('id', '?')}"
        kind = index.get(categories.get(entry["category_id"], ""))
        if entry["image_id"] in missing or (entry.get("iscrowd") and not crowd):
            continue
        if entry["image_id"] not in images:
            problems.append(f"{where}: there is no image {entry['image_id']}")
        elif kind is None:
            problems.append(f"{where}: category {entry['category_id']} is none of the classes")
        else:
            name, size = images[entry["image_id"]]
            row = None
            with suppress(TypeError, ValueError):
                x, y, w, h = map(float, entry["bbox"])
                row = relative_box(kind, (x, y, x + w, y + h), size)
            if row is None:
                problems.append(f"{where}: expected a box inside the image, got {entry['bbox']}")
            else:
                labels[name].append(row)
    return labels
