"""The `[net]` sections: input and training. Each function returns comment → options, in the order of the text."""

from __future__ import annotations

from collections.abc import Mapping

from darknet_py.zoo.cfg_writer import Value

Net = Mapping[str, Mapping[str, Value]]


def detector(
    size: int,
    subdivisions: int,
    *,
    height: int | None = None,
    batch: int = 64,
    rate: float = 0.001,
    burn_in: int = 1000,
    batches: int = 500200,
    steps: tuple[int, int] = (400000, 450000),
    momentum: float = 0.9,
    average: float = 0.0,
    **extras: Value,
) -> Net:
    """Training of the YOLO detectors on COCO.

    size: of the input, in pixels; height: if it is not square. average: decay of the moving average of the weights, 0
    for none. extras: more augmentation.
    """
    optimizer: dict[str, Value] = {"momentum": momentum, "decay": 0.0005}
    if average:
        optimizer["ema_alpha"] = average
    return {
        _INPUT: _input(size, batch, subdivisions, height),
        _OPTIMIZER: optimizer,
        "Augmentation: no rotation; saturation and exposure by a factor of up to 1.5, hue by .1 of the circle": {
            "angle": 0,
            "saturation": 1.5,
            "exposure": 1.5,
            "hue": 0.1,
            **extras,
        },
        "Schedule: the rate grows over burn_in updates, stays, and is multiplied by a scale at each step": {
            "learning_rate": rate,
            "burn_in": burn_in,
            "max_batches": batches,
            "policy": "steps",
            "steps": steps,
            "scales": (0.1, 0.1),
        },
    }


def classifier(
    subdivisions: int, *, size: int = 256, height: int | None = None, batches: int = 800000, **extras: Value
) -> Net:
    """Training on ImageNet. height: if it is not `size`. extras: more augmentation."""
    return {
        _INPUT: _input(size, 128, subdivisions, height),
        _OPTIMIZER: {"momentum": 0.9, "decay": 0.0005},
        "Augmentation: a crop of a copy whose shorter side is min_crop to max_crop pixels, turned and colored": {
            "min_crop": 128,
            "max_crop": 448,
            "angle": 7,
            "hue": 0.1,
            "saturation": 0.75,
            "exposure": 0.75,
            "aspect": 0.75,
            **extras,
        },
        "Schedule: after burn_in the rate falls to zero as (1 - done)^power": {
            "learning_rate": 0.1,
            "burn_in": 1000,
            "max_batches": batches,
            "policy": "poly",
            "power": 4,
        },
    }


def darknet19() -> Net:
    """Training of Darknet-19 on ImageNet: 224 x 224, crops only, no burn-in."""
    return {
        _INPUT: _input(224, 128, 1),
        _OPTIMIZER: {"momentum": 0.9, "decay": 0.0005},
        "Augmentation: a crop of a copy whose shorter side is 224 to max_crop pixels": {"max_crop": 448},
        "Schedule: the rate falls to zero as (1 - done)^power": {
            "learning_rate": 0.1,
            "max_batches": 1600000,
            "policy": "poly",
            "power": 4,
        },
    }


def efficientnet() -> Net:
    """Training of EfficientNet-B0 on ImageNet: 224 x 224, a rate that falls step by step."""
    return {
        _INPUT: _input(224, 120, 4),
        _OPTIMIZER: {"momentum": 0.9, "decay": 0.0005},
        "Augmentation: a crop of a copy whose shorter side is 224 to max_crop pixels, turned and colored": {
            "max_crop": 256,
            "angle": 7,
            "hue": 0.1,
            "saturation": 0.75,
            "exposure": 0.75,
            "aspect": 0.75,
        },
        "Schedule: after burn_in the rate is multiplied by scale every `step` updates": {
            "learning_rate": 0.256,
            "burn_in": 1000,
            "max_batches": 1600000,
            "policy": "step",
            "step": 10000,
            "scale": 0.96,
        },
    }


def small(size: int, batch: int, *, rate: float, batches: int, **augmentation: Value) -> Net:
    """Training from scratch that takes minutes."""
    return {
        _INPUT: _input(size, batch, 1),
        _ADAM: {"adam": 1, "decay": 0.0005},
        "Augmentation: little, as the training is short": augmentation,
        _FALLING: _falling(rate, batches),
    }


def text(symbols: int, streams: int, steps: int, *, rate: float, batches: int) -> Net:
    """Training of a network that reads one of `symbols` at a time."""
    return {
        "Input: a mini-batch is time_steps bytes of each of `batch` streams through the text": {
            "inputs": symbols,
            "batch": streams,
            "subdivisions": 1,
            "time_steps": steps,
        },
        _ADAM: {"adam": 1, "decay": 0},
        _FALLING: _falling(rate, batches),
    }


def _falling(rate: float, batches: int) -> dict[str, Value]:
    return {"learning_rate": rate, "burn_in": 50, "max_batches": batches, "policy": "poly", "power": 1}


_INPUT = "Input: an update sees `batch` images, in `subdivisions` passes that fit into memory"

_ADAM = "Optimizer: Adam, as plain descent learns too slowly for so short a training"

_FALLING = "Schedule: after burn_in the rate falls to zero in a straight line"

_OPTIMIZER = "Optimizer: gradient descent with momentum and weight decay"


def _input(width: int, batch: int, subdivisions: int, height: int | None = None) -> Mapping[str, Value]:
    return {"batch": batch, "subdivisions": subdivisions, "width": width, "height": height or width, "channels": 3}
