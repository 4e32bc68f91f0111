"""Tries every cfg of some folders: parse, build, forward, backward, save and load weights, and the same in C.

    python tools/cfg_table.py FOLDER… --root FOLDER --out docs/cfg_table.csv [--driver DRIVER] [--memory 8]

A folder that is a git directory is read from its commits: the head and every branch. One row per cfg: layers,
parameters and BFLOPs at the size in the cfg, the (small) size at which the network ran, how many parameters got a
gradient, the status, and the reason if it is not "ok". With --driver (see tools/golden/layers.py), C Darknet runs the
same cfg at the same size with the same weights and input, and `c` tells whether the outputs of all layers are equal.
Each network runs in its own process with limits on memory and time. Cfgs of the same sections and options run once.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import os
import re
import resource
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, NamedTuple

import torch
from zoo.c_darknet import HEADER, compare_values, run_driver

from darknet_py.cfg.document import CfgDocument
from darknet_py.errors import CfgError, DarknetError
from darknet_py.graph.graph import Graph, build_graph
from darknet_py.layers.recurrent import RecurrentLayer
from darknet_py.model.network import Network

FIELDS = [
    "repository", "commit", "cfg", "layers", "parameters", "bflops", "ran_at", "gradients", "status", "reason", "c",
]  # fmt: skip
STEPS = 4
SIDES = (64, 96, 128, 160, 192, 224, 256, 320, 384, 416, 448, 512, 640, 896, 1024, 1280, 1536)
_NAME = re.compile(r"\.cfg(\.txt)?$", re.IGNORECASE)
# Other programs' files end in .cfg as well. Each Darknet cfg has one of these.
_SECTION = re.compile(rb"^\s*\[\s*(net|network|convolutional|connected|maxpool|yolo|region)\s*\]", re.MULTILINE | re.I)


class CfgFile(NamedTuple):
    """One cfg of a repository."""

    repository: str
    commit: str
    path: str
    content: bytes
    folder: Path  # that paths in the cfg are relative to


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("folders", nargs="*", type=Path, help="folders of cfgs, searched recursively")
    arguments.add_argument("--out", type=Path, help="CSV file to write; default: standard output")
    arguments.add_argument("--root", type=Path, help="folder of the repositories; paths are relative to it")
    arguments.add_argument("--without", nargs="*", default=[], type=Path, help="folders whose cfgs are left out")
    arguments.add_argument("--driver", type=Path, help="C Darknet, to compare with")
    arguments.add_argument("--memory", type=float, default=8, help="GiB of address space per network")
    arguments.add_argument("--seconds", type=float, default=600, help="seconds per network")
    arguments.add_argument("--jobs", type=int, default=1, help="networks at the same time")
    options = arguments.parse_args()
    root = options.root or Path()
    known = {fingerprint(file.content) for folder in options.without for file in cfgs(folder, root)}
    files = [file for folder in options.folders for file in cfgs(folder, root)]
    files = [file for file in files if fingerprint(file.content) not in known]
    with open(options.out, "w", newline="") if options.out else sys.stdout as output:
        writer = csv.DictWriter(output, FIELDS, lineterminator="\n")
        writer.writeheader()
        rows = table(files, options.memory, options.seconds, options.driver, options.jobs)
        counts: dict[str, int] = {}
        for row in rows:
            writer.writerow(row)
            output.flush()
            counts[row["status"]] = counts.get(row["status"], 0) + 1
            print(f"{row['status']:6} {row['repository']} {row['cfg']} {row['reason']} {row['c']}", file=sys.stderr)
    print(f"{len(files)} cfgs: {counts}", file=sys.stderr)


def cfgs(folder: Path, root: Path, copies: bool = False) -> Iterator[CfgFile]:
    """The cfgs of a folder or of a git directory, in order of path.

    In a git directory, a file that several branches or folders share comes once, or with `copies` once for each path.
    """
    name = folder.relative_to(root) if folder.is_relative_to(root) else folder
    if not (folder / "HEAD").is_file():
        for path in sorted(file for file in folder.rglob("*") if file.is_file() and _NAME.search(file.name)):
            content = path.read_bytes()
            if _SECTION.search(content):
                parts = (path.relative_to(root) if path.is_relative_to(root) else path).parts
                yield CfgFile(parts[0].replace("+", "/"), "", "/".join(parts[1:]), content, working_folder(path))
        return
    seen = set()
    paths = set()
    branches = _git(folder, "for-each-ref", "--format=%(refname)", "refs/heads", "refs/remotes").decode().split()
    for branch in ["HEAD", *branches]:
        commit = _git(folder, "rev-parse", branch).decode().strip()
        for line in _git(folder, "ls-tree", "-r", "-z", branch).decode("utf-8", "replace").split("\0"):
            properties, _, path_in_git = line.partition("\t")
            blob = properties.split(" ")[-1]
            if not _NAME.search(path_in_git) or properties.startswith("120000") or blob in seen:
                continue
            if not copies:
                seen.add(blob)
            elif path_in_git in paths:
                continue
            paths.add(path_in_git)
            content = _git(folder, "cat-file", "blob", blob)
            if _SECTION.search(content):
                yield CfgFile(name.parts[0].replace("+", "/"), commit, path_in_git, content, Path())


def _git(folder: Path, *command: str) -> bytes:
    return subprocess.run(["git", "--git-dir", folder, *command], stdout=subprocess.PIPE, check=True).stdout


def fingerprint(content: bytes) -> str:
    """What distinguishes a cfg: its sections and options, without comments, white space and line ends."""
    document = _document(content)
    problems = [problem.message for problem in document.syntax_errors]
    return repr(
        [(section.name, [option[:2] for option in section.options]) for section in document.sections] + problems
    )


def _document(content: bytes) -> CfgDocument:
    return CfgDocument.from_text(content.decode("utf-8", "surrogateescape"), "")


def table(
    files: Sequence[CfgFile], memory: float, seconds: float, driver: Path | None = None, jobs: int = 1
) -> Iterator[dict[str, Any]]:
    """The rows of all cfgs, in their order."""
    first: dict[str, CfgFile] = {}
    for file in files:
        first.setdefault(fingerprint(file.content), file)
    with ThreadPoolExecutor(jobs) as pool:
        results = {key: pool.submit(run, file, memory, seconds, driver) for key, file in first.items()}
        for file in files:
            result = results[fingerprint(file.content)].result()
            yield {"repository": file.repository, "commit": file.commit, "cfg": file.path, **result}


def run(file: CfgFile, memory: float, seconds: float, driver: Path | None = None) -> dict[str, Any]:
    """Runs `check` in a new process. It is forked, and each uses one thread: torch has started none before."""
    blank = dict.fromkeys(FIELDS[3:], "")
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=one, args=(file, memory, seconds, driver, sender))
    process.start()
    sender.close()
    try:
        if not wait([receiver, process.sentinel], seconds):
            return {**blank, "status": "time", "reason": f"took more than {seconds:g} seconds"}
        if receiver.poll():
            return {**blank, **receiver.recv()}
        process.join()
        return {**blank, "status": "failed", "reason": f"process exited with code {process.exitcode}"}
    finally:
        process.kill()
        process.join()


def one(file: CfgFile, memory: float, seconds: float, driver: Path | None, sender: Any) -> None:
    """Runs `check` with limited address space; exceptions become a row too."""
    resource.setrlimit(resource.RLIMIT_AS, (int(memory * 2**30),) * 2)
    torch.set_num_threads(1)
    os.chdir(file.folder)
    try:
        row = check(file.content, driver, seconds / 4)
    except (Exception, SystemExit) as error:
        row = {"status": "failed", "reason": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
    sender.send(row)


def working_folder(path: Path) -> Path:
    """The parent folder that contains `data/`: paths in a cfg are relative to it, as in C Darknet."""
    return next((folder for folder in path.resolve().parents if (folder / "data").is_dir()), path.parent)


def check(content: bytes, driver: Path | None = None, seconds: float = 600) -> dict[str, Any]:
    """Tries one cfg; returns its row without the name."""
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    row: dict[str, Any] = dict.fromkeys(FIELDS[3:], "")
    limits = {"timeout": seconds}
    try:
        graph = build_graph(_document(content))
    except CfgError as error:
        problem = error.problems[0]
        where = f"line {problem.line}: " + (f"{problem.where}: " if problem.where else "")
        row |= {"status": "broken", "reason": where + problem.message.replace("\n", " ")}
        return {**row, "c": c_alone(driver, content, limits) if driver else ""}
    row |= {"layers": len(graph.layers), "parameters": graph.parameters, "bflops": round(graph.bflops, 4)}
    graph = small(graph)
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
    row["status"] = "ok"
    if driver:
        for name, array in net.named_buffers():
            if name.endswith(("mean", "variance")):
                array.uniform_(0.5, 1.5)
        size = graph.document.set(0, "width", str(graph.net.width)).set(0, "height", str(graph.net.height))
        cfg = size.content if pixels else content
        try:
            differences = compare_values(driver, cfg, net.eval(), **limits)
        except (DarknetError, MemoryError, RuntimeError) as error:
            differences = [f"not compared: {error}"]
        row["c"] = differences[0] if differences else "equal"
    return row


def c_alone(driver: Path, content: bytes, limits: dict[str, Any]) -> str:
    """Whether C runs a cfg that we refuse."""
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "empty.weights"
        weights.write_bytes(bytes(HEADER))
        outputs, stopped = run_driver(driver, content, weights, bytes(1 << 26), **limits)
    return stopped if outputs is None else "C runs it"


def small(graph: Graph) -> Graph:
    """The graph at the smallest size that all its layers accept, at most that of the cfg."""
    for side in SIDES:
        if side >= min(graph.net.width, graph.net.height):
            break
        try:
            return build_graph(graph.document, width=side, height=side)
        except CfgError:
            continue
    return graph


def truth(net: Any, images: int) -> Any:
    """Labels for the heads of the network: one box (with a track) per image, or class vectors."""
    if net.detectors:
        return torch.tensor([[image, 0, 0.5, 0.5, 0.4, 0.6, 1] for image in range(images)])
    index, _ = net.heads[-1]
    classes = net.graph.layers[index].inputs[0].size
    rows = torch.zeros(images, classes)
    rows[torch.arange(images), torch.arange(images) % classes] = 1
    return rows


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
            for array in net.state_dict().values():  # not of the class hierarchies, which no file holds
                array.zero_()
        net.load_weights(first)
        net.save_weights(second)
        with open(first, "rb") as one, open(second, "rb") as other:
            while block := one.read(1 << 24):
                if block != other.read(len(block)):
                    raise SystemExit("weights differ after saving and loading them")


if __name__ == "__main__":
    main()
