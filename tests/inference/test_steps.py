"""The steps of a fused network: fewer than layers, with the same output."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from darknet_py.graph.graph import parse_text
from darknet_py.inference.fuse import fuse
from darknet_py.inference.steps import inference_steps
from darknet_py.model.network import Network

NET = "[net]\nwidth=16\nheight=12\nchannels=3\nbatch=1\n"
CONV = "[convolutional]\nbatch_normalize=1\nfilters={}\nsize={}\npad=1\nactivation=leaky\n"
DROPOUT = "[dropout]\nprobability=0.5\n"
ROUTE = "[route]\nlayers={}\n"
POOL = "[maxpool]\nsize=2\nstride=2\n"


def network(*sections: str) -> Network:
    torch.manual_seed(0)
    net = Network(parse_text(NET + "".join(sections)))
    with torch.no_grad():
        for name, values in net.state_dict().items():
            values.copy_(torch.rand_like(values) + 0.5 if name.endswith(("variance", "scale")) else values)
    return net.eval()


def steps_of(net: Network) -> list[tuple[int, tuple[int, ...], tuple[int, ...]]]:
    """Layer, what its step reads, and what is freed after it."""
    plan = inference_steps(net.graph.layers, list(net.layers))
    return [(node.index, node.sources, node.frees) for node, _ in plan]


def assert_same(net: Network) -> None:
    fused = fuse(net)
    for size in ((12, 16), (20, 8)):
        x = torch.rand(2, 3, *size)
        got, expected = fused(x), net(x)
        assert isinstance(got, Tensor) and isinstance(expected, Tensor)
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_layers_that_change_nothing_are_left_out() -> None:
    net = network(CONV.format(4, 3), DROPOUT, ROUTE.format("-1"), CONV.format(5, 1), "[empty]\n", CONV.format(2, 3))
    assert steps_of(net) == [(0, (-1,), ()), (3, (0,), (0,)), (5, (3,), (3,))]
    assert_same(net)


def test_the_last_layer_stays() -> None:
    net = network(CONV.format(4, 3), DROPOUT)
    assert [index for index, *_ in steps_of(net)] == [0, 1]
    assert_same(net)


def test_pooling_comes_before_joining() -> None:
    net = network(CONV.format(4, 3), CONV.format(6, 3), ROUTE.format("-1,-2"), POOL, CONV.format(3, 1))
    assert steps_of(net) == [(0, (-1,), ()), (1, (0,), ()), (3, (1, 0), (0, 1)), (4, (3,), (3,))]
    assert_same(net)


@pytest.mark.parametrize(
    "sections",
    [
        # Another layer reads the joined channels, too.
        (CONV.format(4, 3), CONV.format(4, 3), ROUTE.format("-1,-2"), POOL, CONV.format(3, 1), ROUTE.format("2")),
        # Parts of the inputs are joined.
        (CONV.format(4, 3), CONV.format(4, 3), "[route]\nlayers=-1,-2\ngroups=2\ngroup_id=1\n", POOL),
        # Pooling does not make it smaller.
        (CONV.format(4, 3), CONV.format(4, 3), ROUTE.format("-1,-2"), "[maxpool]\nsize=3\nstride=1\n"),
        # It pools over channels.
        (CONV.format(4, 3), CONV.format(4, 3), ROUTE.format("-1,-2"), "[maxpool]\nmaxpool_depth=1\nout_channels=2\n"),
    ],
)
def test_where_it_must_not(sections: tuple[str, ...]) -> None:
    net = network(*sections)
    assert [index for index, *_ in steps_of(net)] == list(range(len(sections)))
    assert_same(net)


@pytest.mark.parametrize("size", [8, 96])
def test_small_convolutions_of_single_pixels_are_products(size: int) -> None:
    """On both sides of the limit, in batches, with and without an activation of their own."""
    linear, mish = (CONV.format(8, 1).replace("leaky", activation) for activation in ("linear", "mish"))
    net = network(CONV.format(16, 1), linear, mish)
    x = torch.rand(3, 3, size, size)
    got, expected = fuse(net)(x), net(x)
    assert isinstance(got, Tensor) and isinstance(expected, Tensor)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
