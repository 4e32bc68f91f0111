"""Comparison of an exported network with ours, before its file is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from darknet_py.errors import DarknetError

# Largest difference allowed, relative to the largest value of an output. fp32: another order of summation. The others
# round every layer's output to 11 (fp16) or 8 bits (bf16), and the roundings of up to 160 layers add up.
TOLERANCE = {"fp32": 1e-4, "fp16": 2e-2, "bf16": 1e-1}
Runner = Callable[[Tensor], Sequence[Tensor]]


class Difference(NamedTuple):
    """The largest difference between two outputs."""

    name: str
    largest: float
    scale: float  # the largest magnitude of ours

    @property
    def relative(self) -> float:
        return self.largest / self.scale if self.scale else self.largest

    def __str__(self) -> str:
        return f"{self.name} {self.largest:.2g} of {self.scale:.3g}"


def difference(name: str, ours: Tensor, theirs: Tensor) -> Difference:
    """Compares two outputs. Equal infinities and NaNs at the same places count as equal."""
    if ours.shape != theirs.shape:
        raise DarknetError(f"{name}: expected the shape {tuple(ours.shape)}, got {tuple(theirs.shape)}")
    ours, theirs = ours.double(), theirs.double()
    same = (ours == theirs) | (ours.isnan() & theirs.isnan())
    distance = torch.where(same, 0.0, (ours - theirs).abs()).nan_to_num(nan=float("inf"))
    magnitude = torch.where(ours.isfinite(), ours.abs(), 0.0)
    largest, scale = (float(values.max()) if values.numel() else 0.0 for values in (distance, magnitude))
    return Difference(name, largest, scale)


def check_images(batch: int, channels: int, height: int, width: int, seed: int = 0) -> Tensor:
    """(B, C, H, W) in 0..1: noise over slow waves, so that layers of every scale have something to see."""
    noise = torch.rand(batch, channels, height, width, generator=torch.Generator().manual_seed(seed))
    waves = torch.sin(torch.arange(height)[:, None] / 11) * torch.cos(torch.arange(width) / 17)
    return 0.5 * noise + 0.25 * (1 + waves)


def verify(
    what: str, names: Sequence[str], ours: Runner, theirs: Runner, inputs: Sequence[Tensor], precision: str
) -> list[Difference]:
    """Runs both networks on the same images.

    Args:
        what: The exported network, for the message.
        names: Names of the outputs.
        ours: Our network, in float32.
        theirs: The exported one.
        inputs: Batches of images.
        precision: A key of `TOLERANCE`.

    Returns:
        The largest difference of each output over all batches.

    Raises:
        DarknetError: An output differs by more than the tolerance.
    """
    worst: dict[str, Difference] = {}
    for x in inputs:
        with torch.inference_mode():
            pairs = zip(names, ours(x), theirs(x), strict=True)
            found = [difference(name, expected, got) for name, expected, got in pairs]
        for item in found:
            worst[item.name] = max(item, worst.get(item.name, item), key=lambda value: value.relative)
    for item in worst.values():
        if not item.relative <= TOLERANCE[precision]:
            raise DarknetError(
                f"{what}: output {item.name} differs from ours by {item.relative:.2g} of its largest value, "
                f"expected at most {TOLERANCE[precision]:g} in {precision}; nothing was written"
            )
    return list(worst.values())
