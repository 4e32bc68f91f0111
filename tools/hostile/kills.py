"""Kills a training at each of its save points, in every kind of training, and resumes it: is anything lost?

    python tools/hostile/kills.py [KIND …] [--seed 0] [--out docs/bench/kills.json]

A save point is each file that is opened for writing, synced, renamed, linked or removed in the output folder; a file is
synced at two points, whole and half written. A training is counted first, then killed by SIGKILL at one point after the
other and resumed. It has to end with the same files: all weights byte for byte, the best score, the rows of the log.
The results are written to --out as they come; a run that was stopped goes on there, and kinds that are done are not run
again. Exits with code 1 where something is lost.
"""

from __future__ import annotations

import argparse
import builtins
import csv
import io
import json
import logging
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import cv2
import torch
from small_training import detector_cfg, write_images, write_list
from tqdm import tqdm

import darknet_py
from darknet_py.files import sha256_of, stored_checksum, write_atomically

_CLASSIFIER = """[net]
width=16
height=16
channels=3
batch=2
subdivisions=1
learning_rate=0.001
max_batches=3
[convolutional]
batch_normalize=1
filters=2
size=3
stride=4
pad=1
activation=leaky
[avgpool]
[softmax]
"""


class Kind(NamedTuple):
    """cfg, data: files in the folder. first: iterations that are done before the training that is killed."""

    cfg: str = "net.cfg"
    data: str = "x.data"
    options: dict[str, Any] = {}
    first: int = 0


_QUIET: dict[str, Any] = {"workers": 0, "device": "cpu", "chart": False, "report": False, "save_every": 1}
KINDS = {
    "plain": Kind(options={"map": False}),
    "averaged weights": Kind(options={"map": False, "ema": 0.9}),
    "numbered weights": Kind(data="numbered.data", options={"map": False, "keep": 1}),
    "evaluations": Kind(options={"map": 1}),
    "chart and report": Kind(options={"map": 2, "chart": True, "report": True, "save_every": 2}),
    "resumed": Kind(options={"map": 1, "ema": 0.9}, first=1),
    "recipe": Kind(options={"map": 2, "recipe": "scratch", "split": 0.5, "recover": True, "max_batches": 3}),
    "classifier": Kind(cfg="classes.cfg", data="classes", options={}),
}


class SavePoints:
    """Counts the save points of this process, or ends it at one of them."""

    def __init__(self, folder: Path, kill_at: int = 0):
        self.names: list[str] = []
        self._folder, self._kill_at = str(folder), kill_at
        for name in ("rename", "replace", "link", "unlink", "remove", "mkdir"):
            self._count_calls(os, name)
        self._open, builtins.open = open, self._open_file  # type: ignore[assignment]
        io.open = self._open_file  # type: ignore[assignment]
        self._fsync, os.fsync = os.fsync, self._sync  # type: ignore[assignment]

    def _count_calls(self, module: ModuleType, name: str) -> None:
        function = getattr(module, name)

        def counted(path: Any, *arguments: Any, **options: Any) -> Any:
            if str(path).startswith(self._folder):
                self._reach(name)
            return function(path, *arguments, **options)

        setattr(module, name, counted)

    def _open_file(self, path: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if set(mode) & set("wax+") and str(path).startswith(self._folder):
            self._reach("open")
        return self._open(path, mode, *arguments, **options)

    def _sync(self, descriptor: int) -> None:
        path = f"/proc/self/fd/{descriptor}"
        if os.readlink(path).startswith(self._folder):
            self._reach("sync")
            if not os.path.isdir(path):
                if len(self.names) + 1 == self._kill_at:
                    os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
                self._reach("sync of a half")
        self._fsync(descriptor)

    def _reach(self, name: str) -> None:
        self.names.append(name)
        if len(self.names) == self._kill_at:
            os.kill(os.getpid(), signal.SIGKILL)


def make_files(folder: Path) -> None:
    """The cfgs, and data sets of four images."""
    for name, image in write_images(folder, "abcd").items():
        for split in ("train", "valid"):
            path = folder / "classes" / split / ("cat" if name in "ab" else "dog")
            path.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path / f"{name}.png"), image)
    for split, names in {"train": "abcd", "valid": "ab"}.items():
        write_list(folder / f"{split}.txt", names)
    (folder / "x.names").write_text("cat\ndog\n")
    lines = f"classes = 2\ntrain = {folder}/train.txt\nvalid = {folder}/valid.txt\nnames = {folder}/x.names\n"
    (folder / "x.data").write_text(lines)
    (folder / "numbered.data").write_text(lines + "saveweights = 1\n")
    (folder / "net.cfg").write_text(detector_cfg(batch=2, burn_in=1, iterations=3, filters=4))
    (folder / "classes.cfg").write_text(_CLASSIFIER)


