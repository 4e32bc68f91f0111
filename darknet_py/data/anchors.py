"""Anchors from the sizes of labeled boxes: k-means on IoU (Darknet's `calc_anchors`, `do_kmeans`).

Sizes and anchors are arrays (N, 2) of width and height in pixels of the network input (in grid cells for [region]).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from darknet_py.counted import counted
from darknet_py.data.labels import MAX_CLASSES, find_labels, load_labels
from darknet_py.errors import DataError

Sizes = NDArray[np.float64]

RECALL_IOU = 0.5  # an anchor covers a box from this IoU on
_RUNS = 10  # k-means finds a local optimum: the best of several runs is taken
_SAMPLE_SIZE = 10_000  # boxes for the runs on a large data set
_MAX_ITERATIONS = 1000  # Darknet's limit
_CHUNK = 1 << 16


class BoxSizes(NamedTuple):
    """Sizes of labeled boxes, relative to the image. counts: boxes per class. problems: those of `load_labels`.

    Boxes of zero width or height are left out.
    """

    sizes: Sizes
    counts: NDArray[np.int64]
    images: int
    problems: list[str]


class AnchorQuality(NamedTuple):
    """How well anchors fit boxes, by the IoU of each box with its best anchor.

    recall: share of boxes with an IoU of at least .5. counts: number of boxes per anchor.
    """

    average_iou: float
    recall: float
    counts: tuple[int, ...]


def read_boxes(
    images: Sequence[str], classes: int = MAX_CLASSES, progress: Callable[[int], object] = lambda done: None
) -> BoxSizes:
    """Reads the labels of all images; `progress(1)` is called after each. Raises DataError if there is no box."""
    boxes_by_image: list[NDArray[np.float32]] = []
    problems: list[str] = []
    for image in images:
        labels = load_labels(find_labels(image), classes)
        problems += labels.problems
        boxes_by_image.append(labels.boxes)
        progress(1)
    boxes = np.concatenate([np.zeros((0, 6), np.float32), *boxes_by_image])
    boxes = boxes[(boxes[:, 3:5] > 0).all(1)]
    if not len(boxes):
        raise DataError(f"expected labeled boxes, got none in the labels of {counted(len(images), 'image')}")
    counts = np.bincount(boxes[:, 0].astype(np.int64), minlength=classes or 0)
    return BoxSizes(boxes[:, 3:5].astype(np.float64), counts, len(images), problems)


def fit_anchors(sizes: Sizes, count: int, seed: int = 0) -> Sizes:
    """Fits anchors by Darknet's k-means, started several times by k-means++ (Darknet: once, at random).

    The result with the best average IoU is taken. Large data sets: the runs use a sample, and the best one is then
    continued on all boxes. Deterministic for equal sizes and seed.

    Args:
        sizes: Width and height of the boxes (N, 2).
        count: Number of anchors.
        seed: Seed of the starts.

    Returns:
        Anchors (count, 2), ordered by area.

    Raises:
        DataError: There are fewer distinct sizes than anchors.
    """
    different = np.unique(sizes, axis=0)
    if len(different) < count:
        raise DataError(
            f"expected at least {count} different sizes of boxes for {counted(count, 'anchor')}, got {len(different)}"
        )
    rng = np.random.default_rng(seed)
    sample = sizes if len(sizes) <= _SAMPLE_SIZE else sizes[rng.choice(len(sizes), _SAMPLE_SIZE, replace=False)]
    if len(np.unique(sample, axis=0)) < count:
        sample = sizes
    tries = (kmeans(sample, _kmeans_plus_plus(sample, count, rng))[0] for _ in range(_RUNS))
    best = max(tries, key=lambda centers: evaluate_anchors(sample, centers).average_iou)
    if sample is not sizes:
        best, _ = kmeans(sizes, best)
    return best[np.lexsort((best[:, 0], best.prod(1)))]


def kmeans(sizes: Sizes, start: Sizes) -> tuple[Sizes, int]:
    """Darknet's `do_kmeans` from given centers: final centers, in the order of `start`, and the number of iterations.

    A box belongs to the center of the largest IoU (the first of equal ones); a center moves to the mean of its boxes
    and stays where it has none.
    """
    centers = start.astype(np.float64)
    owner = np.zeros(len(sizes), np.int64)
    if len(centers) == 1:
        centers = sizes.mean(0, keepdims=True)
    for iteration in range(_MAX_ITERATIONS):
        nearest = best_anchor(sizes, centers)[0]
        if (nearest == owner).all():
            return centers, iteration
        owner = nearest
        counts = np.bincount(owner, minlength=len(centers))
        sums = np.stack([np.bincount(owner, sizes[:, axis], len(centers)) for axis in (0, 1)], 1)
        centers = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], centers)
    return centers, _MAX_ITERATIONS


def _kmeans_plus_plus(sizes: Sizes, count: int, rng: np.random.Generator) -> Sizes:
    """Initial centers: each is drawn with probability proportional to (1 − IoU)² to the nearest one before it."""
    centers: Sizes = sizes[rng.integers(len(sizes))][None]
    while len(centers) < count:
        away = (1 - best_anchor(sizes, centers)[1]) ** 2
        centers = np.concatenate([centers, sizes[rng.choice(len(sizes), p=away / away.sum())][None]])
    return centers


def best_anchor(sizes: Sizes, anchors: Sizes) -> tuple[NDArray[np.int64], Sizes]:
    """For each box the index of its best anchor and the IoU with it, both with a common center."""
    number = np.empty(len(sizes), np.int64)
    best = np.empty(len(sizes))
    for first in range(0, len(sizes), _CHUNK):  # bounds the memory
        part = sizes[first : first + _CHUNK, None]
        shared = np.minimum(part, anchors).prod(-1)
        iou = shared / (part.prod(-1) + anchors.prod(-1) - shared)
        number[first : first + _CHUNK] = iou.argmax(1)
        best[first : first + _CHUNK] = iou.max(1)
    return number, best


def evaluate_anchors(sizes: Sizes, anchors: Sizes) -> AnchorQuality:
    number, best = best_anchor(sizes, np.asarray(anchors, np.float64))
    counts = np.bincount(number, minlength=len(anchors))
    return AnchorQuality(float(best.mean()), float((best >= RECALL_IOU).mean()), tuple(counts.tolist()))


def round_anchors(anchors: Sizes, width: int) -> Sizes:
    """Rounds as Darknet does: whole pixels, or four digits if the input is at most 32 wide (grid cells)."""
    return np.maximum(np.round(anchors), 1) if width > 32 else np.maximum(np.round(anchors, 4), 1e-4)


def format_anchors(anchors: Sizes, width: int) -> str:
    """The line that Darknet writes to anchors.txt, without an end of line."""
    form = "{:3.0f},{:3.0f}" if width > 32 else "{:2.4f},{:2.4f}"
    return ", ".join(form.format(w, h) for w, h in anchors)


def format_cfg_value(anchors: Sizes, width: int) -> str:
    """The value of `anchors=` in a cfg: no spaces within a pair."""
    return ", ".join(format_anchors(pair[None], width).replace(" ", "") for pair in anchors)


def masks_by_counts(anchors: int, strides: Sequence[float], counts: Sequence[int]) -> list[list[int]]:
    """Assigns anchors (ordered by area) to heads, the smaller to the finer grids; `counts` anchors per head."""
    if sum(counts) != anchors:
        raise DataError(f"expected {counted(anchors, 'anchor')} in all heads, got {sum(counts)}")
    masks: list[list[int]] = [[] for _ in strides]
    first = 0
    for head in np.argsort(strides, kind="stable").tolist():
        masks[head] = list(range(first, first + counts[head]))
        first += counts[head]
    return masks


def masks_by_size(anchors: Sizes, strides: Sequence[float]) -> list[list[int]]:
    """Assigns anchors (ordered by area) to heads: sides of at most 3.75 strides, the rest to the coarsest head.

    This is the rule of AlexeyAB's README: below 30 pixels for stride 8, below 60 for stride 16. Every head gets at
    least one anchor. Raises DataError where there are fewer anchors than heads.
    """
    heads, count = len(strides), len(anchors)
    if count < heads:
        raise DataError(f"expected at least {counted(heads, 'anchor')}, one per head, got {count}")
    sides = np.sqrt(anchors.prod(1))
    ends = [int((sides < 3.75 * stride).sum()) for stride in sorted(strides)[:-1]]
    shares, first = [], 0
    for head, end in enumerate([*ends, count]):
        last = min(max(end, first + 1), count - (heads - 1 - head))
        shares.append(last - first)
        first = last
    order = np.argsort(strides, kind="stable")
    return masks_by_counts(count, strides, [shares[place] for place in np.argsort(order, kind="stable")])
