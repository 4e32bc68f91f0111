"""Sections of other programs' cfgs that cannot be read here, with the reason for the message."""

from __future__ import annotations

import re

from darknet_py.cfg.options import Options

_DARKFLOW = (
    "of darkflow, which cuts it out of another network's layer; write [connected] or [convolutional] with the outputs "
    "that remain, and train it again"
)
_YOLOV5 = "of enazoe/yolo-tensorrt, whose cfgs list the modules of YOLOv5; they are not Darknet cfgs"
_COMPLEX_YOLO = "as in Complex-YOLO, whose boxes have an angle; such boxes are not supported"
_ROTATE_YOLO = "as in ming71/rotate-yolov3, whose anchors have an angle; such boxes are not supported"

_SECTIONS = {
    **dict.fromkeys(("select", "extract", "conv-select", "conv-extract"), _DARKFLOW),
    "connected-locally": "of isLouisHsu/DarkerNet, with weights of its own for each group",
    "d-convolutional": "of ming71/rotate-yolov3, a dilated convolution with the weights of another layer, whose boxes "
    "have an angle; such boxes are not supported",
    "quantize_convolutional": "of coldlarry/YOLOv3-complete-pruning, a convolution whose numbers of bits are not in "
    "the cfg; write [convolutional], which has the same weights without quantization",
    "fspt": "of gballot/darknet, trees over the features of [yolo] that rate its detections after the training; "
    "without these sections [yolo] detects as usual",
}


def foreign_section(options: Options) -> str:
    """Which other program a section is of, to append to a message; empty where that is not known."""
    name = options.section.name
    # [Conv] alone may be a misspelled [conv]; every section of these cfgs has args=.
    reason = _YOLOV5 if "args" in options and "from" in options else _SECTIONS.get(name, "")
    return f": it is {reason}" if reason else ""


def check_coords(options: Options, default: int) -> None:
    """Records an error where the boxes of a head do not have 4 coordinates.

    The C layers of AlexeyAB and pjreddie read `coords`, and 4 values of each box all the same.
    """
    if options.int("coords", default) == 4:
        return
    fork = ", " + _COMPLEX_YOLO if options.int("coords", default) == 6 else ", the only number that C decodes"
    got = options.text("coords", str(default))
    options.error(f"coords: expected 4 (center and size){fork}, got {got!r}", "coords")


def angles_in_anchors(options: Options, values: tuple[float, ...], num: int) -> str:
    """How anchors have an angle, for the end of a message; empty where they are pairs (width, height)."""
    if "/" in options.text("anchors"):
        return f"lists of areas, ratios and angles, {_ROTATE_YOLO}"
    triples = len(values) == 3 * num and all(abs(angle) < 3.15 for angle in values[2::3])
    return f"{len(values)} numbers, three per anchor {_COMPLEX_YOLO}" if triples else ""


def range_in_mask(options: Options) -> str:
    """A note where `mask` is a range (144-215), to append to a message; empty where it is not."""
    return f", {_ROTATE_YOLO}" if re.fullmatch(r"\d+-\d+", options.text("mask")) else ""


def check_squeeze(options: Options) -> None:
    """Records an error for a [se] of another program than the one whose [se] is read."""
    if options.written("channels"):
        options.error(
            "expected [se] with filters= or reduction=, got channels= as in ming71/rotate-yolov3, whose [se] ends in "
            "a sigmoid and has no place in .weights files",
            "channels",
        )
