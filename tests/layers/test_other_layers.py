"""Pools, crops, implicit vectors, YOLOR's channels and the rest: what the golden cases leave open."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from darknet_py.errors import CfgError
from darknet_py.graph.graph import parse_text
from darknet_py.layers import LAYERS
from darknet_py.layers.activations import ACTIVATIONS
from darknet_py.layers.base import TrainState
from darknet_py.layers.crop import CropLayer, CropSpec
from darknet_py.layers.pool import DropBlockLayer, DropoutSpec, LocalAvgPoolLayer, LocalAvgPoolSpec
from darknet_py.model.network import Network
from tests.layers import layer_cases

NET = "[net]\nwidth=8\nheight=6\nchannels=4\n"


def network(*sections: str) -> Network:
    return Network(parse_text(NET + "".join(sections)))


def image(batch: int = 2) -> torch.Tensor:
    return torch.rand(batch, 4, 6, 8, generator=torch.Generator().manual_seed(0))


# activations


def test_every_activation_of_darknet_is_there() -> None:
    assert len(ACTIVATIONS) == 24 and torch.equal(ACTIVATIONS["silu"](image()), ACTIVATIONS["swish"](image()))
    with pytest.raises(CfgError, match="activation: expected a known activation, got 'leeky'; did you mean 'leaky'"):
        network("[activation]\nactivation=leeky\n")


@pytest.mark.parametrize("name", sorted(set(ACTIVATIONS) - {"stair", "hardtan", "relu6"}))
def test_derivatives_are_true(name: str) -> None:
    x = (torch.linspace(-5, 5, 24, dtype=torch.float64) + 0.013).view(1, 4, 2, 3).requires_grad_()
    assert torch.autograd.gradcheck(ACTIVATIONS[name], (x,))


# pools


def test_pool_windows_that_do_not_fit_are_told() -> None:
    for section in ("[maxpool]\nsize=9\npadding=0\n", "[maxpool]\nsize=9\nstride=2\npadding=0\nantialiasing=1\n"):
        with pytest.raises(CfgError, match="expected an input of at least 9 x 9 pixels, got 8 x 6"):
            network(section)
    with pytest.raises(CfgError, match="out_channels: expected at most 4, got 5"):
        network("[maxpool]\nmaxpool_depth=1\nout_channels=5\n")


def test_depth_pooling_has_one_winner() -> None:
    x = torch.ones(1, 4, 1, 1, requires_grad=True)
    net = Network(parse_text("[net]\nwidth=1\nheight=1\nchannels=4\n[maxpool]\nmaxpool_depth=1\nout_channels=3\n"))
    net(x).sum().backward()
    assert x.grad is not None and x.grad.flatten().tolist() == [1, 1, 1, 0]


def test_local_average_has_the_gradient_of_cs_gpu_build() -> None:
    """Read off `backward_local_avgpool_layer_kernel`: each cell's window hands its whole gradient on."""
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

    def test_the_rest_of_an_image_makes_up_for_it(self) -> None:
        layer = DropBlockLayer(DropoutSpec(probability=0.5, dropblock=True, size_rel=0.5, size_abs=7)).train()
        torch.manual_seed(0)
        y = layer(torch.ones(4, 16, 8, 8))
        assert torch.allclose(y.mean((1, 2, 3)), torch.ones(4)) and len(y[0].unique()) == 2
        assert torch.equal(layer.eval()(image()), image())


# crop


class TestCrop:
    def crop(self, **options: object) -> CropLayer:
        values = {
            "height": 3,
            "width": 4,
            "flip": False,
            "angle": 0.0,
            "saturation": 1.0,
            "exposure": 1.0,
            "shift": 0.0,
        }
        return CropLayer(CropSpec(**{**values, "noadjust": True, **options})).train()  # type: ignore[arg-type]

    def test_places_lie_within_the_image(self) -> None:
        torch.manual_seed(0)
        x = torch.arange(48.0).view(1, 1, 6, 8).expand(200, 1, 6, 8)
        y = self.crop()(x)
        assert torch.allclose(y[:, :, :, 1:] - y[:, :, :, :-1], torch.ones(1), atol=1e-3)
        assert y.min() >= -1e-3 and y.max() <= 47 + 1e-3 and y[:, 0, 0, 0].unique().numel() > 100

    def test_half_of_them_are_mirrored(self) -> None:
        torch.manual_seed(0)
        x = torch.arange(48.0).view(1, 1, 6, 8).expand(200, 1, 6, 8)
        slope = self.crop(flip=True)(x)[:, 0, 0, 1] - self.crop(flip=True)(x)[:, 0, 0, 0]
        assert 60 < int((self.crop(flip=True)(x).diff(dim=3)[:, 0, 0, 0] < 0).sum()) < 140 and slope.isfinite().all()

    def test_colors_are_cs(self) -> None:
        """One pixel through C's rgb_to_hsv and hsv_to_rgb: hue 20°, saturation .75, value .8."""
        torch.manual_seed(0)
        layer = self.crop(height=1, width=1, saturation=1.2, exposure=1.2)
        x = torch.tensor([0.8, 0.4, 0.2]).view(1, 3, 1, 1).expand(50, 3, 1, 1)
        y = layer(x).flatten(1)
        value, low = y.amax(1), y.amin(1)
        saturation = 1 - low / value
        hue = (y[:, 1] - low) / (value - low)
        assert torch.allclose(hue, torch.full((50,), 1 / 3), atol=1e-4)  # the hue stays
        assert (value >= 0.8 / 1.2 - 1e-4).all() and (value <= 0.8 * 1.2 + 1e-4).all()
        assert (saturation >= 0.625 - 1e-4).all() and (saturation <= 0.9 + 1e-4).all()
        assert saturation.unique().numel() > 20

    def test_turning_leaves_the_middle(self) -> None:
        torch.manual_seed(0)
        x = torch.zeros(20, 1, 9, 9)
        x[:, :, 3:6, 3:6] = 1
        y = self.crop(height=9, width=9, angle=90.0)(x)
        assert torch.allclose(y[:, 0, 4, 4], torch.ones(20)) and y[:, 0, 0, 0].abs().max() < 1e-6

    def test_windows_larger_than_the_image_are_told(self) -> None:
        with pytest.raises(CfgError, match="expected an input of at least 20 x 3 pixels, got 8 x 6"):
            network("[crop]\ncrop_height=3\ncrop_width=20\n")


