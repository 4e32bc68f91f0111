"""Comparison of an exported network with ours, before its file is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from darknet_py.errors import DarknetError

# Largest difference allowed, relative to the largest value of an output. fp32: another order of summation. fp16 and
# bf16 round every layer's output to 11 or 8 bits, and the roundings of up to 160 layers add up.
TOLERANCE = {"fp32": 1e-4, "fp16": 2e-2, "bf16": 1e-1}
# int8 also cuts off what calibration images do not reach, and single candidates without an object move far. The root
# mean square on such images is compared, so that only a network that computes something else is refused. What int8
# costs is measured in mAP (`convert --data`).
TOLERANCE_INT8 = 0.5
Runner = Callable[..., Sequence[Tensor]]  # of images, and of the states of a recurrent network


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


def rms_difference(name: str, ours: Tensor, theirs: Tensor) -> Difference:
    """The root mean squares of the difference and of ours."""
    if ours.shape != theirs.shape:
        raise DarknetError(f"{name}: expected the shape {tuple(ours.shape)}, got {tuple(theirs.shape)}")
    distance, magnitude = (values.double().square().mean().sqrt() for values in (ours - theirs, ours))
    return Difference(name, float(distance.nan_to_num(nan=float("inf"))), float(magnitude))


def check_images(batch: int, channels: int, height: int, width: int, seed: int = 0) -> Tensor:
    """(B, C, H, W) in 0..1: noise over slow waves, so that layers of every scale have something to see."""
    noise = torch.rand(batch, channels, height, width, generator=torch.Generator().manual_seed(seed))
    waves = torch.sin(torch.arange(height)[:, None] / 11) * torch.cos(torch.arange(width) / 17)
    return 0.5 * noise + 0.25 * (1 + waves)


def verify(
    what: str, names: Sequence[str], ours: Runner, theirs: Runner, inputs: Sequence[Sequence[Tensor]], precision: str
) -> list[Difference]:
    """Runs both networks on the same images.

    Args:
        what: The exported network, for the message.
        names: Names of the outputs.
        ours: Our network, in float32.
        theirs: The exported one.
        inputs: Batches of images, each with the states of a recurrent network.
        precision: A key of `TOLERANCE`, or int8, which is compared by root mean squares.

    Returns:
        The largest difference of each output over all batches.

    Raises:
        DarknetError: An output differs by more than the tolerance.
    """
    measure, unit, tolerance = (
        (rms_difference, "root mean square", TOLERANCE_INT8)
        if precision == "int8"
        else (difference, "largest value", TOLERANCE[precision])
    )
    worst: dict[str, Difference] = {}
    for x in inputs:
        with torch.inference_mode():
            pairs = zip(names, ours(*x), theirs(*x), strict=True)
            found = [measure(name, expected, got) for name, expected, got in pairs]
        for item in found:
            worst[item.name] = max(item, worst.get(item.name, item), key=lambda value: value.relative)
    for item in worst.values():
        if not item.relative <= tolerance:
            raise DarknetError(
                f"{what}: output {item.name} differs from ours by {item.relative:.2g} of its {unit}, "
                f"expected at most {tolerance:g} in {precision}; nothing was written"
            )
    return list(worst.values())
