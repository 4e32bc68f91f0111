from __future__ import annotations

import pytest
import torch

from darknet_py.errors import CfgError
from darknet_py.layers.activations import ACTIVATIONS, IN_PLACE
from tests.layers.small_networks import image, network


def test_every_activation_of_darknet_is_there() -> None:
    assert len(ACTIVATIONS) == 26 and torch.equal(ACTIVATIONS["silu"](image()), ACTIVATIONS["swish"](image()))
    assert ACTIVATIONS["h_swish"](torch.tensor([-4.0, -1.5, 0.0, 1.5, 4.0])).tolist() == [0, -0.375, 0, 1.125, 4]
    with pytest.raises(CfgError, match="activation: expected a known activation, got 'leeky'; did you mean 'leaky'"):
        network("[activation]\nactivation=leeky\n")


@pytest.mark.parametrize("name", sorted(set(ACTIVATIONS) - {"stair", "hardtan", "relu6"}))
def test_derivatives_are_true(name: str) -> None:
    x = (torch.linspace(-5, 5, 24, dtype=torch.float64) + 0.013).view(1, 4, 2, 3).requires_grad_()
    assert torch.autograd.gradcheck(ACTIVATIONS[name], (x,))


def test_in_place_variants_give_the_same() -> None:
    for name, function in IN_PLACE.items():
        x = image() - 0.5
        expected = ACTIVATIONS[name](x.clone())
        assert torch.equal(function(x), expected) and torch.equal(x, expected), name
