"""`compare CFG CFG …`: what networks cost, side by side, as a table and as a picture."""

from __future__ import annotations

import argparse
import csv
import json
import math
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darknet_py.cli.common import positive

if TYPE_CHECKING:
    from darknet_py.graph.graph import Graph

HELP = "parameters, BFLOPs, memory traffic, activation memory and latency of several cfgs, side by side"

# What can be an axis of the plot: key → (label, divisor, whether more is better).
_AXES = {
    "parameters": ("parameters (M)", 1e6, False),
    "bflops": ("BFLOPs", 1, False),
    "cio": ("memory traffic, CIO (M values)", 1e6, False),
    "memory": ("activation memory (MiB)", 2**20, False),
    "latency": ("latency (ms)", 1, False),
    "accuracy": ("accuracy", 1, True),
}


@dataclass
class Entry:
    """A network's line. memory: bytes of activations at the worst moment. latency: milliseconds per image (median).

    ratio: latency against the first network's, the median over rounds that ran both, with its 95 % interval.
    """

    name: str
    cfg: str
    width: int
    height: int
    layers: int
    parameters: int
    bflops: float
    cio: int
    traffic: int
    memory: int
    weights_bytes: int
    receptive_field: int
    latency: float | None = None
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    accuracy: float | None = None


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("cfgs", metavar="CFG[@SIZE]", nargs="+", help="a cfg; @512 or @640x480: at another input size")
    parser.add_argument(
        "--accuracy",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="accuracy of a network, or a CSV file: names in its first column or one called cfg or name",
    )
    parser.add_argument("--column", default="accuracy", help="column of the CSV file (default: accuracy)")
    parser.add_argument("--measure", action="store_true", help="measure latency here, all networks in turn")
    parser.add_argument("--device", default="cpu", help="with --measure: cpu, cuda, cuda:1 … (default: cpu)")
    parser.add_argument("--batch", type=positive, default=1, help="with --measure: images per forward pass")
    parser.add_argument("--seconds", type=float, default=20.0, help="with --measure: how long (default: 20)")
    parser.add_argument("--plot", metavar="OUT.svg", help="draw the networks as points")
    parser.add_argument(
        "--x", choices=tuple(_AXES), help="axis of the plot (default: latency if measured, else bflops)"
    )
    parser.add_argument(
        "--y", choices=tuple(_AXES), help="axis of the plot (default: accuracy if given, else parameters)"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON instead of the table")
    form.add_argument("--csv", action="store_true", help="print comma-separated values instead of the table")


def run(args: argparse.Namespace) -> int:
    entries = [entry(*read(text)) for text in args.cfgs]
    set_accuracy(entries, args.accuracy, args.column)
    if args.measure:
        measure(entries, args.device, args.batch, args.seconds)
    if args.json:
        print(json.dumps([asdict(line) for line in entries], indent=1))
    elif args.csv:
        writer = csv.DictWriter(sys.stdout, list(asdict(entries[0])), lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(line) for line in entries)
    else:
        print(table(entries))
    if args.plot:
        draw(entries, args)
    return 0


def read(text: str) -> tuple[str, Graph]:
    """`yolov4.cfg@608x416` → its name (yolov4@608x416) and graph."""
    from darknet_py.model.load import read_graph

    match = re.fullmatch(r"(.+)@(\d+)(?:x(\d+))?", text)
    if not match or Path(text).exists():
        return Path(text).stem, read_graph(text)
    width = int(match[2])
    return f"{Path(match[1]).stem}@{text.rpartition('@')[2]}", read_graph(
        match[1], width=width, height=int(match[3] or width)
    )


def entry(name: str, graph: Graph) -> Entry:
    from darknet_py.graph.profile import network_profile

    total = network_profile(graph)
    return Entry(
        name, graph.path, graph.net.width, graph.net.height, total.layers, total.parameters, total.bflops, total.cio,
        total.traffic, total.peak_bytes, total.weights_bytes, total.receptive_field,
    )  # fmt: skip


# --- accuracy


def set_accuracy(entries: Sequence[Entry], given: Sequence[str], column: str) -> None:
    """given: `NAME=VALUE`, or CSV files. A name is the entry's, or without @SIZE. Raises DarknetError."""
    from darknet_py.cfg.options import did_you_mean
    from darknet_py.errors import DarknetError

    for text in given:
        name, sign, value = text.rpartition("=")
        if not sign:
            values = _read_accuracy(text, column)
        elif {name} & {known for line in entries for known in _names(line)}:
            values = {name: _number(value, text)}
        else:
            raise DarknetError(
                f"--accuracy: expected one of the networks, got {name!r}"
                f"{did_you_mean(name, [line.name for line in entries])}"
            )
        for line in entries:
            for known in reversed(_names(line)):  # the full name counts
                line.accuracy = values.get(known, line.accuracy)


def _names(line: Entry) -> tuple[str, str]:
    return line.name, line.name.partition("@")[0]


def _number(text: str, where: str) -> float:
    from darknet_py.errors import DarknetError

    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DarknetError(f"--accuracy: {where}: expected a number, got {text!r}")
    return value


def _read_accuracy(path: str, column: str) -> dict[str, float]:
    from darknet_py.errors import DataError

    try:
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or []
            if column not in columns:
                raise DataError(f"{path}: expected a column {column!r}, got {', '.join(columns) or 'nothing'}")
            key = next((name for name in ("cfg", "name") if name in columns), columns[0])
            rows = [(row[key], row[column]) for row in reader if (row[column] or "").strip()]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot read accuracies: {error}") from error
    return {Path(name or "").name.removesuffix(".cfg"): _number(value, path) for name, value in rows}


# --- latency


def measure(entries: Sequence[Entry], device: str, batch: int, seconds: float) -> None:
    """Fills in latencies: random weights, batch norm folded, every network once per round, in turn."""
    import torch

    from darknet_py.cli.benchmark import images, rounds
    from darknet_py.inference.fuse import fuse
    from darknet_py.model.load import load

    arms = {}
    for at, line in enumerate(entries):
        net = fuse(load(line.cfg, width=line.width, height=line.height, device=device))
        arms[str(at)] = partial(net, images(net, batch, net.device))
    with torch.inference_mode():
        spent = rounds(arms, torch.device(device), seconds)
    for at, line in enumerate(entries):
        times = spent[str(at)]
        line.latency = _median(times)[0] * 1e3 / batch
        ratios = [own / first for own, first in zip(times, spent["0"], strict=True)]
        line.ratio, line.ratio_low, line.ratio_high = _median(ratios)


def _median(values: Sequence[float]) -> tuple[float, float, float]:
    """The median with its 95 % interval (from the binomial distribution of ranks, whatever the values')."""
    ordered = sorted(values)
    half = 0.98 * math.sqrt(len(ordered))
    low, high = math.floor(len(ordered) / 2 - half), math.ceil(len(ordered) / 2 + half)
    middle = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
    return middle, ordered[max(low, 0)], ordered[min(high, len(ordered) - 1)]


# --- for people


def table(entries: Sequence[Entry]) -> str:
    """A line per network; in brackets the difference from the first."""
    first = entries[0]
    columns: list[tuple[str, Any]] = [
        ("input", lambda line: f"{line.width}x{line.height}"),
        ("layers", lambda line: str(line.layers)),
        ("parameters", lambda line: _with_change(f"{line.parameters}", line.parameters, first.parameters)),
        ("BFLOPs", lambda line: _with_change(f"{line.bflops:.3f}", line.bflops, first.bflops)),
        ("CIO (M)", lambda line: _with_change(f"{line.cio / 1e6:.2f}", line.cio, first.cio)),
        ("activations (MiB)", lambda line: _with_change(f"{line.memory / 2**20:.1f}", line.memory, first.memory)),
    ]
    if first.latency is not None:
        columns.append(("latency (ms)", lambda line: f"{line.latency:.2f}"))
        columns.append(("ratio (95 %)", lambda line: f"{line.ratio:.3f} ({line.ratio_low:.3f}…{line.ratio_high:.3f})"))
    if any(line.accuracy is not None for line in entries):
        columns.append(("accuracy", lambda line: "" if line.accuracy is None else f"{line.accuracy:g}"))
    rows = [["network", *(title for title, _ in columns)]]
    rows += [[line.name, *(text(line) for _, text in columns)] for line in entries]
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *cells]).rstrip())
    return "\n".join(lines)


