"""What a classifier is trained and measured on: a `.data` file, or a folder with one folder of images per class."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from darknet_py.counted import counted
from darknet_py.data.builtin.shape_classes import NAME, NAMES, ensure_shape_classes
from darknet_py.data.builtin.store import is_builtin
from darknet_py.data.classification import ClassifierDataset
from darknet_py.data.datafile import DataFile, read_names
from darknet_py.errors import DataError
from darknet_py.shipped import find, is_shipped

_VALID = ("valid", "val", "test")


class ClassifierData(NamedTuple):
    """valid is `train` itself where there is no validation list. names: of the classes, to show."""

    file: DataFile
    names: list[str]
    train: ClassifierDataset
    valid: ClassifierDataset

    @property
    def separate(self) -> bool:
        """Whether it is measured on other images than it is trained on."""
        return self.valid is not self.train


def open_classifier_data(
    path: str | os.PathLike[str] | None = None, channels: int = 3, limit: int | None = None, *, trains: bool = True
) -> ClassifierData:
    """A `.data` file whose `labels` (else `names`) are parts of the image paths, as in Darknet, or a folder.

    A folder holds one folder of images per class, or train/ and valid/ (val/, test/) with such folders. None and our
    own `shape-classes.data` mean the built-in set, generated if need be. limit: use the first images of each list
    only. trains: whether a `.data` file needs a training list; otherwise its validation list stands in for one.
    Raises DataError.
    """
    if path is None:
        return _builtin(ensure_shape_classes(), channels, limit)
    root = find(path, "data set")
    if is_builtin(root, NAME):
        folder = None if is_shipped(root) else root.parent / NAME
        return _builtin(ensure_shape_classes(folder), channels, limit)
    if os.path.isdir(root):
        return _folder(root, channels, limit)
    file = DataFile.read(root)
    labels, names = _labels_and_names(file)
    images = file.train_images() if trains or file.train else file.valid_images()
    train = ClassifierDataset(images[:limit], labels, channels)
    if not file.separate:
        return ClassifierData(file, names, train, train)
    return ClassifierData(file, names, train, ClassifierDataset(file.valid_images()[:limit], labels, channels))


def classifier_names(path: str | os.PathLike[str], channels: int = 3) -> tuple[list[str], int]:
    """The names of the classes, and how many of them to show (`top`); a `.data` file may be without images.

    Raises DataError.
    """
    root = find(path, "data set")
    if os.path.isdir(root) or is_builtin(root, NAME):
        found = open_classifier_data(path, channels)
        return found.names, found.file.top
    file = DataFile.read(root)
    return _labels_and_names(file)[1], file.top


def _labels_and_names(file: DataFile) -> tuple[list[str], list[str]]:
    """What the paths of a class have in them, and what the class is called. Raises DataError."""
    source = file.labels or file.names
    if source is None:
        raise DataError(f"{file.path}: expected a line labels= (parts of the image paths, one a class), got none")
    labels = read_names(source)
    if len(labels) < file.classes:
        raise DataError(
            f"{source}: expected {counted(file.classes, 'label')} (classes in {file.path}), got {len(labels)}"
        )
    labels = labels[: file.classes or None]
    names = file.class_names()
    return labels, names if len(names) == len(labels) else labels


def _builtin(file: DataFile, channels: int, limit: int | None) -> ClassifierData:
    """By the folders that its images lie in, whatever the path to them may say."""
    train, valid = (
        ClassifierDataset(images[:limit], NAMES, channels, by_folder=True)
        for images in (file.train_images(), file.valid_images())
    )
    return ClassifierData(file, NAMES, train, valid)


def _folder(root: Path, channels: int, limit: int | None) -> ClassifierData:
    file = DataFile(root)
    split = (root / "train").is_dir()
    whole = ClassifierDataset.from_folder(root / "train" if split else root, channels)
    train = ClassifierDataset(whole.paths[:limit], whole.names, channels, by_folder=True)
    valid = next((root / name for name in _VALID if split and (root / name).is_dir()), None)
    if valid is None:
        return ClassifierData(file, whole.names, train, train)
    paths = ClassifierDataset.from_folder(valid, channels).paths
    return ClassifierData(file, whole.names, train, ClassifierDataset(paths[:limit], whole.names, channels, True))
