"""Training from scratch beside PyTorch_YOLOv4, for the same minutes on the same photos: yolov4-tiny.

    python tools/bench/recipe_peer.py PEER_CHECKOUT --data DATA --classes 3 [--minutes 5 10 20] [--json FILE]
    python tools/bench/recipe_peer.py --chart docs/bench/recipe_peer.json docs/images/recipe-peer.svg

Both start at the same moment, each with the same number of threads, so that a busy machine slows both. Ours is the one
command of the guide with `--time`. The peer's is its own train.py without evaluations (`--notest`) and with its images
in memory; it is ended when the time is over, and its last complete epoch counts: the averaged weights, which it saves
and evaluates too.

Both are evaluated by our evaluator on the held-out photos. The peer decodes as `new_coords=1 scale_x_y=2` does
whatever the cfg says, so that its weights run with a cfg that says so.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from peer import match_peer_decoding

import darknet_py
from darknet_py.cli.benchmark import machine_name
from darknet_py.counted import counted
from darknet_py.data.datafile import DataFile
from darknet_py.data.labels import find_labels
from darknet_py.data.open_dataset import open_dataset
from darknet_py.evaluation.detector import EvalOptions, evaluate_detector
from darknet_py.export.state_dicts import read_state_dict
from darknet_py.graph.graph import parse, parse_text
from darknet_py.graph.set_num_classes import set_num_classes
from darknet_py.model.model_file import ModelFile
from darknet_py.model.network import Network
from darknet_py.view.figure import add_axes, add_text, figure_svg, new_figure, plot_style

BATCH = 16
EPOCHS = 300  # of the peer: its default, over which its learning rate falls
# The peer imports more than it needs here, and was written for older versions of numpy and torch.
_STUBS = """
import importlib, runpy, sys
from unittest.mock import MagicMock
import numpy as np
import torch
names = ["torchvision", "torchvision.ops", "torchvision.utils", "torchvision.models", "torchvision.transforms"]
names += ["torch.utils.tensorboard", "pycocotools", "pycocotools.mask", "thop"]
for name in names:
    try:
        importlib.import_module(name)
    except Exception:
        sys.modules[name] = MagicMock()
