"""Thresholds and non-maximum suppression: `Predictions` to `Detections` (`do_nms_sort`, `diounms_sort`)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from darknet_py.boxes import diou, iou
from darknet_py.inference.detections import Detections
from darknet_py.layers.base import Predictions

KINDS = ("default", "greedynms", "diounms", "cornersnms")
Similarity: TypeAlias = Callable[[Tensor, Tensor], Tensor]
_SMALL = 256  # rows up to which the pairs of all classes are compared at once
# Rows of a class in a batched comparison; one suppresses nothing. The larger ones are for boxes of few classes.
_GROUP_SIZES = (2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_ALWAYS_GROUPED = 128
_MAX_PAIRS = 1 << 20  # compared at once
_CACHE_BYTES = 1 << 28  # of the rows that `_LazyRows` remembers
_BLOCK = 32  # rows that `_LazyRows` computes at once; a few of them may turn out not to be needed


def postprocess(
    predictions: Predictions,
    thresh: float | Tensor,
    nms: float,
    kind: str = "default",
    beta: float = 0.6,
    agnostic: bool = False,
) -> list[Detections]:
    """Applies the confidence threshold and non-maximum suppression to a batch.

    A box counts where its objectness exceeds `thresh`, once for each class whose score does (`get_yolo_detections`), so
    that one box may have several classes. Suppression is per class, unless it is agnostic.

    Args:
        predictions: What a network's heads give for B images.
        thresh: Confidence threshold, or one for each class, (C,); a box counts where its objectness exceeds the lowest.
        nms: IoU threshold for non-maximum suppression; 0 suppresses nothing.
        kind: "default" and "cornersnms" compare IoU; "greedynms" and "diounms" subtract (d² / c²)^0.6 and
            (d² / c²)^beta from it, see `boxes.diou`.
        beta: Exponent for "diounms".
        agnostic: Whether boxes of other classes are suppressed too; each box then keeps its best class alone.

    Returns:
        The detections of each image by falling confidence, boxes in the units of `predictions`, without class names.

    Raises:
        ValueError: The kind is unknown.
    """
    if kind not in KINDS:
        raise ValueError(f"nms kind: expected one of {', '.join(KINDS)}, got {kind!r}")
    least = float(thresh.min()) if isinstance(thresh, Tensor) else thresh
    image, candidate = (predictions.objectness > least).nonzero(as_tuple=True)
    scores = predictions.scores[image, candidate]
    row, class_ids = (scores > thresh).nonzero(as_tuple=True)
    image, candidate = image[row], candidate[row]
    rows = _Rows(
        predictions.boxes[image, candidate].float().cpu(),
        class_ids.cpu(),
        scores[row, class_ids].float().cpu(),
        predictions.objectness[image, candidate].float().cpu(),
        candidate.cpu(),
        image.cpu(),
    )
    order = rows.confidence.argsort(descending=True, stable=True)
    rows = rows.at(order[rows.image[order].argsort(stable=True)])
    if nms and len(rows.image):
        rows = rows.at(_staying(rows, nms, similarity_of(kind, beta), agnostic))
    ends = torch.bincount(rows.image, minlength=len(predictions.boxes)).cumsum(0)[:-1].tolist()
    per_image = zip(*(np.split(column.numpy(), ends) for column in rows[:-1]), strict=True)
    return [
        Detections(box, class_id, confidence, objectness=objectness, candidate_ids=candidate_id)
        for box, class_id, confidence, objectness, candidate_id in per_image
    ]


def similarity_of(kind: str, beta: float) -> Similarity:
    """What an `nms_kind` compares, see `postprocess`."""
    special: dict[str, Similarity] = {"greedynms": diou, "diounms": partial(diou, beta=beta)}
    return special.get(kind, iou)


class _Rows(NamedTuple):
    """Boxes, each with one class, of several images."""

    box: Tensor
    class_id: Tensor
    confidence: Tensor
    objectness: Tensor
    candidate_id: Tensor
    image: Tensor

    def at(self, which: Tensor) -> _Rows:
        """The rows with these numbers, or those that are true."""
        return _Rows(*(column[which] for column in self))


def _staying(rows: _Rows, thresh: float, similarity: Similarity, agnostic: bool) -> Tensor:
    """(N,) bool, which rows stay of images one after the other, each by falling confidence."""
    groups = torch.zeros_like(rows.class_id) if agnostic else rows.class_id
    if len(groups) <= _SMALL:  # all images together, as each operation costs some microseconds however small it is
        return _kept_rows(rows.box, groups + rows.image * (groups.max() + 1), rows.candidate_id, thresh, similarity)
    counts = torch.bincount(rows.image).tolist()
    parts = zip(rows.box.split(counts), groups.split(counts), rows.candidate_id.split(counts), strict=True)
    return torch.cat([_kept_rows(*part, thresh, similarity) for part in parts])


def _kept_rows(box: Tensor, class_ids: Tensor, candidate_ids: Tensor, thresh: float, similarity: Similarity) -> Tensor:
    """(N,) bool, which rows stay: those without a kept row of their class before them at an IoU above `thresh`."""
    if len(class_ids) <= _SMALL:
        pairs = class_ids[:, None] == class_ids
        if 4 * int(pairs.sum()) > pairs.numel():  # few classes: all pairs take less time than selecting half of them
            return first_wins((similarity(box[:, None], box) > thresh) & pairs)
        first, second = pairs.triu_(1).nonzero(as_tuple=True)
        pairs[first, second] = similarity(box[first], box[second]) > thresh
        return first_wins(pairs)
    kept = torch.ones(len(class_ids), dtype=torch.bool)
    by_class = class_ids.argsort(stable=True)
    counts = torch.bincount(class_ids)
    starts = counts.cumsum(0) - counts
    distinct = int((torch.bincount(candidate_ids) > 0).sum())
    # Classes with about as many rows are compared together, padded to the same number.
    sizes = [size for size in _GROUP_SIZES if size <= max(_ALWAYS_GROUPED, distinct // 4)]
    for size in sizes:
        classes = ((counts > size // 2) & (counts <= size)).nonzero().squeeze(1)
        for group in torch.split(classes, _MAX_PAIRS // size**2):
            position = torch.arange(size)
            real = position < counts[group, None]
            rows = by_class[(starts[group, None] + position).clamp(max=len(class_ids) - 1)]
            member = box[rows]
            pairs = (similarity(member[:, :, None], member[:, None]) > thresh) & real[:, :, None] & real[:, None]
            kept[rows[real]] = first_wins(pairs)[real]
    large = (counts > sizes[-1]).nonzero().squeeze(1).tolist()
    if not large:
        return kept
    # Classes with many rows mostly suppress: rows of the IoU matrix are computed for the boxes that stay only.
    unique, index = np.unique(candidate_ids.numpy(), return_inverse=True)
    table = box.new_empty(len(unique), 4)
    table[index] = box
    matrix = _LazyRows(table, thresh, similarity)
    for label in large:
        rows = by_class[starts[label] : starts[label] + counts[label]]
        kept[rows] = torch.tensor(list(matrix.sweep(index[rows.numpy()].tolist())))
    return kept


def first_wins(pairs: Tensor) -> Tensor:
    """Which rows stay, where row i suppresses each later row j with pairs[…, i, j] unless it is suppressed itself.

    Starting from "all stay", each round settles at least the next row for good, usually nearly all: the result is that
    of going through the rows one by one.

    pairs: (…, K, K) bool. Returns (…, K) bool.
    """
    suppresses = pairs.triu(1).float()
    stays = torch.ones(*pairs.shape[:-2], 1, pairs.shape[-1])
    while True:
        settled = ((stays @ suppresses) == 0).float()
        if torch.equal(settled, stays):
            return settled.squeeze(-2).bool()
        stays = settled


class _LazyRows:
    """The matrix of which boxes of an image do not suppress each other, computed on demand, a few rows at once.

    An untrained network finds each box in every class: a row that was computed for one class serves all.
    """

    def __init__(self, table: Tensor, thresh: float, similarity: Similarity):
        """table: (M, 4) the boxes of the image."""
        self.table, self.thresh, self.similarity = table, thresh, similarity
        self.rows: dict[int, NDArray[np.uint8]] = {}

    def sweep(self, order: Sequence[int]) -> Iterator[bool]:
        """Which boxes of a class stay. order: their rows in the table, best first."""
        left = np.ones(len(self.table), np.uint8)
        for position, box in enumerate(order):
            if not left[box]:
                yield False
                continue
            if box not in self.rows:
                self._compute(itertools.islice((later for later in order[position:] if left[later]), _BLOCK))
            left &= self.rows[box]
            yield True

    def _compute(self, boxes: Iterable[int]) -> None:
        missing = [box for box in boxes if box not in self.rows]
        if (len(self.rows) + len(missing)) * len(self.table) > _CACHE_BYTES:
            self.rows.clear()
        pairs = self.similarity(self.table[missing][:, None], self.table) > self.thresh
        self.rows.update(zip(missing, (~pairs).numpy().view(np.uint8), strict=True))
