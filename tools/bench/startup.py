"""Times what comes before any image: `--help`, `info`, and loading weights from the page cache, in turns.

    python tools/bench/startup.py [--rounds 7] [--json FILE]

Milliseconds of wall clock and of processor time, medians over the rounds; the file sizes turn loading into GB/s of
processor time. The weights (yolov4's 64 million, random) are written to a temporary folder first.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from darknet_py.graph.graph import parse
from darknet_py.model.load import read_trained
from darknet_py.model.network import Network

ROOT = Path(__file__).resolve().parents[2]
LARGEST, LOADED = ROOT / "cfg" / "yolov4-p7.cfg", ROOT / "cfg" / "yolov4.cfg"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    report: dict[str, object] = {"load": [round(value, 2) for value in os.getloadavg()], "torch": torch.__version__}
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"yolov4{suffix}" for suffix in (".weights", ".pt")]
        model = Network(parse(LOADED)).model_file()
        for file in files:
            model.write(file)
        arms: dict[str, Callable[[], float]] = {
            "python alone": lambda: in_process("-c", "pass"),
            "--help": lambda: in_process("-m", "darknet_py", "--help"),
            "import torch": lambda: in_process("-c", "import torch"),
            f"info {LARGEST.name}": lambda: in_process("-m", "darknet_py", "info", str(LARGEST)),
            **{f"load {file.name}": lambda file=file: loading(file) for file in files},  # type: ignore[misc]
        }
        spent: dict[str, list[tuple[float, float]]] = {name: [] for name in arms}
        for _ in range(args.rounds):
            for name, arm in arms.items():
                start = time.perf_counter()
                processor = arm()
                spent[name].append((time.perf_counter() - start, processor))
        for name, pairs in spent.items():
            clock, processor = (1e3 * statistics.median(times) for times in zip(*pairs, strict=True))
            row = {"clock ms": round(clock, 1), "processor ms": round(processor, 1)}
            for file in files:
                if name == f"load {file.name}":
                    row["GB/s"] = round(file.stat().st_size / processor / 1e6, 2)
            report[name] = row
            print(f"{name:24}", *(f"{value:9.2f} {unit}" for unit, value in row.items()))
    print("load average", report["load"])
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")


def in_process(*words: str) -> float:
    """Runs Python. Returns the seconds of processor time that it took."""
    before = os.times()
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def loading(file: Path) -> float:
    """Reads a network. Returns the seconds of processor time that it took."""
    start = time.process_time()
    read_trained(LOADED, file)
    return time.process_time() - start


if __name__ == "__main__":
    main()
