from __future__ import annotations

import torch

from darknet_py.layers.deconvolutional import DeconvolutionalLayer
from tests.layers.small_networks import network


def test_each_pixel_adds_its_kernel() -> None:
    """out = (in − 1)·stride + size − 2·padding, worked out by hand for one channel."""
    net = network("[convolutional]\nfilters=1\n[deconvolutional]\nfilters=1\nsize=2\nstride=2\nactivation=linear\n")
    layer = net.layers[1]
    assert isinstance(layer, DeconvolutionalLayer) and net.graph.layers[1].output == (1, 12, 16)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]))
        layer.bias.fill_(0.5)
    y = layer(torch.tensor([[[[1.0, 10.0]]]]))
    assert y.tolist() == [[[[1.5, 2.5, 10.5, 20.5], [3.5, 4.5, 30.5, 40.5]]]]


def test_padding_cuts_the_border() -> None:
    assert network("[deconvolutional]\nsize=3\npad=1\nstride=1\n").graph.layers[0].output == (1, 6, 8)
