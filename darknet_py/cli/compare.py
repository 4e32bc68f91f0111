"""`compare CFG CFG …`: cost of several networks as a table and a plot."""

from __future__ import annotations

import argparse
import csv
import logging
import math
import os
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch

from darknet_py.cfg.options import did_you_mean
from darknet_py.cli.benchmark import random_images
from darknet_py.cli.common import (
    csv_argument,
    device_argument,
    device_or_default,
    json_argument,
    output_file,
    positive,
    write_csv,
    write_json,
)
from darknet_py.cli.usage import UsageError
from darknet_py.errors import DataError
from darknet_py.files import write_atomically
from darknet_py.graph.gradient_paths import count_text, gradient_paths
from darknet_py.graph.graph import Graph
from darknet_py.graph.profile import network_profile
from darknet_py.inference.fuse import fuse
from darknet_py.model.load import read_graph, read_trained
from darknet_py.timing import time_in_turns
from darknet_py.view.graph_plot import Point, scatter

logger = logging.getLogger(__name__)

# Axes of the plot: key → (label, divisor, whether more is better).
AXES = {
    "parameters": ("parameters (M)", 1e6, False),
    "bflops": ("BFLOPs", 1, False),
    "cio": ("memory traffic, CIO (M values)", 1e6, False),
    "timestamps": ("distinct lengths of the gradient paths", 1, True),
    "memory": ("activation memory (MiB)", 2**20, False),
    "latency": ("latency (ms)", 1, False),
    "accuracy": ("accuracy", 1, True),
}


@dataclass
class Entry:
    """One network. memory: peak memory of activations in bytes. latency: median in milliseconds per image.

    paths: number of gradient paths from the input to the heads. timestamps: number of their distinct lengths;
    longest_path: the largest length. duplicated: share of the gradients received in the stages that another layer of
    the same stage receives too (graph/gradient_paths.py).
    ratio: latency relative to the first network, the median over rounds that ran both, with its 95 % interval.
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
    paths: int
    timestamps: int
    longest_path: int
    duplicated: float
    latency: float | None = None
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    accuracy: float | None = None


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("cfgs", metavar="CFG[@SIZE]", nargs="+", help="a cfg; @512 or @640x480 sets the input size")
    parser.add_argument(
        "--accuracy",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="accuracy of a network, or a CSV file with names in the column cfg or name, or in the first one",
    )
    parser.add_argument("--column", default="accuracy", help="column of the CSV file (default: accuracy)")
    parser.add_argument("--measure", action="store_true", help="measure latency on this machine, all networks in turn")
    device_argument(parser)
    parser.add_argument("--batch", type=positive, default=1, help="with --measure: images per forward pass")
    parser.add_argument("--seconds", type=float, default=20.0, help="with --measure: duration (default: 20)")
    parser.add_argument("--plot", type=output_file, metavar="OUT.svg", help="draw the networks as points (SVG)")
    parser.add_argument(
        "--x", choices=tuple(AXES), help="x axis of the plot (default: latency if measured, else bflops)"
    )
    parser.add_argument(
        "--y", choices=tuple(AXES), help="y axis of the plot (default: accuracy if given, else parameters)"
    )
    form = parser.add_mutually_exclusive_group()
    json_argument(form)
    csv_argument(form, "write a line per network as CSV")


def run(args: argparse.Namespace) -> int:
    entries = [make_entry(*read_network(text)) for text in args.cfgs]
    set_accuracies(entries, args.accuracy, args.column)
    if args.measure:
        measure_latency(entries, device_or_default(args.device), args.batch, args.seconds)
    if args.json:
        write_json(args.json, [asdict(entry) for entry in entries])
    elif args.csv:
        write_csv(args.csv, [asdict(entry) for entry in entries])
    else:
        print(format_table(entries))
    if args.plot:
        write_plot(entries, args)
    return 0


def read_network(text: str) -> tuple[str, Graph]:
    """`yolov4.cfg@608x416` → its name (yolov4@608x416) and graph."""
    match = re.fullmatch(r"(.+)@(\d+)(?:x(\d+))?", text)
    if not match or os.path.exists(text):
        return Path(text).stem, read_graph(text)
    width = int(match[2])
    return f"{Path(match[1]).stem}@{text.rpartition('@')[2]}", read_graph(
        match[1], width=width, height=int(match[3] or width)
    )


def make_entry(name: str, graph: Graph) -> Entry:
    total, found = network_profile(graph), gradient_paths(graph)
    return Entry(
        name, graph.path, graph.net.width, graph.net.height, total.layers, total.parameters, total.bflops, total.cio,
        total.traffic, total.peak_bytes, total.weights_bytes, total.receptive_field,
        found.total.count, found.total.timestamps, found.total.longest or 0, found.duplicated,
    )  # fmt: skip


# --- accuracy


def set_accuracies(entries: Sequence[Entry], arguments: Sequence[str], column: str) -> None:
    """arguments: `NAME=VALUE`, or CSV files. Names may omit @SIZE. Raises DarknetError."""
    for text in arguments:
        name, sign, value = text.rpartition("=")
        if not sign:
            values = _read_accuracy(text, column)
        elif {name} & {known for entry in entries for known in _names(entry)}:
            values = {name: _number(value, text)}
        else:
            raise UsageError(
                f"--accuracy: expected one of the networks, got {name!r}"
                f"{did_you_mean(name, [entry.name for entry in entries])}"
            )
        for entry in entries:
            for known in reversed(_names(entry)):  # the full name takes precedence
                entry.accuracy = values.get(known, entry.accuracy)


def _names(entry: Entry) -> tuple[str, str]:
    return entry.name, entry.name.partition("@")[0]


def _number(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(f"--accuracy: {where}: expected a number, got {text!r}")
    return value


def _read_accuracy(path: str, column: str) -> dict[str, float]:
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


def measure_latency(entries: Sequence[Entry], device: str, batch: int, seconds: float) -> None:
    """Measures latencies: random weights, folded batch norm, every network once per round."""
    networks = {}
    for index, entry in enumerate(entries):
        net = fuse(read_trained(entry.cfg, width=entry.width, height=entry.height, device=device))
        networks[str(index)] = partial(net, random_images(net, batch, net.device))
    with torch.inference_mode():
        times_by_network = time_in_turns(networks, torch.device(device), seconds)
    for index, entry in enumerate(entries):
        times = times_by_network[str(index)]
        entry.latency = _median_interval(times)[0] * 1e3 / batch
        ratios = [own / first for own, first in zip(times, times_by_network["0"], strict=True)]
        entry.ratio, entry.ratio_low, entry.ratio_high = _median_interval(ratios)


def _median_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The median and its distribution-free 95 % interval (binomial distribution of ranks)."""
    ordered = sorted(values)
    half = 0.98 * math.sqrt(len(ordered))
    low, high = math.floor(len(ordered) / 2 - half), math.ceil(len(ordered) / 2 + half)
    middle = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
    return middle, ordered[max(low, 0)], ordered[min(high, len(ordered) - 1)]