def _with_change(text: str, value: float, first: float) -> str:
    return text if value == first or not first else f"{text} ({value / first - 1:+.1%})"


def draw(entries: Sequence[Entry], args: argparse.Namespace) -> None:
    """Writes the plot. Raises DarknetError where an axis lacks values."""
    from darknet_py.errors import DarknetError
    from darknet_py.files import write_atomically
    from darknet_py.view.graph_plot import Point, scatter

    given = any(line.accuracy is not None for line in entries)
    x, y = args.x or ("latency" if args.measure else "bflops"), args.y or ("accuracy" if given else "parameters")
    points = []
    for line in entries:
        values = [getattr(line, key) for key in (x, y)]
        if all(value is not None for value in values):
            across, up = (value / _AXES[key][1] for value, key in zip(values, (x, y), strict=True))
            points.append(Point(line.name, line.cfg, across, up))
    if not points:
        missing = "--measure" if "latency" in (x, y) and not args.measure else "--accuracy"
        raise DarknetError(f"{args.plot}: no network has both {x} and {y}: add {missing}")
    label = args.column if y == "accuracy" else _AXES[y][0]
    title = f"{label} over {_AXES[x][0]}"
    write_atomically(args.plot, scatter(points, _AXES[x][0], label, title, _AXES[y][2]).encode())
    print(f"plot in {args.plot}", file=sys.stderr)
