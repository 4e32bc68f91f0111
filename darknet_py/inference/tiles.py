"""Large images in overlapping tiles, so that small objects keep their size (SAHI, arXiv 2202.06934).

Each tile is resized to the network's input like an image of its own, and so is the whole image, for objects that are
larger than a tile. What several tiles have found is merged: a box that is cut by its tile's edge gives way to the
whole one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from darknet_py.boxes import to_corners
from darknet_py.inference.detections import Detections
from darknet_py.inference.nms import Similarity, first_wins, similarity_of

Corners = tuple[int, int, int, int]  # left, top, right, bottom in pixels
_CUT_PIXELS = 2.0  # a box that comes this near to an edge inside the image is taken for cut
_CUT_OVERLAP = 0.5  # share of a cut box within another, above which it is a part of it (SAHI's default)


def tile_corners(size: tuple[int, int], tile: int, overlap: float) -> list[Corners]:
    """Where the tiles of an image are.

    Args:
        size: Width and height of the image.
        tile: Side of a tile in pixels. The last tile of a row or column is moved back into the image.
        overlap: Share of a tile that the next one has too, 0 to below 1.

    Returns:
        The tiles, row by row, and the whole image last; that alone where it fits into one tile.
    """
    whole = (0, 0, *size)
    if max(size) <= tile:
        return [whole]
    step = max(tile - int(tile * overlap), 1)
    starts = [[*range(0, side - tile, step), max(side - tile, 0)] for side in size]
    tiles = [
        (left, top, min(left + tile, size[0]), min(top + tile, size[1])) for top in starts[1] for left in starts[0]
    ]
    return [*tiles, whole]


def merge_tiles(
    parts: Sequence[Detections],
    tiles: Sequence[Corners],
    size: tuple[int, int],
    nms: float,
    kind: tuple[str, float],
    agnostic: bool = False,
) -> Detections:
    """Joins the detections of an image's tiles.

    Boxes of one tile do not suppress each other again. A box of another tile is suppressed as in a whole image, by
    `nms` and `kind`. One that is cut by an edge of its tile also goes where more than half of it is within a box that
    stays: whole boxes are looked at before cut ones, the confident before others.

    Args:
        parts: The detections of each tile, relative to the tile; the last is of the whole image.
        tiles: Where each tile is in the image.
        size: Width and height of the image, in pixels.
        nms: IoU threshold for non-maximum suppression; 0 merges nothing.
        kind: `nms_kind` and `beta_nms`.
        agnostic: Whether boxes of other classes are suppressed too.

    Returns:
        The detections of the image by falling confidence, relative to the image.
    """
    boxes = torch.cat([_in_image(part, place, size) for part, place in zip(parts, tiles, strict=True)])
    cut = torch.cat([_is_cut(part, place, size) for part, place in zip(parts, tiles, strict=True)])
    tile = torch.cat([torch.full((len(part),), number) for number, part in enumerate(parts)])
    class_ids = np.concatenate([part.class_ids for part in parts])
    confidences = np.concatenate([part.confidences for part in parts])
    rows = np.arange(len(class_ids))
    if nms:
        order = np.lexsort((-confidences, cut.numpy()))
        labels = np.zeros_like(class_ids) if agnostic else class_ids
        groups = [torch.from_numpy(order[labels[order] == label]) for label in np.unique(labels)]
        kept = [group[_staying(boxes[group], cut[group], tile[group], nms, similarity_of(*kind))] for group in groups]
        rows = torch.cat(kept).numpy() if kept else rows
    rows = rows[np.argsort(-confidences[rows], kind="stable")]
    numbers = np.cumsum([0, *(int(part.candidate_ids.max(initial=-1)) + 1 for part in parts[:-1])])
    candidate_ids = [part.candidate_ids + first for part, first in zip(parts, numbers.tolist(), strict=True)]
    return replace(
        parts[-1],
        boxes=boxes.numpy()[rows],
        class_ids=class_ids[rows],
        confidences=confidences[rows],
        objectness=np.concatenate([part.objectness for part in parts])[rows],
        candidate_ids=np.concatenate(candidate_ids)[rows],
    )


def _staying(boxes: Tensor, cut: Tensor, tile: Tensor, nms: float, similarity: Similarity) -> Tensor:
    """(N,) bool: which boxes of a class stay, those looked at first before others."""
    same = similarity(boxes[:, None], boxes) > nms
    part_of_other = cut & (_share_within(boxes) > _CUT_OVERLAP)
    return first_wins((same | part_of_other) & (tile[:, None] != tile))


def _in_image(part: Detections, place: Corners, size: tuple[int, int]) -> Tensor:
    """(N, 4) boxes relative to a tile → relative to the image."""
    left, top, right, bottom = place
    scale = torch.tensor([right - left, bottom - top] * 2, dtype=torch.float32)
    offset = torch.tensor([left, top, 0, 0], dtype=torch.float32)
    return (torch.from_numpy(part.boxes) * scale + offset) / torch.tensor(size * 2, dtype=torch.float32)


def _is_cut(part: Detections, place: Corners, size: tuple[int, int]) -> Tensor:
    """(N,) bool: whether a box reaches an edge of its tile that is not an edge of the image."""
    left, top, right, bottom = place
    edges = torch.from_numpy(part.xyxy)
    inner = torch.tensor([left > 0, top > 0, right < size[0], bottom < size[1]])
    distance = torch.stack([edges[:, 0], edges[:, 1], right - left - edges[:, 2], bottom - top - edges[:, 3]], 1)
    return ((distance < _CUT_PIXELS) & inner).any(1)


def _share_within(boxes: Tensor) -> Tensor:
    """(N, N) in [i, j] the share of box j that is within box i."""
    corners = to_corners(boxes)
    low = torch.maximum(corners[:, None, :2], corners[:, :2])
    high = torch.minimum(corners[:, None, 2:], corners[:, 2:])
    area = (boxes[:, 2] * boxes[:, 3]).clamp(min=torch.finfo(torch.float32).tiny)
    return (high - low).clamp(min=0).prod(2) / area
