"""Where the time of a forward pass goes: milliseconds and share of each kind of layer, as `load().detect` runs it.

    python tools/bench/profile_layers.py [--rounds 30] [--batch 1] [--json docs/bench/profile.json] [NAME …]

Random weights, float32, the CPU. Each step is timed by the clock in every round and counts with its median. A pooling
that comes before the joining it reads counts as pooling.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections import defaultdict
from pathlib import Path

import torch
from networks import SIZES
from torch import Tensor, nn

import darknet_py
from darknet_py.cli.benchmark import machine_name, random_images
from darknet_py.inference.fuse import fuse
from darknet_py.layers.base import Node

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(SIZES), metavar="NAME", help="of cfgs in cfg/")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    report: dict[str, object] = {"machine": machine_name(torch.device("cpu")), "batch": args.batch}
    for name in args.names:
        times = profile(name, args.batch, args.rounds)
        total = sum(times.values())
        print(f"{name}: {total:.2f} ms")
        for kind, milliseconds in times.items():
            print(f"  {kind:24}{milliseconds:9.2f} ms{milliseconds / total:7.1%}")
        report[name] = {kind: round(milliseconds, 3) for kind, milliseconds in times.items()}
    report["load after"] = round(os.getloadavg()[0], 2)
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")


def profile(name: str, batch: int, rounds: int) -> dict[str, float]:
    """Milliseconds of each kind of layer, the largest first."""
    size = SIZES.get(name)
    net = darknet_py.load(ROOT / "cfg" / f"{name}.cfg", width=size, height=size, random_weights=True)
    fused, x = fuse(net), random_images(net, batch, net.device)
    starts: list[tuple[str, float]] = []

    def begin(node: Node, module: nn.Module, inputs: list[Tensor]) -> None:
        starts.append((kind_of(node), time.perf_counter()))

    spent: list[list[float]] = []
    with torch.inference_mode():
        for _ in range(3 + rounds):
            starts.clear()
            fused._forward(x, begin, steps=fused.steps)
            ends = [start for _, start in starts[1:]] + [time.perf_counter()]
            spent.append([end - start for (_, start), end in zip(starts, ends, strict=True)])
    times: dict[str, float] = defaultdict(float)
    for (kind, _), values in zip(starts, zip(*spent[3:], strict=True), strict=True):
        times[kind] += 1e3 * statistics.median(values)
    return dict(sorted(times.items(), key=lambda item: -item[1]))


def kind_of(node: Node) -> str:
    """The section's name; convolutions by their size, with groups by that."""
    size, _, _ = node.spec.kernel()
    if node.type != "convolutional":
        return node.type
    return "convolution, groups" if node.spec.groups > 1 else f"convolution {size}x{size}"


if __name__ == "__main__":
    main()
