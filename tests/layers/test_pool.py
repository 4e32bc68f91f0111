"""[maxpool], [local_avgpool], [dropout]: what the golden cases leave open."""

from __future__ import annotations

import pytest
import torch

from darknet_py.errors import CfgError
from darknet_py.graph.graph import parse_text
from darknet_py.layers.base import TrainState
from darknet_py.layers.pool import DropBlockLayer, DropoutSpec, LocalAvgPoolLayer, LocalAvgPoolSpec
from darknet_py.model.network import Network
from tests.layers.small_networks import image, network


def test_pool_windows_that_do_not_fit_are_rejected() -> None:
    for section in ("[maxpool]\nsize=9\npadding=0\n", "[maxpool]\nsize=9\nstride=2\npadding=0\nantialiasing=1\n"):
        with pytest.raises(CfgError, match="expected an input of at least 9 x 9 pixels, got 8 x 6"):
            network(section)
    with pytest.raises(CfgError, match="out_channels: expected at most 4, got 5"):
        network("[maxpool]\nmaxpool_depth=1\nout_channels=5\n")


def test_depth_pooling_passes_the_gradient_to_one_maximum() -> None:
    x = torch.ones(1, 4, 1, 1, requires_grad=True)
    net = Network(parse_text("[net]\nwidth=1\nheight=1\nchannels=4\n[maxpool]\nmaxpool_depth=1\nout_channels=3\n"))
    net(x).sum().backward()
    assert x.grad is not None and x.grad.flatten().tolist() == [1, 1, 1, 0]


def test_local_average_has_the_gradient_of_cs_gpu_build() -> None:
    """From `backward_local_avgpool_layer_kernel`: each cell's window passes its whole gradient on."""
    x = torch.rand(1, 1, 4, 4, requires_grad=True)
    y = LocalAvgPoolLayer(LocalAvgPoolSpec(size=2, stride_x=2, stride_y=2, padding=0))(x)
    y.backward(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]))
    assert x.grad is not None
    assert x.grad[0, 0].tolist() == [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]
    x.grad = None
    y = LocalAvgPoolLayer(LocalAvgPoolSpec(size=3, stride_x=1, stride_y=1, padding=2))(
        x
    )  # overlapping windows: the mean of those around
    y.backward(torch.ones_like(y))
    assert torch.equal(x.grad, torch.ones_like(x))


class TestDropBlock:
    def test_squares_grow_over_the_training(self) -> None:
        layer = DropBlockLayer(DropoutSpec(probability=0.5, dropblock=True, size_rel=0.0, size_abs=4)).train()
        torch.manual_seed(0)
        sides = {}
        for iteration in (0, 25, 50, 100):
            layer.state = TrainState(iteration=iteration, max_batches=100)
            dropped = layer(torch.ones(64, 8, 12, 12)) == 0
            blocks = dropped.flatten(2).sum(2)
            sides[iteration] = set(blocks.flatten().tolist()) - {0}
        assert sides == {0: set(), 25: {1}, 50: {4}, 100: {16}}

    def test_the_rest_of_an_image_is_scaled_up(self) -> None:
        layer = DropBlockLayer(DropoutSpec(probability=0.5, dropblock=True, size_rel=0.5, size_abs=7)).train()
        torch.manual_seed(0)
        y = layer(torch.ones(4, 16, 8, 8))
        assert torch.allclose(y.mean((1, 2, 3)), torch.ones(4)) and len(y[0].unique()) == 2
        assert torch.equal(layer.eval()(image()), image())
