"""Opens data sets of any format as Darknet data. Other formats are converted once, into a cache."""

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

from darknet_py.data.builtin.shapes import open_darknet_data
from darknet_py.data.builtin.store import cache_folder
from darknet_py.data.datafile import DataFile
from darknet_py.data.labels import find_labels
from darknet_py.data.readers.coco import coco_to_darknet
from darknet_py.data.readers.coco_files import coco_files, has_coco_files
from darknet_py.data.readers.darknet_layout import ConversionResult
from darknet_py.data.readers.labeled_folder import folder_to_darknet, labeled_images, names_file
from darknet_py.data.readers.tf_csv import csv_files, csv_to_darknet
from darknet_py.data.readers.ultralytics import yolo_splits, yolo_to_darknet
from darknet_py.data.readers.voc import voc_folders, voc_lists, voc_to_darknet
from darknet_py.data.yamlfile import read_yaml
from darknet_py.errors import CfgWarning, DataError
from darknet_py.files import make_folder
from darknet_py.shipped import find

DARKNET, COCO, VOC, YOLO, CSV, FOLDER = FORMATS = "darknet", "coco", "voc", "yolo", "csv", "folder"
PROBLEMS, WRONG_SIZES = "problems.txt", "wrong_sizes.txt"  # in the folder of a conversion
_VERSION = "3"  # of the converted files


class DataSource(NamedTuple):
    """A data set and the options of reading it.

    path: a .data file or the folder of one, a COCO JSON file or a folder of such files, a VOC folder, an Ultralytics
    YAML file or its folder, a CSV file or a folder of such files, or a folder of images with label files; None is the
    built-in data set. names: class names in order (default: those of the data set). images: image
    folder of a COCO file (default: found next to it). crowd: keep COCO boxes marked iscrowd. difficult: keep VOC
    objects marked as difficult.
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
    """Opens a data set of any format for training.

    Formats other than Darknet's are converted into a folder of the user's cache, which is reused until a file of the
    data set changes. The images stay where they are. Images and boxes that are left out raise a CfgWarning.

    Args:
        path: The data set; see `DataSource` for this and the other options.
        names: Class names in order.
        images: Image folder of a COCO file.
        crowd: Keep COCO boxes marked iscrowd.
        difficult: Keep VOC objects marked as difficult.

    Returns:
        The .data file.

    Raises:
        DataError: The data set does not exist, has an unknown format or cannot be converted.
    """
    source = DataSource(
        None if path is None else find(path, "data set"),
        tuple(names),
        None if images is None else Path(images),
        crowd,
        difficult,
    )
    data_format = detect_format(source.path)
    if data_format == DARKNET:
        return open_darknet_data(source.path and data_file(source.path))
    folder = _cached_conversion(source, data_format)
    data = DataFile.read(folder / f"{data_format}.data")
    for what, file in (("left out: ", PROBLEMS), ("wrong size: ", WRONG_SIZES)):
        lines = conversion_notes(data, file)
        if lines:
            more = f" (and {len(lines) - 1} more, all in {folder / file})" if len(lines) > 1 else ""
            warnings.warn(f"{what}{lines[0]}{more}", CfgWarning, stacklevel=2)
    return data


def conversion_notes(data: DataFile, file: str) -> list[str]:
    """What a conversion left out (PROBLEMS), or which sizes it found wrong (WRONG_SIZES); none for Darknet's format."""
    path = data.path.parent / file
    if path.parent.parent != cache_folder() / "data" or not os.path.isfile(path):
        return []
    return path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()


def convert_to_darknet(source: DataSource, data_format: str, out: Path) -> ConversionResult:
    """Converts a data set of another format into the folder `out`. Raises DataError."""
    assert source.path is not None
    names = source.names or None
    if data_format == COCO:
        return coco_to_darknet(coco_files(source.path, source.images), out, names, crowd=source.crowd, name=data_format)
    if data_format == VOC:
        return voc_to_darknet(source.path, out, names, difficult=source.difficult, name=data_format)
    if data_format == CSV:
        return csv_to_darknet(csv_files(source.path), out, names, name=data_format)
    if data_format == FOLDER:
        return folder_to_darknet(source.path, out, names, name=data_format)
    return yolo_to_darknet(yaml_file(source.path), out, names, name=data_format)


