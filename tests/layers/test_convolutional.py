"""[convolutional]: the options whose effects the golden cases of the forward pass do not show."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from darknet_py.errors import CfgError, CfgWarning
from darknet_py.graph.graph import parse_text
from darknet_py.inference.fuse import fuse
from darknet_py.layers.weight_transforms import centralize, transform_gradient
from darknet_py.model.network import Network

NET = "[net]\nwidth=8\nheight=6\nchannels=3\nbatch=4\nsubdivisions=2\nmax_batches=100\n"
CONV = "[convolutional]\nbatch_normalize=1\nfilters=8\nsize=3\npad=1\nactivation=leaky\n"


def network(*sections: str) -> Network:
    return Network(parse_text(NET + "".join(sections)))


def option(**options: object) -> str:
    return CONV + "".join(f"{key}={value}\n" for key, value in options.items())


def image(batch: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.rand(batch, 3, 6, 8, generator=torch.Generator().manual_seed(seed))


def test_depthwise_is_a_convolution_with_a_group_per_channel(tmp_path: Path) -> None:
    """[depthwise] of SpursLipu's cfgs: the same arrays in the same order, the same values."""
    text = option(stride=2).replace("filters=8", "filters=6").replace("leaky", "h_swish")
    net = network(text.replace("[convolutional]", "[depthwise]")).eval()
    other = network(text + "groups=3\n").eval()
    net.save_weights(tmp_path / "a.weights")
    other.load_weights(tmp_path / "a.weights")
    assert torch.equal(net(image()), other(image())) and net.graph.bflops == other.graph.bflops
    with pytest.raises(CfgError, match="width: expected"):  # the channels are not known then
        parse_text("[net]\nwidth=7803277325\n[depthwise]\nfilters=8\n")
    with pytest.raises(CfgError, match="expected a divisor of 3 input channels and 4 filters, got 3"):
        network("[depthwise]\nfilters=4\n")


def test_shared_arrays_are_trained_and_saved_once(tmp_path: Path) -> None:
    net = network(CONV, CONV, option(share_index=1))
    assert net.graph.parameters == sum(node.parameters for node in net.graph.layers[:2])
    assert len(list(net.parameters())) == 6  # bias, scale, weight of two layers
    net.train()(image()).sum().backward()
    assert net.layers[1].weight.grad.abs().sum() > 0
    twin = copy.deepcopy(net)
    with torch.no_grad():
        twin.layers[1].weight.zero_()
    assert not torch.equal(twin.eval()(image()), net.eval()(image()))
    net.save_weights(tmp_path / "w")
    other = network(CONV, CONV, option(share_index=1)).eval()
    other.load_weights(tmp_path / "w")
    assert torch.equal(other(image()), net(image()))
    assert torch.allclose(fuse(net)(image()), net(image()), atol=1e-5)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (option(share_index=2), r":20: \[convolutional\] #1: share_index: expected a layer 0…0, got '2'"),
        (option(share_index=-1, size=1).replace("size=3", ""), "#1: share_index: expected a .* of the same shape, got"),
        (
            "[maxpool]\nsize=2\n" + option(share_index=1),
            "share_index: expected a .* of the same shape, got layer 1",
        ),
        (option(sway=1, rotate=1), "expected one of sway, rotate, stretch, stretch_sway, got sway and rotate"),
        (option(rotate=1).replace("size=3", "size=1"), "rotate: expected a size from 2 to 32, got 1"),
        ("[convolutional]\nfilters=1\nsize=1\n[convolutional]\nfilters=3\nsize=3\nrotate=1\n", "multiple of 4 kernels"),
    ],
)
def test_wrong_options_are_rejected(section: str, message: str) -> None:
    with pytest.raises(CfgError, match=message):
        network(CONV, section)


@pytest.mark.parametrize("key", ["binary", "coordconv", "dot", "reverse"])
def test_options_without_effect_warn(key: str) -> None:
    with pytest.warns(CfgWarning, match=f"{key} has no effect"):
        network(option(**{key: 1}))