# implicit vectors and YOLOR's channels


def test_channels_are_shifted_and_controlled() -> None:
    net = network(
        "[implicit_add]\nfilters=4\n", "[implicit_mul]\nfilters=4\n", "[convolutional]\nfilters=4\nactivation=linear\n",
        "[route]\nlayers=2\n", "[shift_channels]\nfrom=0\n", "[control_channels]\nfrom=1\n",
    ).eval()  # fmt: skip
    add, mul = net.layers[0].weight, net.layers[1].weight
    assert add.abs().max() < 0.2 and (mul - 1).abs().max() < 0.2 and add.shape == (4, 1, 1)
    kept = net.outputs(image())
    assert kept[2] is not None and kept[5] is not None
    assert torch.allclose(kept[5], (kept[2] + add) * mul)
    net.train()(image()).sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_channels_need_one_value_each() -> None:
    with pytest.raises(CfgError, match="from: expected a layer of 1 x 1 x 4, got 1 x 1 x 3 from layer 0"):
        network("[implicit_add]\nfilters=3\n[maxpool]\n[implicit]\nfilters=4\n[shift_channels]\nfrom=0\n")


def test_route_lhalf_takes_the_first_halves() -> None:
    net = network("[activation]\nactivation=linear\n[activation]\nactivation=logistic\n[route_lhalf]\nlayers=-1,0\n")
    assert torch.equal(net(image()), torch.cat((torch.sigmoid(image()[:, :2]), image()[:, :2]), 1))


def test_implicit_starts_as_in_c() -> None:
    weight = network("[implicit]\nfilters=400\natoms=3\nmean=2\nstd=.1\n").layers[0].weight
    assert weight.shape == (400, 3, 1) and (weight - 2).abs().max() <= 0.1 and weight.std() > 0.05


# everything


@pytest.mark.parametrize("name", layer_cases.cases())
@pytest.mark.filterwarnings("ignore::darknet_py.errors.CfgWarning")
def test_weights_come_back_bit_by_bit(name: str, tmp_path: Path) -> None:
    case = layer_cases.cases()[name]
    net = layer_cases.network(case, tmp_path)
    net.save_weights(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == layer_cases.weights(net.graph, case["seed"])


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("[reorg]\nstride=3\n", "expected channels divisible by 9, got 4"),
        ("[reorg3d]\nstride=4\n", "expected width and height divisible by 4, got 8 x 6"),
        ("[reorg3d]\nstride=2\nreverse=1\n", "expected channels divisible by 16, got 4"),
        ("[local]\nsize=7\n", "expected an input of at least 7 x 7 pixels, got 8 x 6"),
        ("[deconvolutional]\nsize=1\npadding=3\n", "padding: expected a non-empty output, got 2 x 0"),
        ("[iseg]\nclasses=2\nids=1\n", r"expected classes \+ ids = 3 input channels, got 4"),
        ("[empty]\n[maxpool]\nstride=3\n[shortcut]\nfrom=0\n", "expected layer 0 at a multiple of 3 x 2, got 8 x 6"),
    ],
)
def test_shapes_that_do_not_fit_are_told(section: str, message: str) -> None:
    with pytest.raises(CfgError, match=message):
        network(section)


def test_every_layer_type_reads_its_defaults() -> None:
    """A section without keys is a working layer or a CfgError, never anything else."""
    need_more = {"route", "route_lhalf", "shortcut", "sam", "scale_channels", "shift_channels", "control_channels"}
    need_more |= {"conv_lstm", "crnn", "contrastive", "iseg", "yolo", "Gaussian_yolo", "region", "detection"}
    for name in LAYERS:
        try:
            Network(parse_text(f"{NET}[convolutional]\nfilters=4\n[{name}]\n"))
        except CfgError:
            assert name in need_more, name
