"""Converts cfgs with random weights to every format and writes what came of it as a table; it goes on where it stopped.

    python tools/bench/exports.py cfg/*.cfg --out docs/bench/exports.csv
    python tools/bench/exports.py ~/darknet/cfg/*.cfg --out exports.csv --targets .onnx .pt2

Each row is a cfg and a format: `ok` with the largest difference from our own output, relative to the largest value of
the output it is in, or the reason why there is none. Weights are random; batch norm statistics are not 0 and 1. The
input is the cfg's.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from pathlib import Path

import torch
from tqdm import tqdm

from darknet_py.errors import DarknetError
from darknet_py.export.convert import EXPORTERS
from darknet_py.export.export_options import ExportOptions
from darknet_py.export.exporter import Job
from darknet_py.graph.graph import parse
from darknet_py.model.model_file import ModelFile
from darknet_py.model.network import Network

COLUMNS = ("cfg", "layers", "target", "result", "difference", "seconds")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cfgs", nargs="+", metavar="CFG")
    parser.add_argument("--out", type=Path, required=True, help="the CSV file; rows that it has are not made again")
    parser.add_argument("--targets", nargs="+", choices=list(EXPORTERS), default=[".onnx", ".xml", ".pt2"])
    arguments = parser.parse_args()
    done = set()
    if arguments.out.exists():
        with arguments.out.open(newline="") as file:
            done = {(row["cfg"], row["target"]) for row in csv.DictReader(file)}
    else:
        arguments.out.write_text(",".join(COLUMNS) + "\n")
    for path in tqdm([Path(cfg) for cfg in arguments.cfgs], unit="cfg"):
        missing = [target for target in arguments.targets if (path.name, target) not in done]
        if missing:
            rows = convert_all(path, missing)
            with arguments.out.open("a", newline="") as file:
                csv.writer(file, lineterminator="\n").writerows(rows)
    print(f"table in {arguments.out}")


def convert_all(path: Path, targets: list[str]) -> list[tuple[object, ...]]:
    """The rows of one cfg."""
    try:
        model = random_model(path)
        job = Job.of(model, ExportOptions())
    except DarknetError as error:
        return [(path.name, "", target, reason(error), "", "") for target in targets]
    rows: list[tuple[object, ...]] = []
    for target in targets:
        start = time.perf_counter()
        try:
            with tempfile.TemporaryDirectory() as folder:
                found = EXPORTERS[target].export(job, Path(folder) / f"network{target}").differences
            result, difference = "ok", f"{max(item.relative for item in found):.1e}"
        except DarknetError as error:
            result, difference = reason(error), ""
        seconds = round(time.perf_counter() - start)
        rows.append((path.name, len(model.graph.layers), target, result, difference, seconds))
    return rows


def random_model(path: Path) -> ModelFile:
    """The network of a cfg with random weights. Raises CfgError."""
    torch.manual_seed(0)
    net = Network(parse(path))
    generator = torch.Generator().manual_seed(1)
    for name, values in net.state_dict().items():
        if name.endswith((".variance", ".scale")):
            values.copy_(torch.rand(values.shape, generator=generator) + 0.5)
        elif name.endswith(".mean"):
            values.copy_(torch.rand(values.shape, generator=generator) - 0.5)
    return net.model_file()


def reason(error: DarknetError) -> str:
    """The first line of a message, without the path."""
    return str(error).splitlines()[0].rpartition(".cfg: ")[2]


if __name__ == "__main__":
    main()
