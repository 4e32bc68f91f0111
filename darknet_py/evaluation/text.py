"""Evaluates a recurrent network on a text: bits per byte (Darknet's `valid_char_rnn`)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from darknet_py.layers.recurrent import reset_state
from darknet_py.model.network import Network

_STREAMS = 16
_MIN_PROBABILITY = 1e-30  # zero would need infinitely many bits


@dataclass(frozen=True)
class TextResult:
    """The result of evaluating a text model.

    Attributes:
        bytes: Number of bytes that were predicted.
        bits: Bits per byte, on average; 2^bits is the perplexity.
        found: Share of the bytes that were the most likely ones.
    """

    bytes: int
    bits: float
    found: float

    @property
    def loss(self) -> float:
        """Darknet's cost of a byte, by the natural logarithm."""
        return self.bits * math.log(2)

    @property
    def likelihood(self) -> float:
        """Probability of the right byte, geometric average: 0 … 1, more is better."""
        return math.pow(2, -self.bits)

    def to_json(self) -> dict[str, int | float]:
        """The values by name."""
        return {
            "bytes": self.bytes,
            "bits_per_byte": self.bits,
            "perplexity": 2**self.bits,
            "found": self.found,
            "loss": self.loss,
        }


def evaluate_text(network: Network, text: NDArray[np.uint8]) -> TextResult:
    """Predicts each byte of a text but the first from those before it. The network is left in evaluation mode.

    Args:
        network: A network that reads text.
        text: (N,) bytes, N ≥ 2. It is read as up to 16 parallel streams, each starting with an empty state.

    Returns:
        Bits per byte and the share of right bytes.
    """
    network.eval()
    reset_state(network)
    inputs = network.graph.input.size
    device = network.device
    streams = min(_STREAMS, len(text) - 1)
    steps = -(-(len(text) - 1) // streams)
    positions = np.arange(streams)[:, None] * steps + np.arange(steps + 1)  # (streams, steps + 1); the last may overrun
    symbols = torch.from_numpy(text[np.minimum(positions, len(text) - 1)].astype(np.int64)).to(device)
    counted = torch.from_numpy(positions[:, 1:] < len(text)).to(device)
    bits = torch.zeros((), dtype=torch.float64, device=device)
    correct = torch.zeros((), dtype=torch.long, device=device)
    with torch.inference_mode():
        for step in range(steps):
            symbol, target, counts = symbols[:, step], symbols[:, step + 1], counted[:, step]
            probabilities = network.predict_vector(torch.nn.functional.one_hot(symbol, inputs).float())
            likelihood = probabilities.gather(1, target[:, None])[:, 0].double().clamp(min=_MIN_PROBABILITY)
            bits -= torch.where(counts, likelihood.log2(), 0.0).sum()
            correct += ((probabilities.argmax(1) == target) & counts).sum()
    reset_state(network)
    total = len(text) - 1
    return TextResult(total, float(bits) / total, int(correct) / total)
