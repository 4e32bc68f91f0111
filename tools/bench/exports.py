"""Converts cfgs with random weights to every format and writes what came of it as a table; it goes on where it stopped.

    python tools/bench/exports.py cfg --out exports.csv
    python tools/bench/exports.py --table docs/cfg_table.csv --root ~/repositories --out docs/bench/exports.csv

The cfgs are those below folders, or the rows of a table of `tools/cfg_table.py`, whose repositories are git directories
`OWNER+NAME/repo` below --root. Files that these cfgs name (data/9k.tree) are looked for in the current folder. Each row
of the result is a cfg and a format: `ok` with the largest difference from our own output, relative to the largest value
of the output it is in, or the reason why there is none. Weights are random; batch norm statistics are not 0 and 1. The
network has the smallest input that all its layers accept (`ran_at`), at most the cfg's. Each cfg has a process of its
own, and limits on time and memory. Networks that differ in nothing but [net]'s other options run once (`same_as`: the
row that ran). Small networks come first. What several formats need is made once: the first of them has its time in
`seconds`.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import os
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from functools import cache
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1]))
import cfg_table

from darknet_py.cfg.document import CfgDocument
from darknet_py.errors import DarknetError
from darknet_py.export.convert import EXPORTERS
from darknet_py.export.export_options import ExportOptions
from darknet_py.export.exporter import Job
from darknet_py.export.onnx import to_onnx
from darknet_py.export.openvino import to_openvino
from darknet_py.export.runtimes import run_onnx, run_openvino
from darknet_py.export.traceable import traceable
from darknet_py.graph.graph import Graph, build_graph
from darknet_py.model.model_file import ModelFile
from darknet_py.model.network import Network

FIELDS = ("repository", "cfg", "layers", "ran_at", "target", "result", "difference", "seconds", "same_as")
TARGETS = (".safetensors", ".py", ".pt2", ".onnx", ".xml")
SLACK = 120  # seconds to build a network and compute our own output, before its first format


class Case(NamedTuple):
    """A network to convert: its cfg, and the name of the first file that has it."""

    name: str
    content: bytes
    folder: Path
    files: tuple[tuple[str, str], ...]  # (repository, cfg) of all files with this network


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="folders of cfgs, or git directories")
    parser.add_argument(
        "--table", type=Path, help="take the cfgs that this table lists, from git directories in --root"
    )
    parser.add_argument("--root", type=Path, default=Path(), help="folder of the repositories")
    parser.add_argument("--out", type=Path, required=True, help="the CSV file; rows that it has are not made again")
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=TARGETS)
    parser.add_argument("--seconds", type=float, default=600, help="limit for one format of one cfg")
    parser.add_argument("--retry", action="store_true", help="make the rows that are not ok again")
    parser.add_argument("--memory", type=float, default=16, help="GiB of address space per network")
    arguments = parser.parse_args()
    files = listed(arguments.table, arguments.root) if arguments.table else []
    for folder in arguments.folders:
        files += cfg_table.cfgs(folder, arguments.root)
    cases = sorted(distinct(files), key=lambda case: case.content.count(b"["))
    rows = []
    if arguments.out.exists():
        with arguments.out.open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["result"] == "ok" or not arguments.retry]
    with arguments.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    done = {(row["repository"], row["cfg"], row["target"]) for row in rows}
    warm_up()
    for case in tqdm(cases, unit="network"):
        missing = [target for target in arguments.targets if any((*file, target) not in done for file in case.files)]
        for row in run(case, missing, arguments.seconds, arguments.memory):
            with arguments.out.open("a", newline="") as file:
                writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
                for number, (repository, cfg) in enumerate(case.files):
                    if (repository, cfg, row["target"]) not in done:
                        same = {"same_as": case.name, "seconds": ""} if number else {}
                        writer.writerow({**row, "repository": repository, "cfg": cfg, **same})
    print(f"table in {arguments.out}")


def listed(table: Path, root: Path) -> list[cfg_table.CfgFile]:
    """The cfgs of a table, in its order; those that their repository has no more are left out with a warning."""
    with table.open(newline="") as file:
        rows = [(row["repository"], row["cfg"]) for row in csv.DictReader(file)]
    found: dict[tuple[str, str], cfg_table.CfgFile] = {}
    for repository in dict.fromkeys(name for name, _ in rows):
        folder = root / repository.replace("/", "+") / "repo"
        if folder.is_dir():
            found |= {(repository, file.path): file for file in cfg_table.cfgs(folder, root, copies=True)}
    missing = [row for row in rows if row not in found]
    if missing:
        print(f"{len(missing)} of {len(rows)} cfgs not found, such as {'/'.join(missing[0])}", file=sys.stderr)
    return [found[row] for row in rows if row in found]


def distinct(files: Sequence[cfg_table.CfgFile]) -> list[Case]:
    """One case for all files whose networks have the same layers and input."""
    groups: dict[str, list[cfg_table.CfgFile]] = {}
    for file in files:
        groups.setdefault(_layers_of(file.content), []).append(file)
    return [
        Case(
            "/".join((group[0].repository, group[0].path)),
            group[0].content,
            group[0].folder,
            tuple((file.repository, file.path) for file in group),
        )
        for group in groups.values()
    ]


@cache
def _layers_of(content: bytes) -> str:
    """What distinguishes an exported network: its layers' sections, and the size and channels of its input."""
    document = CfgDocument.from_text(content.decode("utf-8", "surrogateescape"), "")
    try:
        net = build_graph(document).net
    except DarknetError:
        return cfg_table.fingerprint(content)
    return f"{document.layers_hash} {net.width} {net.height} {net.channels} {net.inputs}"


