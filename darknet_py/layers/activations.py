"""Activation functions by Darknet's names (`activations.h`), and their table.

Each function maps a tensor of any shape (the normalizing ones: channels in dimension 1) to one of the same shape.
Gradients are the true ones, also where Darknet's derivative is not.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from darknet_py.cfg.options import Options, did_you_mean

Activation = Callable[[Tensor], Tensor]


def linear(x: Tensor) -> Tensor:
    return x


def leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.1)


def relie(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.01)


def leaky_in_place(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.1, inplace=True)


def relie_in_place(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.01, inplace=True)


def ramp(x: Tensor) -> Tensor:
    return F.relu(x) + 0.1 * x


def loggy(x: Tensor) -> Tensor:
    return 2 * torch.sigmoid(x) - 1


def selu(x: Tensor) -> Tensor:
    # Darknet rounds the constants to four digits.
    return 1.0507 * torch.where(x >= 0, x, 1.6732 * torch.expm1(x.clamp(max=0)))


def gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.tanh(0.797885 * x + 0.035677 * x**3))


def hard_mish(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, torch.where(x > -2, x * x / 2 + x, torch.zeros_like(x)))


def plse(x: Tensor) -> Tensor:
    low, high = 0.01 * (x + 4), 0.01 * (x - 4) + 1
    return torch.where(x < -4, low, torch.where(x > 4, high, 0.125 * x + 0.5))


def stair(x: Tensor) -> Tensor:
    n = torch.floor(x)
    half = torch.floor(x / 2)
    return torch.where(torch.remainder(n, 2) == 0, half, (x - n) + half)


def lhtan(x: Tensor) -> Tensor:
    return torch.where(x < 0, 0.001 * x, torch.where(x > 1, 0.001 * (x - 1) + 1, x))


def normalize_channels(x: Tensor) -> Tensor:
    positive = F.relu(x)
    return positive / (positive.sum(1, keepdim=True) + 1e-4)


def normalize_channels_softmax(x: Tensor) -> Tensor:
    e = torch.exp(x)
    return e / (e.sum(1, keepdim=True) + 1e-4)


def normalize_channels_softmax_maxval(x: Tensor) -> Tensor:
    e = torch.exp(x - x.amax(1, keepdim=True))
    return e / (e.sum(1, keepdim=True) + 1e-4)


# Of forks; C Darknet takes relu for them.
FORK_ACTIVATIONS: dict[str, Activation] = {
    "h_swish": F.hardswish,  # SpursLipu's MobileNetV3
    "none": linear,  # SpursLipu's GhostNet
    "silu": F.silu,  # WongKinYiu's cfgs
}

ACTIVATIONS: dict[str, Activation] = {
    **FORK_ACTIVATIONS,
    "linear": linear,
    "leaky": leaky,
    "revleaky": leaky,
    "relu": F.relu,
    "relu6": F.relu6,
    "logistic": torch.sigmoid,
    "loggy": loggy,
    "tanh": torch.tanh,
    "elu": F.elu,
    "selu": selu,
    "gelu": gelu,
    "relie": relie,
    "ramp": ramp,
    "plse": plse,
    "stair": stair,
    "hardtan": F.hardtanh,
    "lhtan": lhtan,
    "swish": F.silu,
    "mish": F.mish,
    "hard_mish": hard_mish,
    "normalize_channels": normalize_channels,
    "normalize_channels_softmax": normalize_channels_softmax,
    "normalize_channels_softmax_maxval": normalize_channels_softmax_maxval,
}


def activation_source(name: str) -> tuple[str, tuple[Activation, ...]]:
    """(expression, what it uses) of an activation in plain torch: torch's own function, or one of ours to copy."""
    function = ACTIVATIONS[name]
    if function.__module__ == __name__:
        return function.__name__, (function,)
    return ("F." if function.__module__ == F.__name__ else "torch.") + function.__name__, ()


# In-place variants. They are safe where nothing else reads the argument: in inference, and in training after a layer
# whose backward pass does not read its own output.
IN_PLACE: dict[str, Activation] = {
    "leaky": leaky_in_place,
    "revleaky": leaky_in_place,
    "relu": F.relu_,
    "relie": relie_in_place,
}


def parse_activation(options: Options, default: str) -> str:
    """Reads `activation=`. An unknown name is an error (C Darknet silently uses relu)."""
    name = options.text("activation", default)
    if name in ACTIVATIONS:
        return name
    hint = did_you_mean(name, sorted(ACTIVATIONS)) or f"; known: {', '.join(sorted(ACTIVATIONS))}"
    options.error(f"activation: expected a known activation, got {name!r}{hint}", "activation")
    return default
