"""How much a busy core slows down inference or training, for several ways in which OpenMP's threads wait, in turns.

    python tools/bench/busy.py [CFG] [--spin default 1000 10000 100000] [--rounds 3] [--calls 40] [--size N] [--train]
        [--preload LIBRARY] [--json FILE]

Each measurement is a process of its own that uses all cores; half of them run beside an endless loop that is bound to
one core. --spin sets libgomp's GOMP_SPINCOUNT, `cli` what `darknet-py` sets. --preload adds runs with another OpenMP
runtime, such as intel-openmp's libiomp5.so with KMP_BLOCKTIME=1. The values are medians of the calls in milliseconds,
and the slow-down is the median over the rounds of busy / idle; "idle" is only as idle as the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

MEASURED = """
import statistics, sys, time
cfg, calls, size, train, cli = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]) or None, sys.argv[4] == "1", sys.argv[5]
if cli == "1":
    from darknet_py.openmp import share_cores
    share_cores()
import numpy as np, torch
import darknet_py
net = darknet_py.load(cfg, random_weights=True, width=size, height=size)
if train:
    from darknet_py.cli import benchmark
    step = benchmark.make_train_step(net, 4, None)
    data = benchmark.random_images(net, 4, torch.device("cpu")), benchmark.random_truth(net, 4, torch.device("cpu"))
    call = lambda: step.step([data])
else:
    image = np.random.default_rng(0).integers(0, 256, (416, 416, 3), np.uint8)
    call = lambda: net.detect(image, 0.9)
times = []
for k in range(calls + 3):
    start = time.perf_counter()
    call()
    times.append(time.perf_counter() - start)
print("RESULT", 1e3 * statistics.median(times[3:]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cfg", nargs="?", default=str(ROOT / "cfg" / "yolov4-tiny.cfg"))
    parser.add_argument("--spin", nargs="*", default=["default", "cli", "1000", "10000", "100000"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--calls", type=int, default=40)
    parser.add_argument("--size", type=int, default=0, help="width and height of the input (default: the cfg's)")
    parser.add_argument("--train", action="store_true", help="training steps with mini-batch 4 instead of inference")
    parser.add_argument("--preload", nargs="*", default=[], metavar="LIBRARY")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    arms: dict[str, dict[str, str]] = {}
    for spin in args.spin:
        arms[f"spin {spin}"] = {"GOMP_SPINCOUNT": spin} if spin.isdecimal() else {}
    for library in args.preload:
        arms[Path(library).name] = {"LD_PRELOAD": library, "KMP_BLOCKTIME": "1"}
    spent: dict[str, dict[str, list[float]]] = {name: {"idle": [], "busy": []} for name in arms}
    before = os.getloadavg()[0]
    for _ in range(args.rounds):
        for kind in ("idle", "busy"):
            for name, variables in arms.items():
                with busy_core() if kind == "busy" else nothing():
                    spent[name][kind].append(run(args, variables, name == "spin cli"))
    report: dict[str, object] = {"cfg": Path(args.cfg).name, "train": args.train, "cores": os.cpu_count()}
    for name, times in spent.items():
        ratio = statistics.median(busy / idle for idle, busy in zip(times["idle"], times["busy"], strict=True))
        row = {kind: round(statistics.median(values), 2) for kind, values in times.items()}
        report[name] = {**row, "slow-down": round(ratio, 2), "rounds": times}
        print(f"{name:20}idle {row['idle']:9.2f} ms   busy {row['busy']:9.2f} ms   {ratio:5.2f} x")
    report["load"] = [before, os.getloadavg()[0]]
    print(f"load average {before:.1f} before, {os.getloadavg()[0]:.1f} after")
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")


def run(args: argparse.Namespace, variables: dict[str, str], cli: bool) -> float:
    """The median of a process's calls in milliseconds."""
    environment = {key: value for key, value in os.environ.items() if key not in ("OMP_NUM_THREADS", "GOMP_SPINCOUNT")}
    words = [args.cfg, str(args.calls), str(args.size), str(int(args.train)), str(int(cli))]
    command = [sys.executable, "-c", MEASURED, *words]
    output = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment | variables
    ).stdout
    return float(next(line for line in output.splitlines() if line.startswith("RESULT")).split()[1])


@contextmanager
def busy_core() -> Iterator[None]:
    """Another process that keeps one core busy."""
    core = max(os.sched_getaffinity(0))
    # It ends with this process, however that ends.
    loop = f"import os\nos.sched_setaffinity(0, [{core}])\nwhile os.getppid() == {os.getpid()}: sum(range(10000))"
    process = subprocess.Popen([sys.executable, "-c", loop])
    time.sleep(0.5)
    try:
        yield
    finally:
        process.kill()
        process.wait()


@contextmanager
def nothing() -> Iterator[None]:
    yield


if __name__ == "__main__":
    main()
