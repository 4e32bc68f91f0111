"""Reads and replaces the anchors of the heads of a cfg."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from darknet_py.cfg.document import CfgDocument, CfgEdit
from darknet_py.data.anchors import Sizes, format_cfg_value, masks_by_counts, masks_by_size
from darknet_py.errors import DataError
from darknet_py.graph.graph import Graph
from darknet_py.graph.set_num_classes import feeding_layers
from darknet_py.layers.base import DetectionHeadSpec

KEEP, STRIDE = "keep", "stride"


@dataclass(frozen=True)
class HeadAnchors:
    """A head of a cfg. stride: network pixels per grid cell. entries: channels per anchor.

    in_cells: its anchors are in grid cells, and it predicts all of them ([region], which has no masks).
    sources: the layers whose `filters` are this head's channels.
    """

    index: int
    type: str
    stride: float
    anchors: tuple[tuple[float, float], ...]
    mask: tuple[int, ...]
    entries: int
    in_cells: bool
    sources: tuple[int, ...]


def anchor_heads(graph: Graph) -> list[HeadAnchors]:
    """Heads with anchors, in cfg order. Raises DataError if there are none."""
    heads = []
    for node in graph.layers:
        if not isinstance(node.spec, DetectionHeadSpec) or not node.spec.anchors:
            continue
        anchors, mask = node.spec.anchors, node.spec.mask
        used = tuple(range(len(anchors))) if mask is None else mask
        stride = graph.net.width / node.output.w
        entries = node.inputs[0].c // len(used)
        sources = tuple(index for index, _ in feeding_layers(graph, node.sources[0]))
        heads.append(HeadAnchors(node.index, node.type, stride, anchors, used, entries, mask is None, sources))
    if not heads:
        raise DataError(f"{graph.path}: expected a head with anchors such as [yolo] or [region], got none")
    if len({head.in_cells for head in heads}) > 1:
        raise DataError(f"{graph.path}: has heads with anchors in pixels and in grid cells, expected one kind")
    return heads


def anchor_space(graph: Graph, heads: Sequence[HeadAnchors]) -> tuple[int, int]:
    """Width and height of the input in the unit of the anchors: pixels, or grid cells."""
    if heads[0].in_cells:
        grid = graph.layers[heads[0].index].output
        return grid.w, grid.h
    return graph.net.width, graph.net.height


def current_anchors(heads: Sequence[HeadAnchors]) -> Sizes:
    """All anchors of the cfg. Heads with different lists contribute those in their mask."""
    if _share_anchors(heads):
        return np.array(heads[0].anchors)
    return np.array([head.anchors[k] for head in heads for k in head.mask])


def assign_anchors(heads: Sequence[HeadAnchors], anchors: Sizes, rule: str | None = None) -> list[list[int]]:
    """A mask per head. keep: as many anchors per head as before; stride: by size; None: keep where that is possible.

    With one list for all heads and as many anchors as before, `keep` leaves the masks alone.
    """
    counts = [len(head.mask) for head in heads]
    keep_masks = _share_anchors(heads) and len(anchors) == len(heads[0].anchors)
    if rule == STRIDE or (rule is None and not keep_masks and sum(counts) != len(anchors)):
        scale = [head.stride if not head.in_cells else 1.0 for head in heads]
        return masks_by_size(anchors, scale)
    return (
        [list(head.mask) for head in heads]
        if keep_masks
        else masks_by_counts(len(anchors), [head.stride for head in heads], counts)
    )


def anchor_edits(
    heads: Sequence[HeadAnchors], anchors: Sizes, masks: Sequence[Sequence[int]], width: int, reason: str = ""
) -> list[CfgEdit]:
    """The edits that give a cfg new anchors, masks and filters.

    width: as of `anchor_space`. reason: why they change.
    """
    edits = []
    value = format_cfg_value(anchors, width)
    for head, mask in zip(heads, masks, strict=True):
        section = head.index + 1
        edits.append(CfgEdit(section, "anchors", value, reason))
        if len(anchors) != len(head.anchors):
            edits.append(CfgEdit(section, "num", str(len(anchors)), reason))
        if not head.in_cells and tuple(mask) != head.mask:
            edits.append(CfgEdit(section, "mask", ",".join(map(str, mask)), reason))
        if len(mask) != len(head.mask):
            edits += [CfgEdit(k + 1, "filters", str(len(mask) * head.entries), reason) for k in head.sources]
    return edits


def set_anchors(
    document: CfgDocument, heads: Sequence[HeadAnchors], anchors: Sizes, masks: Sequence[Sequence[int]], width: int
) -> CfgDocument:
    """The cfg with new anchors, masks and filters; see `anchor_edits`."""
    return document.with_edits(anchor_edits(heads, anchors, masks, width))


def _share_anchors(heads: Sequence[HeadAnchors]) -> bool:
    return all(head.anchors == heads[0].anchors for head in heads)
