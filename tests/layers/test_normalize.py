from __future__ import annotations

import torch

from darknet_py.graph.graph import parse_text
from darknet_py.layers.normalize import EPS, BatchNormLayer, L2NormLayer, LrnLayer, LrnSpec
from darknet_py.model.network import Network

NET = "[net]\nwidth=8\nheight=6\nchannels=3\nbatch=4\nsubdivisions=2\nmax_batches=100\n"
CONV = "[convolutional]\nbatch_normalize=1\nfilters=8\nsize=3\npad=1\nactivation=leaky\n"


def network(*sections: str) -> Network:
    return Network(parse_text(NET + "".join(sections)))


def option(**options: object) -> str:
    return CONV + "".join(f"{key}={value}\n" for key, value in options.items())


def image(batch: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.rand(batch, 3, 6, 8, generator=torch.Generator().manual_seed(seed))


class TestCrossBatch:
    def test_statistics_accumulate_over_the_subdivisions(self) -> None:
        net = network(option(cbn=1)).train()
        layer = net.layers[0]
        conv = lambda x: torch.nn.functional.conv2d(x, layer.weight, padding=1)  # noqa: E731
        first, second = image(seed=1), image(seed=2)
        net(first)
        net.state.seen = 2
        result = net(second)
        maps = [conv(first), conv(second)]
        mean = sum(m.mean((0, 2, 3)) for m in maps) / 2
        square = sum(m.square().sum((0, 2, 3)) / (m[:, 0].numel() - 1) for m in maps) / 2
        y = (maps[1] - mean[:, None, None]) / (square - mean**2 + 1e-5).sqrt()[:, None, None]
        assert torch.allclose(result, torch.nn.functional.leaky_relu(y, 0.1), atol=1e-5)
        assert torch.allclose(layer.mean, 0.01 * mean + 0.01 * 0.99 * maps[0].mean((0, 2, 3)), atol=1e-6)

    def test_inference_is_batch_norm(self) -> None:
        net, plain = network(option(cbn=1)).eval(), network(CONV).eval()
        plain.load_state_dict(net.state_dict())
        assert torch.equal(net(image()), plain(image()))


def test_batch_norm_uses_the_batch_in_training_and_running_statistics_otherwise() -> None:
    layer = BatchNormLayer(3).train()
    x = image() * 2
    y = layer(x)
    assert layer.has_batch_norm and torch.allclose(y.mean((0, 2, 3)), torch.zeros(3), atol=1e-5)
    assert torch.allclose(layer.mean, 0.01 * x.mean((0, 2, 3)))
    expected = (x - layer.mean[:, None, None]) / (layer.variance[:, None, None] + EPS).sqrt()
    assert torch.allclose(layer.eval()(x), expected, atol=1e-5)


def test_local_response_normalization_lacks_one_channel() -> None:
    """size 3: C's sum over channels i − 1 … i + 1 never contains channel 1."""
    layer = LrnLayer(LrnSpec(size=3, alpha=1.0, beta=1.0, kappa=2.0))
    y = layer(torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 4, 1, 1)).flatten()
    sums = torch.tensor([1.0 + 4 - 4, 1 + 4 + 9 - 4, 4 + 9 + 16 - 4, 9 + 16 - 4])
    assert torch.allclose(y, torch.tensor([1.0, 2, 3, 4]) / (2 + sums))


def test_l2norm_makes_unit_vectors() -> None:
    assert torch.allclose(L2NormLayer()(image()).norm(dim=1), torch.ones(2, 6, 8))
