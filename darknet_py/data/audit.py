"""What is wrong with a data set: `check` looks at every image and every label once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from darknet_py.data.classification import ClassifierDataset
from darknet_py.data.duplicates import DuplicateIndex, ImageFingerprint, fingerprint
from darknet_py.data.images import decode_image, letterbox_size
from darknet_py.data.labels import Labels, find_labels, load_labels
from darknet_py.errors import DataError

Size = tuple[int, int]
Row = tuple[float, ...]  # class, cx, cy, w, h


class FindingKind(NamedTuple):
    title: str
    error: bool = False


KINDS = {
    "missing": FindingKind("images that are not there", True),
    "unreadable": FindingKind("images that cannot be read", True),
    "leak": FindingKind("images to validate on that are trained on as well", True),
    "malformed": FindingKind("label lines that are not `class cx cy w h`", True),
    "nan": FindingKind("labels with numbers that are not finite", True),
    "class": FindingKind("labels of a class that does not exist", True),
    "outside": FindingKind("boxes outside the image", True),
    "unnamed": FindingKind("images whose path does not name one class", True),
    "set": FindingKind("problems of the whole set", True),
    "leak_alike": FindingKind("images to validate on that look like one trained on"),
    "twin": FindingKind("images that are there twice"),
    "alike": FindingKind("images that look like another"),
    "unlabeled": FindingKind("images without a label file"),
    "beyond": FindingKind("boxes that reach beyond the image"),
    "tiny": FindingKind("boxes that are very small"),
    "repeated": FindingKind("boxes that are there twice"),
    "crowded": FindingKind("images with more objects than the head's max"),
    "unused": FindingKind("classes without a box to train on"),
}


class Finding(NamedTuple):
    """image: its path, "" where it is about none. rows: the boxes concerned. other: the image that it is like."""

    kind: str
    image: str
    text: str
    rows: tuple[Row, ...] = ()
    other: str = ""


@dataclass
class SplitReport:
    """What one list holds. counts: boxes (or images, of a classifier) by class. most: boxes in one image."""

    images: int = 0
    negatives: int = 0  # with an empty label file
    unlabeled: int = 0
    boxes: int = 0
    most: int = 0
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))


@dataclass
class AuditReport:
    splits: dict[str, SplitReport]
    findings: list[Finding] = field(default_factory=list)

    @property
    def errors(self) -> int:
        return sum(KINDS[finding.kind].error for finding in self.findings)

    def of(self, kind: str) -> list[Finding]:
        return [finding for finding in self.findings if finding.kind == kind]


@dataclass(frozen=True)
class AuditRules:
    """What images and labels are held against.

    classes: number of classes. size: of the network input, in whose pixels `tiny` counts (else the image's).
    most: the head's max. classifier: whose images they are, the path of each naming
    one class; None for detectors.
    """

    classes: int
    channels: int = 3
    size: Size | None = None
    letter_box: bool = False
    tiny: float = 4.0
    most: int | None = None
    classifier: ClassifierDataset | None = None


class ImageReport(NamedTuple):
    """size: None where the image cannot be read; then `problem` and its kind say why."""

    size: Size | None
    mark: ImageFingerprint | None
    problem: tuple[str, str] | None
    labels: Labels | None


def audit(
    splits: Mapping[str, Sequence[str]], rules: AuditRules, progress: Callable[[int], object] = lambda done: None
) -> AuditReport:
    """Looks at all images of all splits, in threads. The first split is the one that is trained on.

    `progress(1)` is called after each image. Memory: about half a kilobyte per image.
    """
    report = AuditReport({split: SplitReport(counts=np.zeros(rules.classes, np.int64)) for split in splits})
    owners: dict[str, list[str]] = {}  # image → splits, as often as it is listed
    for split, paths in splits.items():
        for path in paths:
            owners.setdefault(path, []).append(split)
    gallery, images = DuplicateIndex(), list(owners)
    for number, (path, look) in enumerate(_looks(images, rules)):
        report.findings += _listed(path, owners[path])
        report.findings += _image_findings(path, look, rules)
        if look.mark is not None:
            report.findings += _twins(gallery, number, look.mark, images, owners)
        for split in owners[path]:
            _count(report.splits[split], path, look, rules)
        progress(1)
    for split, figures in report.splits.items():
        if figures.images and figures.images == figures.unlabeled:
            where = find_labels(splits[split][0])
            report.findings.append(Finding("set", "", f"none of the images of {split} has labels, such as {where}"))
    first = next(iter(report.splits.values()))
    if first.counts.any():
        unused = np.flatnonzero(first.counts == 0).tolist()
        report.findings += [Finding("unused", "", f"class {number} has no box to train on") for number in unused]
    order = list(KINDS)
    report.findings.sort(key=lambda finding: order.index(finding.kind))
    return report


def _looks(paths: Sequence[str], rules: AuditRules) -> Iterator[tuple[str, ImageReport]]:
    """In order. In pieces, so that an interruption waits for few images and memory for none."""
    rest = iter(paths)
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
        while piece := list(islice(rest, 64)):
            yield from zip(piece, pool.map(lambda path: _look(path, rules), piece), strict=True)


def _look(path: str, rules: AuditRules) -> ImageReport:
    labels = None if rules.classifier else load_labels(find_labels(path), rules.classes)
    try:
        content = Path(path).read_bytes()
        image = decode_image(content, rules.channels, path)
    except OSError as error:
        kind = "missing" if isinstance(error, FileNotFoundError) else "unreadable"
        return ImageReport(None, None, (kind, error.strerror or str(error)), labels)
    except DataError as error:
        return ImageReport(None, None, ("unreadable", str(error).removeprefix(f"{path}: ")), labels)
    return ImageReport((image.shape[1], image.shape[0]), fingerprint(content, image), None, labels)


def _listed(path: str, owners: Sequence[str]) -> list[Finding]:
    """An image that is listed more than once."""
    if len(set(owners)) > 1:
        return [Finding("leak", path, f"listed in {' and '.join(dict.fromkeys(owners))}", other=path)]
    return [Finding("twin", path, f"listed {len(owners)} times", other=path)] if len(owners) > 1 else []


def _twins(
    gallery: DuplicateIndex,
    number: int,
    found: ImageFingerprint,
    images: Sequence[str],
    owners: Mapping[str, Sequence[str]],
) -> list[Finding]:
    path, first = images[number], gallery.same_file(number, found)
    kinds, what = ("leak", "twin"), "the same file as"
    if first is None:
        first = gallery.alike(number, found)
        kinds, what = ("leak_alike", "alike"), "looks like"
    if first is None:
        return []
    other = images[first]
    apart = not set(owners[path]) & set(owners[other])
    return [Finding(kinds[0] if apart else kinds[1], path, f"{what} {other}", other=other)]


def _image_findings(path: str, look: ImageReport, rules: AuditRules) -> Iterator[Finding]:
    if look.problem is not None:
        yield Finding(look.problem[0], path, look.problem[1])
    if rules.classifier:
        named = [rules.classifier.names[number] for number in rules.classifier.named(path)]
        if len(named) != 1:
            yield Finding("unnamed", path, f"its path names {', '.join(named) or 'no class'}")
        return
    labels = look.labels
    assert labels is not None
    if labels.missing and not os.path.exists(find_labels(path)):
        if look.size is not None:
            yield Finding("unlabeled", path, f"no {find_labels(path)}")
    else:
        yield from _wrong_labels(path, labels, rules)
    yield from _box_findings(path, labels, look.size, rules)


def _wrong_labels(path: str, labels: Labels, rules: AuditRules) -> Iterator[Finding]:
    """The rows that `load_labels` left out, told apart."""
    if not labels.problems:
        return
    name = find_labels(path)
    try:
        lines = Path(name).read_bytes().decode("utf-8-sig", "replace").splitlines()
    except OSError:
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
            kind = "nan"
        elif row[0] not in range(rules.classes):
            kind = "class"
        else:
            kind = "outside"
        yield Finding(kind, path, f"{os.path.basename(name)}:{text}", (row,) if len(row) == 5 else ())


def _box_findings(path: str, labels: Labels, size: Size | None, rules: AuditRules) -> Iterator[Finding]:
    boxes = labels.boxes[:, :5].astype(np.float64)
    if not len(boxes):
        return
    if rules.most is not None and len(boxes) > rules.most:
        yield Finding("crowded", path, f"{len(boxes)} objects, max is {rules.most}", _rows(boxes))
    _, first = np.unique(boxes, axis=0, return_index=True)
    again = np.setdiff1d(np.arange(len(boxes)), first)
    if len(again):
        yield Finding("repeated", path, f"{len(again)} boxes twice", _rows(boxes[again]))
    if size is None:
        return
    reach = np.maximum(boxes[:, 3:] / 2 - boxes[:, 1:3], boxes[:, 1:3] + boxes[:, 3:] / 2 - 1) * size
    far = reach.max(1) > 1
    if far.any():
        yield Finding("beyond", path, f"{far.sum()} boxes, by up to {reach.max():.0f} pixels", _rows(boxes[far]))
    pixels = boxes[:, 3:] * _shown(size, rules)
    small = pixels.min(1) < rules.tiny
    if small.any():
        w, h = pixels[small][pixels[small].prod(1).argmin()]
        yield Finding("tiny", path, f"{small.sum()} boxes, the smallest {w:.1f} x {h:.1f} pixels", _rows(boxes[small]))


def _shown(size: Size, rules: AuditRules) -> Size:
    """The image's size in the network input."""
    if rules.size is None:
        return size
    return letterbox_size(*size, *rules.size) if rules.letter_box else rules.size


def _rows(boxes: NDArray[np.float64]) -> tuple[Row, ...]:
    return tuple(map(tuple, boxes.tolist()))


def _count(split: SplitReport, path: str, look: ImageReport, rules: AuditRules) -> None:
    split.images += 1
    if rules.classifier:
        split.counts[rules.classifier.named(path)] += 1
        return
    labels = look.labels
    assert labels is not None
    split.unlabeled += labels.missing
    split.negatives += not labels.missing and not len(labels.boxes) and not labels.problems
    split.boxes += len(labels.boxes)
    split.most = max(split.most, len(labels.boxes))
    split.counts += np.bincount(labels.boxes[:, 0].astype(np.int64), minlength=rules.classes)
