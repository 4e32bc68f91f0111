"""`detect` on a long list, divided over processes that are killed again and again: is each image there exactly once?

    python tools/bench/shards.py [--images 100000] [--processes 4] [--kills 3] [--json docs/bench/shards.json]

It makes the images (links to one) and a small network, and runs `torchrun … detect --resume`. Whenever another
share of the list is done it kills a process with SIGKILL; torchrun then starts all processes again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import cv2
import numpy as np

import darknet_py

_CFG = (
    "[net]\nwidth=32\nheight=32\nchannels=3\n[convolutional]\nfilters=7\nsize=1\nstride=8\n"
    "[yolo]\nnum=1\nmask=0\nclasses=2\nanchors=9,9\n"
)
_LINKS = 30_000  # to one file; ext4 allows 65,000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the counts into FILE too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="shards-") as name:
        folder = Path(name)
        text = json.dumps(run(folder, options.images, options.processes, options.kills), indent=1)
    print(text)
    if options.json:
        options.json.write_text(f"{text}\n")


def run(folder: Path, images: int, processes: int, kills: int) -> dict[str, object]:
    """Counts of one run: images of the list, rows of the table, and how many of them are missing or there twice."""
    paths = make_images(folder, images)
    (folder / "small.cfg").write_text(_CFG)
    (folder / "list.txt").write_text("".join(f"{path}\n" for path in paths))
    darknet_py.load(folder / "small.cfg", random_weights=True).save_weights(folder / "small.weights")
    own = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    own += [f"--max-restarts={kills}", "-m", "darknet_py", "detect", "small.cfg", "list.txt"]
    own += ["--weights", "small.weights", "--no-images", "--json", "found.json", "--batch", "16", "--resume"]
    started = time.perf_counter()
    with (folder / "said.txt").open("w") as said:
        process = subprocess.Popen(
            own, cwd=folder, stdout=said, stderr=said, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        killed = [kill_one(process, folder, images * (number + 1) // (kills + 1)) for number in range(kills)]
        status = process.wait()
    if status:
        sys.exit(f"torchrun ended with {status}:\n{(folder / 'said.txt').read_text()[-3000:]}")
    counts = Counter(frame["filename"] for frame in json.loads((folder / "found.json").read_text()))
    return {
        "images": images,
        "processes": processes,
        "killed when so many were done": killed,
        "seconds": round(time.perf_counter() - started, 1),
        "in the table": counts.total(),
        "missing": sum(path not in counts for path in paths),
        "more than once": sum(count > 1 for count in counts.values()),
        "in the order of the list": list(counts) == paths,
        "files left": sorted(path.name for path in folder.glob("found.json?*")),
    }


def make_images(folder: Path, count: int) -> list[str]:
    image = folder / "image.png"
    cv2.imwrite(str(image), np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8))
    (folder / "images").mkdir()
    paths = [folder / "images" / f"{number}.png" for number in range(count)]
    for first in range(0, count, _LINKS):
        original = Path(shutil.copy(image, folder / f"image-{first}.png"))
        for path in paths[first : first + _LINKS]:
            path.hardlink_to(original)
    return [str(path) for path in paths]


def kill_one(torchrun: subprocess.Popen[bytes], folder: Path, after: int) -> int:
    """Kills one process once `after` images are in the records, and returns how many were."""
    while torchrun.poll() is None:
        done = sum(len(record.read_bytes().splitlines()) for record in folder.glob("found.json.shard*"))
        workers = children(torchrun.pid)
        if done >= after and workers:
            os.kill(random.choice(workers), signal.SIGKILL)
            return done
        time.sleep(1)
    return -1


def children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task")
    return [int(child) for task in tasks.glob("*/children") for child in task.read_text().split()]


if __name__ == "__main__":
    main()
