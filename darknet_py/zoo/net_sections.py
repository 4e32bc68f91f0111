"""The `[net]` sections: input and training. Each function returns comment → options, in the order of the file."""

from __future__ import annotations

from collections.abc import Mapping

from darknet_py.zoo.cfg_writer import Value

Net = Mapping[str, Mapping[str, Value]]


def detector_net(
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

    Args:
        size: Width of the input in pixels.
        subdivisions: Forward passes per iteration.
        height: Height of the input in pixels; default: `size`.
        batch: Images per iteration.
        rate: Learning rate.
        burn_in: Iterations of the warm-up.
        batches: Number of iterations.
        steps: Iterations at which the learning rate is divided by ten.
        momentum: Momentum of SGD.
        average: Decay of the moving average of the weights; 0: none.
        extras: More options of the augmentation.
    """
    optimizer: dict[str, Value] = {"momentum": momentum, "decay": 0.0005}
    if average:
        optimizer["ema_alpha"] = average
    return {
        _INPUT: _input(size, batch, subdivisions, height),
        _OPTIMIZER: optimizer,
        "Augmentation: no rotation; saturation and exposure by a factor of up to 1.5, hue shift of up to 0.1": {
            "angle": 0,
            "saturation": 1.5,
            "exposure": 1.5,
            "hue": 0.1,
            **extras,
        },
        "Schedule: warm-up over burn_in iterations; the rate is multiplied by scales at steps": {
            "learning_rate": rate,
            "burn_in": burn_in,
            "max_batches": batches,
            "policy": "steps",
            "steps": steps,
            "scales": (0.1, 0.1),
        },
    }


def iterations(classes: int, classify: bool) -> int:
    """Iterations of a training whose data are not known: those of ImageNet or COCO, in proportion to the classes.

    A detector has 2000 per class and at least 6000, the rule of AlexeyAB's README; for COCO's 80 classes the published
    500200. A classifier has 800 per class, as for ImageNet's thousand, and at least 8000.
    """
    if classify:
        return max(800 * classes, 8000)
    return 500200 if classes == 80 else max(2000 * classes, 6000)


def classifier_net(
    subdivisions: int,
    *,
    size: int = 256,
    height: int | None = None,
    batch: int = 128,
    batches: int = 800000,
    **extras: Value,
) -> Net:
    """Training on ImageNet. height: default: `size`. extras: more options of the augmentation."""
    return {
        _INPUT: _input(size, batch, subdivisions, height),
        _OPTIMIZER: {"momentum": 0.9, "decay": 0.0005},
        "Augmentation: resize the shorter side to min_crop ... max_crop pixels, rotate, crop, change colors": {
            "min_crop": 128,
            "max_crop": 448,
            "angle": 7,
            "hue": 0.1,
            "saturation": 0.75,
            "exposure": 0.75,
            "aspect": 0.75,
            **extras,
        },
        "Schedule: warm-up over burn_in iterations, then the rate decays as (1 - iteration / max_batches)^power": {
            "learning_rate": 0.1,
            "burn_in": min(1000, batches // 5),
            "max_batches": batches,
            "policy": "poly",
            "power": 4,
        },
    }


def darknet19_net() -> Net:
    """Training of Darknet-19 on ImageNet: 224 x 224, crops only, no burn-in."""
    return {
        _INPUT: _input(224, 128, 1),
        _OPTIMIZER: {"momentum": 0.9, "decay": 0.0005},
        "Augmentation: resize the shorter side to 224 ... max_crop pixels, crop": {"max_crop": 448},
        "Schedule: the rate decays as (1 - iteration / max_batches)^power": {
            "learning_rate": 0.1,
            "max_batches": 1600000,
            "policy": "poly",
            "power": 4,
        },
    }


def efficientnet_net() -> Net:
    """Training of EfficientNet-B0 on ImageNet: 224 x 224, step decay of the learning rate."""
    return {
        _INPUT: _input(224, 120, 4),
        _OPTIMIZER: {"momentum": 0.9, "decay": 0.0005},
        "Augmentation: resize the shorter side to 224 ... max_crop pixels, rotate, crop, change colors": {
            "max_crop": 256,
            "angle": 7,
            "hue": 0.1,
            "saturation": 0.75,
            "exposure": 0.75,
            "aspect": 0.75,
        },
        "Schedule: warm-up over burn_in iterations; the rate is multiplied by scale every `step` iterations": {
            "learning_rate": 0.256,
            "burn_in": 1000,
            "max_batches": 1600000,
            "policy": "step",
            "step": 10000,
            "scale": 0.96,
        },
    }


def small_net(size: int, batch: int, *, rate: float, batches: int, **augmentation: Value) -> Net:
    """A short training from scratch."""
    return {
        _INPUT: _input(size, batch, 1),
        _ADAM: {"adam": 1, "decay": 0.0005},
        "Augmentation: weak, because the training is short": augmentation,
        _LINEAR_DECAY: _linear_decay(rate, batches),
    }


def text_net(symbols: int, streams: int, steps: int, *, rate: float, batches: int) -> Net:
    """Training of a language model over an alphabet of `symbols`."""
    return {
        "Input: a mini-batch is time_steps bytes of each of `batch` streams of the text": {
            "inputs": symbols,
            "batch": streams,
            "subdivisions": 1,
            "time_steps": steps,
        },
        _ADAM: {"adam": 1, "decay": 0},
        _LINEAR_DECAY: _linear_decay(rate, batches),
    }


def _linear_decay(rate: float, batches: int) -> dict[str, Value]:
    return {"learning_rate": rate, "burn_in": 50, "max_batches": batches, "policy": "poly", "power": 1}


_INPUT = "Input: `batch` images per iteration, in `subdivisions` forward passes"

_ADAM = "Optimizer: Adam, because SGD is too slow for a short training"

_LINEAR_DECAY = "Schedule: warm-up over burn_in iterations, then linear decay to zero"

_OPTIMIZER = "Optimizer: SGD with momentum and weight decay"


def _input(width: int, batch: int, subdivisions: int, height: int | None = None) -> Mapping[str, Value]:
    return {"batch": batch, "subdivisions": subdivisions, "width": width, "height": height or width, "channels": 3}
