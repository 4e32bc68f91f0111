"""Recurrent networks continue a text, byte by byte (Darknet's `test_char_rnn`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor, nn

from darknet_py.errors import DataError
from darknet_py.graph.graph import Graph
from darknet_py.layers.recurrent import reset_state

_MIN_PROBABILITY = 0.0001  # less likely bytes are never written


class TextNetwork(Protocol):
    """What `generate` needs of a network; `Network` has it."""

    @property
    def graph(self) -> Graph: ...

    @property
    def device(self) -> torch.device: ...

    def eval(self) -> nn.Module: ...

    def modules(self) -> Iterator[nn.Module]: ...

    def predict_vector(self, x: Tensor) -> Tensor: ...


def check_text_network(network: TextNetwork) -> None:
    """Raises DataError where the network does not predict the next symbol of a text."""
    graph = network.graph
    if not graph.reads_text or graph.layers[-1].output.size != graph.input.size:
        raise DataError(f"{graph.path}: expected a network for text, got one with an input of {graph.input}")


def generate(network: TextNetwork, start: bytes, length: int, temperature: float = 0.7, seed: int = 0) -> Iterator[int]:
    """Continues a text.

    Args:
        network: A recurrent network of bytes.
        start: The text to continue, at least one byte.
        length: Number of bytes to write.
        temperature: Below 1 likely bytes become likelier. It replaces the cfg's, which is taken to be 1.
        seed: Of the random choices.

    Yields:
        One byte at a time.

    Raises:
        DataError: The network is of another kind, or an argument is out of range.
    """
    check_text_network(network)
    inputs = network.graph.input.size
    if temperature <= 0:
        raise DataError(f"temperature: expected a number above 0, got {temperature}")
    if not start or max(start) >= inputs:
        raise DataError(f"seed text: expected at least one byte, all below {inputs}, got {start!r}")
    network.eval()
    reset_state(network)
    device = network.device
    generator = torch.Generator().manual_seed(seed)

    def read(symbol: int) -> Tensor:
        x = torch.zeros(1, inputs, device=device)
        x[0, symbol] = 1
        with torch.inference_mode():
            return network.predict_vector(x).flatten().double().cpu()

    for symbol in start[:-1]:
        read(symbol)
    symbol = start[-1]
    for _ in range(length):
        probabilities = (read(symbol).clamp(min=1e-30).log() / temperature).softmax(0)
        probabilities[probabilities < _MIN_PROBABILITY] = 0
        symbol = int(torch.multinomial(probabilities, 1, generator=generator))
        yield symbol
