from __future__ import annotations

import torch

from darknet_py.layers.connected import ConnectedLayer, connected_arrays
from tests.layers.small_networks import network


def test_output_is_the_activation_of_the_affine_map() -> None:
    layer = ConnectedLayer(6, 2, "relu", False)
    x = torch.randn(3, 2, 1, 3)
    expected = (x.flatten(1) @ layer.weight.t() + layer.bias).clamp(min=0)
    assert torch.allclose(layer(x), expected[:, :, None, None])
    assert torch.equal(layer.bias, torch.zeros(2))


def test_file_order_has_batch_norm_last() -> None:
    names = [array.name for array in connected_arrays(2, 6, True, "wf.")]
    assert names == ["wf.bias", "wf.weight", "wf.scale", "wf.mean", "wf.variance"]
    net = network("[connected]\noutput=5\nbatch_normalize=1\n")
    assert net.graph.parameters == 5 + 5 * 4 * 6 * 8 + 3 * 5
