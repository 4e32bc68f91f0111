from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from darknet_py.errors import CfgError
from tests.layers.small_networks import network


def test_each_group_of_channels_has_its_slope(tmp_path: Path) -> None:
    net = network("[convolutional]\nfilters=4\nactivation=linear\n[prelu]\nn=2\n").eval()
    layer = net.layers[1]
    with torch.no_grad():
        layer.slope.copy_(torch.tensor([0.5, 2.0]))
    x = torch.tensor([-1.0, 1.0, -2.0, 3.0]).reshape(1, 4, 1, 1)
    assert layer(x).flatten().tolist() == [-0.5, 1.0, -4.0, 3.0]
    layer(x).sum().backward()
    assert layer.slope.grad is not None and layer.slope.grad.tolist() == [-1.0, -2.0]
    net.save_weights(tmp_path / "a.weights")
    assert np.frombuffer((tmp_path / "a.weights").read_bytes(), "<f4")[-2:].tolist() == [0.5, 2.0]


def test_the_groups_divide_the_channels() -> None:
    with pytest.raises(CfgError, match="n: expected a divisor of 4 channels, got 3"):
        network("[convolutional]\nfilters=4\n[prelu]\nn=3\n")
