from __future__ import annotations

import pytest
import torch

from darknet_py.errors import CfgError
from tests.layers.small_networks import image, network


def test_channels_are_shifted_and_controlled() -> None:
    net = network(
        "[implicit_add]\nfilters=4\n", "[implicit_mul]\nfilters=4\n", "[convolutional]\nfilters=4\nactivation=linear\n",
        "[route]\nlayers=2\n", "[shift_channels]\nfrom=0\n", "[control_channels]\nfrom=1\n",
    ).eval()  # fmt: skip
    add, mul = net.layers[0].weight, net.layers[1].weight
    assert add.abs().max() < 0.2 and (mul - 1).abs().max() < 0.2 and add.shape == (4, 1, 1)
    outputs = net.outputs(image())
    assert outputs[2] is not None and outputs[5] is not None
    assert torch.allclose(outputs[5], (outputs[2] + add) * mul)
    net.train()(image()).sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_channels_need_one_value_each() -> None:
    with pytest.raises(CfgError, match="from: expected a layer of 1 x 1 x 4, got 1 x 1 x 3 from layer 0"):
        network("[implicit_add]\nfilters=3\n[maxpool]\n[implicit]\nfilters=4\n[shift_channels]\nfrom=0\n")


def test_implicit_starts_as_in_c() -> None:
    weight = network("[implicit]\nfilters=400\natoms=3\nmean=2\nstd=.1\n").layers[0].weight
    assert weight.shape == (400, 3, 1) and (weight - 2).abs().max() <= 0.1 and weight.std() > 0.05
