from __future__ import annotations

import torch

from darknet_py.layers.resample import Blur, Reorg3dLayer, ReorgLayer, UpsampleLayer
from tests.layers.small_networks import image, network


def test_upsample_repeats_pixels_and_a_negative_stride_sums_blocks() -> None:
    x = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    assert UpsampleLayer(2, 0.5)(x)[0, 0, 0].tolist() == [0.5, 0.5, 1, 1]
    assert UpsampleLayer(-2, 1.0)(x).tolist() == [[[[10.0]]]]


def test_reorg3d_is_space_to_depth() -> None:
    x = torch.arange(8.0).view(1, 1, 2, 4)
    assert Reorg3dLayer(2, False)(x).tolist() == [[[[0, 2]], [[1, 3]], [[4, 6]], [[5, 7]]]]


def test_the_old_reorg_and_its_reverse_are_inverse() -> None:
    x = image().repeat(1, 4, 1, 1)
    y = ReorgLayer(2, False)(x)
    assert y.shape == (2, 64, 3, 4) and not torch.equal(y, Reorg3dLayer(2, False)(x))
    assert sorted(y.flatten().tolist()) == sorted(x.flatten().tolist())


def test_extra_appends_zeros() -> None:
    net = network("[reorg]\nextra=3\n")
    y = net(image())
    assert y.shape == (2, 4 * 6 * 8 + 3) and not y[:, -3:].any() and torch.equal(y[:, :-3], image().flatten(1))


def test_blur_keeps_a_constant_map() -> None:
    x = torch.ones(1, 2, 6, 8)
    assert torch.allclose(Blur(2, 2, 2)(x), torch.ones(1, 2, 3, 4))
    assert torch.allclose(Blur(1, 2, 2)(x)[:, :, 1:, 1:], torch.ones(1, 2, 2, 3))
    assert tuple(Blur(1, 2, 2)(x).shape[1:]) == Blur.infer(network("[empty]\n").graph.input._replace(c=2), 1, 2, 2)
