"""Continuing a text byte by byte."""

from __future__ import annotations

import pytest
import torch

from darknet_py.errors import DarknetError, DataError
from darknet_py.graph.graph import parse_text
from darknet_py.inference.generate import check_text_network, generate
from darknet_py.model.network import Network
from tests.training.conftest import CFG as DETECTOR
from tests.training.tasks.test_text_task import CFG, LAYERS


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    return Network(parse_text(CFG.format(layer=LAYERS["gru"])))


def test_seed_and_temperature_decide(network: Network) -> None:
    first = list(generate(network, b"ab", 12, 1.0, seed=1))
    assert first == list(generate(network, b"ab", 12, 1.0, seed=1))
    assert first != list(generate(network, b"ab", 12, 1.0, seed=2))
    # Nearly 0: always the likeliest byte, whatever the seed.
    assert list(generate(network, b"a", 5, 1e-4, seed=1)) == list(generate(network, b"a", 5, 1e-4, seed=2))


@pytest.mark.parametrize(("start", "temperature"), [(b"", 1.0), (b"\xff", 1.0), (b"a", 0.0)])
def test_arguments_that_cannot_be_used(start: bytes, temperature: float, network: Network) -> None:
    with pytest.raises(DarknetError, match="expected"):
        next(generate(network, start, 1, temperature))


def test_other_networks_are_refused() -> None:
    with pytest.raises(DataError, match="expected a network for text"):
        check_text_network(Network(parse_text(DETECTOR)))
