"""Candidates of a network to detections: thresholds and non-maximum suppression (`do_nms_sort`, `diounms_sort`)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from darknet_py import boxes
from darknet_py.layers.base import Predictions

KINDS = ("default", "greedynms", "diounms", "cornersnms")
Likeness: TypeAlias = Callable[[Tensor, Tensor], Tensor]
_BLOCK = 1024  # candidates compared with one another at once; bounds the memory to a few of its squares
_FEW = 256  # up to here all pairs are compared, whatever their labels
_SIZES = (2, 4, 8, 16, 32, 64, 128)  # a label with a single box has nothing to suppress


class Found(NamedTuple):
    """Detections of one image on the CPU, one row per (box, class), by falling score.

    boxes: (K, 4) centre x, centre y, width, height as in `Predictions`. objectness, scores: (K,). class_ids: (K,).
    index: (K,) which candidate of the image it is.
    """

    boxes: Tensor
    objectness: Tensor
    class_ids: Tensor
    scores: Tensor
    index: Tensor  # type: ignore[assignment]  # not the method of tuples


def candidates(
    predictions: Predictions, thresh: float, nms: float, kind: str = "default", beta: float = 0.6
) -> list[Found]:
    """Detections of each image.

    A box counts when its objectness is above `thresh`, with each class whose score is (`get_yolo_detections`), so that
    one box may carry several classes. Suppression is per class; nms=0 leaves it out. kind: default and
    cornersnms are plain IoU; greedynms and diounms subtract (d² / c²)^.6 and ^beta from it, see `boxes.diou`.
    """
    if kind not in KINDS:
        raise ValueError(f"nms kind: wanted one of {', '.join(KINDS)}, found {kind!r}")
    special: dict[str, Likeness] = {"greedynms": boxes.diou, "diounms": partial(boxes.diou, beta=beta)}
    alike = special.get(kind, boxes.iou)
    image, box = (predictions.objectness > thresh).nonzero(as_tuple=True)
    scores = predictions.scores[image, box]
    row, class_ids = (scores > thresh).nonzero(as_tuple=True)
    image, box = image[row], box[row]
    found = Found(
        predictions.boxes[image, box].float().cpu(),
        predictions.objectness[image, box].float().cpu(),
        class_ids.cpu(),
        scores[row, class_ids].float().cpu(),
        box.cpu(),
    )
    counts = torch.bincount(image.cpu(), minlength=len(predictions.boxes)).tolist()
    return [
        _suppressed(Found(*parts), nms, alike) for parts in zip(*(part.split(counts) for part in found), strict=True)
    ]


def _suppressed(found: Found, thresh: float, alike: Likeness) -> Found:
    order = found.scores.argsort(descending=True, stable=True)
    found = Found(*(part[order] for part in found))
    if not thresh or not len(order):
        return found
    stays = _survivors(found.boxes, found.class_ids, thresh, alike)
    return Found(*(part[stays] for part in found))


def _survivors(candidates: Tensor, labels: Tensor, thresh: float, alike: Likeness) -> Tensor:
    """(K,) which boxes, sorted by falling score, resemble no kept one of their label before them above `thresh`."""
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
    for label in (counts > _SIZES[-1]).nonzero().squeeze(1).tolist():
        rows = by_label[starts[label] : starts[label] + counts[label]]
        stays[rows] = _survivors_of_one(candidates[rows], thresh, alike)
    return stays


def _survivors_of_one(candidates: Tensor, thresh: float, alike: Likeness) -> Tensor:
    """As `_survivors`, for one label with many boxes: block after block, each against those kept before."""
    kept = torch.empty(0, dtype=torch.long)
    for block in torch.arange(len(candidates)).split(_BLOCK):
        if len(kept):
            block = block[~(alike(candidates[kept, None], candidates[block]) > thresh).any(0)]
        member = candidates[block]
        kept = torch.cat((kept, block[_first_come((alike(member[:, None], member) > thresh)[None])[0]]))
    return torch.zeros(len(candidates), dtype=torch.bool).index_fill_(0, kept, True)


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
