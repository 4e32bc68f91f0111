"""Options that several heads read: anchors, masks, weights and files of classes."""

from __future__ import annotations

import torch
from torch import Tensor

from darknet_py.cfg.options import Options, atoi
from darknet_py.counted import counted
from darknet_py.errors import DataError
from darknet_py.layers.foreign import angles_in_anchors, range_in_mask
from darknet_py.untrusted import read_text

ANCHOR_LIMIT = 1 << 10  # the largest `num`, so that a typo does not allocate gigabytes of anchors


def parse_anchors(options: Options, num: int) -> tuple[tuple[float, float], ...]:
    """`anchors`: num pairs (width, height). As in Darknet missing values are 0.5 and surplus ones are dropped."""
    values = options.floats("anchors")
    angles = angles_in_anchors(options, values, num)
    if angles:
        options.error(f"anchors: expected pairs (width, height), got {angles}", "anchors")
        return ((0.5, 0.5),) * num
    values = values[: 2 * num]
    if len(values) < 2 * num:
        message = f"anchors: expected {2 * num} numbers (num={num}), got {len(values)}; the others are .5"
        options.warn(message, "anchors")
        values += (0.5,) * (2 * num - len(values))
    if any(value < 0 for value in values):
        options.error("anchors: expected sizes above zero", "anchors")
    elif 0 in values:
        options.warn("anchors: a size of 0 gives boxes without an area, as in C", "anchors")
    return tuple(zip(values[::2], values[1::2], strict=True))


def parse_mask(options: Options, num: int) -> tuple[int, ...]:
    """`mask`: which of the num anchors the head predicts; all of them without the option."""
    mask = options.ints("mask", range(num))
    if not mask or min(mask) < 0 or max(mask) >= num or len(set(mask)) < len(mask):
        expected = f"different anchors from 0 to {num - 1} (num={num})"
        options.error(f"mask: expected {expected}, got {options.text('mask')!r}{range_in_mask(options)}", "mask")
        return (0,)
    return mask


def parse_class_weights(options: Options, classes: int, max_delta: float | None) -> tuple[float, ...]:
    """`counters_per_class`: the number of objects of each class → a factor for each (`get_classes_multipliers`)."""
    counts = [max(count, 1) for count in options.ints("counters_per_class")]
    if not counts:
        return ()
    if len(counts) != classes:
        message = f"counters_per_class: expected {classes} numbers, one per class, got {len(counts)}"
        options.error(message, "counters_per_class")
    largest = max(counts)
    return tuple(min(largest / count, max_delta or float("inf")) for count in counts)


def read_map(path: str) -> Tensor:
    """Reads a class map: line k holds the class that label k stands for (`read_map`).

    Args:
        path: the file.

    Returns:
        (labels,) integers.

    Raises:
        DataError: the file cannot be read or a line is not a class number.
    """
    lines = read_text(path, "class map").split("\n")
    values = [atoi(line.strip()) for line in lines if line.strip()]
    if not values or any(value is None or not 0 <= value < 1 << 31 for value in values):
        raise DataError(f"{path}: expected one class number per line")
    return torch.tensor(values)


def channels_message(expected: int, reason: str, channels: int) -> str:
    """The message of a ShapeError where a head's input has the wrong number of channels."""
    return f"expected {counted(expected, 'input channel')} ({reason}), got {channels}; set filters= of the layer before"
