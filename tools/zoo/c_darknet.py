"""Compares every cfg of the zoo with C Darknet: the layer tables and, for the tests, parameters and BFLOPs.

    python tools/zoo/c_darknet.py DARKNET [CFG…] [--loose DARKNET] [--driver DRIVER] [--golden tests/golden/zoo.json]

DARKNET is a CPU build of AlexeyAB/darknet. It refuses to add outputs of different sizes, as the published ResNets do;
--loose names a build without assertions (make OPTS='-O1 -DNDEBUG') for cfgs that the first build refuses. If no layer
has BFLOPs, as in lstm-text, C divides by zero (avg_counter in `parse_network_cfg_custom`); the build for the golden
values has a guard in that line.
Each network is read at 256 x 128 pixels, because C allocates all outputs, or at its own size if no other fits. It is
written to a weights file, whose size gives the number of parameters. Each line of C's table is compared by index, shape
and BFLOPs (printed with three digits).
With --driver (see tools/golden/layers.py), both run one image, and the outputs of every layer are compared.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from darknet_py.errors import CfgError
from darknet_py.graph.graph import Graph, parse_text
from darknet_py.model.network import Network

ROOT = Path(__file__).resolve().parents[2]
WIDTH, HEIGHT = 256, 128  # multiples of the coarsest stride in the zoo, 128
HEADER = 20  # bytes; C accepts a file of so many zeros as a weights file without weights
_LINE = re.compile(r"^ *(\d+) \[?(\w+)")
_SHAPE = re.compile(r"(\d+) x *(\d+) x *(\d+)")
_BFLOPS = re.compile(r"(\d+\.\d{3}) BF")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("darknet", type=Path)
    parser.add_argument("cfgs", type=Path, nargs="*", help="default: cfg/*.cfg")
    parser.add_argument("--loose", type=Path, help="a build without assertions")
    parser.add_argument("--driver", type=Path, help="compare the outputs of the layers too")
    parser.add_argument("--golden", type=Path, help="JSON file to write the values to")
    options = parser.parse_args()
    networks: dict[str, Any] = {}
    compared = failures = 0
    for path in options.cfgs or sorted((ROOT / "cfg").glob("*.cfg")):
        text, graph = small(path)
        own = graph.net.channels and (graph.net.width, graph.net.height) != (WIDTH, HEIGHT)
        used, table, parameters = "unchanged", *run(options.darknet, text)
        if parameters is None and options.loose:
            used, (table, parameters) = "without assertions", run(options.loose, text)
        differences = compare(graph, table, parameters)
        if options.driver and used == "unchanged":
            differences += compare_values(options.driver, text.encode(), random_network(graph))
        compared += 1
        failures += bool(differences) or used != "unchanged"
        print(f"{path.stem:<40} {len(graph.layers):4d} layers  {differences[0] if differences else 'equal'}, C {used}")
        networks[path.stem] = {
            "layers": len(table),
            "parameters": parameters,
            "bflops": total(table),
            **({"asserts": True} if used != "unchanged" else {}),
            **({"own_size": True} if own else {}),
        }
    if options.golden:
        if options.golden.exists():  # with CFG…, the values of the others stay
            networks = {**json.loads(options.golden.read_text())["networks"], **networks}
        stems = [path.stem for path in sorted((ROOT / "cfg").glob("*.cfg"))]
        rows = ",\n".join(f' "{name}": {json.dumps(networks[name])}' for name in stems if name in networks)
        about = (
            "C Darknet's values for the networks of the zoo (tools/zoo/c_darknet.py). asserts: only with NDEBUG; "
            "own_size: at the size of the cfg instead of width x height; "
            "bflops: sum over the lines of its table, of three digits each"
        )
        size = f'"width": {WIDTH}, "height": {HEIGHT}'
        options.golden.write_text(f'{{"about": "{about}", {size},\n"networks": {{\n{rows}\n}}}}\n')
    print(f"{compared} cfgs, {failures} with differences")
    return 1 if failures else 0


def small(path: Path) -> tuple[str, Graph]:
    """A cfg at 256 x 128 pixels if it accepts that, and its graph."""
    text = path.read_text()
    for key, side in (("width", WIDTH), ("height", HEIGHT)):
        text = re.sub(rf"^{key}=\d+", f"{key}={side}", text, count=1, flags=re.MULTILINE)
    try:
        return text, parse_text(text)
    except CfgError:  # [detection] has a fixed number of cells
        return path.read_text(), parse_text(path.read_text())


def run(darknet: Path, text: str) -> tuple[dict[int, str], int | None]:
    """C's table, index → line, and the number of parameters; None if C rejects the cfg."""
    with tempfile.TemporaryDirectory() as folder:
        cfg, empty, out = (Path(folder) / name for name in ("net.cfg", "empty.weights", "out.weights"))
        cfg.write_text(text)
        empty.write_bytes(bytes(HEADER))
        done = subprocess.run(
            [darknet.resolve(), "partial", cfg, empty, out, "100000"],
            capture_output=True,
            text=True,
            errors="replace",
        )
        lines = {int(match[1]): line for line in done.stderr.splitlines() if (match := _LINE.match(line))}
        return lines, (out.stat().st_size - HEADER) // 4 if done.returncode == 0 and out.exists() else None


