"""The gradient of the filters as products of matrices, against torch's own backward pass."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from darknet_py.layers import conv_gradient
from darknet_py.layers.conv_gradient import Window, conv2d

# (batch, channels, height, width), filters, size, stride, padding
CASES = [
    ((3, 5, 9, 7), 4, 1, 1, 0),
    ((2, 64, 13, 11), 7, 3, 1, 1),
    ((2, 64, 13, 11), 7, 3, 2, 1),
    ((1, 64, 12, 12), 5, 3, 2, 1),
    ((2, 64, 9, 10), 5, 5, 2, 2),
    ((2, 64, 9, 10), 5, 5, 3, 0),
    ((2, 64, 9, 10), 5, 4, 1, 1),
    ((2, 64, 16, 16), 6, 7, 2, 3),
    ((2, 70, 12, 17), 6, 2, 3, 0),  # a stride larger than the window
    ((2, 64, 3, 3), 4, 3, 1, 1),
    ((2, 64, 1, 1), 4, 3, 1, 1),  # both memory formats at once
    ((2, 64, 1, 5), 4, 3, 2, 1),
    ((2, 64, 2, 2), 4, 3, 2, 1),
    ((2, 64, 1, 1), 4, 1, 1, 0),
    ((1, 64, 4, 4), 1, 4, 1, 0),
]
# Both sum the same products of float32 in another order.
TOLERANCE = 2e-6


@pytest.fixture(params=[1, 10_000], ids=["image by image", "all together"])
def rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a processor without AVX-512, where windows of all sizes take this path."""
    monkeypatch.setattr(conv_gradient, "_has_avx512", lambda: False)
    monkeypatch.setattr(conv_gradient, "_ROWS", request.param)


def gradients(function: Callable[..., Tensor], *inputs: Tensor, seed: int = 1) -> list[Tensor]:
    """Output and gradients with respect to all inputs."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in inputs]
    output = function(*leaves)
    output.backward(torch.randn(output.shape, generator=torch.Generator().manual_seed(seed)))  # type: ignore[no-untyped-call]
    return [output.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


def channels_last(*shape: int) -> Tensor:
    return torch.randn(shape).contiguous(memory_format=torch.channels_last)


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize(("shape", "filters", "size", "stride", "padding"), CASES)
def test_gradient_is_torchs(
    shape: tuple[int, ...], filters: int, size: int, stride: int, padding: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    x, weight, bias = channels_last(*shape), channels_last(filters, shape[1], size, size), torch.randn(filters)
    window = Window((stride, stride), (padding, padding), (1, 1), 1)
    expected = gradients(lambda *inputs: F.conv2d(*inputs, *window), x, weight, bias)
    calls: list[Tensor] = []
    ours = conv_gradient.weight_gradient

    def counted(*arguments: object) -> Tensor:
        calls.append(ours(*arguments))  # type: ignore[arg-type]
        return calls[-1]

    monkeypatch.setattr(conv_gradient, "weight_gradient", counted)
    got = gradients(lambda *inputs: conv2d(*inputs, window), x, weight, bias)
    assert len(calls) == 1
    torch.testing.assert_close(got[0], expected[0], rtol=0, atol=0)
    torch.testing.assert_close(got[1], expected[1], rtol=0, atol=0)
    for mine, theirs in zip(got[2:], expected[2:], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=TOLERANCE * float(theirs.abs().max()))
    assert calls[0].is_contiguous(memory_format=torch.channels_last), "autograd would copy it"


@pytest.mark.usefixtures("rows")
def test_windows_of_two_steps() -> None:
    """Stride and padding may differ by axis."""
    torch.manual_seed(0)
    x, weight = channels_last(2, 64, 9, 14), channels_last(3, 64, 3, 3)
    window = Window((1, 2), (0, 2), (1, 1), 1)
    expected = gradients(lambda *inputs: F.conv2d(*inputs, None, *window), x, weight)
    got = gradients(lambda x, weight: conv2d(x, weight, None, window), x, weight)
    torch.testing.assert_close(got[2], expected[2], rtol=0, atol=TOLERANCE * float(expected[2].abs().max()))


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize(
    "case", ["few channels", "groups", "dilation", "not channels-last", "float64", "frozen", "no gradient", "autocast"]
)
def test_all_others_are_torchs(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> Tensor:
        raise AssertionError("expected torch's own convolution")

    monkeypatch.setattr(conv_gradient._Convolution, "apply", fail)
    channels = 8 if case == "few channels" else 64
    groups = 2 if case == "groups" else 1
    x, weight = channels_last(2, channels, 8, 8), channels_last(4, channels // groups, 3, 3)
    if case == "not channels-last":
        x = x.contiguous()
    if case == "float64":
        x, weight = x.double(), weight.double()
    weight.requires_grad_(case != "frozen")
    spacing = 2 if case == "dilation" else 1
    window = Window((1, 1), (1, 1), (spacing, spacing), groups)
    with torch.set_grad_enabled(case != "no gradient"), torch.autocast("cpu", enabled=case == "autocast"):
        output = conv2d(x, weight, None, window)
        torch.testing.assert_close(output, F.conv2d(x, weight, None, *window), rtol=0, atol=0)