def test_layers_after_an_antialiased_one_see_the_blurred_map() -> None:
    blurred = option(antialiasing=1, stride=2)
    net = network(blurred, "[route]\nlayers=0\n", CONV, "[shortcut]\nfrom=0\n").eval()
    assert net.graph.layers[0].output == net.graph.layers[1].output == (8, 3, 4)
    outputs = net.outputs(image())
    # C's memory: the sharp map, overwritten by the blurred values from the front
    assert outputs[0] is not None and outputs[0].shape == (2, 8, 6, 8)
    assert outputs[1] is not None and torch.equal(outputs[0].flatten()[: outputs[1].numel()], outputs[1].flatten())


def test_binary_as_cs_gpu_build_is_an_attribute() -> None:
    with pytest.warns(CfgWarning):
        net = network(option(binary=1)).eval()
    plain = net(image())
    net.layers[0].binary = True
    assert not torch.allclose(plain, net(image()))


def test_gradient_centralization() -> None:
    net = network(CONV, option(grad_centr=1))
    net.train()(image()).square().sum().backward()
    gradient = net.layers[1].weight.grad
    assert gradient[0].numel() == 72 and gradient.mean((1, 2, 3)).abs().max() > 1e-6  # not a multiple of 32: untouched
    weight = torch.rand(4, 32, 1, 1, requires_grad=True)
    (transform_gradient(weight, centralize) * torch.rand(4, 32, 1, 1)).sum().backward()
    assert weight.grad is not None and weight.grad.mean((1, 2, 3)).abs().max() < 1e-7


class TestDeformation:
    def test_a_rotated_layer_has_four_turns_of_its_first_quarter(self) -> None:
        net = network(CONV, option(rotate=1)).train()
        net(image()).square().sum().backward()
        weight, gradient = net.layers[1].weight.detach(), net.layers[1].weight.grad
        for turn in range(4):
            # C writes (x, y) to (size−1−y, x): clockwise
            assert torch.equal(weight[2 * turn : 2 * turn + 2], torch.rot90(weight[:2], -turn, (2, 3)))
            assert torch.equal(gradient[2 * turn : 2 * turn + 2], gradient[:2])

    def test_the_second_half_of_training_changes_nothing(self) -> None:
        net = network(CONV, option(rotate=1)).train()
        net.state.iteration = 51
        before = net.layers[1].weight.detach().clone()
        net(image())
        assert torch.equal(before, net.layers[1].weight)

    @pytest.mark.parametrize("kind", ["sway", "rotate", "stretch", "stretch_sway"])
    def test_two_passes_before_one_backward(self, kind: str) -> None:
        net = network(CONV, option(**{kind: 1})).train()
        (net(image()).sum() + net(image(seed=1)).sum()).backward()
        assert net.layers[1].weight.grad.isfinite().all()


def test_strided_layers_of_size_1_with_few_channels_are_trained_within_their_memory() -> None:
    """oneDNN's backward pass overwrote other memory; in a process of its own, as that may end it at any time."""
    program = """
import torch
from darknet_py.graph.graph import parse_text
from darknet_py.model.network import Network
torch.set_num_threads(1)
text = "[net]\\nwidth=8\\nheight=8\\nchannels=3\\n[convolutional]\\nfilters=7\\nstride=2\\nactivation=linear\\n"
net = Network(parse_text(text)).to(memory_format=torch.channels_last).train()
for _ in range(20):
    x = torch.rand(2, 3, 8, 8).to(memory_format=torch.channels_last).requires_grad_()
    net.zero_grad()
    net(x).sum().backward()
    junk = [torch.rand(size) for size in range(1, 3000, 37)]
expected = x.detach()[:, :, ::2, ::2].sum((0, 2, 3))
torch.testing.assert_close(net.layers[0].weight.grad.view(7, 3), expected.expand(7, 3))
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
