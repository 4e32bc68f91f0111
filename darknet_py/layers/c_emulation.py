"""Faults of C Darknet's CPU builds that `Network.outputs` reproduces, so that it gives exactly what C keeps.

Nothing else does: `net(x)`, detection and training compute what is meant, and so do C's GPU builds
but for mish and its like.

    alexeyab    relu6 gives 0; mish, swish and their like do in layers other than [convolutional] and (mish, swish)
                [shortcut]. [shortcut] adds a layer with more channels at the wrong place for all images but the
                first. [history] with time_steps=1 packs the inputs of a mini-batch.
    pjreddie    batch norm adds 1e-6 to the root of the variance instead of 1e-5 to the variance. [cost] keeps zeros.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

_build = ""


def reproduced(build: str) -> bool:
    """Whether the faults of this build, "alexeyab" or "pjreddie", are expected now."""
    return _build == build


@contextmanager
def reproducing(build: str) -> Iterator[None]:
    """Wants the faults of a build while the block runs."""
    global _build
    before, _build = _build, build
    try:
        yield
    finally:
        _build = before
