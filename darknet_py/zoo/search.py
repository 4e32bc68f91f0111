"""Designs to choose from: every combination of some parts, and which of them no other one beats."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from darknet_py.zoo.backbones import BACKBONES
from darknet_py.zoo.design import Design
from darknet_py.zoo.stages import Csp


@dataclass(frozen=True)
class SearchSpace:
    """The parts to combine.

    Attributes:
        base: What all designs have in common.
        backbones: Keys of `BACKBONES`.
        csps: How stages are made cross stage partial; None: plain stages. Backbones whose blocks are cross stage
            partial already come once.
        necks: Keys of `NECKS`; "" is the default neck, and the only one for heads without necks.
        scales: Factors for the filters.
    """

    base: Design
    backbones: Sequence[str]
    csps: Sequence[Csp | None]
    necks: Sequence[str]
    scales: Sequence[float]

    def designs(self) -> dict[str, Design]:
        """The combinations, by name (`peleenet-csp-g0.5-efm-x0.75`)."""
        return dict(self._designs())

    def _designs(self) -> Iterator[tuple[str, Design]]:
        for backbone, csp, neck, scale in product(self.backbones, self.csps, self.necks, self.scales):
            known = BACKBONES.get(backbone)
            if known is not None and known.divides:
                csp = None
            parts = [backbone]
            parts += [f"{csp.fusion}-g{csp.gamma:g}"] if csp else []
            parts += [neck] if neck else []
            parts += [f"x{scale:g}"] if scale != 1 else []
            yield "-".join(parts), replace(self.base, backbone=backbone, csp=csp, neck=neck, scale=scale)


def non_dominated(costs: NDArray[np.float64]) -> NDArray[np.bool_]:
    """The rows that no other row beats: as good in every column and better in one (Pareto's front).

    Args:
        costs: (N, K), of which less is better.

    Returns:
        (N,), True for the rows of the front. Equal rows are all on it or all not.
    """
    front = np.ones(len(costs), bool)
    for index, row in enumerate(costs):
        as_good, better = (costs <= row).all(1), (costs < row).any(1)
        front[index] = not (as_good & better).any()
    return front
