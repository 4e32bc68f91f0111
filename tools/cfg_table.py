"""Tries every cfg of some folders: parse, build, forward, backward, save and load weights.

    python tools/cfg_table.py FOLDER… --out docs/cfg_table.csv [--memory 8] [--seconds 600]

One row per cfg: layers, parameters and BFLOPs at the size in the cfg, the (small) size at which the network ran, how
many parameters got a gradient, the status, and the reason if it is not "ok". Each network runs in its own process with
limits on memory and time. Identical files run once.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch

from darknet_py.errors import CfgError
from darknet_py.graph.graph import parse
from darknet_py.layers.recurrent import RecurrentLayer
from darknet_py.model.network import Network

FIELDS = ["repository", "cfg", "layers", "parameters", "bflops", "ran_at", "gradients", "status", "reason"]
_ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[1])}
STEPS = 4
SIDES = (64, 96, 128, 160, 192, 224, 256, 320, 384, 416, 448, 512, 640, 896, 1024, 1280, 1536)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    arguments.add_argument("folders", nargs="*", type=Path, help="folders of cfgs, searched recursively")
    arguments.add_argument("--out", type=Path, help="CSV file to write; default: standard output")
    arguments.add_argument("--root", type=Path, help="folder of the repositories; paths are relative to it")
    arguments.add_argument("--memory", type=float, default=8, help="GiB of address space per network")
    arguments.add_argument("--seconds", type=float, default=600, help="seconds per network")
    options = arguments.parse_args()
    if options.one:
        print(json.dumps(one(options.one, options.memory)))
        return
    rows = table(options.folders, options.root or Path(), options.memory, options.seconds)
    with open(options.out, "w", newline="") if options.out else sys.stdout as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    failures = [row for row in rows if row["status"] != "ok"]
    print(f"{len(rows)} cfgs, {len(failures)} not ok", file=sys.stderr)


def table(folders: list[Path], root: Path, memory: float, seconds: float) -> list[dict[str, Any]]:
    """The rows of all cfgs, in order of path."""
    results: dict[str, dict[str, Any]] = {}
    rows = []
    for path in sorted(file for folder in folders for file in folder.rglob("*.cfg") if file.is_file()):
        text = path.read_bytes()
        key = hashlib.sha256(text).hexdigest()
        if key not in results:
            results[key] = run(path, memory, seconds)
        name = path.relative_to(root) if path.is_relative_to(root) else path
        rows.append({"repository": name.parts[0].replace("+", "/"), "cfg": "/".join(name.parts[1:]), **results[key]})
        print(f"{rows[-1]['status']:6} {name} {rows[-1]['reason']}", file=sys.stderr, flush=True)
    return rows


def run(path: Path, memory: float, seconds: float) -> dict[str, Any]:
    """Runs `check` in a new process; a forked one would inherit broken threads of torch."""
    blank = dict.fromkeys(FIELDS[2:], "")
    command = [sys.executable, __file__, "--one", str(path.resolve()), "--memory", str(memory)]
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, timeout=seconds, cwd=working_folder(path), env=_ENVIRONMENT
        )
    except subprocess.TimeoutExpired:
        return {**blank, "status": "time", "reason": f"took more than {seconds:g} seconds"}
    if done.returncode:
        return {**blank, "status": "failed", "reason": f"process exited with code {done.returncode}"}
    return {**blank, **json.loads(done.stdout.splitlines()[-1])}


def one(path: Path, memory: float) -> dict[str, Any]:
    """Runs `check` with limited address space; exceptions become a row too."""
    resource.setrlimit(resource.RLIMIT_AS, (int(memory * 2**30),) * 2)
    try:
        return check(path)
    except (Exception, SystemExit) as error:
        return {"status": "failed", "reason": f"{type(error).__name__}: {error}".splitlines()[0][:200]}


def working_folder(path: Path) -> Path:
    """The parent folder that contains `data/`: paths in a cfg are relative to it, as in C Darknet."""
    return next((folder for folder in path.resolve().parents if (folder / "data").is_dir()), path.parent)


def check(path: Path) -> dict[str, Any]:
    """Tries one cfg; returns its row without the name."""
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    row: dict[str, Any] = dict.fromkeys(FIELDS[2:], "")
    try:
        graph = parse(path)
    except CfgError as error:
        problem = error.problems[0]
        return {**row, "status": "broken", "reason": f"line {problem.line}: {problem.where}: {problem.message}"}
    row |= {"layers": len(graph.layers), "parameters": graph.parameters, "bflops": round(graph.bflops, 4)}
    graph = small(path, graph)
    net = Network(graph)
    pixels = bool(graph.net.channels)
    row["ran_at"] = f"{graph.net.width}x{graph.net.height}" if pixels else f"{graph.net.inputs}"

    streams = 2
    x = torch.rand(streams, *(graph.input if pixels else (graph.net.inputs,)))
    with torch.no_grad():
        outputs = net.eval().outputs(x)
    raise_if_any(
        f"layer {index}" for index, output in enumerate(outputs) if output is not None and not output.isfinite().all()
    )
    del outputs

    # Few steps of more streams: batch norm over two streams and hundreds of steps has no useful gradient.
    recurrent_layers = [module for module in net.modules() if isinstance(module, RecurrentLayer)]
    for module in recurrent_layers:
        module.time_steps = STEPS
    images = streams * STEPS * 4 if recurrent_layers else streams
    x = torch.rand(images, *x.shape[1:])
    net.train()
    if net.heads:
        loss = net.loss(x, truth(net, images)).total
    else:
        loss = net(x).square().mean()
    loss.backward()
    named = list(net.named_parameters())
    raise_if_any(
        name for name, parameter in named if parameter.grad is not None and not parameter.grad.isfinite().all()
    )
    row["gradients"] = f"{sum(parameter.grad is not None for _, parameter in named)}/{len(named)}"

    round_trip(net)
    return {**row, "status": "ok"}


def small(path: Path, graph: Any) -> Any:
    """The graph at the smallest size that all its layers accept, at most that of the cfg."""
    for side in SIDES:
        if side >= min(graph.net.width, graph.net.height):
            break
        try:
            return parse(path, width=side, height=side)
        except CfgError:
            continue
    return graph


def truth(net: Any, images: int) -> Any:
    """Labels for the heads of the network: one box (with a track) per image, or class vectors."""
    if net.detectors:
        return torch.tensor([[image, 0, 0.5, 0.5, 0.4, 0.6, 1] for image in range(images)])
    index, _ = net.heads[-1]
    classes = net.graph.layers[index].inputs[0].size
    return torch.eye(classes)[torch.arange(images) % classes]


def raise_if_any(names: Any) -> None:
    wrong = list(names)
    if wrong:
        raise SystemExit(f"not finite: {', '.join(wrong[:5])}")


def round_trip(net: Any) -> None:
    """Saves, clears, loads and saves the weights; both files must be equal and have the predicted size."""
    with tempfile.TemporaryDirectory() as folder:
        first, second = Path(folder, "first"), Path(folder, "second")
        net.save_weights(first)
        if first.stat().st_size != 20 + 4 * net.graph.parameters:
            raise SystemExit(f"weights file of {first.stat().st_size} bytes for {net.graph.parameters} parameters")
        with torch.no_grad():
            for array in (*net.parameters(), *net.buffers()):
                array.zero_()
        net.load_weights(first)
        net.save_weights(second)
        with open(first, "rb") as one, open(second, "rb") as other:
            while block := one.read(1 << 24):
                if block != other.read(len(block)):
                    raise SystemExit("weights differ after saving and loading them")


if __name__ == "__main__":
    main()
