"""[convolutional]: what its options do beside the forward pass that the golden cases check."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from darknet_py.errors import CfgError, CfgWarning
from darknet_py.graph.graph import parse_text
from darknet_py.inference.fuse import fuse
from darknet_py.layers.assisted_excitation import AssistedExcitation, box_mask
from darknet_py.layers.base import TrainState
from darknet_py.layers.weight_transforms import DeformedKernels, binarize, centralize, signs, transform_gradient
from darknet_py.model.network import Network

NET = "[net]\nwidth=8\nheight=6\nchannels=3\nbatch=4\nsubdivisions=2\nmax_batches=100\n"
CONV = "[convolutional]\nbatch_normalize=1\nfilters=8\nsize=3\npad=1\nactivation=leaky\n"


def network(*sections: str) -> Network:
    return Network(parse_text(NET + "".join(sections)))


def option(**options: object) -> str:
    return CONV + "".join(f"{key}={value}\n" for key, value in options.items())


def image(batch: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.rand(batch, 3, 6, 8, generator=torch.Generator().manual_seed(seed))


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
def test_wrong_options_are_told(section: str, message: str) -> None:
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
    kept = net.outputs(image())
    assert kept[0] is not None and kept[0].shape == (2, 8, 6, 8)  # C's memory: the sharp map, blurred values in front
    assert kept[1] is not None and torch.equal(kept[0].flatten()[: kept[1].numel()], kept[1].flatten())


def test_signs_pass_gradients_within_one() -> None:
    x = torch.tensor([-2.0, -0.5, 0.0, 0.5, 2.0], requires_grad=True)
    y = signs(x)
    y.sum().backward()
    assert y.tolist() == [-1, -1, -1, 1, 1]
    assert x.grad is not None and x.grad.tolist() == [0, 1, 1, 1, 0]


def test_binarized_filters_keep_their_mean_size() -> None:
    weight = torch.tensor([[[[1.0, -3.0]]], [[[0.5, 0.5]]]], requires_grad=True)
    y = binarize(weight)
    (y * torch.tensor([1.0, 2.0])).sum().backward()
    assert y.flatten().tolist() == [2, -2, 0.5, 0.5]
    assert weight.grad is not None and weight.grad.flatten().tolist() == [1, 2, 1, 2]


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


class TestTiedFilters:
    def test_a_rotated_layer_has_four_turns_of_its_first_quarter(self) -> None:
        net = network(CONV, option(rotate=1)).train()
        net(image()).square().sum().backward()
        weight, gradient = net.layers[1].weight.detach(), net.layers[1].weight.grad
        for turn in range(4):
            # C writes (x, y) to (size−1−y, x): clockwise
            assert torch.equal(weight[2 * turn : 2 * turn + 2], torch.rot90(weight[:2], -turn, (2, 3)))
            assert torch.equal(gradient[2 * turn : 2 * turn + 2], gradient[:2])

    def test_the_second_half_of_training_is_free(self) -> None:
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

    def test_literal_kernels(self) -> None:
        """Worked out by hand from `sway_and_flip_weights_kernel` and `stretch_weights_kernel`."""
        middle = torch.tensor([0.0, 0, 0, 0, 1, 0, 0, 0, 0])
        edge = torch.tensor([0.0, 0, 0, 1, 0, 0, 0, 0, 0])
        sway = DeformedKernels("sway", 3, 15).forward_maps
        assert torch.equal(sway[3] @ edge, torch.tensor([0.0, 0, 0, 0, 0, 1, 0, 0, 0]))  # mirrored
        turned = sway[1] @ middle
        # every cell but the middle samples a bit of the middle: the nearer it lies after turning by 15 degrees
        near = (1 - 0.9659258) * (1 - 0.2588190)
        assert turned[4] > 1 and turned[1] / turned[4] == pytest.approx(near, rel=1e-4)
        stretch = DeformedKernels("stretch", 3, 15).forward_maps[3] @ middle  # scale 1.3: neighbors sample at 1/1.3
        assert stretch[4] == pytest.approx(1 / 1.3) and stretch[3] == pytest.approx((1 - 1 / 1.3) / 1.3)


class TestAssistedExcitation:
    def test_cells_inside_boxes(self) -> None:
        truth = torch.tensor([[0, 2, 0.5, 0.5, 0.25, 0.5], [1, 0, 0.0, 0.0, 0.1, 0.1], [0, 1, 0.9, 0.1, 0.4, 0.4]])
        found = box_mask(truth, 2, 4, 8)
        expected = torch.zeros(2, 4, 8, dtype=torch.bool)
        expected[0, 1:3, 3:6] = True  # columns 3, 4 and the one after
        expected[0, 0:2, 5:8] = True
        expected[1, 0, 0:2] = True
        assert torch.equal(found, expected)

    def test_excites_while_training_alone(self) -> None:
        layer = AssistedExcitation(1, 0)
        layer.state = TrainState(iteration=0, max_batches=100, truth=torch.tensor([[0, 0, 0.5, 0.5, 1.0, 1.0]]))
        x = torch.rand(1, 3, 2, 2, requires_grad=True)
        y = layer.train()(x)
        assert torch.allclose(y, x + x.mean(1, keepdim=True))
        y.sum().backward()
        assert x.grad is not None and (x.grad == 1).all()
        assert torch.equal(layer.eval()(x), x)
        layer.state.iteration = 51
        assert torch.equal(layer.train()(x), x)

    def test_until_an_iteration(self) -> None:
        layer = AssistedExcitation(80, 20).train()
        layer.state = TrainState(truth=torch.tensor([[0, 0, 0.5, 0.5, 1.0, 1.0]]))
        x = torch.ones(1, 1, 1, 1)
        alphas = {}
        for iteration in (0, 20, 50, 80, 81):
            layer.state.iteration = iteration
            alphas[iteration] = float(layer(x) - x)
        assert alphas == pytest.approx({0: 0, 20: 0.904508, 50: 0.5, 80: 0.0954915, 81: 0}, abs=1e-5)


class TestCrossBatch:
    def test_statistics_run_over_the_subdivisions(self) -> None:
        net = network(option(cbn=1)).train()
        layer = net.layers[0]
        conv = lambda x: torch.nn.functional.conv2d(x, layer.weight, padding=1)  # noqa: E731
        first, second = image(seed=1), image(seed=2)
        net(first)
        net.state.seen = 2
        found = net(second)
        maps = [conv(first), conv(second)]
        mean = sum(m.mean((0, 2, 3)) for m in maps) / 2
        square = sum(m.square().sum((0, 2, 3)) / (m[:, 0].numel() - 1) for m in maps) / 2
        y = (maps[1] - mean[:, None, None]) / (square - mean**2 + 1e-5).sqrt()[:, None, None]
        assert torch.allclose(found, torch.nn.functional.leaky_relu(y, 0.1), atol=1e-5)
        assert torch.allclose(layer.mean, 0.01 * mean + 0.01 * 0.99 * maps[0].mean((0, 2, 3)), atol=1e-6)

    def test_inference_is_batch_norm(self) -> None:
        net, plain = network(option(cbn=1)).eval(), network(CONV).eval()
        plain.load_state_dict(net.state_dict())
        assert torch.equal(net(image()), plain(image()))