def total(table: dict[int, str]) -> float:
    """Sum of the BFLOPs in C's table, of three digits per line."""
    return round(sum(float(match[1]) for line in table.values() if (match := _BFLOPS.search(line))), 3)


def compare(graph: Graph, table: dict[int, str], parameters: int | None) -> list[str]:
    """Descriptions of all differences."""
    if parameters is None:
        return [f"refused after layer {max(table, default=-1)}"]
    differences = []
    if parameters != graph.parameters:
        differences.append(f"parameters {graph.parameters}, in C {parameters}")
    if set(table) != set(range(len(graph.layers))):
        differences.append(f"{len(graph.layers)} layers, in C {len(table)}")
    for node in graph:
        line = table.get(node.index, "")
        printed = _SHAPE.search(re.split("->|outputs:", line)[-1])  # some lines (head, mean, dropout, scale) have none
        shape = (node.output.w, node.output.h, node.output.c)
        if re.search("->|outputs:", line) and printed and tuple(map(int, printed.groups())) != shape:
            differences.append(f"layer {node.index}: {shape}, in C {line.strip()}")
        bflops = _BFLOPS.search(line)
        if bflops and abs(float(bflops[1]) - node.bflops) > 0.00051:
            differences.append(f"layer {node.index}: {node.bflops:.4f} BFLOPs, in C {bflops[1]}")
    return differences


def random_network(graph: Graph) -> Network:
    """A network with random weights; those of batch norm lie around one."""
    torch.manual_seed(1)
    network = Network(graph).eval()
    for name, array in network.named_buffers():
        if name.endswith(("mean", "variance")):
            array.uniform_(0.5, 1.5)
    return network


def run_driver(driver: Path, cfg: bytes, weights: Path, pixels: bytes, **limits: Any) -> tuple[bytes | None, str]:
    """One image through C.

    Args:
        driver: see tools/golden/layers.py.
        cfg: the cfg's content.
        weights: the weights file.
        pixels: the input, float32.
        limits: further arguments of `subprocess.run`.

    Returns:
        The outputs of all layers, each with its length before it, and ""; or None and why C gives none.
    """
    with tempfile.TemporaryDirectory() as folder:
        file, image, out = (Path(folder) / name for name in ("net.cfg", "image", "out"))
        file.write_bytes(cfg)
        image.write_bytes(pixels)
        command = [driver.resolve(), "predict", file, weights.resolve(), "1", "1", "1", image, out]
        try:
            done = subprocess.run(command, capture_output=True, text=True, errors="replace", **limits)
        except subprocess.TimeoutExpired:
            return None, "C takes too long"
        unknown = re.search(r"(?:Type not recognized:|(activation) function) *(\S+?)(?:,|$)", done.stderr, re.MULTILINE)
        if unknown:
            return None, " ".join(["C does not know", *filter(None, unknown.groups())])
        if done.returncode < 0:
            message = re.search("Assertion (.*)failed", done.stderr)
            return None, f"C asserts {message[1]}" if message else f"C crashes (signal {-done.returncode})"
        if done.returncode or not out.exists():
            message = re.search(r"(.*): [\w ]+\nbacktrace", done.stderr)
            return None, f"C stops: {message[1]}" if message else f"C stops with code {done.returncode}"
        return out.read_bytes(), ""


def compare_values(driver: Path, cfg: bytes, network: Network, **limits: Any) -> list[str]:
    """Runs an image through both; differences beyond float32 rounding.

    Args:
        driver: see tools/golden/layers.py.
        cfg: the content of the cfg that the network is built from.
        network: the network, in eval mode.
        limits: further arguments of `subprocess.run`.

    Returns:
        One line per layer whose values differ, or one that says where C stopped.
    """
    graph = network.graph
    image = torch.rand(1, *graph.input) if graph.net.channels else torch.rand(1, graph.net.inputs)
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "net.weights"
        network.save_weights(weights)
        content, stopped = run_driver(driver, cfg, weights, image.numpy().tobytes(), **limits)
    if content is None:
        return [stopped]
    values = np.frombuffer(content, np.float32)
    with torch.no_grad():
        outputs = network.outputs(image)
    differences, at = [], 0
    for node, ours in zip(graph, outputs, strict=True):
        count = int(values[at : at + 1].view(np.int32)[0])
        theirs, at = torch.from_numpy(values[at + 1 : at + 1 + count].copy()), at + 1 + count
        if ours is None or not count:
            continue
        if ours.numel() != count:
            differences.append(f"layer {node.index} [{node.type}]: {ours.numel()} values, in C {count}")
            continue
        if node.type == "region":  # the CPU build stores it cell by cell
            theirs = theirs.view(node.output.h, node.output.w, node.output.c).permute(2, 0, 1).flatten()
        far = (ours.flatten() - theirs).abs().max() / theirs.abs().max().clamp(min=1e-3)
        if not far < 2e-3:
            differences.append(f"layer {node.index} [{node.type}]: values differ by {float(far):.1e} of the largest")
    return differences


if __name__ == "__main__":
    sys.exit(main())
