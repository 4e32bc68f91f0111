"""Result files in Darknet's layouts: what `detector valid` writes (`print_cocos`, `print_detector_detections`)."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from darknet_py.files import file_names, make_folder, write_atomically
from darknet_py.inference.detections import Detections, clipped, coco_category_ids, corners

logger = logging.getLogger(__name__)

COCO_NAME = "coco_results"
VOC_PREFIX = "comp4_det_test_"


def image_ids(paths: Sequence[str | Path]) -> list[int]:
    """A number per image: the one its file name starts with (as in Darknet) or ends with; 1, 2, … where these are
    missing or not unique (Darknet would write 0 for all)."""
    stems = [Path(path).name.partition(".")[0] for path in paths]
    for pattern in (r"(\d+)", r".*?(\d+)$"):
        found = [re.match(pattern, stem) for stem in stems]
        numbers = [int(match[1]) for match in found if match]
        if len(set(numbers)) == len(stems):
            return numbers
    return list(range(1, len(stems) + 1))


def write_coco(
    path: str | Path,
    found: Sequence[Detections],
    paths: Sequence[str | Path],
    sizes: Sequence[tuple[int, int]],
    classes: int,
) -> None:
    """Writes detections in COCO's results format, one object per line: pixels, clipped at the image's edges.

    Args:
        path: The file to write.
        found: The detections of each image.
        paths: The images.
        sizes: (width, height) of each image in pixels.
        classes: Number of classes.

    Raises:
        DataError: The file cannot be written.
    """
    ids = coco_category_ids(classes)

    def lines() -> Iterator[str]:
        for image, record, size in zip(image_ids(paths), found, sizes, strict=True):
            boxes = clipped(record.boxes, size).tolist()
            categories = ids[record.class_ids].tolist()
            for (x, y, w, h), category, score in zip(boxes, categories, record.confidences.tolist(), strict=True):
                yield (
                    f'{{"image_id":{image}, "category_id":{category}, '
                    f'"bbox":[{x:f}, {y:f}, {w:f}, {h:f}], "score":{score:f}}}'
                )

    def chunks() -> Iterator[bytes]:
        yield b"["
        for i, line in enumerate(lines()):
            yield (",\n" if i else "\n").encode() + line.encode()
        yield b"\n]\n"

    write_atomically(path, chunks())


def write_voc(
    folder: str | Path,
    found: Sequence[Detections],
    paths: Sequence[str | Path],
    sizes: Sequence[tuple[int, int]],
    names: Sequence[str],
    prefix: str = VOC_PREFIX,
) -> list[Path]:
    """Writes a file comp4_det_test_NAME.txt per class: image, score, left, top, right, bottom, in pixels from 1.

    A name that two classes share, or that cannot be part of a file name, is changed there; a note says so.

    Args:
        folder: Where the files go.
        found: The detections of each image.
        paths: The images.
        sizes: (width, height) of each image in pixels.
        names: Class names.
        prefix: Start of the file names.

    Returns:
        The files.

    Raises:
        DataError: A file cannot be written.
    """
    files = []
    folder = make_folder(folder)
    file_of = file_names(names, prefix, ".txt")
    for k, name in enumerate(names):
        if file_of[k] != f"{prefix}{name}.txt":
            logger.info("note: the results of class %d, %r, are in %s", k, name, file_of[k])

        def chunks(k: int = k) -> Iterator[bytes]:
            for path, record, size in zip(paths, found, sizes, strict=True):
                rows = record.class_ids == k
                edges = corners(record.boxes[rows], size) + 1
                edges = np.concatenate([np.maximum(edges[:, :2], 1), np.minimum(edges[:, 2:], size)], 1)
                stem = Path(path).name.partition(".")[0]
                for score, (left, top, right, bottom) in zip(
                    record.confidences[rows].tolist(), edges.tolist(), strict=True
                ):
                    yield f"{stem} {score:f} {left:f} {top:f} {right:f} {bottom:f}\n".encode()

        files.append(folder / file_of[k])
        write_atomically(files[-1], chunks())
    return files
