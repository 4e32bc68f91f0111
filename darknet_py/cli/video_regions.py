"""Counting lines and zones of `video`."""

from __future__ import annotations

import argparse
import re

import numpy as np

from darknet_py.cli.usage import UsageError
from darknet_py.inference.regions import Points
from darknet_py.optional import require

_NUMBER = r"(?:0(?:\.\d+)?|1(?:\.0+)?|\.\d+)"


def region_arguments(parser: argparse.ArgumentParser) -> None:
    """--line, --zone."""
    parser.add_argument(
        "--line",
        type=_line,
        action="append",
        default=[],
        metavar="X,Y,X,Y",
        help="with --track: count the objects that cross a line, from its start to its end, relative to the frame "
        "(extra: supervision)",
    )
    parser.add_argument(
        "--zone",
        type=_zone,
        action="append",
        default=[],
        metavar="X,Y,…",
        help="count the objects in a zone with these corners, relative to the frame (extra: supervision)",
    )


def check_regions(args: argparse.Namespace) -> None:
    """Raises UsageError for lines without tracking and MissingExtra without the library, before any work."""
    if args.line and not args.track:
        raise UsageError("--line: expected --track with it, which tells objects apart")
    if args.line or args.zone:
        require("supervision", "supervision", "lines and zones")


def _line(text: str) -> Points:
    points = _points(text)
    if len(points) != 2 or (points[0] == points[1]).all():
        raise argparse.ArgumentTypeError(f"expected two points as in 0.1,0.5,0.9,0.5, got {text!r}")
    return points


def _zone(text: str) -> Points:
    points = _points(text)
    if len(points) < 3:
        raise argparse.ArgumentTypeError(f"expected three or more corners as in 0,0,0.5,0,0.5,1, got {text!r}")
    return points


def _points(text: str) -> Points:
    if not re.fullmatch(f"{_NUMBER},{_NUMBER}(,{_NUMBER},{_NUMBER})*", text):
        raise argparse.ArgumentTypeError(f"expected coordinates from 0 to 1 in pairs, got {text!r}")
    return np.array(text.split(","), np.float64).reshape(-1, 2)