def detect_format(path: Path | None) -> str:
    """Detects the format, one of FORMATS. Raises DataError for an unknown one."""
    if path is None:
        return DARKNET
    if not os.path.isdir(path):
        if not os.path.isfile(path):
            raise DataError(f"{path}: data set not found")
        return {".json": COCO, ".yaml": YOLO, ".yml": YOLO, ".csv": CSV}.get(path.suffix.lower(), DARKNET)
    if yaml_file(path).is_file():
        return YOLO
    if data_file(path).is_file():
        return DARKNET
    with suppress(DataError):
        voc_folders(path)
        return VOC
    if has_coco_files(path):
        return COCO
    with suppress(DataError):
        csv_files(path)
        return CSV
    with suppress(DataError):
        labeled_images(path)
        return FOLDER
    raise DataError(
        f"{path}: expected a VOC folder (Annotations/*.xml), COCO files (annotations/*.json), a data.yaml, a .data "
        "file, a CSV file of boxes, or images with label files, got none"
    )


def yaml_file(path: Path) -> Path:
    """The YAML file of a folder: data.yaml, or the only one that describes a data set."""
    if not os.path.isdir(path) or (path / "data.yaml").is_file():
        return path if not os.path.isdir(path) else path / "data.yaml"
    found = [file for ending in ("*.yaml", "*.yml") for file in sorted(path.glob(ending)) if _describes_dataset(file)]
    return found[0] if len(found) == 1 else path / "data.yaml"


def _describes_dataset(file: Path) -> bool:
    """Whether a YAML file is a data set's, and not that of an environment or of a training."""
    try:
        content = read_yaml(file)
    except DataError:
        return False
    return ("train" in content or "val" in content) and ("names" in content or "nc" in content)


def data_file(path: Path) -> Path:
    """The .data file of a folder, such as the obj.data of CVAT's "YOLO 1.1": obj.data, or the only one in it."""
    if not os.path.isdir(path) or (path / "obj.data").is_file():
        return path if not os.path.isdir(path) else path / "obj.data"
    found = sorted(path.glob("*.data"))
    return found[0] if len(found) == 1 else path / "obj.data"


def _cached_conversion(source: DataSource, data_format: str) -> Path:
    """The folder of the converted data set. A changed data set gets a new one: a training may still use the old."""
    assert source.path is not None
    path = Path(os.path.abspath(source.path))
    source = source._replace(path=path, images=source.images and Path(os.path.abspath(source.images)))
    folder = cache_folder() / "data" / f"{path.stem}-{_signature(source, data_format)}"
    if (folder / PROBLEMS).is_file():
        return folder
    make_folder(folder.parent)
    temporary = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", suffix=".tmp", dir=folder.parent))
    try:
        result = convert_to_darknet(source, data_format, temporary)
        for file in (*temporary.glob("*.txt"), *temporary.glob("*.data")):  # they contain absolute paths
            content = file.read_bytes()
            file.write_bytes(content.replace(os.fsencode(temporary), os.fsencode(folder)))
        for name, lines in ((WRONG_SIZES, result.wrong_sizes), (PROBLEMS, result.left_out)):
            text = "".join(f"{line}\n" for line in lines)
            (temporary / name).write_text(text, encoding="utf-8", errors="backslashreplace")
        temporary.chmod(0o755)  # mkdtemp's folders are private
        try:
            temporary.rename(folder)
        except OSError:
            if not (folder / PROBLEMS).is_file():  # else another process has written it
                raise
    except OSError as error:
        raise DataError(f"{folder}: cannot write the converted data: {error.strerror or error}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _signature(source: DataSource, data_format: str) -> str:
    """A hash of the options and of size and times of each file that a conversion reads, except the images.

    The time of the last change of an entry (ctime) tells of a change that keeps size and time of the content.
    """
    digest = hashlib.blake2b(digest_size=8)
    digest.update(repr((_VERSION, data_format, source)).encode("utf-8", "surrogateescape"))
    for path in _source_files(source, data_format):
        try:
            state = os.stat(path)
        except OSError:
            continue
        digest.update(os.fsencode(path) + f"\0{state.st_size}\0{state.st_mtime_ns}\0{state.st_ctime_ns}\n".encode())
    return digest.hexdigest()


def _source_files(source: DataSource, data_format: str) -> Iterable[str | Path]:
    assert source.path is not None
    if data_format == COCO:
        return [path for pair in coco_files(source.path, source.images).values() for path in pair]
    if data_format == VOC:
        return [
            path
            for folder in voc_folders(source.path)
            for path in (folder.images, *sorted(folder.annotations.glob("*.xml")), *voc_lists(folder))
        ]
    if data_format == CSV:
        files = csv_files(source.path).values()
        return [path for file in files for path in (file, file.parent, *file.parent.glob("images"))]
    if data_format == FOLDER:
        file, images_by_split = names_file(source.path) or source.path, labeled_images(source.path)
    else:
        file = yaml_file(source.path)
        images_by_split = yolo_splits(file, read_yaml(file))
    return [
        file,
        *(path for images in images_by_split.values() for image in images for path in (image, find_labels(image))),
    ]
