"""Candidates of a network to detections: thresholds and non-maximum suppression (`do_nms_sort`, `diounms_sort`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from darknet_py import boxes
from darknet_py.layers.base import Predictions

KINDS = ("default", "greedynms", "diounms", "cornersnms")
Likeness: TypeAlias = Callable[[Tensor, Tensor], Tensor]
_BLOCK = 1024  # its square: pairs compared at once
_MOST = 1 << 28  # bytes of likenesses that are remembered
_FEW = 256  # up to here all pairs are compared, whatever their labels
_SIZES = (2, 4, 8, 16, 32, 64, 128)  # a label with a single box has nothing to suppress


class Candidates(NamedTuple):
    """Detections of one image on the CPU, one row per (box, class), by falling score.

    boxes: (K, 4) center x, center y, width, height as in `Predictions`. objectness, scores: (K,). class_ids: (K,).
    index: (K,) which candidate of the image it is.
    """

    boxes: Tensor
    objectness: Tensor
    class_ids: Tensor
    scores: Tensor
    index: Tensor  # type: ignore[assignment]  # not the method of tuples


def postprocess(
    predictions: Predictions, thresh: float, nms: float, kind: str = "default", beta: float = 0.6
) -> list[Candidates]:
    """Detections of each image.

    A box counts when its objectness is above `thresh`, with each class whose score is (`get_yolo_detections`), so that
    one box may carry several classes. Suppression is per class; nms=0 leaves it out. kind: default and
    cornersnms are plain IoU; greedynms and diounms subtract (d² / c²)^.6 and ^beta from it, see `boxes.diou`.
    """
    if kind not in KINDS:
        raise ValueError(f"nms kind: expected one of {', '.join(KINDS)}, got {kind!r}")
    special: dict[str, Likeness] = {"greedynms": boxes.diou, "diounms": partial(boxes.diou, beta=beta)}
    alike = special.get(kind, boxes.iou)
    image, box = (predictions.objectness > thresh).nonzero(as_tuple=True)
    scores = predictions.scores[image, box]
    row, class_ids = (scores > thresh).nonzero(as_tuple=True)
    image, box = image[row], box[row]
    found = Candidates(
        predictions.boxes[image, box].float().cpu(),
        predictions.objectness[image, box].float().cpu(),
        class_ids.cpu(),
        scores[row, class_ids].float().cpu(),
        box.cpu(),
    )
    counts = torch.bincount(image.cpu(), minlength=len(predictions.boxes)).tolist()
    return [
        _suppressed(Candidates(*parts), nms, alike)
        for parts in zip(*(part.split(counts) for part in found), strict=True)
    ]


def _suppressed(found: Candidates, thresh: float, alike: Likeness) -> Candidates:
    order = found.scores.argsort(descending=True, stable=True)
    found = Candidates(*(part[order] for part in found))
    if not thresh or not len(order):
        return found
    stays = _survivors(found, thresh, alike)
    return Candidates(*(part[stays] for part in found))


def _survivors(found: Candidates, thresh: float, alike: Likeness) -> Tensor:
    """(K,) which boxes, sorted by falling score, resemble no kept one of their label before them above `thresh`."""
    candidates, labels = found.boxes, found.class_ids
    if len(labels) <= _FEW:
        pairs = (alike(candidates[:, None], candidates) > thresh) & (labels[:, None] == labels)
        return _first_come(pairs[None])[0]
    stays = torch.ones(len(labels), dtype=torch.bool)
    by_label = labels.argsort(stable=True)
    counts = torch.bincount(labels)
    starts = counts.cumsum(0) - counts
    # Labels with about as many boxes go together, padded to the same number.
    for size in _SIZES:
        chosen = ((counts > size // 2) & (counts <= size)).nonzero().squeeze(1)
        for group in chosen.split(_BLOCK**2 // size**2):
            place = torch.arange(size)
            real = place < counts[group, None]
            rows = by_label[(starts[group, None] + place).clamp(max=len(labels) - 1)]
            member = candidates[rows]
            pairs = (alike(member[:, :, None], member[:, None]) > thresh) & real[:, :, None] & real[:, None]
            stays[rows[real]] = _first_come(pairs)[real]
    used, index = found.index.unique(return_inverse=True)
    table = candidates.new_empty(len(used), 4)
    table[index] = candidates
    sweep = _Sweep(table, thresh, alike)
    for label in (counts > _SIZES[-1]).nonzero().squeeze(1).tolist():
        rows = by_label[starts[label] : starts[label] + counts[label]]
        stays[rows] = torch.tensor(list(sweep.survivors(index[rows].tolist())))
    return stays


class _Sweep:
    """Goes through the boxes of one label after another and remembers which boxes resemble which.

    A network that has learned little finds each of its boxes in each class; what is compared for one is known for all.
    """

    def __init__(self, table: Tensor, thresh: float, alike: Likeness):
        """table: (N, 4) the boxes of the image."""
        self.table, self.thresh, self.alike = table, thresh, alike
        self.unlike: dict[int, NDArray[np.uint8]] = {}

    def survivors(self, order: Sequence[int]) -> Iterator[bool]:
        """Which boxes of a label stay. order: their rows in the table, best first."""
        left = np.ones(len(self.table), np.uint8)
        for box in order:
            if left[box]:
                left &= self._unlike(box)
                yield True
            else:
                yield False

    def _unlike(self, box: int) -> NDArray[np.uint8]:
        found = self.unlike.get(box)
        if found is None:
            if (len(self.unlike) + 1) * len(self.table) > _MOST:
                self.unlike.clear()
            found = (~(self.alike(self.table[box], self.table) > self.thresh)).numpy().view(np.uint8)
            self.unlike[box] = found
        return found


def _first_come(pairs: Tensor) -> Tensor:
    """(G, K) who stays, if i strikes out each later j with pairs[g, i, j] unless i is struck out itself.

    Starting from "all stay", each round settles at least the next candidate for good, usually nearly all: the result
    is that of going through them one by one.
    """
    strikes = pairs.triu(1).float()
    stays = torch.ones(pairs.shape[0], 1, pairs.shape[1])
    while True:
        settled = ((stays @ strikes) == 0).float()
        if torch.equal(settled, stays):
            return settled.squeeze(1).bool()
        stays = settled
