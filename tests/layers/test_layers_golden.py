"""Every layer type against C Darknet: its outputs, and the gradients of what can be trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from darknet_py.layers import LAYERS
from tests.layers import layer_cases as golden

FORWARD = [name for name, case in golden.cases().items() if "outputs" in case]
BACKWARD = [name for name, case in golden.cases().items() if "gradients" in case]


@pytest.mark.filterwarnings("ignore::darknet_py.errors.CfgWarning")
@pytest.mark.parametrize("name", FORWARD)
def test_outputs_are_those_of_c(name: str, tmp_path: Path) -> None:
    case = golden.cases()[name]
    net = golden.network(case, tmp_path)
    outputs = golden.outputs(net, case)
    for index, expected in case["outputs"].items():
        output = outputs[int(index)]
        assert output is not None
        spread = float(output.std(correction=0)) + np.abs(expected)
        error = np.abs(np.array(golden.sampled(output)) - expected)
        assert (error <= 1e-5 * spread + 1e-6).all(), f"layer {index} [{net.graph.layers[int(index)].type}]"


@pytest.mark.parametrize("name", BACKWARD)
def test_gradients_are_the_updates_of_c(name: str, tmp_path: Path) -> None:
    case = golden.cases()[name]
    net = golden.network(case, tmp_path)
    for key, gradient in golden.gradients(net, case).items():
        expected = np.array(case["gradients"][key])
        error = np.abs(np.array(golden.sampled(gradient)) - expected)
        assert (error <= 1e-4 * (float(gradient.std(correction=0)) + np.abs(expected)) + 1e-6).all(), key


def test_every_layer_but_heads_has_a_case() -> None:
    heads = {"yolo", "Gaussian_yolo", "region", "detection", "softmax", "contrastive", "logistic", "iseg"}
    yolor = {"implicit_add", "implicit_mul", "shift_channels", "control_channels", "route_lhalf"}  # no C build has them
    text = "".join(case["cfg"] for case in golden.cases().values())
    missing = {name for name in LAYERS if f"[{name}]" not in text} - heads - yolor
    assert missing == {"empty"} and "[silence]" in text
