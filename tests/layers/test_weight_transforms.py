from __future__ import annotations

import pytest
import torch

from darknet_py.layers.weight_transforms import DeformedKernels, binarize, centralize, signs, transform_gradient


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


def test_centralized_gradients_have_no_mean() -> None:
    weight = torch.rand(4, 32, 1, 1, requires_grad=True)
    (transform_gradient(weight, centralize) * torch.rand(4, 32, 1, 1)).sum().backward()
    assert weight.grad is not None and weight.grad.mean((1, 2, 3)).abs().max() < 1e-7


def test_literal_kernels() -> None:
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