def warm_up() -> None:
    """Imports torch's exporters for all processes. They are forked: torch must have started no threads before."""
    torch.set_num_threads(1)
    model = random_model(b"[net]\nwidth=8\nheight=8\n[convolutional]\nfilters=1\n")
    to_openvino(Job.of(model, ExportOptions()))


def run(case: Case, targets: Sequence[str], seconds: float, memory: float) -> Iterator[dict[str, Any]]:
    """The rows of one network, made by a process that is started again after a format that it did not survive."""
    left = list(targets)
    while left:
        receiver, sender = multiprocessing.Pipe(duplex=False)
        arguments = (case, tuple(left), memory, sender)
        process = multiprocessing.get_context("fork").Process(target=convert_all, args=arguments)
        process.start()
        sender.close()
        limit = seconds + SLACK
        try:
            while left:
                if not wait([receiver], limit):
                    row = {"result": f"took more than {limit:g} seconds"}
                    break
                try:
                    row = receiver.recv()
                except EOFError:
                    process.join()
                    row = {"result": f"the process ended with code {process.exitcode}"}
                    break
                limit = seconds
                yield {"target": left.pop(0), **row}
            else:
                return
        finally:
            process.kill()
            process.join()
        yield {"target": left.pop(0), **row}


def convert_all(case: Case, targets: Sequence[str], memory: float, sender: Any) -> None:
    """Sends a row for each format."""
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (int(memory * 2**30),) * 2)
    os.chdir(case.folder)
    row: dict[str, Any] = {}
    try:
        model = random_model(case.content)
        job = Job.of(model, ExportOptions())
        row = {"layers": len(model.graph.layers), "ran_at": size_of(model.graph)}
    except DarknetError as error:
        for _ in targets:
            sender.send({**row, "result": reason(error)})
        return
    made: dict[str, bytes] = {}
    for target in targets:
        start = time.perf_counter()
        try:
            result = {"result": "ok", "difference": f"{convert_one(job, target, made):.1e}"}
        except DarknetError as error:
            result = {"result": reason(error)}
        except Exception as error:
            result = {"result": f"failed: {type(error).__name__}: {error}".splitlines()[0][:200]}
        sender.send({**row, **result, "seconds": round(time.perf_counter() - start)})


def convert_one(job: Job, target: str, made: dict[str, bytes]) -> float:
    """The largest relative difference of a network in another format. Raises DarknetError where it is too large.

    `made` keeps the ONNX file for the formats that are made from it.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / f"network{target}"
        if target in (".onnx", ".xml"):
            made["onnx"] = made.get("onnx") or to_onnx(job)
            runner = run_onnx(made["onnx"]) if target == ".onnx" else run_openvino(to_openvino(job, made["onnx"]))
            found = job.compare(str(out), runner)
        elif target in EXPORTERS:
            found = list(EXPORTERS[target].export(job, out).differences)
        else:
            job.model.write(out)
            found = job.compare(str(out), traceable(ModelFile.read(out), job.reference.outputs))
    return max(item.relative for item in found)


def random_model(content: bytes) -> ModelFile:
    """The network of a cfg, at a small size, with random weights. Raises CfgError."""
    torch.manual_seed(0)
    document = CfgDocument.from_text(content.decode("utf-8", "surrogateescape"), "")
    graph: Graph = cfg_table.small(build_graph(document))
    net = Network(graph)
    generator = torch.Generator().manual_seed(1)
    for name, values in net.state_dict().items():
        if name.endswith((".variance", ".scale")):
            values.copy_(torch.rand(values.shape, generator=generator) + 0.5)
        elif name.endswith(".mean"):
            values.copy_(torch.rand(values.shape, generator=generator) - 0.5)
    return net.model_file()


def size_of(graph: Graph) -> str:
    """Width and height of the input, or its length where it is a vector, not an image."""
    return f"{graph.net.width}x{graph.net.height}" if graph.net.channels else f"{graph.net.inputs}"


def reason(error: DarknetError) -> str:
    """The first line of a message."""
    return str(error).splitlines()[0].removeprefix(": ")


if __name__ == "__main__":
    main()