def in_child(folder: Path, work: Callable[[], object]) -> int:
    """Does the work in a forked process; returns its exit code, or minus the signal that ended it."""
    process = os.fork()
    if not process:
        try:
            work()
            os._exit(0)
        except BaseException:
            (folder / "trace.txt").write_text(traceback.format_exc())
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def train(folder: Path, out: Path, kind: Kind, seed: int, resume: bool, iterations: int | None = None) -> None:
    options: dict[str, Any] = _QUIET | kind.options | ({"max_batches": iterations} if iterations else {})
    darknet_py.train(folder / kind.cfg, folder / kind.data, out=out, resume=resume, seed=seed, **options)


def outcome(out: Path) -> dict[str, Any]:
    """What has to be the same: the names of files, weights, the best score, iterations and losses."""
    content: dict[str, Any] = {}
    for path in sorted(out.glob("*")):
        if path.is_dir() or path.name.endswith("_previous.state"):
            continue
        content[path.name] = True
        if path.suffix == ".weights":
            content[path.name] = sha256_of(path)
            assert stored_checksum(path) == content[path.name], f"{path.name}: checksum"
        elif path.name.endswith("_best.json"):
            content[path.name] = path.read_text()
        elif path.name.endswith("_log.csv"):
            rows = list(csv.reader(io.StringIO(path.read_text())))
            content[path.name] = [row[:3] for row in rows]
    left = [path.name for path in out.glob(".*") if not re.fullmatch(r"\..*\.lock", path.name)]
    assert not left, f"left over: {left}"
    return content


def run(name: str, folder: Path, seed: int, before: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The results of a kind after each kill; before: those of a run that was stopped, or nothing."""
    kind, begin = KINDS[name], time.monotonic() - before.get("seconds", 0.0)
    start, whole, out = folder / "start", folder / "whole", folder / "out"
    start.mkdir()
    if kind.first:
        check(folder, in_child(folder, lambda: train(folder, start, kind, seed, False, kind.first)))
    shutil.copytree(start, whole)

    def count() -> None:
        points = SavePoints(whole)
        train(folder, whole, kind, seed, bool(kind.first))
        (folder / "points.json").write_text(json.dumps(points.names))

    # Once in this process, so that the forked ones have all modules and caches.
    warnings.simplefilter("ignore")
    logging.disable()
    train(folder, folder / "warm", kind, seed, False)
    check(folder, in_child(folder, count))
    points, expected = json.loads((folder / "points.json").read_text()), outcome(whole)
    faults: list[list[object]] = list(before.get("faults", ()))
    numbers = range(before.get("kills", 0) + 1, len(points) + 1)
    for number in tqdm(numbers, desc=name, unit="kill", mininterval=5):
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(start, out)
        resume = bool(kind.first)

        def killed(number: int = number, resume: bool = resume) -> None:
            SavePoints(out, number)
            train(folder, out, kind, seed, resume)

        ended = in_child(folder, killed)
        resume = any(out.glob("*.state"))
        again = in_child(folder, lambda resume=resume: train(folder, out, kind, seed, resume))  # type: ignore[misc]
        fault = f"the training was not killed: {ended}" if ended != -signal.SIGKILL else ""
        fault = fault or ((folder / "trace.txt").read_text()[-400:] if again else "")
        fault = fault or difference(expected, out)
        if fault:
            faults.append([number, points[number - 1], fault])
        yield {
            "kills": number,
            "seed": seed,
            "points": dict(sorted(Counter(points).items())),
            "files": len(expected),
            "seconds": round(time.monotonic() - begin, 1),
            "faults": faults,
        }


def is_done(entry: dict[str, Any]) -> bool:
    """Whether a kind was killed at each of its save points."""
    return bool(entry) and entry["kills"] == sum(entry["points"].values())


def check(folder: Path, code: int) -> None:
    if code:
        trace = folder / "trace.txt"
        sys.exit(trace.read_text() if trace.exists() else f"the training ended with {code}")


def difference(expected: dict[str, Any], out: Path) -> str:
    try:
        found = outcome(out)
    except AssertionError as error:
        return str(error)
    wrong = [name for name in {**expected, **found} if found.get(name) != expected.get(name)]
    return f"other files: {', '.join(wrong)}" if wrong else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"{', '.join(KINDS)} (default: all)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    report: dict[str, Any] = {}
    if options.out and options.out.exists():
        report = json.loads(options.out.read_text())
    for name in options.kinds or KINDS:
        before = report.get(name, {})
        if is_done(before):
            continue
        with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as made:
            folder = Path(made)
            make_files(folder)
            for entry in run(name, folder, options.seed, before):
                report[name] = entry
                if options.out:
                    write_atomically(options.out, json.dumps(report, indent=1).encode() + b"\n")
        print(json.dumps({name: report[name]}), flush=True)
    sys.exit(any(entry["faults"] for entry in report.values()))


if __name__ == "__main__":
    main()
