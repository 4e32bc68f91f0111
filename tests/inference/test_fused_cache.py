"""Detection from Python runs a fused copy that follows the network's weights."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from darknet_py.graph.graph import parse_text
from darknet_py.inference.detections import Detections
from darknet_py.inference.fuse import PackedConvolution, fuse
from darknet_py.layers.convolutional import ConvolutionalLayer
from darknet_py.model.network import Network

CFG = """
[net]
width=32
height=32
channels=3
[convolutional]
batch_normalize=1
filters=8
size=3
stride=16
pad=1
activation=mish
[convolutional]
filters=18
size=1
activation=linear
[yolo]
mask=0,1,2
anchors=4,4, 8,8, 16,16
classes=1
num=3
"""


@pytest.fixture
def net() -> Network:
    torch.manual_seed(0)
    network = Network(parse_text(CFG)).eval()
    for layer in network.layers:
        if isinstance(layer, ConvolutionalLayer):
            nn.init.normal_(layer.bias)
    return network


def boxes(net: Network) -> Detections:
    (found,) = net.boxes(torch.linspace(0, 1, 3 * 32 * 32).reshape(1, 3, 32, 32), thresh=0.01, nms=0)
    return found


def plain(net: Network) -> Detections:
    """The same without a copy: `boxes` of a network in training mode makes none."""
    state = [(module, module.training) for module in net.modules()]
    net.training = True  # of the network alone, so that batch norm still uses its averages
    found = boxes(net)
    for module, training in state:
        module.training = training
    return found


def same(one: Detections, other: Detections) -> bool:
    return one.boxes.shape == other.boxes.shape and np.allclose(one.boxes, other.boxes, atol=1e-5)


def test_the_copy_is_made_once(net: Network) -> None:
    first = net._for_inference.get(net)
    assert any(isinstance(layer, PackedConvolution) for layer in first.layers) == torch.backends.mkldnn.is_available()
    boxes(net)
    assert net._for_inference.get(net) is first
    assert same(boxes(net), plain(net)) and len(boxes(net))


def add_in_place(net: Network) -> None:
    with torch.no_grad():
        net.layers[0].weight.add_(0.5)


def change_data(net: Network) -> None:
    for parameter in net.parameters():
        parameter.data += 0.5


def change_numpy(net: Network) -> None:
    net.layers[1].bias.detach().numpy()[:] += 1


def replace_array(net: Network) -> None:
    net.layers[1].weight = nn.Parameter(net.layers[1].weight.detach() * 2)


def load_state(net: Network) -> None:
    net.load_state_dict({name: array * 2 for name, array in net.state_dict().items()})


def change_statistics(net: Network) -> None:
    net.layers[0].mean += 1


@pytest.mark.parametrize(
    "change", [add_in_place, change_data, change_numpy, replace_array, load_state, change_statistics]
)
def test_changed_weights_count(net: Network, change: Callable[[Network], None]) -> None:
    before = boxes(net)
    change(net)
    after = boxes(net)
    assert not same(before, after)
    assert same(after, plain(net))


def test_later_names_count(net: Network) -> None:
    assert boxes(net).names[0] == "0"
    net.names = ["dog"]
    assert boxes(net).names[0] == "dog"


def test_networks_that_need_no_copy(net: Network) -> None:
    fused = fuse(net)
    assert fused._for_inference.get(fused) is fused
    net.train()
    assert net._for_inference.get(net) is net


def test_a_network_with_a_copy_can_be_copied_and_pickled(net: Network) -> None:
    found = boxes(net)
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert same(boxes(other), found)
        assert other._for_inference.get(other) is not net._for_inference.get(net)


def test_a_network_made_in_inference_mode() -> None:
    with torch.inference_mode():
        network = Network(parse_text(CFG)).eval()
        before = boxes(network)
        network.layers[1].bias += 1
        assert not same(before, boxes(network))
