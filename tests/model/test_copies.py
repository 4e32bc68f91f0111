"""Networks can be pickled, copied and traced, whatever their layers and activations."""

from __future__ import annotations

import copy
import pickle
import warnings
from pathlib import Path

import pytest
import torch

from darknet_py.graph.graph import parse, parse_text
from darknet_py.layers.activations import ACTIVATIONS
from darknet_py.model.network import Network

CFGS = sorted((Path(__file__).parents[2] / "cfg").glob("*.cfg"))
SMALL = {"yolo-fastest-1.1", "cifar-small", "lstm-text", "yolov1-tiny-shapes", "yolov2-tiny-shapes"}
HEAD = "[net]\nwidth=16\nheight=16\nchannels=3\n[convolutional]\nfilters=14\nsize=1\nstride=8\nactivation="


def same_arrays(network: Network) -> None:
    exact = network.state_dict()
    for other in (pickle.loads(pickle.dumps(network)), copy.copy(network), copy.deepcopy(network)):
        assert all(torch.equal(values, exact[name]) for name, values in other.state_dict().items())


@pytest.mark.parametrize(
    "cfg", [pytest.param(cfg, marks=[] if cfg.stem in SMALL else pytest.mark.slow, id=cfg.stem) for cfg in CFGS]
)
def test_every_cfg(cfg: Path) -> None:
    same_arrays(Network(parse(cfg)).eval())


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_every_activation(activation: str) -> None:
    network = Network(parse_text(f"{HEAD}{activation}\n")).eval()
    same_arrays(network)
    x = torch.rand(1, 3, 16, 16)
    assert torch.equal(pickle.loads(pickle.dumps(network))(x), network(x))


@pytest.mark.parametrize(
    "tail",
    [
        "linear\n[yolo]\nmask=0,1\nnum=2\nanchors=4,4,8,8\nclasses=2\n",
        "logistic\n[yolo]\nmask=0,1\nnum=2\nanchors=4,4,8,8\nclasses=2\nnew_coords=1\nscale_x_y=2\n",
        "linear\n[region]\nnum=2\nanchors=1,1,2,2\nclasses=2\nsoftmax=1\n",
        "linear\n[avgpool]\n[softmax]\n",
        "linear\n[local_avgpool]\nsize=2\nstride=1\n",
    ],
)
def test_a_trace_passes_torch_s_own_check(tail: str) -> None:
    """It runs the network again without gradients and compares the graphs."""
    network = Network(parse_text(f"{HEAD}{tail}")).eval()
    x = torch.rand(1, 3, 16, 16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        traced = torch.jit.trace(network, x)
    output, exact = traced(x), network(x)
    assert torch.equal(output[0], exact[0]) and torch.equal(output[-1], exact[-1])
