"""Times `darknet_py.load(…).detect` beside PyTorch_YOLOv4 and OpenCV's dnn on five networks, in turns.

    python tools/bench/peers_infer.py PEER_CHECKOUT [--opencv-python PYTHON] [--rounds 15] [--bf16] [--threads N]
        [--networks NAME …] [--json docs/bench/peers.json]

Everything from a uint8 image of the network's size to boxes is included: conversion, network, decoding, NMS. All have
the same random weights, which find about 30 boxes. Ours is called as the README shows it. PyTorch_YOLOv4 runs fused,
without gradients, as it is and moved to channels-last memory by hand; where torchvision is missing its NMS counts as
taking no time (see peer.py), and keys of a cfg that it does not know are left out. OpenCV runs in a process of its own,
that of --opencv-python where an environment has another version. The classifier has no boxes. Medians of
milliseconds by the clock; with --threads 1 of processor time, in which other programs hardly count. Ratios are medians
of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import darknet_py
from darknet_py.cli import benchmark
from darknet_py.inference.fuse import fuse
from darknet_py.model.network import Network

sys.path.insert(0, str(Path(__file__).resolve().parent))
import peer as yolov4_peer
from networks import SIZES

ROOT = Path(__file__).resolve().parents[2]
_WARM_UP = 3
_TOO_MANY = 1000  # boxes; ours finds about 30

OPENCV = """
import sys, time
import cv2, numpy as np
cfg, weights, image, threads = sys.argv[1:]
if threads != "0":
    cv2.setNumThreads(int(threads))
net = cv2.dnn.readNetFromDarknet(cfg, weights)
image = np.load(image)
names = net.getUnconnectedOutLayersNames()
def call():
    net.setInput(cv2.dnn.blobFromImage(image, 1 / 255))
    outputs = net.forward(names)
    if outputs[0].ndim != 2 or outputs[0].shape[1] < 6:
        return
    rows = np.concatenate(outputs)
    labels = rows[:, 5:].argmax(1)
    best = rows[np.arange(len(rows)), labels + 5]
    rows, labels, best = (part[best > 0.25] for part in (rows, labels, best))
    if len(rows):
        boxes = np.concatenate((rows[:, :2] - rows[:, 2:4] / 2, rows[:, 2:4]), 1)
        cv2.dnn.NMSBoxesBatched((boxes * image.shape[0]).tolist(), best.tolist(), labels.tolist(), 0.25, 0.45)
clock = time.process_time if threads == "1" else time.perf_counter
for line in sys.stdin:
    start = clock()
    call()
    print(1e3 * (clock() - start), flush=True)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", type=Path, help="a checkout of WongKinYiu/PyTorch_YOLOv4")
    parser.add_argument("--opencv-python", default=sys.executable)
    parser.add_argument("--networks", nargs="*", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=0, help="of all (default: what they choose)")
    parser.add_argument("--bf16", action="store_true", help="ours in bfloat16, too")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    warnings.simplefilter("ignore")  # the peer is older than this torch
    version = subprocess.check_output([args.opencv_python, "-c", "import cv2; print(cv2.__version__)"], text=True)
    report: dict[str, Any] = {
        "machine": benchmark.machine_name(torch.device("cpu")),
        "threads": torch.get_num_threads(),
        "rounds": args.rounds,
        "time": "processor" if args.threads == 1 else "clock",
        "versions": {"torch": torch.__version__, "opencv": version.strip()},
        "load": [round(value, 2) for value in os.getloadavg()],
    }
    peer = yolov4_peer.Peer(args.peer)
    for name in args.networks:
        with tempfile.TemporaryDirectory() as folder:
            report[name] = compare(name, SIZES[name], peer, args, Path(folder))
    report["load after"] = [round(value, 2) for value in os.getloadavg()]
    print(f"load average {report['load'][0]} before, {report['load after'][0]} after")
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")


