"""Pascal VOC folders (Annotations, ImageSets, JPEGImages) → Darknet lists and labels.

Also folders with `annotations` and `images`, and folders that contain both, as annotation tools write them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from darknet_py.data.datafile import write_list
from darknet_py.data.images import IMAGE_SUFFIXES
from darknet_py.data.readers.darknet_layout import (
    AnnotatedImage,
    ConversionResult,
    Row,
    link_image_folder,
    write_data_file,
    write_labels,
)
from darknet_py.errors import DataError
from darknet_py.untrusted import MAX_TEXT, read_file, read_text


class _Object(NamedTuple):
    name: str
    corners: tuple[float, float, float, float]
    difficult: bool


def voc_to_darknet(
    root: str | os.PathLike[str],
    out: str | os.PathLike[str],
    names: Sequence[str] | None = None,
    *,
    difficult: bool = False,
    name: str = "voc",
) -> ConversionResult:
    """Converts a VOC folder to Darknet's layout (see `darknet_layout` for the files in `out`).

    There is a list for each file of ImageSets/Main with one image name per line, else a single list `train` of all
    annotations. The .data file trains on trainval (or train) and validates on test (or val). Corners are used as
    written, as Darknet's voc_label.py does.

    Args:
        root: The VOC folder, which is only read.
        out: Folder to write.
        names: Class names in order (default: those of the annotations, sorted).
        difficult: Keep objects marked as difficult.
        name: Name of the .data and .names files.

    Returns:
        The .data file, the counts, and a line for each image or object that was left out.

    Raises:
        DataError: An annotation cannot be read, or the folder has none.
    """
    root, out = Path(root), Path(out)
    annotations, image_folder = voc_folders(root)
    files = {file.stem: file for file in sorted(annotations.glob("*.xml"))}
    images = _image_names(image_folder)
    splits = _splits(root, list(files))
    listed = sorted({stem for stems in splits.values() for stem in stems})
    problems: list[str] = []
    objects: dict[str, tuple[AnnotatedImage, list[_Object]]] = {}
    for stem in listed:
        if stem not in files or stem not in images:
            problems.append(f"{root}: {stem}: no {'image' if stem in files else 'annotation'} of this name")
            continue
        objects[stem] = _read_annotation(files[stem], image_folder / images[stem])
    classes = (
        list(names)
        if names
        else sorted({obj.name for _, objects_of_image in objects.values() for obj in objects_of_image})
    )
    labels: dict[str, list[Row]] = {}
    for stem, (image, objects_of_image) in objects.items():
        problems += image.wrong_size
        rows = labels.setdefault(images[stem], [])
        for obj in objects_of_image:
            if obj.difficult and not difficult:
                continue
            if obj.name not in classes:
                problems.append(f"{files[stem]}: expected one of the classes {', '.join(classes)}, got {obj.name!r}")
                continue
            row = image.row(classes.index(obj.name), obj.corners)
            if row is None:
                problems.append(f"{files[stem]}: expected a box inside the image, got {obj.corners}")
            else:
                rows.append(row)
    link_image_folder(image_folder, out / "JPEGImages")
    boxes = write_labels(labels, out / "labels")
    folder = (out / "JPEGImages").absolute()
    for split, stems in splits.items():
        write_list(out / f"{split}.txt", [str(folder / images[stem]) for stem in stems if stem in objects])
    train = next((split for split in ("trainval", "train") if split in splits), None)
    valid = next((split for split in ("test", "val") if split in splits), None)
    data = write_data_file(out, name, classes, train, valid)
    return ConversionResult(data, len(labels), boxes, problems)


def voc_folders(root: Path) -> tuple[Path, Path]:
    """The folders of annotations and images. Raises DataError if there is no annotation."""
    for name in ("Annotations", "annotations", ""):
        annotations = root / name
        if next(annotations.glob("*.xml"), None):
            images = (root / folder for folder in ("JPEGImages", "images", name))
            return annotations, next((folder for folder in images if folder.is_dir()), root / "JPEGImages")
    raise DataError(f"{root}: expected a VOC folder, got no Annotations/*.xml")


def _image_names(folder: Path) -> dict[str, str]:
    """File names of the images by stem."""
    if not folder.is_dir():
        raise DataError(f"{folder}: expected the folder with the images, got none")
    return {file.stem: file.name for file in sorted(folder.iterdir()) if file.suffix.lower() in IMAGE_SUFFIXES}


def _splits(root: Path, stems: list[str]) -> dict[str, list[str]]:
    """The plain lists of ImageSets/Main (lists with a second column mark single classes)."""
    splits, known = {}, set(stems)
    for file in sorted(root.glob("ImageSets/Main/*.txt")):
        lines = [line.strip() for line in read_text(file, "list of images").splitlines()]
        lines = [line for line in lines if line]
        if lines and all(len(line.split()) == 1 or line in known for line in lines):
            splits[file.stem] = lines
    return splits or {"train": stems}


def _read_annotation(file: Path, image: Path) -> tuple[AnnotatedImage, list[_Object]]:
    """The image with the size in the file, if there is one, and its objects."""
    try:
        root = ElementTree.fromstring(read_file(file, "annotation", limit=MAX_TEXT))
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise DataError(f"{file}: expected a VOC annotation, got no XML: {error}") from None
    width, height = (_number(file, root, f"size/{side}", 0) for side in ("width", "height"))
    size = (width, height) if width > 0 and height > 0 else None
    objects_of_image = []
    for obj in root.iter("object"):
        xmin, ymin, xmax, ymax = (_number(file, obj, f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax"))
        name = (obj.findtext("name") or "").strip()
        objects_of_image.append(_Object(name, (xmin, ymin, xmax, ymax), _number(file, obj, "difficult", 0) != 0))
    return AnnotatedImage(image, size, str(file)), objects_of_image


def _number(file: Path, element: ElementTree.Element, path: str, default: float | None = None) -> float:
    text = element.findtext(path)
    if text is None and default is not None:
        return default
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{file}: <{element.tag}>: {path}: expected a number, got {text!r}")
    return value
