"""Evaluation by several processes: each takes a share of the images, and all get the whole result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import torch.distributed as dist

from darknet_py.evaluation.types import CollectedBoxes

Part = TypeVar("Part")


def all_gather(own: Part, world: int) -> list[Part]:
    """The objects of all processes, by rank. Each of the `world` processes must call it; one alone needs no group."""
    parts = [own] * world
    if world > 1:
        dist.all_gather_object(parts, own)
    return parts


def merge_ranks(parts: Sequence[CollectedBoxes], paths: Sequence[str]) -> CollectedBoxes:
    """The boxes of all processes in the order of the list.

    parts: by rank; image i of `paths` is with rank i mod `len(parts)`, unless it was unreadable.
    """
    order: list[tuple[int, int]] = []
    taken = [0] * len(parts)
    for image, path in enumerate(paths):
        rank = image % len(parts)
        if taken[rank] < len(parts[rank].paths) and parts[rank].paths[taken[rank]] == path:
            order.append((rank, taken[rank]))
            taken[rank] += 1

    def ordered(columns: Sequence[list[Part]]) -> list[Part]:
        return [columns[rank][position] for rank, position in order]

    first = parts[0]
    return replace(
        first,
        paths=ordered([part.paths for part in parts]),
        sizes=ordered([part.sizes for part in parts]),
        truth=ordered([part.truth for part in parts]),
        found={name: ordered([part.found[name] for part in parts]) for name in first.found},
        difficult=None if first.difficult is None else ordered([part.difficult or [] for part in parts]),
        costs=[cost for part in parts for cost in part.costs],
    )