# --- output


def format_table(entries: Sequence[Entry]) -> str:
    """One entry per network, with the difference from the first one in brackets."""
    first = entries[0]
    columns: list[tuple[str, Callable[[Entry], str]]] = [
        ("input", lambda entry: f"{entry.width}x{entry.height}"),
        ("layers", lambda entry: str(entry.layers)),
        ("parameters", lambda entry: _with_change(f"{entry.parameters}", entry.parameters, first.parameters)),
        ("BFLOPs", lambda entry: _with_change(f"{entry.bflops:.3f}", entry.bflops, first.bflops)),
        ("CIO (M)", lambda entry: _with_change(f"{entry.cio / 1e6:.2f}", entry.cio, first.cio)),
        ("paths", lambda entry: count_text(entry.paths)),
        ("timestamps", lambda entry: str(entry.timestamps)),
        ("duplicated", lambda entry: f"{entry.duplicated:.2f}"),
        ("activations (MiB)", lambda entry: _with_change(f"{entry.memory / 2**20:.1f}", entry.memory, first.memory)),
    ]
    if first.latency is not None:
        columns.append(("latency (ms)", lambda entry: f"{entry.latency:.2f}"))
        columns.append(
            ("ratio (95 %)", lambda entry: f"{entry.ratio:.3f} ({entry.ratio_low:.3f}…{entry.ratio_high:.3f})")
        )
    if any(entry.accuracy is not None for entry in entries):
        columns.append(("accuracy", lambda entry: "" if entry.accuracy is None else f"{entry.accuracy:g}"))
    rows = [["network", *(title for title, _ in columns)]]
    rows += [[entry.name, *(text(entry) for _, text in columns)] for entry in entries]
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *cells]).rstrip())
    return "\n".join(lines)


def _with_change(text: str, value: float, first: float) -> str:
    return text if value == first or not first else f"{text} ({value / first - 1:+.1%})"


def write_plot(entries: Sequence[Entry], args: argparse.Namespace) -> None:
    """Writes the plot. Raises DarknetError if no network has values for both axes."""
    arguments = any(entry.accuracy is not None for entry in entries)
    x, y = args.x or ("latency" if args.measure else "bflops"), args.y or ("accuracy" if arguments else "parameters")
    plot = plot_of(entries, x, y, args.column)
    if not plot:
        missing = "--measure" if "latency" in (x, y) and not args.measure else "--accuracy"
        raise UsageError(f"{args.plot}: no network has both {x} and {y}: add {missing}")
    write_atomically(args.plot, plot.encode())
    logger.info("wrote %s", args.plot)


def plot_of(
    entries: Sequence[Entry], x: str, y: str, accuracy: str = "accuracy", named: Collection[str] | None = None
) -> str:
    """The networks as points (SVG), or "" if none has values for both axes.

    Args:
        entries: The networks.
        x: A key of `AXES`.
        y: A key of `AXES`.
        accuracy: What the accuracy is, for the label.
        named: Names of the networks to draw with their names, the others faint; default: all.
    """
    points = []
    for entry in entries:
        values = asdict(entry)
        if values[x] is not None and values[y] is not None:
            faint = named is not None and entry.name not in named
            points.append(Point(entry.name, entry.cfg, values[x] / AXES[x][1], values[y] / AXES[y][1], faint))
    label = accuracy if y == "accuracy" else AXES[y][0]
    title = f"{label} over {AXES[x][0]}"
    return scatter(points, AXES[x][0], label, title, AXES[y][2]) if points else ""