def compare(
    name: str, size: int, peer: yolov4_peer.Peer, args: argparse.Namespace, folder: Path
) -> dict[str, dict[str, float] | str]:
    """Medians and ratios of all that run the network; of others why they do not."""
    cfg, weights = ROOT / "cfg" / f"{name}.cfg", folder / "x.weights"
    image = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)
    net = darknet_py.load(cfg, width=size, height=size, random_weights=True)
    if net.detectors:
        yolov4_peer.make_sensible(net, tensor_of(image))
    net.save_weights(weights)
    here = folder / "x.cfg"  # of this size, for OpenCV
    here.write_text(re.sub(r"(?m)^(width|height) *=.*", rf"\1={size}", cfg.read_text()))
    np.save(folder / "x.npy", image)
    arms: dict[str, Callable[[], float]] = {}
    failures: dict[str, str] = {}
    arms["ours"] = timed(ours(cfg, weights, size, image), args.threads == 1)
    if args.bf16 and net.detectors:
        opened = darknet_py.load(cfg, weights, width=size, height=size, backend="torch", precision="bf16")
        arms["ours, bf16"] = timed(lambda: opened.detect(image), args.threads == 1)
    peer.cfg = args.peer / "cfg" / f"{name}.cfg"
    if not peer.cfg.exists():
        peer.cfg = folder / "peer.cfg"
        peer.cfg.write_text(re.sub(r"(?m)^(resize|max_delta|dynamic_minibatch) *=.*", "", cfg.read_text()))
    for arm, last in (("PyTorch_YOLOv4", False), ("PyTorch_YOLOv4, channels-last", True)):
        try:
            arms[arm] = timed(theirs(peer, weights, size, image, last), args.threads == 1, peer.discount)
        except (Exception, SystemExit) as error:  # what it cannot read
            failures[arm] = f"refused: {type(error).__name__}: {str(error)[:100]}"
    words = [str(here), str(weights), str(folder / "x.npy"), str(args.threads)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    process = subprocess.Popen([args.opencv_python, "-c", OPENCV, *words], **pipes)

    def opencv() -> float:
        assert process.stdin and process.stdout
        process.stdin.write("\n")
        process.stdin.flush()
        return float(process.stdout.readline())

    try:
        opencv()
        arms["OpenCV"] = opencv
    except (ValueError, OSError) as error:
        failures["OpenCV"] = f"refused: {error}"
    spent: dict[str, list[float]] = {arm: [] for arm in arms}
    for number in range(-_WARM_UP, args.rounds):
        for arm in list(arms)[:: 1 if number % 2 else -1]:
            arms[arm]()  # threads of the one before may still spin
            milliseconds = arms[arm]()
            if number >= 0:
                spent[arm].append(milliseconds)
    process.kill()
    process.wait()
    rows: dict[str, dict[str, float] | str] = {}
    for arm, times in spent.items():
        ratio = statistics.median(mine / other for mine, other in zip(spent["ours"], times, strict=True))
        rows[arm] = {"ms": round(statistics.median(times), 2), "ours / it": round(ratio, 3)}
        print(f"{name:24}{arm:32}{statistics.median(times):9.2f} ms   ours / it {ratio:.3f}", flush=True)
    for arm, why in failures.items():
        print(f"{name:24}{arm:32}{why}", flush=True)
    return rows | failures


def ours(cfg: Path, weights: Path, size: int, image: NDArray[np.uint8]) -> Callable[[], object]:
    net: Network = darknet_py.load(cfg, weights, width=size, height=size)
    if net.detectors:
        return lambda: net.detect(image)
    fused = fuse(net)
    return torch.inference_mode()(lambda: fused.predict_vector(tensor_of(image)))


def theirs(
    peer: yolov4_peer.Peer, weights: Path, size: int, image: NDArray[np.uint8], last: bool
) -> Callable[[], object]:
    net = peer.network(size, weights)
    if last:
        net.to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def call() -> Tensor:
        x = tensor_of(image)
        found: Tensor = net(x if last else x.contiguous())[0]
        # It reads some cfgs otherwise and finds thousands of boxes: then the time is that of the network alone.
        return peer.nms(found) if int((found[..., 4] > yolov4_peer.THRESH).sum()) < _TOO_MANY else found

    call()
    return call


def tensor_of(image: NDArray[np.uint8]) -> Tensor:
    """(H, W, 3) → (1, 3, H, W) in 0..1, channels-last in memory."""
    return torch.from_numpy(image).permute(2, 0, 1)[None].float().div_(255)


def timed(
    call: Callable[[], object], one_thread: bool, discount: Callable[[], Any] | None = None
) -> Callable[[], float]:
    """Milliseconds of a call, of processor time with one thread, without those that `discount` tells."""

    clock = time.process_time if one_thread else time.perf_counter

    def run() -> float:
        if discount:
            discount()
        start = clock()
        call()
        taken = clock() - start
        skipped = discount() if discount else None
        return 1e3 * (taken - ((skipped.processor if one_thread else skipped.clock) if skipped else 0.0))

    return run


if __name__ == "__main__":
    main()
