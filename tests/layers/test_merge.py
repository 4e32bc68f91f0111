from __future__ import annotations

import pytest
import torch

from darknet_py.errors import CfgError
from darknet_py.layers.merge import RouteLayer, ShortcutLayer
from tests.layers.small_networks import image, network


def test_route_lhalf_takes_the_first_halves() -> None:
    net = network("[activation]\nactivation=linear\n[activation]\nactivation=logistic\n[route_lhalf]\nlayers=-1,0\n")
    assert torch.equal(net(image()), torch.cat((torch.sigmoid(image()[:, :2]), image()[:, :2]), 1))


def test_route_cuts_each_input_before_it_joins_them() -> None:
    layer = RouteLayer(2, 1)
    a, b = image(), image(seed=1)
    assert torch.equal(layer(a, b), torch.cat((a[:, 2:], b[:, 2:]), 1))
    assert RouteLayer(1, 0)(a) is a


def test_shortcut_adds_the_common_channels() -> None:
    net = network("[empty]\n", "[route]\nlayers=0\ngroups=2\ngroup_id=1\n", "[shortcut]\nfrom=0\n")
    x = image()
    assert torch.equal(net(x), x[:, 2:] + x[:, :2])


def test_weighted_shortcut() -> None:
    text = "[shortcut]\nfrom=0\nweights_type=per_feature\nweights_normalization=softmax\n"
    net = network("[empty]\n[activation]\nactivation=relu\n", text)
    layer = net.layers[2]
    assert isinstance(layer, ShortcutLayer) and layer.weight is not None and layer.weight.shape == (2, 1)
    assert torch.allclose(net(image()), image(), atol=1e-4)  # equal weights of 0.5


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("[route]\n", "expected layers= with the layers to read, got none"),
        ("[empty]\n[route]\nlayers=-1,7\n", "layers: expected layers 0…0"),
        ("[empty]\n[route]\nlayers=0\ngroups=3\n", "groups: expected a divisor of 4 channels of layer 0, got 3"),
        ("[empty]\n[route]\nlayers=0\ngroups=2\ngroup_id=2\n", "group_id: expected 0…1, got 2"),
        ("[empty]\n[maxpool]\nsize=2\nstride=2\n[route]\nlayers=0,1\n", "expected inputs of one width and height"),
        ("[empty]\n[maxpool]\nsize=2\nstride=2\n[sam]\nfrom=0\n", "expected a previous layer of 8 x 6 x 4"),
        ("[empty]\n[empty]\n[scale_channels]\nfrom=0\n", "expected a previous layer of 1 x 1 x 4, got 8 x 6 x 4"),
    ],
)
def test_wrong_options_are_rejected(section: str, message: str) -> None:
    with pytest.raises(CfgError, match=message):
        network(section)
