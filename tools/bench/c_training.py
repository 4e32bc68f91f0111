"""Seconds per training iteration of darknet_py and C Darknet: same cfg, weights, images and threads, alternating.

    python tools/bench/c_training.py DARKNET CFG --data DATA --weights W [--cutoff N] [--iterations 8] [--json FILE]

DARKNET is a CPU build of AlexeyAB/darknet with AVX=1 OPENMP=1 OPTS=-O3. Each turn is a whole training from the command
line, from images on disk, with augmentation, without mAP. The result is the median of the printed seconds per
iteration, without the first iteration of each turn, which waits for the loader.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from tqdm import tqdm

from darknet_py.data.datafile import read_list
from darknet_py.data.labels import find_labels
from darknet_py.data.open_dataset import open_dataset
from darknet_py.graph.graph import parse

_SECONDS = re.compile(r"rate, (\d+\.\d+) seconds")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("darknet", type=Path)
    parser.add_argument("cfg", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--cutoff", type=int)
    parser.add_argument("--iterations", type=int, default=8, help="iterations per turn")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    threads = {"OMP_NUM_THREADS": str(options.threads)}
    with tempfile.TemporaryDirectory() as folder:
        commands = {
            "C Darknet": c_command(options, Path(folder)),
            "darknet_py": our_command(options, Path(folder)),
        }
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for _ in tqdm(range(options.turns), unit="turn", disable=not sys.stderr.isatty()):
            for name, command in commands.items():
                seconds[name] += iterations(command, Path(folder), threads)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    report = {
        "cfg": options.cfg.name,
        "threads": options.threads,
        "iterations": options.iterations,
        "turns": options.turns,
        "seconds": {name: [round(value, 3) for value in values] for name, values in seconds.items()},
        "medians": {name: round(value, 3) for name, value in medians.items()},
        "ratio": round(medians["darknet_py"] / medians["C Darknet"], 3),
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
    }
    for name, value in medians.items():
        print(f"{name:<12} {value:8.3f} s per iteration")
    print(f"ratio        {report['ratio']:8.3f}")
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        print(f"written to {options.json}")
    return 0


def c_command(options: argparse.Namespace, folder: Path) -> list[str]:
    """Writes images and labels in C Darknet's layout to `folder`, and cuts the weights with its `partial` command."""
    source = open_dataset(options.data)
    images = []
    (folder / "images").mkdir()
    for number, path in enumerate(read_list(source.train)):
        image = folder / "images" / f"{number:05}{Path(path).suffix}"
        image.symlink_to(Path(path).absolute())
        shutil.copy(find_labels(path), image.with_suffix(".txt"))
        images.append(str(image))
    (folder / "train.txt").write_text("".join(f"{path}\n" for path in images), encoding="utf-8")
    (folder / "c.names").write_text("".join(f"{name}\n" for name in source.class_names()), encoding="utf-8")
    lines = (f"classes={source.classes}", "train=train.txt", "valid=train.txt", "names=c.names", "backup=.")
    (folder / "c.data").write_text("\n".join(lines) + "\n", encoding="utf-8")
    net = parse(options.cfg).net
    text = options.cfg.read_text(encoding="utf-8")
    text = text.replace(f"max_batches={net.max_batches}", f"max_batches={options.iterations}")
    (folder / "c.cfg").write_text(text, encoding="utf-8")
    darknet, weights = str(options.darknet.absolute()), str(options.weights.absolute())
    if options.cutoff:
        partial = [darknet, "partial", "c.cfg", weights, "start.weights", str(options.cutoff)]
        subprocess.run(partial, cwd=folder, check=True, capture_output=True)
        weights = "start.weights"
    return [darknet, "detector", "train", "c.data", "c.cfg", weights, "-clear", "-dont_show"]


def our_command(options: argparse.Namespace, folder: Path) -> list[str]:
    command = [sys.executable, "-m", "darknet_py", "train", str(options.cfg.absolute())]
    command += ["--data", str(folder / "c.data"), "--weights", str(options.weights.absolute())]
    command += ["--cutoff", str(options.cutoff)] if options.cutoff else ["--clear"]
    schedule = ["--max-batches", str(options.iterations), "--map", "off", "--no-chart"]
    return [*command, *schedule, "--out", str(folder / "ours")]


def iterations(command: list[str], folder: Path, threads: dict[str, str]) -> list[float]:
    """The printed seconds per iteration of a training, without the first iteration."""
    paths = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(command, cwd=folder, env={**os.environ, **paths, **threads}, capture_output=True, text=True)
    seconds = [float(value) for value in _SECONDS.findall(done.stdout + done.stderr)]
    if done.returncode or len(seconds) < 2:
        sys.exit(f"{command[0]}: exited with code {done.returncode}: {(done.stdout + done.stderr)[-500:]}")
    return seconds[1:]


if __name__ == "__main__":
    sys.exit(main())
