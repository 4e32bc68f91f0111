"""Gathers images from anywhere in one folder, by symbolic links."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from darknet_py.data.readers.darknet_layout import link_image_folder
from darknet_py.errors import DataError
from darknet_py.files import make_folder


def link_images(images: Sequence[str], folder: Path, as_folder: bool = True) -> list[str]:
    """Links images into a folder; copies where links are not possible.

    Args:
        images: Paths of the images.
        folder: The folder to create, or to add to.
        as_folder: Link the folder itself where all images lie in one folder; else link each image under a unique name.

    Returns:
        The file names in `folder`, in the order of the images.

    Raises:
        DataError: A link or file of that name exists already, or the folder cannot be written.
    """
    sources = [os.path.abspath(image) for image in images]
    parents = {os.path.dirname(source) for source in sources}
    names = [os.path.basename(source) for source in sources]
    if as_folder and len(parents) == 1 and len({os.path.splitext(name)[0] for name in names}) == len(set(sources)):
        link_image_folder(Path(os.path.realpath(parents.pop())), folder)
        return names
    if folder.is_symlink():
        raise DataError(f"{folder}: already exists and links to {os.readlink(folder)}")
    make_folder(folder)
    names = unique_names(sources)
    for source, name in zip(sources, names, strict=True):
        _link(os.path.realpath(source), folder / name)
    return names


def unique_names(paths: Sequence[str]) -> list[str]:
    """File names that are unique even without extension: the own name, with parent folders prefixed where needed."""
    taken: dict[str, str] = {}  # name without extension → path
    names = []
    for path in paths:
        head, name = os.path.split(path)
        while taken.setdefault(os.path.splitext(name)[0], path) != path:
            head, part = os.path.split(head)
            name = f"{part or '_'}_{name}"
        names.append(name)
    return names


def _link(source: str, target: Path) -> None:
    with suppress(OSError):
        if target.samefile(source):
            return
    try:
        target.symlink_to(source)
    except FileExistsError:
        raise DataError(f"{target}: already exists and is not {source}") from None
    except OSError:
        try:
            shutil.copyfile(source, target)
        except OSError as error:
            raise DataError(f"{target}: cannot link or copy {source}: {error.strerror or error}") from None
