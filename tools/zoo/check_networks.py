"""Checks cfgs of the zoo and writes docs/zoo_checks.csv: forward, backward, weights, export, and the same in C Darknet.

    python tools/zoo/check_networks.py DARKNET DRIVER [CFG…] [--out docs/zoo_checks.csv]

DARKNET is a CPU build of AlexeyAB/darknet, DRIVER the program of tools/zoo/driver.c. A row per cfg: `gradients`, how
many arrays get one from a loss; `weights`, whether a saved file has the size that the layers add up to and gives back
every array; `ONNX`, the largest relative difference of an exported network (run by onnxruntime) from ours; `C table`,
whether layers, shapes, parameters and BFLOPs equal C's; `C values`, whether the outputs of all layers do, with random
weights. All but C's table at the smallest input that the layers accept. Rows of unchanged cfgs are kept, so that an
interrupted run goes on.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import re
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tools"), str(ROOT / "tools" / "bench"), str(Path(__file__).parent)]

import c_darknet  # noqa: E402
import exports  # noqa: E402
import torch  # noqa: E402
from tqdm import tqdm  # noqa: E402

from darknet_py.errors import DarknetError  # noqa: E402
from darknet_py.export.export_options import ExportOptions  # noqa: E402
from darknet_py.export.exporter import Job  # noqa: E402
from darknet_py.graph.graph import parse, parse_text  # noqa: E402
from darknet_py.model.network import Network  # noqa: E402

OUT = ROOT / "docs" / "zoo_checks.csv"
FIELDS = (
    *("cfg", "layers", "parameters", "BFLOPs", "ran_at", "gradients", "weights", "ONNX"),
    *("C table", "C values", "digest"),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("darknet", type=Path)
    parser.add_argument("driver", type=Path)
    parser.add_argument("cfgs", type=Path, nargs="*", help="default: cfg/*.cfg")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = {row["cfg"]: row for row in read(options.out)}
    for path in tqdm(options.cfgs or sorted((ROOT / "cfg").glob("*.cfg")), unit="network"):
        if rows.get(path.stem, {}).get("digest") != digest(path):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                rows[path.stem] = row(path, options.darknet, options.driver)
            write(options.out, rows)
    failed = [name for name, found in rows.items() if problems(found)]
    print(f"{len(rows)} networks, {len(failed)} with problems {' '.join(failed)}")
    return 1 if failed else 0


def problems(row: dict[str, Any]) -> list[str]:
    """The columns of a row whose check failed."""
    right = {
        "gradients": len(set(row["gradients"].split("/"))) == 1,
        "ONNX": re.fullmatch(r"\d\.\de[+-]\d+", row["ONNX"]) and float(row["ONNX"]) < 1e-4,
        **{name: row[name] == "equal" for name in ("weights", "C table", "C values")},
    }
    return [name for name, fine in right.items() if not fine]


def digest(path: Path) -> str:
    """Hash of the lines that are not comments."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]


def row(path: Path, darknet: Path, driver: Path) -> dict[str, Any]:
    """The row of a cfg."""
    whole = parse(path, strict=True)
    model = exports.random_model(path.read_bytes())
    found: dict[str, Any] = {
        "cfg": path.stem,
        "layers": len(whole.layers),
        "parameters": whole.parameters,
        "BFLOPs": f"{whole.bflops:.3f}",
        "ran_at": f"{model.graph.net.width}x{model.graph.net.height}",
        "gradients": gradients(Network(model.graph)),
        "weights": round_trip(Network(model.graph)),
        "digest": digest(path),
    }
    try:
        found["ONNX"] = f"{exports.convert_one(Job.of(model, ExportOptions()), '.onnx', {}):.1e}"
    except DarknetError as error:
        found["ONNX"] = exports.reason(error)
    text, graph = c_darknet.small(path)
    differences = c_darknet.compare(graph, *c_darknet.run(darknet, text))
    found["C table"] = differences[0] if differences else "equal"
    network = c_darknet.random_network(parse_text(model.graph.text))
    differences = c_darknet.compare_values(driver, model.graph.text.encode(), network)
    found["C values"] = differences[0] if differences else "equal"
    return found


def gradients(network: Network) -> str:
    """How many of the network's arrays get a finite gradient from the loss of two images."""
    network.train()
    graph = network.graph
    image = torch.rand(2, *graph.input) if graph.net.channels else torch.rand(2, graph.net.inputs)
    if graph.detection_specs:
        truth = torch.tensor([[0, 0, 0.5, 0.5, 0.4, 0.3], [1, 0, 0.3, 0.6, 0.2, 0.2]])
    else:
        truth = torch.eye(graph.layers[-1].output.c)[[0, 1]]
    network.loss(image, truth).total.backward()  # type: ignore[no-untyped-call]
    arrays = list(network.parameters())
    got = [array for array in arrays if array.grad is not None and bool(torch.isfinite(array.grad).all())]
    return f"{len(got)}/{len(arrays)}"


def round_trip(network: Network) -> str:
    """Saves the weights, clears the network and loads them."""
    before = {name: values.clone() for name, values in network.state_dict().items()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.weights"
        network.save_weights(path)
        if path.stat().st_size != c_darknet.HEADER + 4 * network.graph.parameters:
            return f"{path.stat().st_size} bytes"
        with torch.no_grad():
            for values in network.state_dict().values():
                values.zero_()
        network.load_weights(path)
    changed = [name for name, values in network.state_dict().items() if not torch.equal(values, before[name])]
    return "equal" if not changed else f"{changed[0]} differs"


def read(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write(path: Path, rows: dict[str, dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows[name] for name in sorted(rows))


if __name__ == "__main__":
    sys.exit(main())
