"""Audit of a data set for `check`: every image and every label file is read once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from darknet_py.counted import counted
from darknet_py.data.classification import ClassifierDataset
from darknet_py.data.duplicates import DuplicateIndex, ImageFingerprint, fingerprint
from darknet_py.data.image_header import image_header
from darknet_py.data.images import DARK, decode_image, is_too_dark, letterbox_size
from darknet_py.data.labels import Labels, find_labels, load_labels
from darknet_py.errors import DataError
from darknet_py.untrusted import read_file

Size = tuple[int, int]
Row = tuple[float, ...]  # class, cx, cy, w, h


class FindingKind(NamedTuple):
    title: str
    error: bool = False


KINDS = {
    "missing": FindingKind("missing images", True),
    "unreadable": FindingKind("unreadable or corrupt images", True),
    "leak": FindingKind("validation images that are also in the training set", True),
    "malformed": FindingKind("malformed label lines (expected `class cx cy w h`)", True),
    "not_finite": FindingKind("labels with non-finite numbers", True),
    "unknown_class": FindingKind("labels of unknown classes", True),
    "outside": FindingKind("boxes outside the image", True),
    "unclassified": FindingKind("images whose path does not name exactly one class", True),
    "dataset": FindingKind("problems of the whole data set", True),
    "near_leak": FindingKind("validation images that look like a training image"),
    "duplicate": FindingKind("duplicate images"),
    "near_duplicate": FindingKind("near-duplicate images"),
    "wrong_size": FindingKind("annotations with another size than their image", True),
    "left_out": FindingKind("images and objects that a conversion left out"),
    "dark": FindingKind("16-bit images that are nearly black in 8 bits"),
    "unlabeled": FindingKind("images without a label file"),
    "partly_outside": FindingKind("boxes partly outside the image"),
    "tiny": FindingKind("tiny boxes"),
    "duplicate_box": FindingKind("duplicate boxes"),
    "crowded": FindingKind("images with more objects than max= of the head"),
    "unused_class": FindingKind("classes without training boxes"),
}


class Finding(NamedTuple):
    """image: its path, "" for a finding about no image. rows: the boxes concerned. other: the duplicated image."""

    kind: str
    image: str
    text: str
    rows: tuple[Row, ...] = ()
    other: str = ""


@dataclass
class SplitReport:
    """Statistics of one list.

    counts: boxes per class (classifiers: images). max_boxes: the largest number of boxes in one image.
    """

    images: int = 0
    negatives: int = 0  # with an empty label file
    unlabeled: int = 0
    boxes: int = 0
    max_boxes: int = 0
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))


@dataclass
class AuditReport:
    splits: dict[str, SplitReport]
    findings: list[Finding] = field(default_factory=list)

    @property
    def errors(self) -> int:
        return sum(KINDS[finding.kind].error for finding in self.findings)

    def of_kind(self, kind: str) -> list[Finding]:
        return [finding for finding in self.findings if finding.kind == kind]


@dataclass(frozen=True)
class AuditRules:
    """What images and labels are checked against.

    classes: number of classes. channels: of the images. size: (width, height) of the network input; `tiny` is in its
    pixels (default: in pixels of the image). letter_box: images keep their aspect ratio. max_boxes: `max` of the head.
    classifier: the data set of a classifier, whose image paths name the class; None for detectors.
    """

    classes: int
    channels: int = 3
    size: Size | None = None
    letter_box: bool = False
    tiny: float = 4.0
    max_boxes: int | None = None
    classifier: ClassifierDataset | None = None


class ImageReport(NamedTuple):
    """size: (width, height), None for an unreadable image. problem: (kind of finding, text) of an image."""

    size: Size | None
    fingerprint: ImageFingerprint | None
    problem: tuple[str, str] | None
    labels: Labels | None


def audit(
    splits: Mapping[str, Sequence[str]], rules: AuditRules, progress: Callable[[int], object] = lambda done: None
) -> AuditReport:
    """Checks all images and labels of all splits, in threads. Memory: about half a kilobyte per image.

    Args:
        splits: Name of each list → paths of its images. The first one is the training list.
        rules: What images and labels are checked against.
        progress: Called with 1 after each image.

    Returns:
        Statistics per split and the findings, ordered by kind.
    """
    report = AuditReport({split: SplitReport(counts=np.zeros(rules.classes, np.int64)) for split in splits})
    splits_by_image: dict[str, list[str]] = {}  # image → the splits that list it, with repetitions
    for split, paths in splits.items():
        for path in paths:
            splits_by_image.setdefault(path, []).append(split)
    index, images = DuplicateIndex(), list(splits_by_image)
    for number, (path, image_report) in enumerate(_inspect_images(images, rules)):
        report.findings += _listing_findings(path, splits_by_image[path])
        report.findings += _image_findings(path, image_report, rules)
        if image_report.fingerprint is not None:
            report.findings += _duplicate_findings(index, number, image_report.fingerprint, images, splits_by_image)
        for split in splits_by_image[path]:
            _count(report.splits[split], path, image_report, rules)
        progress(1)
    for split, split_report in report.splits.items():
        if split_report.images and split_report.images == split_report.unlabeled:
            found = next((path for path in splits[split] if os.path.exists(path)), None)
            text = f"none of the images of {split} exists (for example, {splits[split][0]:.300})"
            if found is not None:
                text = f"none of the images of {split} has a label file (expected, for example, {find_labels(found)})"
            report.findings.append(Finding("dataset", "", text))
    first = next(iter(report.splits.values()))
    if first.counts.any():
        unused = np.flatnonzero(first.counts == 0).tolist()
        report.findings += [Finding("unused_class", "", f"class {number} has no training boxes") for number in unused]
    order = list(KINDS)
    report.findings.sort(key=lambda finding: order.index(finding.kind))
    return report


def _inspect_images(paths: Sequence[str], rules: AuditRules) -> Iterator[tuple[str, ImageReport]]:
    """Reports in order. Works in chunks, so that an interruption waits for few images."""
    rest = iter(paths)
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
        while chunk := list(islice(rest, 64)):
            yield from zip(chunk, pool.map(lambda path: _inspect_image(path, rules), chunk), strict=True)


def _inspect_image(path: str, rules: AuditRules) -> ImageReport:
    labels = None if rules.classifier else load_labels(find_labels(path), rules.classes)
    try:
        content = read_file(path, "image")
        image = decode_image(content, rules.channels, path)
    except DataError as error:
        kind = "missing" if isinstance(error.__cause__, FileNotFoundError) else "unreadable"
        reason = str(error).removeprefix(f"{path:.300}: ").removeprefix("cannot read the image: ")
        return ImageReport(None, None, (kind, reason), labels)
    problem = ("dark", DARK) if is_too_dark(image_header(content), image) else None
    return ImageReport((image.shape[1], image.shape[0]), fingerprint(content, image), problem, labels)


def _listing_findings(path: str, splits_by_image: Sequence[str]) -> list[Finding]:
    """Findings about an image that is listed more than once."""
    if len(set(splits_by_image)) > 1:
        return [Finding("leak", path, f"listed in {' and '.join(dict.fromkeys(splits_by_image))}", other=path)]
    return (
        [Finding("duplicate", path, f"listed {len(splits_by_image)} times", other=path)]
        if len(splits_by_image) > 1
        else []
    )


def _duplicate_findings(
    index: DuplicateIndex,
    number: int,
    found: ImageFingerprint,
    images: Sequence[str],
    splits_by_image: Mapping[str, Sequence[str]],
) -> list[Finding]:
    path, first = images[number], index.same_file(number, found)
    kinds, relation = ("leak", "duplicate"), "the same file as"
    if first is None:
        first = index.near_duplicate(number, found)
        kinds, relation = ("near_leak", "near_duplicate"), "looks like"
    if first is None:
        return []
    other = images[first]
    in_different_splits = not set(splits_by_image[path]) & set(splits_by_image[other])
    return [Finding(kinds[0] if in_different_splits else kinds[1], path, f"{relation} {other}", other=other)]


def _image_findings(path: str, image_report: ImageReport, rules: AuditRules) -> Iterator[Finding]:
    if image_report.problem is not None:
        yield Finding(image_report.problem[0], path, image_report.problem[1])
    if rules.classifier:
        named = [rules.classifier.names[number] for number in rules.classifier.classes_in_path(path)]
        if len(named) != 1:
            yield Finding("unclassified", path, f"path names {', '.join(named) or 'no class'}")
        return
    labels = image_report.labels
    assert labels is not None
    if labels.missing and not os.path.exists(find_labels(path)):
        if image_report.size is not None:
            yield Finding("unlabeled", path, f"no {find_labels(path)}")
    else:
        yield from _invalid_label_findings(path, labels, rules)
    yield from _box_findings(path, labels, image_report.size, rules)


def _invalid_label_findings(path: str, labels: Labels, rules: AuditRules) -> Iterator[Finding]:
    """Classifies the rows that `load_labels` rejected."""
    if not labels.problems:
        return
    name = find_labels(path)
    try:
        lines = read_file(name, "labels").decode("utf-8-sig", "replace").splitlines()
    except DataError:
        yield Finding("malformed", path, labels.problems[0])
        return
    for problem in labels.problems:
        text = problem.removeprefix(f"{name}:")
        number = int(text.partition(":")[0])
        try:
            row = tuple(map(float, lines[number - 1].split()))
        except ValueError:
            row = ()
        if len(row) != 5:
            kind = "malformed"
        elif not np.isfinite(row).all():
            kind = "not_finite"
        elif row[0] not in range(rules.classes):
            kind = "unknown_class"
        else:
            kind = "outside"
        yield Finding(kind, path, f"{os.path.basename(name)}:{text}", (row,) if len(row) == 5 else ())


def _box_findings(path: str, labels: Labels, size: Size | None, rules: AuditRules) -> Iterator[Finding]:
    boxes = labels.boxes[:, :5].astype(np.float64)
    if not len(boxes):
        return
    if rules.max_boxes is not None and len(boxes) > rules.max_boxes:
        yield Finding("crowded", path, f"{counted(len(boxes), 'object')}, max is {rules.max_boxes}", _rows(boxes))
    _, first = np.unique(boxes, axis=0, return_index=True)
    repeats = np.setdiff1d(np.arange(len(boxes)), first)
    if len(repeats):
        yield Finding("duplicate_box", path, f"{counted(len(repeats), 'box')} twice", _rows(boxes[repeats]))
    if size is None:
        return
    reach = np.maximum(boxes[:, 3:] / 2 - boxes[:, 1:3], boxes[:, 1:3] + boxes[:, 3:] / 2 - 1) * size
    outside = reach.max(1) > 1
    if outside.any():
        yield Finding(
            "partly_outside",
            path,
            f"{counted(outside.sum(), 'box')}, by up to {counted(reach.max(), 'pixel', '.0f')}",
            _rows(boxes[outside]),
        )
    pixels = boxes[:, 3:] * _size_in_network(size, rules)
    small = pixels.min(1) < rules.tiny
    if small.any():
        w, h = pixels[small][pixels[small].prod(1).argmin()]
        yield Finding(
            "tiny",
            path,
            f"{counted(small.sum(), 'box')}, the smallest {w:.1f} x {counted(h, 'pixel', '.1f')}",
            _rows(boxes[small]),
        )


def _size_in_network(size: Size, rules: AuditRules) -> Size:
    """Size of the image within the network input, in pixels."""
    if rules.size is None:
        return size
    return letterbox_size(*size, *rules.size) if rules.letter_box else rules.size


def _rows(boxes: NDArray[np.float64]) -> tuple[Row, ...]:
    return tuple(map(tuple, boxes.tolist()))


def _count(split: SplitReport, path: str, image_report: ImageReport, rules: AuditRules) -> None:
    split.images += 1
    if rules.classifier:
        split.counts[rules.classifier.classes_in_path(path)] += 1
        return
    labels = image_report.labels
    assert labels is not None
    split.unlabeled += labels.missing
    split.negatives += not labels.missing and not len(labels.boxes) and not labels.problems
    split.boxes += len(labels.boxes)
    split.max_boxes = max(split.max_boxes, len(labels.boxes))
    split.counts += np.bincount(labels.boxes[:, 0].astype(np.int64), minlength=rules.classes)
