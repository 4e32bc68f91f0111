"""Whole cfgs equal C Darknet, published ones and one per option: layers, parameters, BFLOPs, every output."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from darknet_py.graph.graph import parse
from darknet_py.model.network import Network
from tests import conftest

pytestmark = [pytest.mark.reference, pytest.mark.filterwarnings("ignore::darknet_py.errors.CfgWarning")]

SLOW = {"alexeyab__vgg-16", "yolor__yolov4_p6"}


def _manifests() -> list[dict[str, Any]]:
    files = [conftest.REFERENCE / kind / "manifest.json" for kind in ("features", "forward")]
    return [entry for file in files if file.is_file() for entry in json.loads(file.read_text())]


@pytest.fixture(scope="module")
def samples(reference: Path) -> dict[str, np.ndarray]:
    return {
        key: values
        for kind in ("features", "forward")
        for key, values in np.load(reference / kind / "samples.npz").items()
    }


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param(entry, marks=pytest.mark.slow if entry.get("name") in SLOW else ())
        for entry in _manifests() or [{}]
    ],
    ids=lambda entry: entry.get("name", "none"),
)
def test_every_layer_equals_c(
    entry: dict[str, Any], reference: Path, probe: ModuleType, samples: dict[str, np.ndarray], tmp_path: Path
) -> None:
    graph = parse(reference / entry["cfg"], width=entry["width"] or None, height=entry["height"] or None)
    layout = [(array.role, array.count, array.fan_in) for node in graph for array in node.spec.arrays(node)]
    assert layout == [tuple(row) for row in entry["layout"]]
    assert graph.parameters == entry["parameters"]
    if entry["bflops"] is not None:  # pjreddie's table does not sum up
        assert graph.bflops == pytest.approx(entry["bflops"], rel=1e-3)

    net = Network(graph).eval()
    file = tmp_path / "probe.weights"
    with open(file, "wb") as stream:
        stream.write(probe.header())
        probe.weights(entry["layout"], entry["seed"], entry["gain"]).tofile(stream)
    net.load_weights(file)
    os.unlink(file)  # up to 550 MB, and pytest keeps its folders

    pixels = (entry["channels"], entry["height"], entry["width"])
    x = probe.image(entry["seed"], (entry["batch"], *(pixels if entry["channels"] else [entry["inputs"]])))
    with torch.no_grad():
        outputs = net.outputs(torch.from_numpy(x))
    assert len(outputs) == len(entry["layers"])
    for layer, output in zip(entry["layers"], outputs, strict=True):
        expected = samples.get(f"{entry['name']}/{layer['index']}")
        if expected is None:
            assert output is None
            continue
        assert output is not None and output.numel() == entry["batch"] * layer["outputs"]
        if layer.get("order") == "b,h,w,c":
            output = output.permute(0, 2, 3, 1)
        values = output.reshape(-1).numpy()[probe.positions(layer["index"], output.numel())]
        error = np.abs(values - expected) / (layer["std"] + np.abs(expected) + 1e-12)
        assert error.max() <= 1e-4, f"layer {layer['index']} [{graph.layers[layer['index']].type}]"


def test_network_does_not_reproduce_faults_of_cs_build(reference: Path, probe: ModuleType, tmp_path: Path) -> None:
    """C's CPU build lacks relu6 and outputs 0, which net.outputs reproduces; the network computes relu6."""
    entry = next(entry for entry in _manifests() if entry["name"] == "act_relu6")
    net = Network(parse(reference / entry["cfg"])).eval()
    (tmp_path / "w").write_bytes(
        probe.header() + probe.weights(entry["layout"], entry["seed"], entry["gain"]).tobytes()
    )
    net.load_weights(tmp_path / "w")
    x = torch.from_numpy(probe.image(entry["seed"], (entry["batch"], 3, entry["height"], entry["width"])))
    with torch.no_grad():
        outputs = net.outputs(x)
        assert outputs[1] is not None and outputs[2] is not None and not outputs[1].any()
        assert (net(x) - outputs[2]).abs().max() > 0.01
        assert net.layers[1](net.layers[0](x)).max() > 0
