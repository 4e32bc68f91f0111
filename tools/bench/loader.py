"""Images per second of the training loader, compared with PyTorch_YOLOv4, on the same images.

    python tools/bench/loader.py PEER_CHECKOUT IMAGE_LIST [--size 608] [--workers N] [--json FILE]

Each loader has one worker process with one thread and makes uint8 batches of 16; the loaders alternate. The result is
the median processor time of the worker per batch, which depends little on other processes. With --workers it is the
time by the clock of as many workers, for loaders that run alone, one after the other: the median of the rounds. Every
sample of both is a mosaic with flip, scale and color augmentation, unless stated otherwise. The peer is imported from
its checkout, with stubs for packages that this comparison does not use.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import multiprocessing
import os
import platform
import random
import statistics
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from darknet_py.cfg.net import NetSpec
from darknet_py.data.augment.augmentation import MOSAIC, Augmentation
from darknet_py.data.datafile import read_list
from darknet_py.data.dataset import DetectionDataset
from darknet_py.data.labels import find_labels
from darknet_py.data.loader import TrainLoader

BATCH = 16
_PREPARED, _COUNTED = 8, 30  # batches, by the clock
PEER_OPTIONS = {  # its data/hyp.scratch.yaml
    "hsv_h": 0.015,
    "hsv_s": 0.7,
    "hsv_v": 0.4,
    "degrees": 0.0,
    "translate": 0.1,
    "scale": 0.9,
    "shear": 0.0,
    "perspective": 0.0,
    "flipud": 0.0,
    "fliplr": 0.5,
    "mosaic": 1.0,
    "mixup": 0.0,
}

Batches = Iterator[Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", type=Path, help="a checkout of WongKinYiu/PyTorch_YOLOv4")
    parser.add_argument("images", type=Path, help="a list of images with Darknet labels")
    parser.add_argument("--size", type=int, default=608)
    parser.add_argument("--rounds", type=int, default=12, help="batches of each loader; with --workers runs")
    parser.add_argument("--workers", type=int, default=0, help="measure by the clock, with so many worker processes")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    for name, package in (("PIL", "pillow"), ("matplotlib", "matplotlib")):  # which the peer imports
        if importlib.util.find_spec(name) is None:
            sys.exit(f"{arguments.peer}: this loader needs {package}: pip install {package}")
    paths = read_list(arguments.images)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        layout(paths, Path(folder))
        for cached in (False, True):
            size, workers = arguments.size, arguments.workers or 1
            loaders = {
                "PyTorch_YOLOv4": partial(peer, arguments.peer, Path(folder) / "images", size, cached, workers),
                "darknet_py": partial(ours, paths, size, cached, workers, 1.0),
                "darknet_py, Darknet's rule: every second sample a mosaic": partial(
                    ours, paths, size, cached, workers, 0.5
                ),
            }
            rates = (by_the_clock if arguments.workers else measure)(loaders, arguments.rounds)
            for name, rate in rates.items():
                times = round(rate / rates["PyTorch_YOLOv4"], 2)
                source = "memory" if cached else "disk"
                rows.append({"loader": name, "from": source, "images/s": round(rate, 1), "times": times})
                print(f"{rate:8.1f} images/s  {times:5.2f} x  {source:6}  {name}", flush=True)
    report = {
        "size": arguments.size,
        "images": len(paths),
        "batch": BATCH,
        "measured": f"by the clock, {arguments.workers} workers, median of {arguments.rounds} runs in turns"
        if arguments.workers
        else "processor time of one worker process per batch, median, loaders in turns",
        "processor": processor(),
        "versions": {"python": platform.python_version(), "opencv": cv2.__version__, "numpy": np.__version__},
        "load after": [round(value, 2) for value in os.getloadavg()],
        "rows": rows,
    }
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


def measure(loaders: Mapping[str, Callable[[], Batches]], rounds: int) -> dict[str, float]:
    """Images per second of processor time. Each loader runs in its own process; they alternate."""
    context = multiprocessing.get_context("fork")
    ends = {}
    for name, loader in loaders.items():
        parent_end, child_end = context.Pipe()
        context.Process(target=serve, args=(loader, child_end)).start()
        ends[name] = parent_end
    seconds: dict[str, list[float]] = {name: [] for name in loaders}
    for turn in range(-8, rounds):
        for name, end in ends.items():
            end.send(True)
            taken = end.recv()
            if turn >= 0:  # the first batches are a warm-up
                seconds[name].append(taken / BATCH)
    for end in ends.values():
        end.send(False)
    return {name: 1 / statistics.median(times) for name, times in seconds.items()}


def by_the_clock(loaders: Mapping[str, Callable[[], Batches]], rounds: int) -> dict[str, float]:
    """Images per second. Each loader runs alone in a new process, in turns."""
    context = multiprocessing.get_context("fork")
    rates: dict[str, list[float]] = {name: [] for name in loaders}
    for _ in range(rounds):
        for name, loader in loaders.items():
            parent_end, child_end = context.Pipe()
            process = context.Process(target=run_alone, args=(loader, child_end))
            process.start()
            child_end.close()  # so that a process that fails is noticed
            rates[name].append(parent_end.recv())
            process.join()
    return {name: statistics.median(values) for name, values in rates.items()}


def run_alone(loader: Callable[[], Batches], end: Connection) -> None:
    """Sends the images per second of batches in a row as float32, without the first ones, some of which were ready."""
    batches = loader()
    for number in range(_PREPARED + _COUNTED):
        if number == _PREPARED:
            start = time.perf_counter()
        images = next(batches)[0]
        if images.dtype == torch.uint8:
            images.float().div_(255)  # as the peer's train.py does; ours does the same
    end.send(_COUNTED * BATCH / (time.perf_counter() - start))
    for worker in multiprocessing.active_children():
        worker.kill()
    os._exit(0)  # before torch's handler reports that its workers are gone


def serve(loader: Callable[[], Batches], end: Connection) -> None:
    """Takes a batch on request and sends the processor time that the worker needs to make the next one."""
    torch.set_num_threads(1)
    batches, parent = loader(), os.getppid()
    next(batches)
    (worker,) = multiprocessing.active_children()
    before = settled(worker.pid)
    while os.getppid() == parent:  # if the parent is killed, its other children keep the pipe open
        if not end.poll(5):
            continue
        if not end.recv():
            break
        next(batches)
        now = settled(worker.pid)
        end.send(now - before)
        before = now


def settled(pid: int | None) -> float:
    """The processor time of a process in seconds, once it is idle."""
    clock = ~(pid or 0) << 3 | 2  # as clock_getcpuclockid(3) computes it
    last = -1.0
    while (now := time.clock_gettime(clock)) > last:
        last = now
        time.sleep(0.05)
    return now


def ours(paths: list[str], size: int, cached: bool, workers: int, mosaic: float) -> Batches:
    net = NetSpec(width=size, height=size, channels=3, hue=0.1, saturation=1.5, exposure=1.5)
    options = replace(Augmentation.of(net), jitter=0.3, mixup=MOSAIC, mixing_share=mosaic)
    dataset = DetectionDataset(paths, classes=1 << 30)
    return TrainLoader(dataset, net, options, mini_batch=BATCH, workers=workers, cache=cached).batches()


def peer(checkout: Path, images: Path, size: int, cached: bool, workers: int) -> Batches:
    sys.path.insert(0, str(checkout))
    for name in ("torchvision", "torchvision.utils", "yaml", "utils.google_utils"):
        try:
            importlib.import_module(name)
        except ImportError:
            stub = types.ModuleType(name)
            stub.save_image = stub.gsutil_getsize = None  # type: ignore[attr-defined]
            sys.modules[name] = stub
    setattr(np, "int", int)  # noqa: B010  (the peer is older than numpy 1.24)
    safe_load = torch.load
    torch.load = lambda *args, **named: safe_load(*args, **{"weights_only": False, **named})  # type: ignore[assignment]
    with redirect_stdout(None), open(os.devnull, "w") as null, redirect_stderr(null):
        datasets = importlib.import_module("utils.datasets")
        dataset = datasets.LoadImagesAndLabels(
            str(images), size, BATCH, augment=True, hyp=PEER_OPTIONS, cache_images=cached, stride=32
        )
    torch.load = safe_load
    sys.path.remove(str(checkout))
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  (the peer uses it)

    loader = torch.utils.data.DataLoader(
        dataset, BATCH, num_workers=workers, sampler=Endless(len(dataset)), collate_fn=dataset.collate_fn
    )
    return iter(loader)


class Endless(torch.utils.data.Sampler[int]):
    """Samples images randomly, without end."""

    def __init__(self, count: int):
        self.count = count

    def __iter__(self) -> Iterator[int]:
        while True:
            yield random.randrange(self.count)


def layout(paths: list[str], folder: Path) -> None:
    """Writes images/ and labels/ in the layout of the peer."""
    for number, path in enumerate(paths):
        for kind, source, suffix in (("images", path, Path(path).suffix), ("labels", find_labels(path), ".txt")):
            (folder / kind).mkdir(exist_ok=True)
            if os.path.exists(source):
                (folder / kind / f"{number:06}{suffix}").symlink_to(os.path.abspath(source))


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


if __name__ == "__main__":
    main()
