"""The guide's one command on several data sets and seeds: what it reaches, and whether it ends on time.

    python tools/bench/newcomer.py --weights yolo-fastest-1.1.weights --time 15m [--json FILE] DATA:CLASSES …

DATA is what `--data` takes; `shapes` is the built-in set. Each training is a process of its own, one after another.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from darknet_py.cli.benchmark import machine_name
from darknet_py.training.duration import parse_duration

CFG = "yolo-fastest-1.1.cfg"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", metavar="DATA:CLASSES")
    parser.add_argument("--weights", required=True)
    parser.add_argument("--time", default="15m")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows: list[dict[str, object]] = []
    for item in args.sets:
        data, classes = item.rsplit(":", 1)
        for seed in args.seeds:
            with tempfile.TemporaryDirectory() as folder:
                rows.append(train(data, classes, seed, args, Path(folder)))
            print(rows[-1], flush=True)
            if args.json:
                report = {
                    "what": f"darknet-py train {CFG} --classes N --weights … --time T --seed S",
                    "date": datetime.date.today().isoformat(),
                    "machine": machine_name(torch.device("cpu")),
                    "cores": os.cpu_count(),
                    "threads": torch.get_num_threads(),
                    "versions": {"python": platform.python_version(), "torch": torch.__version__},
                    "rows": rows,
                }
                args.json.write_text(json.dumps(report, indent=1) + "\n")


def train(data: str, classes: str, seed: int, args: argparse.Namespace, out: Path) -> dict[str, object]:
    """A row of the table."""
    command = [sys.executable, "-m", "darknet_py", "train", CFG, "--weights", args.weights, "--classes", classes]
    command += ["--time", args.time, "--seed", str(seed), "--out", str(out)]
    command += [] if data == "shapes" else ["--data", data]
    load, begin, before = os.getloadavg()[0], time.monotonic(), processor_seconds()
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    seconds, processor = time.monotonic() - begin, processor_seconds() - before
    return row(data, seed, parse_duration(args.time), seconds, processor, out, (load, os.getloadavg()[0]))


def row(
    data: str, seed: int, asked: float, seconds: float, processor: float, out: Path, load: tuple[float, float]
) -> dict[str, object]:
    """What the files of a training say. asked, seconds, processor: time that it had, and that it took."""
    best = json.loads(next(out.glob("*_best.json")).read_text())
    losses = next(out.glob("*_log.csv")).read_text().splitlines()[1:]
    return {
        "data": Path(data).name,
        "seed": seed,
        "asked": asked,
        "seconds": round(seconds),
        "processor seconds": round(processor),
        "iterations": len(losses),
        "not finite": sum("nan" in line or "inf" in line for line in losses),
        "map": round(best["map"], 4),
        "thresh": best["auto_thresh"],
        "precision": round(best["auto_precision"], 4),
        "recall": round(best["auto_recall"], 4),
        "load": [round(value, 1) for value in load],
    }


def processor_seconds() -> float:
    """Of all processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
