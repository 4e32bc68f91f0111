from __future__ import annotations

import pytest
import torch

from darknet_py.errors import CfgError
from darknet_py.graph.graph import parse_text
from darknet_py.model.network import Network


def test_conv_lstm_passes_its_gradient_through_the_cell() -> None:
    net = Network(
        parse_text("[net]\nwidth=6\nheight=4\nchannels=3\ntime_steps=3\n[conv_lstm]\npad=1\noutput=5\npeephole=1\n")
    ).train()
    x = torch.rand(3, 3, 4, 6, generator=torch.Generator().manual_seed(1)).requires_grad_()
    net(x)[2].sum().backward()
    assert x.grad is not None and x.grad[0].abs().sum() > 0


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (
            "[crnn]\noutput=5\n",
            "expected size, stride and padding that keep 6 x 4 pixels, .* got 4 x 2",
        ),
        ("[conv_lstm]\npad=1\nstride=2\noutput=5\n", "that keep 6 x 4 pixels, as the state does, got 3 x 2"),
        (
            "[conv_lstm]\npad=1\nbottleneck=1\noutput=5\n",
            "expected an output for each of 3 channels, got 5",
        ),
        ("[conv_lstm]\npad=1\nlstm_activation=tan\noutput=5\n", "did you mean 'tanh'"),
    ],
)
def test_wrong_options_are_rejected(section: str, message: str) -> None:
    with pytest.raises(CfgError, match=message):
        parse_text(f"[net]\nwidth=6\nheight=4\nchannels=3\n{section}")
