"""How well a recurrent network knows what comes next in a text (Darknet's `valid_char_rnn`)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from darknet_py.layers.recurrent import reset_state

if TYPE_CHECKING:
    from darknet_py.model.network import Network

_STREAMS = 16
_LEAST = 1e-30  # a probability of zero would need infinitely many bits


@dataclass(frozen=True)
class TextResult:
    """bits: per byte, on average; 2^bits is the perplexity. found: share of the bytes that were the likeliest."""

    bytes: int
    bits: float
    found: float

    @property
    def loss(self) -> float:
        """Darknet's cost of a byte, by the natural logarithm."""
        return self.bits * math.log(2)

    @property
    def likelihood(self) -> float:
        """What the right byte was given on (geometric) average: 0 … 1, more is better."""
        return math.pow(2, -self.bits)

    def to_json(self) -> dict[str, Any]:
        return {
            "bytes": self.bytes,
            "bits_per_byte": self.bits,
            "perplexity": 2**self.bits,
            "found": self.found,
            "loss": self.loss,
        }


def evaluate_text(network: Network, text: NDArray[np.uint8]) -> TextResult:
    """Each byte of the text after its first, predicted from those before it.

    text: (N,) with N ≥ 2. It is read as up to 16 streams side by side, each from an empty memory on. The network is
    left in evaluation mode.
    """
    network.eval()
    reset_state(network)
    inputs = network.graph.input.size
    device = network.device
    streams = min(_STREAMS, len(text) - 1)
    steps = -(-(len(text) - 1) // streams)
    places = np.arange(streams)[:, None] * steps + np.arange(steps + 1)  # (streams, steps + 1); the last may run over
    symbols = torch.from_numpy(text[np.minimum(places, len(text) - 1)].astype(np.int64)).to(device)
    counted = torch.from_numpy(places[:, 1:] < len(text)).to(device)
    bits = torch.zeros((), dtype=torch.float64, device=device)
    found = torch.zeros((), dtype=torch.long, device=device)
    with torch.inference_mode():
        for step in range(steps):
            here, after, counts = symbols[:, step], symbols[:, step + 1], counted[:, step]
            chances = network(torch.nn.functional.one_hot(here, inputs).float()).flatten(1)
            likely = chances.gather(1, after[:, None])[:, 0].double().clamp(min=_LEAST)
            bits -= torch.where(counts, likely.log2(), 0.0).sum()
            found += ((chances.argmax(1) == after) & counts).sum()
    reset_state(network)
    total = len(text) - 1
    return TextResult(total, float(bits) / total, int(found) / total)
