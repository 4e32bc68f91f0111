"""Darknet data → Pascal VOC, COCO JSON, Ultralytics YAML, or Darknet's own layout gathered in one folder."""

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


class ExportResult(NamedTuple):
    """files: what was written, the one to train from first. problems: what was left out, one line each."""

    files: list[Path]
    images: int
    boxes: int
    problems: list[str]


class _Set(NamedTuple):
    """What is to be written: images by split with their labels, and sizes where the format wants them."""

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
) -> ExportResult:
    """Writes a data set in another format. `out` must not hold one already; images are linked.

    to: darknet, voc, coco or yolo. more: further splits besides train and val. progress(1) is called for each image.
    Images that cannot be read and wrong labels are left out and reported. Raises DataError.
    """
    out = Path(out)
    check_out(out)
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
        raise DataError(f"{data.path}: expected images, got none that can be read; the first: {problems[0]}")
    make_folder(out)
    files = write(content, out)
    return ExportResult(files, len(content.labels), sum(map(len, content.labels.values())), problems)


def check_out(out: str | os.PathLike[str]) -> None:
    """Raises DataError unless `out` is a new or an empty folder."""
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out}: expected a new or an empty folder, got something there")


def _read(
    names: list[str], splits: dict[str, list[str]], sized: bool, progress: Callable[[int], object]
) -> tuple[_Set, list[str]]:
    labels: dict[str, list[Row]] = {}
    sizes: dict[str, Size] = {}
    problems: list[str] = []

    def look(image: str) -> Size | str:
        try:
            return image_size(image) if sized else (0, 0) if os.path.isfile(image) else f"{image}: is not there"
        except DataError as error:
            return str(error)

    images = list(dict.fromkeys(image for split in splits.values() for image in split))
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
        for first in range(0, len(images), 256):  # in pieces, so that an interruption waits for few
            piece = images[first : first + 256]
            for image, size in zip(piece, pool.map(look, piece), strict=True):
                progress(1)
                if isinstance(size, str):
                    problems.append(size)
                    continue
                found = load_labels(find_labels(image), len(names))
                problems += [] if found.missing else found.problems
                labels[image] = [(int(kind), x, y, w, h) for kind, x, y, w, h, _ in found.boxes.tolist()]
                sizes[image] = size
    kept = {split: [image for image in images if image in labels] for split, images in splits.items()}
    return _Set(names, kept, labels, sizes), problems


def _darknet(content: _Set, out: Path) -> list[Path]:
    for split, images in content.splits.items():
        shown = link_images(images, out / split / "JPEGImages")
        write_labels(
            {name: content.labels[image] for name, image in zip(shown, images, strict=True)}, out / split / "labels"
        )
        folder = (out / split / "JPEGImages").absolute()
        write_list(out / f"{split}.txt", [str(folder / name) for name in shown])
    train, valid = (split if split in content.splits else None for split in ("train", "val"))
    data = write_data_file(out, "obj", content.names, train, valid)
    return [data.path, out / "obj.names", *(out / f"{split}.txt" for split in content.splits)]


def _yolo(content: _Set, out: Path) -> list[Path]:
    """JSON strings are YAML strings, whatever the names hold."""
    lines = [f"path: {json.dumps(str(out.absolute()), ensure_ascii=False)}"]
    for split, images in content.splits.items():
        # A link per image: the folder shows just this split, and no labels that may lie beside the images.
        shown = link_images(images, out / "images" / split, as_folder=False)
        write_labels(
            {name: content.labels[image] for name, image in zip(shown, images, strict=True)}, out / "labels" / split
        )
        lines.append(f"{split}: images/{split}")
    if "val" not in content.splits:
        lines.append(lines[1].replace("train:", "val:", 1))  # Ultralytics insists on one
    names = [f"  {number}: {json.dumps(name, ensure_ascii=False)}" for number, name in enumerate(content.names)]
    write_atomically(out / "data.yaml", "\n".join([*lines, f"nc: {len(names)}", "names:", *names, ""]).encode())
    return [out / "data.yaml"]


def _coco(content: _Set, out: Path) -> list[Path]:
    """Ids of images count over all splits, as file names may be equal."""
    files = []
    make_folder(out / "annotations")
    for split, images in content.splits.items():
        shown = link_images(images, out / split)
        files.append(out / "annotations" / f"instances_{split}.json")
        darknet_to_coco(
            images, content.names, files[-1], file_names=shown, sizes=[content.sizes[image] for image in images]
        )
    return files


def _voc(content: _Set, out: Path) -> list[Path]:
    for folder in ("Annotations", "ImageSets/Main"):
        make_folder(out / folder)
    images = list(content.labels)
    shown = dict(zip(images, link_images(images, out / "JPEGImages"), strict=True))
    for image in images:
        tree = _annotation(shown[image], content.labels[image], content.sizes[image], content.names)
        tree.write(out / "Annotations" / f"{Path(shown[image]).stem}.xml", encoding="utf-8")
    files = []
    for split, members in content.splits.items():
        files.append(out / "ImageSets" / "Main" / f"{split}.txt")
        write_list(files[-1], [Path(shown[image]).stem for image in members])
    return [out, *files]


def _annotation(name: str, rows: Sequence[Row], size: Size, names: Sequence[str]) -> ElementTree.ElementTree:
    """Corners in pixels, as far as they are whole without a fraction."""
    root = ElementTree.Element("annotation")
    _add(root, "folder", "JPEGImages")
    _add(root, "filename", name)
    extent = ElementTree.SubElement(root, "size")
    for key, value in zip(("width", "height", "depth"), (*size, 3), strict=True):
        _add(extent, key, value)
    _add(root, "segmented", 0)
    for kind, x, y, w, h in rows:
        thing = ElementTree.SubElement(root, "object")
        _add(thing, "name", names[kind])
        _add(thing, "pose", "Unspecified")
        _add(thing, "truncated", 0)
        _add(thing, "difficult", 0)
        box = ElementTree.SubElement(thing, "bndbox")
        corners = ((x - w / 2) * size[0], (y - h / 2) * size[1], (x + w / 2) * size[0], (y + h / 2) * size[1])
        for key, corner in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True):
            _add(box, key, f"{round(corner, 2) + 0.0:g}")
    ElementTree.indent(root)
    return ElementTree.ElementTree(root)


def _add(parent: ElementTree.Element, key: str, value: object) -> None:
    ElementTree.SubElement(parent, key).text = str(value)
