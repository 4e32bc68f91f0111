"""Bringing images from anywhere into one folder, by links."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from darknet_py.data.readers.darknet_layout import link_image_folder
from darknet_py.errors import DataError
from darknet_py.files import make_folder


def link_images(images: Sequence[str], folder: Path, whole: bool = True) -> list[str]:
    """Makes `folder` show the images and returns their names in it, in order.

    With `whole`, images of one folder become a link to that folder. Else there is a link per image, under different
    names; a folder that is there already is filled up. Copies where links are not possible. Raises DataError.
    """
    sources = [os.path.abspath(image) for image in images]
    parents = {os.path.dirname(source) for source in sources}
    names = [os.path.basename(source) for source in sources]
    if whole and len(parents) == 1 and len({os.path.splitext(name)[0] for name in names}) == len(set(sources)):
        link_image_folder(Path(os.path.realpath(parents.pop())), folder)
        return names
    if folder.is_symlink():
        raise DataError(f"{folder}: is there already and links to {os.readlink(folder)}")
    make_folder(folder)
    names = different_names(sources)
    for source, name in zip(sources, names, strict=True):
        _link(os.path.realpath(source), folder / name)
    return names


def different_names(paths: Sequence[str]) -> list[str]:
    """A file name for each path, different without their endings too: its own, with folders before it where needed."""
    taken: dict[str, str] = {}  # name without ending → path
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
        raise DataError(f"{target}: is there already and is not {source}") from None
    except OSError:
        try:
            shutil.copyfile(source, target)
        except OSError as error:
            raise DataError(f"{target}: cannot link or copy {source}: {error.strerror or error}") from None
