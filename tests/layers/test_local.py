from __future__ import annotations

import torch

from darknet_py.layers.local import LocalLayer
from tests.layers.small_networks import image, network


def test_equal_filters_at_all_pixels_are_a_convolution() -> None:
    for options in ("size=3\n", "size=3\nstride=2\n", "size=3\npad=1\n"):
        net = network(f"[local]\nfilters=2\n{options}activation=linear\n")
        layer = net.layers[0]
        assert isinstance(layer, LocalLayer)
        kernel = torch.rand(2, 4, 3, 3)
        with torch.no_grad():
            layer.weight.copy_(kernel.flatten(1).expand_as(layer.weight))
        stride, pad = layer.spec.stride, int(layer.spec.pad)
        expected = torch.nn.functional.conv2d(image(), kernel, None, stride, pad)
        assert torch.allclose(net(image()), expected, atol=1e-5), options


def test_each_pixel_has_its_own_filter_and_bias() -> None:
    net = network("[local]\nfilters=1\nsize=1\nactivation=linear\n")
    layer = net.layers[0]
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.zero_()
        layer.weight[9] = 1.0  # row 1, column 1
        layer.bias[0, 0, 0] = 5.0
    y = net(image(1))
    assert y[0, 0, 0, 0] == 5 and torch.allclose(y[0, 0, 1, 1], image(1)[0, :, 1, 1].sum())
    assert int((y != 0).sum()) == 2