np.int, np.float = int, float
sys.modules["utils.plots"] = MagicMock()
clamp = torch.Tensor.clamp_
torch.Tensor.clamp_ = lambda cells, low, high: clamp(cells, low, int(high))
sys.argv = sys.argv[1:]
sys.path.insert(0, ".")
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def main() -> None:
    if sys.argv[1:2] == ["--chart"]:
        report, image = map(Path, sys.argv[2:])
        image.write_text(chart(json.loads(report.read_text())["rows"]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", type=Path, help="a checkout of WongKinYiu/PyTorch_YOLOv4")
    parser.add_argument("--data", required=True)
    parser.add_argument("--classes", type=int, required=True)
    parser.add_argument("--minutes", type=float, nargs="+", default=[5, 10, 20])
    parser.add_argument(
        "--size", type=int, default=384, help="a multiple of 64, as the peer rounds it up (default: 384)"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    args.peer = args.peer.resolve()
    file = open_dataset(args.data)
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_peer_data(file, args.classes, args.peer, folder)
        for minutes in args.minutes:
            rows.append(contest(args, file, folder, minutes))
            print(rows[-1], flush=True)
            if args.json:
                report = {
                    "what": "yolov4-tiny from scratch, mAP@0.50 by our evaluator on the held-out photos",
                    "date": datetime.date.today().isoformat(),
                    "machine": machine_name(torch.device("cpu")),
                    "versions": {"python": platform.python_version(), "torch": torch.__version__},
                    "data": f"{Path(args.data).name}: {counted(len(file.train_images()), 'image')} to train on, "
                    f"{len(file.valid_images())} held out",
                    "size": args.size,
                    "batch": BATCH,
                    "threads of each": args.threads,
                    "cores": os.cpu_count(),
                    "rows": rows,
                }
                args.json.write_text(json.dumps(report, indent=1) + "\n")


def write_peer_data(file: DataFile, classes: int, peer: Path, folder: Path) -> None:
    """The photos in the peer's layout (images/, labels/), its data.yaml, and its cfg for these classes."""
    for part, paths in (("train", file.train_images()), ("val", file.valid_images())):
        for kind in ("images", "labels"):
            (folder / kind / part).mkdir(parents=True)
        for path in paths:
            labels = find_labels(path)
            target = folder / "images" / part / Path(path).name
            target.symlink_to(Path(path).resolve())
            text = Path(labels).read_text() if Path(labels).exists() else ""
            (folder / "labels" / part / target.with_suffix(".txt").name).write_text(text)
    names = file.class_names()
    (folder / "data.yaml").write_text(
        f"train: {folder}/images/train\nval: {folder}/images/val\nnc: {classes}\nnames: {json.dumps(names)}\n"
    )
    graph = set_num_classes(parse(peer / "cfg" / "yolov4-tiny.cfg"), classes)
    (folder / "peer.cfg").write_bytes(graph.document.content)


def start_peer(args: argparse.Namespace, folder: Path, name: str) -> subprocess.Popen[bytes]:
    options = ["--epochs", EPOCHS, "--batch-size", BATCH, "--img-size", args.size, args.size]
    options += ["--cfg", folder / "peer.cfg", "--data", folder / "data.yaml", "--weights", "", "--device", "cpu"]
    options += ["--workers", 1, "--project", folder, "--name", name, "--exist-ok", "--notest", "--cache-images"]
    command = [sys.executable, "-c", _STUBS, "train.py", *map(str, options)]
    log = (folder / f"{name}.log").open("wb")
    return subprocess.Popen(command, cwd=args.peer, env=environment(args), stdout=log, stderr=log)


def environment(args: argparse.Namespace) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": str(args.threads), "MKL_NUM_THREADS": str(args.threads)}


def contest(args: argparse.Namespace, file: DataFile, folder: Path, minutes: float) -> dict[str, object]:
    """Both trainings side by side, and the scores of what they leave."""
    name, load_before = f"m{minutes:g}", os.getloadavg()[0]
    for cache in folder.glob("labels/*.cache3"):  # of the run before, which the peer cannot read with today's torch
        cache.unlink()
    out = folder / f"ours-{name}"
    command = [sys.executable, "-m", "darknet_py", "train", "yolov4-tiny.cfg", "--data", str(file.path)]
    command += ["--classes", str(args.classes), "--time", f"{minutes * 60:g}s", "--out", str(out)]
    command += ["--width", str(args.size), "--height", str(args.size), "--workers", "1", "--seed", str(args.seed)]
    with (folder / f"ours-{name}.log").open("wb") as log:
        begin = time.monotonic()
        theirs = start_peer(args, folder, name)
        ours = subprocess.Popen(command, env=environment(args), stdout=log, stderr=log)
        ends: dict[str, float] = {}
        while len(ends) < 2:
            for side, process in (("ours", ours), ("peer", theirs)):
                if side not in ends and process.poll() is not None:
                    ends[side] = time.monotonic() - begin
            if "peer" not in ends and time.monotonic() - begin > 60 * minutes:
                theirs.terminate()
            time.sleep(0.1)
    if ours.returncode:
        sys.exit(Path(log.name).read_text())
    results = folder / name / "results.txt"
    done = len(results.read_text().splitlines()) if results.exists() else 0
    iterations = len((out / "yolov4-tiny_log.csv").read_text().splitlines()) - 1
    net = darknet_py.load(out / "yolov4-tiny.cfg", out / "yolov4-tiny_best.weights")
    return {
        "minutes": minutes,
        "ours": score(net, file),
        "iterations": iterations,
        "seconds": round(ends["ours"], 1),
        "peer": score(load_peer(folder, folder / name / "weights" / "last.pt"), file) if done else None,
        "peer epochs": done,
        "peer seconds": round(ends["peer"], 1),
        "load": [round(load_before, 1), round(os.getloadavg()[0], 1)],
    }


def load_peer(folder: Path, checkpoint: Path) -> Network:
    """The peer's averaged weights, in a network that decodes as it does."""
    cfg = folder / "peer.cfg"
    graph = parse_text(match_peer_decoding(cfg.read_text()), str(cfg))
    return Network.of(read_state_dict(ModelFile(graph), checkpoint))


def chart(rows: list[dict[str, float]]) -> str:
    """SVG of the scores against the minutes."""
    with plot_style():
        figure = new_figure(560, 300)
        add_text(figure, "yolov4-tiny from scratch on BCCD, mAP@0.50 in %", 16, 28)
        axes = add_axes(figure, 56, 48, 480, 200)
        for side, title in (("ours", "darknet_py"), ("peer", "PyTorch_YOLOv4")):
            scores = [100 * (row[side] or 0) for row in rows]
            axes.plot([row["minutes"] for row in rows], scores, marker="o", label=title)
        axes.set_xlabel("minutes")
        axes.legend(fontsize=10)
    return figure_svg(figure)


def score(net: Network, file: DataFile) -> float:
    """mAP@0.50 on the held-out photos, by Darknet's protocol."""
    options = EvalOptions(protocols=("darknet",), batch=BATCH, workers=0)
    result = evaluate_detector(net.eval(), file.valid_images(), file.class_names(), options)
    assert result.darknet is not None
    return round(result.darknet.map, 4)


if __name__ == "__main__":
    main()
