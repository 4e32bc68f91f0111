"""Writes Darknet data as Pascal VOC, COCO JSON, Ultralytics YAML, or in Darknet's layout in one folder."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from darknet_py.data.datafile import DataFile, write_list
from darknet_py.data.labels import find_labels, load_labels
from darknet_py.data.link_images import link_images
from darknet_py.data.readers.coco import darknet_to_coco
from darknet_py.data.readers.darknet_layout import Row, image_size, write_data_file, write_labels
from darknet_py.errors import DataError
from darknet_py.files import make_folder, write_atomically

Size = tuple[int, int]


class WrittenDataset(NamedTuple):
    """files: the files written, the one to train from first. problems: one line for each image or label left out."""

    files: list[Path]
    images: int
    boxes: int
    problems: list[str]


class _Content(NamedTuple):
    """Images per split with their labels, and sizes where the format needs them."""

    names: list[str]
    splits: dict[str, list[str]]
    labels: dict[str, list[Row]]
    sizes: dict[str, Size]


def export(
    data: DataFile,
    out: str | os.PathLike[str],
    to: str,
    *,
    more: Mapping[str, Sequence[str]] | None = None,
    progress: Callable[[int], object] = lambda done: None,
) -> WrittenDataset:
    """Writes a data set in another format. Images are linked; unreadable ones and invalid labels are left out.

    Args:
        data: The data set.
        out: A new or empty folder.
        to: "darknet", "voc", "coco" or "yolo".
        more: Further splits besides train and val.
        progress: Called with 1 after each image.

    Returns:
        The files written, the counts and the problems.

    Raises:
        DataError: The folder is not empty, or no image can be read.
    """
    out = Path(out)
    check_empty(out)
    write = {"darknet": _darknet, "voc": _voc, "coco": _coco, "yolo": _yolo}[to]
    names = data.class_names()
    splits = {}
    if data.train is not None:
        splits["train"] = data.train_images()
    if data.separate:
        splits["val"] = data.valid_images()
    splits |= {split: list(images) for split, images in (more or {}).items()}
    if not splits:
        raise DataError(f"{data.path}: expected a line train= or valid=, got none")
    content, problems = _read(names, splits, to in ("voc", "coco"), progress)
    if not content.labels:
        raise DataError(f"{data.path}: expected images, got no readable one; the first problem: {problems[0]}")
    make_folder(out)
    files = write(content, out)
    return WrittenDataset(files, len(content.labels), sum(map(len, content.labels.values())), problems)


def check_empty(out: str | os.PathLike[str]) -> None:
    """Raises DataError unless `out` is a new or an empty folder."""
    out = Path(out)
    if os.path.exists(out) and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out}: expected a new or empty folder, got existing files")


def _read(
    names: list[str], splits: dict[str, list[str]], with_sizes: bool, progress: Callable[[int], object]
) -> tuple[_Content, list[str]]:
    labels: dict[str, list[Row]] = {}
    sizes: dict[str, Size] = {}
    problems: list[str] = []

    def size_or_problem(image: str) -> Size | str:
        try:
            return image_size(image) if with_sizes else (0, 0) if os.path.isfile(image) else f"{image}: image not found"
        except DataError as error:
            return str(error)

    images = list(dict.fromkeys(image for split in splits.values() for image in split))
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
        for first in range(0, len(images), 256):  # in chunks, so that an interruption waits for few
            chunk = images[first : first + 256]
            for image, size in zip(chunk, pool.map(size_or_problem, chunk), strict=True):
                progress(1)
                if isinstance(size, str):
                    problems.append(size)
                    continue
                found = load_labels(find_labels(image), len(names))
                problems += [] if found.missing else found.problems
                labels[image] = [(int(class_id), x, y, w, h) for class_id, x, y, w, h, _ in found.boxes.tolist()]
                sizes[image] = size
    readable = {split: [image for image in images if image in labels] for split, images in splits.items()}
    return _Content(names, readable, labels, sizes), problems


def _darknet(content: _Content, out: Path) -> list[Path]:
    for split, images in content.splits.items():
        linked = link_images(images, out / split / "JPEGImages")
        write_labels(
            {name: content.labels[image] for name, image in zip(linked, images, strict=True)}, out / split / "labels"
        )
        folder = (out / split / "JPEGImages").absolute()
        write_list(out / f"{split}.txt", [str(folder / name) for name in linked])
    train, valid = (split if split in content.splits else None for split in ("train", "val"))
    data = write_data_file(out, "obj", content.names, train, valid)
    return [data.path, out / "obj.names", *(out / f"{split}.txt" for split in content.splits)]


def _yolo(content: _Content, out: Path) -> list[Path]:
    """Writes names as JSON strings, which are valid YAML whatever they contain."""
    lines = [f"path: {json.dumps(str(out.absolute()), ensure_ascii=False)}"]
    for split, images in content.splits.items():
        # A link per image: the folder then contains only this split, and no labels that lie next to the images.
        linked = link_images(images, out / "images" / split, as_folder=False)
        write_labels(
            {name: content.labels[image] for name, image in zip(linked, images, strict=True)}, out / "labels" / split
        )
        lines.append(f"{split}: images/{split}")
    if "val" not in content.splits:
        lines.append(lines[1].replace("train:", "val:", 1))  # required by Ultralytics
    names = [f"  {number}: {json.dumps(name, ensure_ascii=False)}" for number, name in enumerate(content.names)]
    write_atomically(out / "data.yaml", "\n".join([*lines, f"nc: {len(names)}", "names:", *names, ""]).encode())
    return [out / "data.yaml"]


def _coco(content: _Content, out: Path) -> list[Path]:
    """Writes one JSON file per split."""
    files = []
    make_folder(out / "annotations")
    for split, images in content.splits.items():
        linked = link_images(images, out / split)
        files.append(out / "annotations" / f"instances_{split}.json")
        darknet_to_coco(
            images, content.names, files[-1], file_names=linked, sizes=[content.sizes[image] for image in images]
        )
    return files


def _voc(content: _Content, out: Path) -> list[Path]:
    for folder in ("Annotations", "ImageSets/Main"):
        make_folder(out / folder)
    images = list(content.labels)
    linked = dict(zip(images, link_images(images, out / "JPEGImages"), strict=True))
    for image in images:
        tree = _annotation(linked[image], content.labels[image], content.sizes[image], content.names)
        tree.write(out / "Annotations" / f"{Path(linked[image]).stem}.xml", encoding="utf-8")
    files = []
    for split, members in content.splits.items():
        files.append(out / "ImageSets" / "Main" / f"{split}.txt")
        write_list(files[-1], [Path(linked[image]).stem for image in members])
    return [out, *files]


def _annotation(name: str, rows: Sequence[Row], size: Size, names: Sequence[str]) -> ElementTree.ElementTree:
    """The annotation of one image; corners in pixels, rounded to two digits."""
    root = ElementTree.Element("annotation")
    _add(root, "folder", "JPEGImages")
    _add(root, "filename", name)
    extent = ElementTree.SubElement(root, "size")
    for key, value in zip(("width", "height", "depth"), (*size, 3), strict=True):
        _add(extent, key, value)
    _add(root, "segmented", 0)
    for class_id, x, y, w, h in rows:
        obj = ElementTree.SubElement(root, "object")
        _add(obj, "name", names[class_id])
        _add(obj, "pose", "Unspecified")
        _add(obj, "truncated", 0)
        _add(obj, "difficult", 0)
        box = ElementTree.SubElement(obj, "bndbox")
        corners = ((x - w / 2) * size[0], (y - h / 2) * size[1], (x + w / 2) * size[0], (y + h / 2) * size[1])
        for key, corner in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True):
            _add(box, key, f"{round(corner, 2) + 0.0:g}")
    ElementTree.indent(root)
    return ElementTree.ElementTree(root)


def _add(parent: ElementTree.Element, key: str, value: object) -> None:
    ElementTree.SubElement(parent, key).text = str(value)
