"""Data sets of any format, as Darknet data: `open_any`. What is not Darknet's is converted into a cache once."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from darknet_py.data.builtin.shapes import open_data
from darknet_py.data.builtin.store import cache_folder
from darknet_py.data.datafile import DataFile
from darknet_py.data.labels import find_labels
from darknet_py.data.readers.coco import coco_to_darknet
from darknet_py.data.readers.coco_files import coco_files, has_coco_files
from darknet_py.data.readers.darknet_layout import ConversionResult
from darknet_py.data.readers.ultralytics import yolo_splits, yolo_to_darknet
from darknet_py.data.readers.voc import voc_folders, voc_to_darknet
from darknet_py.data.yamlfile import read_yaml
from darknet_py.errors import CfgWarning, DataError
from darknet_py.files import make_folder

DARKNET, COCO, VOC, YOLO = FORMATS = "darknet", "coco", "voc", "yolo"
_VERSION = "1"  # of what a conversion writes


class DataSource(NamedTuple):
    """A data set and how it is to be read.

    path: a .data file, a COCO JSON file or a folder of such, a VOC folder, or an Ultralytics YAML file or its folder;
    None is the built-in set. names: the classes in order (default: as the set has them). images: folder of a COCO
    file's images (default: found beside it). crowd: keep COCO's boxes marked iscrowd. difficult: keep VOC's objects
    marked so.
    """

    path: Path | None
    names: tuple[str, ...] = ()
    images: Path | None = None
    crowd: bool = False
    difficult: bool = False


def open_dataset(
    path: str | os.PathLike[str] | None = None,
    *,
    names: Sequence[str] = (),
    images: str | os.PathLike[str] | None = None,
    crowd: bool = False,
    difficult: bool = False,
) -> DataFile:
    """A data set of any format (see `DataSource`), ready to train from.

    Anything but a .data file is converted into a folder of the user's cache, which appears complete or not at all and
    is used again until a file of the set changes. The images stay where they are. What had to be left out is told by a
    CfgWarning. Raises DataError, naming what was looked for.
    """
    source = DataSource(
        None if path is None else Path(path), tuple(names), None if images is None else Path(images), crowd, difficult
    )
    kind = detect_format(source.path)
    if kind == DARKNET:
        return open_data(source.path)
    folder = _cached(source, kind)
    problems = (folder / "problems.txt").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    if problems:
        more = f" (and {len(problems) - 1} more, all in {folder / 'problems.txt'})" if len(problems) > 1 else ""
        warnings.warn(f"left out: {problems[0]}{more}", CfgWarning, stacklevel=2)
    return DataFile.read(folder / f"{kind}.data")


def converted(source: DataSource, kind: str, out: Path) -> ConversionResult:
    """Converts a set that is not Darknet's into the folder `out`. Raises DataError."""
    assert source.path is not None
    names = source.names or None
    if kind == COCO:
        return coco_to_darknet(coco_files(source.path, source.images), out, names, crowd=source.crowd, name=kind)
    if kind == VOC:
        return voc_to_darknet(source.path, out, names, difficult=source.difficult, name=kind)
    return yolo_to_darknet(yaml_file(source.path), out, names, name=kind)


def detect_format(path: Path | None) -> str:
    """One of FORMATS. Raises DataError where nothing fits."""
    if path is None:
        return DARKNET
    if not path.is_dir():
        if not path.is_file():
            raise DataError(f"{path}: expected a data set, got no such file or folder")
        return {".json": COCO, ".yaml": YOLO, ".yml": YOLO}.get(path.suffix.lower(), DARKNET)
    if yaml_file(path).is_file():
        return YOLO
    with suppress(DataError):
        voc_folders(path)
        return VOC
    if has_coco_files(path):
        return COCO
    raise DataError(
        f"{path}: expected a VOC folder (Annotations/*.xml), COCO files (annotations/*.json) or a data.yaml, got none"
    )


def yaml_file(path: Path) -> Path:
    """The YAML file of a folder: data.yaml, or its only one."""
    if not path.is_dir() or (path / "data.yaml").is_file():
        return path if not path.is_dir() else path / "data.yaml"
    found = sorted(file for ending in ("*.yaml", "*.yml") for file in path.glob(ending))
    return found[0] if len(found) == 1 else path / "data.yaml"


def _cached(source: DataSource, kind: str) -> Path:
    """The folder with the converted set. A set that changes gets a new one, as a training may still read the old."""
    assert source.path is not None
    path = Path(os.path.abspath(source.path))
    source = source._replace(path=path, images=source.images and Path(os.path.abspath(source.images)))
    folder = cache_folder() / "data" / f"{path.stem}-{_signature(source, kind)}"
    if (folder / "problems.txt").is_file():
        return folder
    make_folder(folder.parent)
    work = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", suffix=".tmp", dir=folder.parent))
    try:
        problems = converted(source, kind, work).problems
        for file in (*work.glob("*.txt"), *work.glob("*.data")):  # their paths are absolute
            content = file.read_bytes()
            file.write_bytes(content.replace(os.fsencode(work), os.fsencode(folder)))
        text = "".join(f"{problem}\n" for problem in problems)
        (work / "problems.txt").write_text(text, encoding="utf-8", errors="surrogateescape")
        work.chmod(0o755)  # mkdtemp's folders are private
        try:
            work.rename(folder)
        except OSError:
            if not (folder / "problems.txt").is_file():  # else another process was faster
                raise
    except OSError as error:
        raise DataError(f"{folder}: cannot write the converted data: {error.strerror or error}") from None
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder


def _signature(source: DataSource, kind: str) -> str:
    """Changes with the options and with every file that a conversion reads, but for the images themselves."""
    digest = hashlib.blake2b(digest_size=8)
    digest.update(repr((_VERSION, kind, source)).encode("utf-8", "surrogateescape"))
    for path in _files(source, kind):
        try:
            state = os.stat(path)
        except OSError:
            continue
        digest.update(os.fsencode(path) + f"\0{state.st_size}\0{state.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _files(source: DataSource, kind: str) -> Iterable[str | Path]:
    assert source.path is not None
    if kind == COCO:
        return [path for pair in coco_files(source.path, source.images).values() for path in pair]
    if kind == VOC:
        annotations, images = voc_folders(source.path)
        return [images, *sorted(annotations.glob("*.xml")), *sorted(source.path.glob("ImageSets/Main/*.txt"))]
    file = yaml_file(source.path)
    images_by_split = yolo_splits(file, read_yaml(file))
    return [
        file,
        *(path for images in images_by_split.values() for image in images for path in (image, find_labels(image))),
    ]
