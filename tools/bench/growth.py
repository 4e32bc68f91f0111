"""How time and memory grow with image size, images per batch, boxes, length of a list, and layers.

    python tools/bench/growth.py [--seconds 2] [--json docs/bench/growth.json] [--plot docs/images/growth.svg]

yolov4-tiny with random weights in float32 on the CPU, each value in a process of its own. Time is the median by the
clock, memory what the process had at most beyond what it had with torch alone. Boxes are the candidates of one image
above the threshold, each of one of 80 classes. Layers are convolutions 3x3 with 64 filters on a map of 52 x 52.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch

import darknet_py
from darknet_py.cli import main as darknet_main
from darknet_py.cli.benchmark import PeakMemory, machine_name
from darknet_py.inference.fuse import fuse
from darknet_py.inference.nms import postprocess
from darknet_py.layers.base import Predictions
from darknet_py.model.network import Network
from darknet_py.timing import time_in_turns
from darknet_py.view.figure import add_axes, add_text, new_figure, plot_style, save_figure

ROOT = Path(__file__).resolve().parents[2]
CFG = ROOT / "cfg" / "yolov4-tiny.cfg"
CONV = "[convolutional]\nbatch_normalize=1\nfilters=64\nsize=3\nstride=1\npad=1\nactivation=leaky\n"


class Question(NamedTuple):
    """What is varied.

    Attributes:
        label: On the axis.
        per: What the time is divided by the value for; empty: it is not.
        values: Those that are measured.
    """

    label: str
    per: str
    values: Sequence[int]


QUESTIONS = {
    "size": Question("side of the input", "", (160, 288, 416, 608, 832, 1088)),
    "batch": Question("images per batch", "image", (1, 2, 4, 8, 16, 32)),
    "boxes": Question("boxes before suppression", "", (10, 100, 300, 1000, 3000, 10_000)),
    "list": Question("photos in a list", "photo", (10, 30, 100, 300, 1000)),
    "layers": Question("layers", "layer", (10, 30, 100, 300, 1000)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each value (default: 2)")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--one", nargs=2, metavar=("QUESTION", "VALUE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        name, value = args.one
        print("RESULT", json.dumps(measure(name, int(value), args.seconds)))
        return
    report: dict[str, object] = {"machine": machine_name(torch.device("cpu")), "load": round(os.getloadavg()[0], 2)}
    rows: dict[str, dict[str, dict[str, float]]] = {}
    for name, question in QUESTIONS.items():
        rows[name] = {}
        for value in question.values:
            command = [sys.executable, __file__, "--seconds", str(args.seconds), "--one", name, str(value)]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            row = rows[name][str(value)] = json.loads(output.rsplit("RESULT", 1)[1])
            print(f"{name:8}{value:7}{row['ms']:12.3f} ms{row['MiB']:9.1f} MiB", flush=True)
    report |= {"load after": round(os.getloadavg()[0], 2), "rows": rows}
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")
    if args.plot:
        plot(rows, args.plot)
    print(f"load average {report['load']} before, {report['load after']} after")


def measure(name: str, value: int, seconds: float) -> dict[str, float]:
    """Milliseconds, per image, photo or layer where the question says so, and MiB."""
    if name == "list":
        return measure_list(value)
    make: dict[str, Callable[[int], Callable[[], object]]] = {
        "size": lambda side: forward(darknet_py.load(CFG, width=side, height=side, random_weights=True), 1),
        "batch": lambda batch: forward(darknet_py.load(CFG, random_weights=True), batch),
        "boxes": suppression,
        "layers": stack,
    }
    torch.nn.functional.conv2d(torch.ones(1, 3, 8, 8), torch.ones(4, 3, 3, 3))  # what torch itself needs
    memory = PeakMemory()
    with torch.inference_mode():
        times = time_in_turns({name: make[name](value)}, torch.device("cpu"), seconds, (5, 2000))[name]
    share = value if QUESTIONS[name].per else 1
    return {"ms": round(1e3 * statistics.median(times) / share, 4), "MiB": round(memory.peak() / 2**20, 1)}


def forward(net: Network, batch: int) -> Callable[[], object]:
    fused = fuse(net)
    x = torch.rand(batch, *net.graph.input).to(memory_format=torch.channels_last)
    return lambda: fused(x)


def suppression(count: int) -> Callable[[], object]:
    generator = torch.Generator().manual_seed(0)
    boxes = torch.rand(1, count, 4, generator=generator) * torch.tensor([1, 1, 0.2, 0.2])
    scores = torch.zeros(1, count, 80)
    labels = torch.randint(80, (count,), generator=generator)
    scores[0, torch.arange(count), labels] = torch.rand(count, generator=generator) * 0.7 + 0.3
    found = Predictions(boxes, scores.amax(2), scores)
    return lambda: postprocess(found, 0.25, 0.45)


def stack(layers: int) -> Callable[[], object]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stack.cfg"
        path.write_text("[net]\nwidth=52\nheight=52\nchannels=64\nbatch=1\n" + layers * CONV)
        net = darknet_py.load(path, random_weights=True)
    for parameter in net.parameters():
        if parameter.dim() == 4:  # Darknet's random weights make values a third as large at each layer, soon denormal
            parameter.mul_(math.sqrt(3 * 2 / (1 + 0.1**2) / 2))
    return forward(net, 1)


def measure_list(count: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        photos = Path(folder) / "photos"
        photos.mkdir()
        noise = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
        content = cv2.imencode(".jpg", cv2.resize(noise, (768, 576), interpolation=cv2.INTER_CUBIC))[1].tobytes()
        for number in range(count):
            (photos / f"{number:05}.jpg").write_bytes(content)
        memory = PeakMemory()
        start = time.perf_counter()
        words = ["detect", str(CFG), str(photos), "--random-weights", "--thresh", "0.9", "--out", f"{folder}/out"]
        assert darknet_main(words) == 0
        seconds = time.perf_counter() - start
        return {"ms": round(1e3 * seconds / count, 3), "MiB": round(memory.peak() / 2**20, 1)}


def plot(rows: dict[str, dict[str, dict[str, float]]], path: Path) -> None:
    """A column for each question: time above, memory below, both axes logarithmic but that of memory."""
    width, height, gap, left, top = 190, 150, 62, 56, 56
    with plot_style():
        figure = new_figure(left + len(rows) * (width + gap), top + 2 * (height + gap) - 24)
        for column, (name, measured) in enumerate(rows.items()):
            question, x = QUESTIONS[name], left + column * (width + gap)
            add_text(figure, question.label, x, 22, 15)
            for row, unit in enumerate(("ms", "MiB")):
                y = top + row * (height + gap)
                axes = add_axes(figure, x, y, width, height)
                values = [each[unit] for each in measured.values()]
                axes.plot([int(value) for value in measured], values, color="#3f7ee8", marker="o", ms=4, lw=1.4)
                axes.set_xscale("log")
                axes.set_xticks(question.values, [f"{value}" for value in question.values], fontsize=9)
                if row == 0 and max(values) > 5 * min(values):
                    axes.set_yscale("log")
                    axes.yaxis.set_major_formatter("{x:g}")
                else:
                    axes.set_ylim(0, max(values) * 1.2)
                axes.minorticks_off()
                axes.tick_params(length=0, labelsize=10)
                per = f" per {question.per}" if question.per and unit == "ms" else ""
                add_text(figure, f"{unit}{per}", x, y - 8, 12)
    save_figure(path, figure)


if __name__ == "__main__":
    main()
