"""Combinations of parts, and the front of those that none beats."""

from __future__ import annotations

import numpy as np

from darknet_py.zoo.design import Design
from darknet_py.zoo.search import SearchSpace, non_dominated
from darknet_py.zoo.stages import Csp


def test_all_combinations_have_names_of_their_own():
    csps = [None, Csp(0.25), Csp(0.5, "last")]
    space = SearchSpace(Design("", classes=3), ["peleenet", "gelan-t"], csps, ["", "efm"], [1, 0.5])
    designs = space.designs()
    # 3 x 2 x 2 of PeleeNet; GELAN's blocks are cross stage partial already: 1 x 2 x 2.
    assert len(designs) == 16
    assert {"peleenet", "peleenet-csp-g0.25", "peleenet-last-g0.5-efm-x0.5", "gelan-t-x0.5"} <= designs.keys()
    assert not any("gelan-t-csp" in name or "gelan-t-last" in name for name in designs)
    assert designs["peleenet-last-g0.5-efm-x0.5"] == Design(
        "peleenet", Csp(0.5, "last"), neck="efm", classes=3, scale=0.5
    )


def test_the_front():
    costs = np.array([[1, 5], [2, 4], [2, 5], [3, 1], [3, 1], [9, 9]], float)
    assert non_dominated(costs).tolist() == [True, True, False, True, True, False]
    assert non_dominated(np.array([[1.0, np.inf], [2, np.inf]])).tolist() == [True, False]
    assert non_dominated(np.zeros((0, 3))).tolist() == []
