"""Trains, evaluates and detects on built-in data: `make demo` or `python tools/demo.py`.

It trains cfg/csresnext50-panet-spp.cfg from scratch, at a size and for a number of iterations that suit one CPU, then
evaluates it on held-out images and draws its detections. Each step is a `darknet-py` command, which is printed before
it runs.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

CFG = "cfg/csresnext50-panet-spp.cfg"
OUT = Path("demo")
SIZE = ["--width", "96", "--height", "96"]
# Small images of one size, small batches and few iterations. SGD and slow running statistics would need more iterations
# for a hundred layers, so that this recipe uses Adam and a higher momentum of the batch norm.
RECIPE = [*SIZE, "--batch", "8", "--subdivisions", "1", "--max-batches", "700", "--learning-rate", "0.002"]
RECIPE += ["--set", "adam=1", "--set", "policy=poly", "--set", "power=1", "--burn-in", "40", "--bn-momentum", "0.05"]
RECIPE += ["--set", "random=0", "--set", "jitter=0.1", "--map", "175"]
PHOTOS = 6


def main() -> int:
    start = time.monotonic()
    OUT.mkdir(exist_ok=True)
    print_heading("1/3  train on the built-in shapes (the first run generates them)")
    command("train", CFG, *RECIPE, "--out", str(OUT))
    weights = OUT / f"{Path(CFG).stem}_final.weights"
    print_heading("2/3  evaluate on held-out images")
    data = ["--data", "data/shapes.data"]
    command("evaluate", CFG, "--weights", str(weights), *data, *SIZE, "--out", str(OUT / "evaluation"))
    print_heading("3/3  detect on held-out images")
    photos = Path("data/shapes/valid.txt").read_text(encoding="utf-8").split("\n")[:PHOTOS]
    command("detect", CFG, "--weights", str(weights), *data, *SIZE, "--out", str(OUT / "images"), *photos)
    report = json.loads((OUT / "evaluation" / "evaluation.json").read_text(encoding="utf-8"))
    print_heading(f"done in {(time.monotonic() - start) / 60:.1f} minutes")
    print(f"mAP@0.5 on held-out images: {report['darknet']['map']:.1%} (Darknet's protocol)")
    print(f"weights     {weights}")
    print(f"chart       {OUT / f'chart_{Path(CFG).stem}.png'}")
    print(f"evaluation  {OUT / 'evaluation'}/")
    print(f"images      {OUT / 'images'}/")
    return 0


def print_heading(text: str) -> None:
    print(f"\n== {text}", flush=True)


def command(*arguments: str) -> None:
    """Runs one `darknet-py` command; if it fails, exits with its exit code."""
    print("$ darknet-py " + shlex.join(arguments), flush=True)
    code = subprocess.call([sys.executable, "-m", "darknet_py", *arguments])
    if code:
        sys.exit(code)


if __name__ == "__main__":
    sys.exit(main())
