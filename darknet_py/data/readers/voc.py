"""Pascal VOC folders (Annotations, ImageSets, JPEGImages) → Darknet lists and labels.

Also folders with `annotations` and `images`, folders that contain both, as annotation tools write them, and folders of
such folders: `train`, `valid` and `test` of an exported data set, VOC2007 and VOC2012 of VOCdevkit.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
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

_ANNOTATIONS, _IMAGES = ("Annotations", "annotations"), ("JPEGImages", "images")
_SPLITS = ("train", "valid", "val", "test")


class VocFolder(NamedTuple):
    """A VOC folder: its path, its part of the data set ("" if it is the data set), its annotations and its images."""

    root: Path
    part: str
    annotations: Path
    images: Path


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

    There is a list for each file of ImageSets/Main with one image name per line; without such files a list of all
    annotations, which has the name of its folder (train, valid, val, test) or else `train`. Lists of the same name in
    several folders are one. The .data file trains on trainval (or train) and validates on valid (or test, or val).
    Corners are used as written, as Darknet's voc_label.py does.

    Args:
        root: The VOC folder, its folder of images or of annotations, or a folder of VOC folders; it is only read.
        out: Folder to write.
        names: Class names in order (default: those of the annotations, sorted).
        difficult: Keep objects marked as difficult.
        name: Name of the .data and .names files.

    Returns:
        The .data file, the counts, and a line for each image or object that was left out.

    Raises:
        DataError: An annotation cannot be read, or the folder has none.
    """
    out = Path(out)
    problems: list[str] = []
    splits: dict[str, list[Path]] = {}
    contents: list[tuple[VocFolder, dict[str, tuple[AnnotatedImage, list[_Object]]]]] = []  # by name of the image
    for folder in voc_folders(Path(root)):
        files = {file.stem: file for file in sorted(folder.annotations.glob("*.xml"))}
        images = _image_names(folder.images)
        content, listed = {}, _splits(folder, list(files))
        for stem in sorted({stem for stems in listed.values() for stem in stems}):
            if stem not in files or stem not in images:
                missing = "image" if stem in files else "annotation"
                problems.append(f"{folder.root}: {stem}: no {missing} of this name")
                continue
            content[images[stem]] = _read_annotation(files[stem], folder.images / images[stem])
        contents.append((folder, content))
        linked = out / folder.part / "JPEGImages"
        for split, stems in listed.items():
            splits.setdefault(split, []).extend(linked / images[stem] for stem in stems if images.get(stem) in content)
    annotated = [objects for _, content in contents for _, objects in content.values()]
    classes = list(names) if names else sorted({obj.name for objects in annotated for obj in objects})
    boxes = 0
    for folder, content in contents:
        labels: dict[str, list[Row]] = {}
        for image_name, (image, objects) in content.items():
            problems += image.wrong_size
            labels[image_name] = _rows(image, objects, classes, problems, difficult)
        link_image_folder(folder.images, out / folder.part / "JPEGImages")
        boxes += write_labels(labels, out / folder.part / "labels")
    for split, paths in splits.items():
        write_list(out / f"{split}.txt", [str(path.absolute()) for path in paths])
    train = next((split for split in ("trainval", "train") if split in splits), None)
    valid = next((split for split in ("valid", "test", "val") if split in splits), None)
    data = write_data_file(out, name, classes, train, valid)
    return ConversionResult(data, len(annotated), boxes, problems)


def voc_folders(root: Path) -> list[VocFolder]:
    """The VOC folders of a data set. Raises DataError if there is no annotation."""
    if root.name in _ANNOTATIONS + _IMAGES and _voc_folder(root.parent, "") and not _voc_folder(root, ""):
        root = root.parent
    if folder := _voc_folder(root, ""):
        return [folder]
    parts = sorted(entry for entry in root.glob("*") if entry.is_dir())
    folders = [folder for part in parts if (folder := _voc_folder(part, part.name)) and _has_images(folder.images)]
    if not folders:
        raise DataError(f"{root}: expected a VOC folder, got no Annotations/*.xml")
    return folders


def _voc_folder(root: Path, part: str) -> VocFolder | None:
    for name in (*_ANNOTATIONS, ""):
        annotations = root / name
        if next(annotations.glob("*.xml"), None):
            candidates = (*(root / folder for folder in _IMAGES), annotations)
            images = next((path for path in candidates if path.is_dir() and _has_images(path)), None)
            if images or name:  # annotations alone may be those of a folder beside them
                return VocFolder(root, part, annotations, images or root / "JPEGImages")
    return None


def _images(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        raise DataError(f"{folder}: expected the folder with the images, got none")
    return (file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)


def _has_images(folder: Path) -> bool:
    return next(_images(folder), None) is not None


def _image_names(folder: Path) -> dict[str, str]:
    """File names of the images by stem."""
    return {file.stem: file.name for file in sorted(_images(folder))}


def voc_lists(folder: VocFolder) -> list[Path]:
    """The files of ImageSets/Main."""
    return sorted(folder.root.glob("ImageSets/Main/*.txt"))


def _splits(folder: VocFolder, stems: list[str]) -> dict[str, list[str]]:
    """The plain lists of ImageSets/Main (lists with a second column mark single classes), else one of all `stems`."""
    splits, known = {}, set(stems)
    for file in voc_lists(folder):
        lines = [line.strip() for line in read_text(file, "list of images").splitlines()]
        lines = [line for line in lines if line]
        if lines and all(len(line.split()) == 1 or line in known for line in lines):
            splits[file.stem] = lines
    return splits or {folder.part if folder.part in _SPLITS else "train": stems}


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


def _rows(
    image: AnnotatedImage, objects: Sequence[_Object], classes: list[str], problems: list[str], difficult: bool
) -> list[Row]:
    """The label rows of an image; adds a line to `problems` for each object that is left out."""
    rows = []
    for obj in objects:
        if obj.difficult and not difficult:
            continue
        if obj.name not in classes:
            expected = f"expected one of the classes {', '.join(classes)}"
            problems.append(f"{image.where}: {expected}, got {obj.name!r}")
            continue
        row = image.row(classes.index(obj.name), obj.corners)
        if row is None:
            problems.append(f"{image.where}: expected a box inside the image, got {obj.corners}")
        else:
            rows.append(row)
    return rows


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
