"""Numbers that are the same on every machine, and the golden cases of tests/golden/layers.json."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from darknet_py.graph.graph import Graph, parse_text
from darknet_py.layers.base import LayerArray
from darknet_py.model.header import Header
from darknet_py.model.network import Network

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "layers.json"
SAMPLES = 12


def uniform(seed: int, shape: Sequence[int]) -> np.ndarray:
    """float32 in [0, 1): a hash of seed and position."""
    n = (np.arange(int(np.prod(shape)), dtype=np.uint64) + np.uint64(seed) * np.uint64(1_000_003)) & np.uint64(
        0xFFFFFFFF
    )
    for _ in range(2):
        n = ((n ^ (n >> np.uint64(16))) * np.uint64(0x45D9F3B)) & np.uint64(0xFFFFFFFF)
    n ^= n >> np.uint64(16)
    return (n.astype(np.float64) / 2**32).astype(np.float32).reshape(tuple(shape))


def values(array: LayerArray, seed: int) -> np.ndarray:
    """What a golden case has in one array: biases and means around 0, scales and variances around 1."""
    u = uniform(seed, (array.count,))
    if array.role in ("bias", "mean"):
        return (u - np.float32(0.5)) * np.float32(0.2)
    if array.role == "weight":
        return (u * 2 - 1) * np.float32(1.4 * (3.0 / array.fan_in) ** 0.5)
    return u + np.float32(0.5)


def weights(graph: Graph, seed: int) -> bytes:
    """A `.weights` file for the graph."""
    arrays = [array for node in graph for array in node.spec.arrays(node)]
    floats = [values(array, seed * 1000 + k) for k, array in enumerate(arrays)]
    return Header().bytes() + b"".join(part.astype("<f4").tobytes() for part in floats)


def inputs(graph: Graph, rows: int, seed: int) -> np.ndarray:
    """(rows, C, H, W), or (rows, N) for nets without pixels."""
    shape = graph.input if graph.net.channels else (graph.net.inputs,)
    return uniform(seed * 1000 + 999, (rows, *shape))


def sampled(flat: np.ndarray | Tensor) -> list[float]:
    """A few values of an array, spread over it."""
    flat = np.asarray(flat, dtype=np.float64).reshape(-1)
    positions = (uniform(5, (SAMPLES,)).astype(np.float64) * flat.size).astype(np.int64)
    return [float(f"{flat[p]:.6g}") for p in positions]


@cache
def cases() -> dict[str, Any]:
    return json.loads(GOLDEN.read_text())


def network(case: dict[str, Any], tmp_path: Path) -> Network:
    """The network of a golden case with its weights."""
    net = Network(parse_text(case["cfg"]))
    path = tmp_path / "case.weights"
    path.write_bytes(weights(net.graph, case["seed"]))
    net.load_weights(path)
    return net


def outputs(net: Network, case: dict[str, Any]) -> list[Tensor | None]:
    """What each layer gives: after `calls` calls, or for all steps of one, with C's order of rows."""
    rows = inputs(net.graph, case["batch"] * case["steps"] * case["calls"], case["seed"])
    calls: list[list[Tensor | None]] = []
    with torch.no_grad():
        for part in torch.from_numpy(rows).split(case["batch"]):
            calls.append(net.eval().outputs(part))
    last = calls[-case["steps"] :]
    return [None if parts[0] is None else torch.cat(parts) for parts in zip(*last, strict=True)]  # type: ignore[arg-type]


def gradients(net: Network, case: dict[str, Any]) -> dict[str, Tensor]:
    """`index.array` → −gradient of the cost after one training pass: C's weight updates."""
    rows = case["batch"] * net.graph.net.time_steps
    x = torch.from_numpy(inputs(net.graph, rows, case["seed"]))
    truth = torch.from_numpy(targets(net.graph, rows, case["seed"]))
    net.train().loss(x, truth).total.backward()
    result = {}
    for key in case["gradients"]:
        index, name = key.split(".")
        layer = net.layers[int(index)]
        grad = getattr(getattr(layer, "owner", layer), name).grad
        assert grad is not None
        result[key] = -grad
    return result


def targets(graph: Graph, rows: int, seed: int) -> np.ndarray:
    return uniform(seed * 1000 + 998, (rows, graph.layers[-1].inputs[0].size))
