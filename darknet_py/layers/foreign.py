"""Sections of other programs' cfgs that cannot be read here, with the reason for the message."""

from __future__ import annotations

from darknet_py.cfg.options import Options

_DARKFLOW = (
    "of darkflow, which cuts it out of another network's layer; write [connected] or [convolutional] with the outputs "
    "that remain, and train it again"
)
_YOLOV5 = "of enazoe/yolo-tensorrt, whose cfgs list the modules of YOLOv5; they are not Darknet cfgs"
_COMPLEX_YOLO = "as in Complex-YOLO, whose boxes have an angle; such boxes are not supported"

_SECTIONS = {
    **dict.fromkeys(("select", "extract", "conv-select", "conv-extract"), _DARKFLOW),
    "connected-locally": "of isLouisHsu/DarkerNet, with weights of its own for each group",
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


def angles_in_anchors(values: tuple[float, ...], num: int) -> str:
    """A note where anchors are triples (width, height, angle), to append to a message; empty where they are pairs."""
    triples = len(values) == 3 * num and all(abs(angle) < 3.15 for angle in values[2::3])
    return f"{len(values)} numbers, three per anchor {_COMPLEX_YOLO}" if triples else ""
