"""COCO instance files → Darknet lists and labels, and back."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypedDict

from darknet_py.data.datafile import write_list
from darknet_py.data.labels import find_labels, load_labels
from darknet_py.data.readers.darknet_layout import (
    AnnotatedImage,
    ConversionResult,
    Row,
    image_size,
    link_image_folder,
    path_inside,
    write_data_file,
    write_labels,
)
from darknet_py.errors import DataError
from darknet_py.files import write_atomically
from darknet_py.untrusted import read_file


def coco_to_darknet(
    splits: Mapping[str, tuple[str | os.PathLike[str], str | os.PathLike[str]]],
    out: str | os.PathLike[str],
    names: Sequence[str] | None = None,
    *,
    crowd: bool = False,
    name: str = "coco",
) -> ConversionResult:
    """Converts COCO JSON files to Darknet's layout (see `darknet_layout` for the files in `out`).

    Args:
        splits: Name of each split → (instances.json, folder of its images). The first one that starts with "train" is
            the training list, the first that starts with "val" or "test" the validation list.
        out: Folder to write.
        names: Class names in order, as they are spelled in the JSON (default: all categories by id, which is Darknet's
            order of the 80 classes).
        crowd: Keep boxes marked iscrowd.
        name: Name of the .data and .names files.

    Returns:
        The .data file, the counts, and a line for each image or box that was left out, such as missing images.

    Raises:
        DataError: A file cannot be read or is not COCO JSON.
    """
    out = Path(out)
    problems: list[str] = []
    count = boxes = 0
    classes = list(names or [])
    for split, (file, folder) in splits.items():
        file, folder = Path(file), Path(folder)
        content = _load_json(file)
        categories = {entry["id"]: entry["name"] for entry in sorted(content["categories"], key=lambda e: e["id"])}
        classes = classes or list(categories.values())
        labels = _label_rows(file, folder, content, categories, classes, crowd, problems)
        link_image_folder(folder, out / split / "JPEGImages")
        boxes += write_labels(labels, out / split / "labels")
        count += len(labels)
        images = (out / split / "JPEGImages").absolute()
        write_list(out / f"{split}.txt", [str(images / image) for image in labels])
    train = next((split for split in splits if split.startswith("train")), None)
    valid = next((split for split in splits if split.startswith(("val", "test"))), None)
    data = write_data_file(out, name, classes, train, valid)
    return ConversionResult(data, count, boxes, problems)


class CocoImage(TypedDict):
    id: int
    file_name: str
    width: int
    height: int


class CocoAnnotation(TypedDict):
    id: int
    image_id: int
    category_id: int
    bbox: list[float]  # left, top, width, height in pixels
    area: float
    iscrowd: int


class CocoCategory(TypedDict):
    id: int
    name: str


class CocoInstances(TypedDict):
    """A COCO file of object instances."""

    images: list[CocoImage]
    annotations: list[CocoAnnotation]
    categories: list[CocoCategory]


def darknet_to_coco(
    images: Sequence[str],
    names: Sequence[str],
    out: str | os.PathLike[str] | None = None,
    *,
    category_ids: Sequence[int] | None = None,
    file_names: Sequence[str] | None = None,
    sizes: Sequence[tuple[int, int]] | None = None,
) -> CocoInstances:
    """Converts the Darknet labels of images to COCO instances. Invalid label rows are left out.

    Args:
        images: Paths of the images. Image ids count from 1, or are the numbers in the file names if all are numeric.
        names: Class names.
        out: JSON file to write, if given.
        category_ids: Category id per class (default: from 1).
        file_names: `file_name` per image (default: the name without folders).
        sizes: (width, height) per image in pixels, if known.

    Returns:
        The content of the JSON file.

    Raises:
        DataError: An image cannot be read, or the number of category ids is not the number of classes.
    """
    category_ids = list(category_ids or range(1, len(names) + 1))
    if len(category_ids) != len(names):
        raise DataError(f"expected {len(names)} category ids, one per class, got {len(category_ids)}")
    stems = [Path(image).stem for image in images]
    numbered = all(stem.isdecimal() for stem in stems) and len({int(stem) for stem in stems}) == len(stems)
    content: CocoInstances = {
        "images": [],
        "annotations": [],
        "categories": [{"id": number, "name": name} for number, name in zip(category_ids, names, strict=True)],
    }
    for position, image in enumerate(images, 1):
        width, height = sizes[position - 1] if sizes else image_size(image)
        number = int(stems[position - 1]) if numbered else position
        name = file_names[position - 1] if file_names else Path(image).name
        content["images"].append({"id": number, "file_name": name, "width": width, "height": height})
        for class_id, x, y, w, h, _ in load_labels(find_labels(image), len(names)).boxes.tolist():
            corner = [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height]
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": number,
                    "category_id": category_ids[int(class_id)],
                    "bbox": [round(value, 3) for value in corner],
                    "area": round(corner[2] * corner[3], 3),
                    "iscrowd": 0,
                }
            )
    if out is not None:
        write_atomically(Path(out), json.dumps(content).encode())
    return content


_SCHEMA = {
    "images": {"id": "id", "file_name": "text"},
    "annotations": {"image_id": "id", "category_id": "id", "bbox": "list"},
    "categories": {"id": "id", "name": "text"},
}
_OPTIONAL = {"images": {"width": "number", "height": "number"}}
_TYPES: dict[str, tuple[type, ...]] = {"id": (int, str), "text": (str,), "list": (list,), "number": (int, float)}


def _load_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_file(file, "COCO file"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: expected COCO JSON, got: {error}") from None
    for key, expected in _SCHEMA.items():
        entries = content.get(key) if isinstance(content, dict) else None
        if not isinstance(entries, list):
            raise DataError(f"{file}: expected COCO JSON with a list {key!r}, got none")
        for number, entry in enumerate(entries):
            missing = [field for field in expected if not isinstance(entry, dict) or field not in entry]
            if missing:
                raise DataError(f"{file}: {key}[{number}]: expected {', '.join(missing)}, got {entry!r:.60}")
            for field, kind in (expected | _OPTIONAL.get(key, {})).items():
                value = entry.get(field)
                optional = field not in expected and value is None
                if not optional and (isinstance(value, bool) or not isinstance(value, _TYPES[kind])):
                    raise DataError(f"{file}: {key}[{number}]: {field}: expected {_article(kind)}, got {value!r:.60}")
        if len({type(entry.get("id")) for entry in entries}) > 1 and key == "categories":
            raise DataError(f"{file}: {key}: expected ids of one type, got numbers and text")
    annotations: dict[str, Any] = content
    return annotations


def _article(kind: str) -> str:
    return {"id": "a number or text", "text": "text", "list": "a list", "number": "a number"}[kind]


def _label_rows(
    file: Path,
    folder: Path,
    content: dict[str, Any],
    categories: dict[int | str, str],
    classes: Sequence[str],
    crowd: bool,
    problems: list[str],
) -> dict[str, list[Row]]:
    """Label rows by image file name, for existing images."""
    index = {name: number for number, name in enumerate(classes)}
    images: dict[int | str, tuple[str, AnnotatedImage]] = {}
    labels: dict[str, list[Row]] = {}
    for entry in content["images"]:
        where = f"{file}: image {entry['id']}"
        try:
            name = path_inside(entry["file_name"])
        except DataError as error:
            problems.append(f"{where}: file_name: {error}")
            continue
        path = folder / name
        if not os.path.isfile(path):
            problems.append(f"{where}: {path!s:.300} not found")
            continue
        size = entry.get("width") or 0, entry.get("height") or 0
        image = AnnotatedImage(path, size if min(size) > 0 else None, where)
        problems += image.wrong_size
        images[entry["id"]] = name, image
        labels[name] = []
    missing = {entry["id"] for entry in content["images"]} - images.keys()
    for entry in content["annotations"]:
        where = f"{file}: annotation {entry.get('id', '?')}"
        class_id = index.get(categories.get(entry["category_id"], ""))
        if entry["image_id"] in missing or (entry.get("iscrowd") and not crowd):
            continue
        if entry["image_id"] not in images:
            problems.append(f"{where}: unknown image {entry['image_id']}")
        elif class_id is None:
            problems.append(f"{where}: category {entry['category_id']} is not one of the classes")
        else:
            name, image = images[entry["image_id"]]
            row = None
            with suppress(TypeError, ValueError, OverflowError):
                x, y, w, h = map(float, entry["bbox"])
                row = image.row(class_id, (x, y, x + w, y + h))
            if row is None:
                problems.append(f"{where}: expected a box inside the image, got {entry['bbox']}")
            else:
                labels[name].append(row)
    return labels
