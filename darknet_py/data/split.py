"""Holds some images of a list out for validation."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from darknet_py.data.duplicates import DuplicateIndex, ImageFingerprint, fingerprint
from darknet_py.data.images import load_image
from darknet_py.errors import DataError

_THREADS = 8
_CHUNK = 64  # images that are read ahead


class HeldOut(NamedTuple):
    """A list of images in two parts, both in the order of the list.

    Attributes:
        train: Images to train on.
        valid: Images to validate on.
        duplicates: How many images stay with one that is the same or looks the same.
    """

    train: list[str]
    valid: list[str]
    duplicates: int


def hold_out(
    paths: Sequence[str],
    classes: Sequence[Sequence[int]],
    fraction: float,
    seed: int = 0,
    progress: Callable[[int], object] = lambda done: None,
) -> HeldOut:
    """Splits a list of images so that each class has about the same share in both parts.

    Images with the same content, or that look alike, stay together. Which ones are held out follows from their
    content and the seed: neither names nor order matter. Iterative stratification (Sechidis et al., 2011) over
    groups of duplicates: the rarest class is dealt first, each group to the part that lacks most of that class.

    Args:
        paths: The images.
        classes: The classes of each image's objects; empty for an image without objects, which counts as a class.
        fraction: Share to hold out, above 0 and below 1.
        seed: Another seed holds out other images.
        progress: Called with the number of images that were read since the last call.

    Returns:
        Both parts, neither of them empty.

    Raises:
        DataError: There are no two images that differ.
    """
    groups, keys = _groups(paths, seed, progress)
    if len(groups) < 2:
        raise DataError(
            f"expected at least 2 different images to hold some out, got {len(groups)} in a list of {len(paths)} "
            "(split='none', --split none, trains on all)"
        )
    table = _class_table(groups, classes)
    held_out = _stratify(table, keys, fraction)
    valid = {number for group in np.flatnonzero(held_out) for number in groups[group]}
    return HeldOut(
        [path for number, path in enumerate(paths) if number not in valid],
        [path for number, path in enumerate(paths) if number in valid],
        len(paths) - len(groups),
    )


def _groups(paths: Sequence[str], seed: int, progress: Callable[[int], object]) -> tuple[list[list[int]], list[bytes]]:
    """Groups of image numbers that stay together, and a key of each that follows from content and seed."""
    index = DuplicateIndex()
    group_of: list[int] = []
    groups: list[list[int]] = []
    keys: list[bytes] = []
    with ThreadPoolExecutor(min(os.cpu_count() or 1, _THREADS)) as pool:
        for first in range(0, len(paths), _CHUNK):  # bounds the memory
            chunk = paths[first : first + _CHUNK]
            for number, mark in enumerate(pool.map(_fingerprint, chunk), first):
                content = mark.file if mark else os.fsencode(paths[number])
                key = blake2b(content, key=str(seed).encode(), digest_size=16).digest()
                earlier = None
                if mark is not None:
                    earlier = index.same_file(number, mark)
                    earlier = index.near_duplicate(number, mark) if earlier is None else earlier
                if earlier is None:
                    group_of.append(len(groups))
                    groups.append([number])
                    keys.append(key)
                else:
                    group = group_of[earlier]
                    group_of.append(group)
                    groups[group].append(number)
                    keys[group] = min(keys[group], key)
            progress(len(chunk))
    return groups, keys


def _fingerprint(path: str) -> ImageFingerprint | None:
    """None for an image that cannot be read, which training reports when it meets it."""
    try:
        return fingerprint(Path(path).read_bytes(), load_image(path, None))
    except (OSError, DataError):
        return None


def _class_table(groups: Sequence[Sequence[int]], classes: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    """(groups, classes + 1): in how many images of a group a class occurs; the last column: images without objects."""
    columns = max((max(found) for found in classes if len(found)), default=-1) + 1
    table = np.zeros((len(groups), columns + 1), np.int64)
    for row, group in enumerate(groups):
        for number in group:
            table[row, list({int(found) for found in classes[number]}) or [columns]] += 1
    return table


def _stratify(table: NDArray[np.int64], keys: Sequence[bytes], fraction: float) -> NDArray[np.bool_]:
    """Which groups are held out."""
    order = sorted(range(len(keys)), key=lambda group: keys[group])
    shares = np.array([1 - fraction, fraction])
    wanted = shares[:, None] * table.sum(0)  # per part and class, what it still lacks
    held_out = np.zeros(len(table), bool)
    open_groups = np.ones(len(table), bool)
    while open_groups.any():
        left = table[open_groups].sum(0)
        rarest = int(np.where(left > 0, left, left.max() + 1).argmin())
        for group in (group for group in order if open_groups[group] and table[group, rarest]):
            part = _lacking(wanted[:, rarest], wanted.sum(1))
            held_out[group] = part == 1
            wanted[part] -= table[group]
            open_groups[group] = False
    counts = table.sum(0)
    spared = max(order, key=lambda group: counts[table[group] > 0].min())  # its rarest class is the most frequent
    if held_out.all() or not held_out.any():  # of few images
        held_out[spared] = not held_out[spared]
    return held_out


def _lacking(of_class: NDArray[np.float64], of_all: NDArray[np.float64]) -> int:
    """The part that lacks more of the class; of equal ones the one that lacks more of all, then the training part."""
    (train, valid), (train_all, valid_all) = of_class.tolist(), of_all.tolist()
    return int((valid, valid_all) > (train, train_all))
