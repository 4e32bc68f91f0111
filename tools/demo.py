"""The main job on built-in data: train, evaluate, draw. `make demo` runs it; so does `python tools/demo.py`.

It trains cfg/csresnext50-panet-spp.cfg from scratch, at a size and for a time that suit one CPU, then measures it on
held-out images and draws what it finds. Everything it does is a command of darknet_py, printed before it runs.
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
# Small images of one size, small batches and few iterations. Adam, and running statistics that follow fast, because
# a hundred layers learn too slowly by plain descent for so short a training.
RECIPE = [*SIZE, "--batch", "8", "--subdivisions", "1", "--max-batches", "700", "--learning-rate", "0.002"]
RECIPE += ["--set", "adam=1", "--set", "policy=poly", "--set", "power=1", "--burn-in", "40", "--bn-momentum", "0.05"]
RECIPE += ["--set", "random=0", "--set", "jitter=0.1", "--map", "175"]
PHOTOS = 6


def main() -> int:
    started = time.monotonic()
    OUT.mkdir(exist_ok=True)
    say("1/3  train on the built-in shapes (the first run draws them)")
    command("train", CFG, *RECIPE, "--out", str(OUT))
    weights = OUT / f"{Path(CFG).stem}_final.weights"
    say("2/3  evaluate on held-out images")
    data = ["--data", "data/shapes.data"]
    command("evaluate", CFG, "--weights", str(weights), *data, *SIZE, "--out", str(OUT / "evaluation"))
    say("3/3  detect on held-out images")
    photos = Path("data/shapes/valid.txt").read_text(encoding="utf-8").split("\n")[:PHOTOS]
    command("detect", CFG, "--weights", str(weights), *data, *SIZE, "--out", str(OUT / "pictures"), *photos)
    report = json.loads((OUT / "evaluation" / "evaluation.json").read_text(encoding="utf-8"))
    say(f"done in {(time.monotonic() - started) / 60:.1f} minutes")
    print(f"mAP@0.5 on held-out images: {report['darknet']['map']:.1%} (Darknet's protocol)")
    print(f"weights     {weights}")
    print(f"chart       {OUT / f'chart_{Path(CFG).stem}.png'}")
    print(f"evaluation  {OUT / 'evaluation'}/")
    print(f"pictures    {OUT / 'pictures'}/")
    return 0


def say(text: str) -> None:
    print(f"\n== {text}", flush=True)


def command(*arguments: str) -> None:
    """Runs one darknet_py command and stops the demo with its exit code when it fails."""
    print("$ python -m darknet_py " + shlex.join(arguments), flush=True)
    code = subprocess.call([sys.executable, "-m", "darknet_py", *arguments])
    if code:
        sys.exit(code)


if __name__ == "__main__":
    sys.exit(main())
