"""Faults of C's CPU builds: `Network.outputs` has them, the network itself does not."""

from __future__ import annotations

import pytest
import torch

from darknet_py.layers.merge import MultiplyLayer
from darknet_py.layers.normalize import NormalizedLayer
from darknet_py.model.c_emulation import CEmulation
from tests.layers.small_networks import image, network

CONV = "[convolutional]\nfilters=4\nbatch_normalize=1\nactivation={}\n"


@pytest.mark.parametrize(
    ("section", "is_lost"),
    [
        (CONV.format("mish"), False),
        (CONV.format("relu6"), True),
        ("[activation]\nactivation=mish\n", True),
        ("[activation]\nactivation=leaky\n", False),
        ("[activation]\nactivation=silu\n", False),
        ("[connected]\noutput=3\nactivation=swish\n", True),
        ("[local]\nactivation=hard_mish\n", True),
        ("[empty]\n[shortcut]\nfrom=0\nactivation=mish\n", False),
        ("[empty]\n[shortcut]\nfrom=0\nactivation=normalize_channels\n", True),
        ("[empty]\n[sam]\nfrom=0\nactivation=relu6\n", True),
        ("[rnn]\noutput=3\nactivation=mish\n", True),
    ],
)
def test_activations_that_c_loses_give_zero(section: str, is_lost: bool) -> None:
    net = network(section).eval()
    output = net.outputs(image())[-1]
    assert output is not None
    assert output.any() == (not is_lost)
    assert net(image()).any()


def test_later_layers_read_what_c_keeps() -> None:
    net = network("[activation]\nactivation=relu6\n", "[activation]\nactivation=logistic\n").eval()
    output = net.outputs(image())[1]
    assert output is not None and (output == 0.5).all()


def test_shortcuts_with_more_channels_are_misplaced() -> None:
    sections = "[maxpool]\nsize=1\nstride=1\n[convolutional]\nfilters=6\nactivation=linear\n"
    net = network(sections, "[convolutional]\nfilters=4\nactivation=linear\n[shortcut]\nfrom=1\n").eval()
    outputs = net.outputs(image())
    assert all(output is not None for output in outputs)
    x, other, result = outputs[2], outputs[1], outputs[3]
    assert torch.equal(result, x + other.flatten()[: x.numel()].view(x.shape))
    assert torch.allclose(net(image()), x + other[:, :4]) and torch.equal(result[0], net(image())[0])


def test_history_of_single_steps_is_packed() -> None:
    net = network("[history]\nhistory_size=2\n").eval()
    (output,) = net.outputs(image())
    assert output is not None and torch.equal(output[0], image().flatten(0, 1)) and not output[1].any()
    assert torch.equal(net(image())[:, :4], image())


def test_batch_norm_of_pjreddies_build() -> None:
    net = network(CONV.format("linear"), "[l2norm]\n").eval()
    layer = net.layers[0]
    with torch.no_grad():
        layer.variance.fill_(1e-4)
    output = net.outputs(image())[0]
    sums = torch.nn.functional.conv2d(image(), layer.weight)
    assert output is not None and torch.allclose(output, sums / (1e-2 + 1e-6), rtol=1e-5)
    assert "batch_norm" not in vars(layer)


def test_cost_keeps_no_output() -> None:
    assert network("[cost]\n").outputs(image()) == [None]
    (_, output) = network("[l2norm]\n[cost]\n").outputs(image())
    assert output is not None and output.shape == (2, 192) and not output.any()


def test_nothing_stays_behind() -> None:
    net = network("[empty]\n[sam]\nfrom=0\nactivation=mish\n", CONV.format("relu6")).eval()
    expected = net(image())
    emulation = CEmulation(net.graph.layers, list(net.layers))
    with pytest.raises(ValueError, match="stop"), emulation.faults():
        assert not net(image()).any()
        raise ValueError("stop")
    assert torch.equal(net(image()), expected)
    for module in net.modules():
        assert not module._forward_hooks
        assert isinstance(module, (NormalizedLayer, MultiplyLayer)) or "batch_norm" not in vars(module)
