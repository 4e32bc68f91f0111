"""Every layer type against C Darknet, and what all of them have in common."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from darknet_py.errors import CfgError
from darknet_py.graph.graph import parse_text
from darknet_py.layers import LAYERS
from darknet_py.model.network import Network
from tests.layers import layer_cases
from tests.layers.small_networks import NET, network

FORWARD = [name for name, case in layer_cases.cases().items() if "outputs" in case]
BACKWARD = [name for name, case in layer_cases.cases().items() if "gradients" in case]


@pytest.mark.filterwarnings("ignore::darknet_py.errors.CfgWarning")
@pytest.mark.parametrize("name", FORWARD)
def test_outputs_are_those_of_c(name: str, tmp_path: Path) -> None:
    case = layer_cases.cases()[name]
    net = layer_cases.network(case, tmp_path)
    outputs = layer_cases.outputs(net, case)
    for index, expected in case["outputs"].items():
        output = outputs[int(index)]
        assert output is not None
        spread = float(output.std(correction=0)) + np.abs(expected)
        error = np.abs(np.array(layer_cases.sampled(output)) - expected)
        assert (error <= 1e-5 * spread + 1e-6).all(), f"layer {index} [{net.graph.layers[int(index)].type}]"


@pytest.mark.parametrize("name", BACKWARD)
def test_gradients_are_the_updates_of_c(name: str, tmp_path: Path) -> None:
    case = layer_cases.cases()[name]
    net = layer_cases.network(case, tmp_path)
    for key, gradient in layer_cases.gradients(net, case).items():
        expected = np.array(case["gradients"][key])
        error = np.abs(np.array(layer_cases.sampled(gradient)) - expected)
        assert (error <= 1e-4 * (float(gradient.std(correction=0)) + np.abs(expected)) + 1e-6).all(), key


def test_every_layer_but_heads_has_a_case() -> None:
    heads = {"yolo", "Gaussian_yolo", "region", "detection", "softmax", "contrastive", "logistic", "iseg"}
    yolor = {"implicit_add", "implicit_mul", "shift_channels", "control_channels", "route_lhalf"}  # no C build has them
    text = "".join(case["cfg"] for case in layer_cases.cases().values())
    forks = {"prelu", "depthwise", "se"}  # only forks have them
    missing = {name for name in LAYERS if f"[{name}]" not in text} - heads - yolor - forks
    assert missing == {"empty"} and "[silence]" in text


@pytest.mark.parametrize("name", layer_cases.cases())
@pytest.mark.filterwarnings("ignore::darknet_py.errors.CfgWarning")
def test_weights_are_saved_bit_by_bit(name: str, tmp_path: Path) -> None:
    case = layer_cases.cases()[name]
    net = layer_cases.network(case, tmp_path)
    net.save_weights(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == layer_cases.weights(net.graph, case["seed"])


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("[reorg]\nstride=3\n", "expected channels divisible by 9, got 4"),
        ("[reorg3d]\nstride=4\n", "expected width and height divisible by 4, got 8 x 6"),
        ("[reorg3d]\nstride=2\nreverse=1\n", "expected channels divisible by 16, got 4"),
        ("[local]\nsize=7\n", "expected an input of at least 7 x 7 pixels, got 8 x 6"),
        ("[deconvolutional]\nsize=1\npadding=3\n", "padding: expected a non-empty output, got 2 x 0"),
        ("[iseg]\nclasses=2\nids=1\n", r"expected classes \+ ids = 3 input channels, got 4"),
        ("[empty]\n[maxpool]\nstride=3\n[shortcut]\nfrom=0\n", "expected layer 0 at a multiple of 3 x 2, got 8 x 6"),
    ],
)
def test_shapes_that_do_not_fit_are_rejected(section: str, message: str) -> None:
    with pytest.raises(CfgError, match=message):
        network(section)


def test_every_layer_type_reads_its_defaults() -> None:
    """A section without keys is a working layer or a CfgError, never anything else."""
    need_more = {"route", "route_lhalf", "shortcut", "sam", "scale_channels", "shift_channels", "control_channels"}
    need_more |= {
        "depthwise",
        "conv_lstm",
        "crnn",
        "contrastive",
        "iseg",
        "yolo",
        "Gaussian_yolo",
        "region",
        "detection",
    }
    for name in LAYERS:
        try:
            Network(parse_text(f"{NET}[convolutional]\nfilters=4\n[{name}]\n"))
        except CfgError:
            assert name in need_more, name
