"""Fused networks give what the plain ones give; networks trace as one graph."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from darknet_py.graph.graph import parse_text
from darknet_py.inference.fuse import PackedConvolution, fuse, mish_in_place
from darknet_py.layers.convolutional import ConvolutionalLayer
from darknet_py.model.network import Network

# One of each kind of convolution: plain, depth-wise, dilated, strided unevenly, without padding, without batch norm.
CONVOLUTIONS = """
[net]
width=37
height=29
channels=3
[convolutional]
batch_normalize=1
filters=8
size=3
pad=1
activation=mish
[convolutional]
batch_normalize=1
filters=8
groups=8
size=3
stride=2
pad=1
activation=swish
[convolutional]
batch_normalize=1
filters=12
size=3
padding=1
dilation=2
activation=leaky
[convolutional]
batch_normalize=1
filters=12
size=3
stride_x=1
stride_y=2
pad=1
activation=logistic
[convolutional]
batch_normalize=1
filters=8
size=5
stride=1
activation=relu
[route]
layers=-1
groups=2
group_id=1
[convolutional]
filters=6
size=1
activation=linear
"""

# Layers that cannot simply be folded or laid out anew: binary, blurred, sharing another layer's arrays.
UNUSUAL = """
[net]
width=32
height=24
channels=3
[convolutional]
batch_normalize=1
filters=8
size=3
pad=1
activation=leaky
[convolutional]
batch_normalize=1
filters=8
size=3
stride=2
antialiasing=1
pad=1
activation=mish
[convolutional]
batch_normalize=1
filters=8
size=3
pad=1
xnor=1
activation=leaky
[convolutional]
batch_normalize=1
filters=8
size=3
pad=1
activation=leaky
[convolutional]
share_index=-1
batch_normalize=1
filters=8
size=3
pad=1
activation=relu
"""

DETECTOR = """
[net]
width=64
height=32
channels=3
[convolutional]
batch_normalize=1
filters=8
size=3
stride=4
pad=1
activation=leaky
[maxpool]
size=2
stride=2
[convolutional]
filters=14
size=1
activation=linear
[yolo]
mask=0,1
anchors=10,14, 23,27, 37,58
classes=2
num=3
[route]
layers=-3
[upsample]
stride=2
[route]
layers=-1,0
[convolutional]
batch_normalize=1
filters=8
size=3
pad=1
activation=mish
[shortcut]
from=0
activation=linear
[convolutional]
filters=7
size=1
activation=linear
[yolo]
mask=2
anchors=10,14, 23,27, 37,58
classes=2
num=3
"""

CLASSIFIER = """
[net]
width=24
height=24
channels=3
[convolutional]
batch_normalize=1
filters=6
size=3
pad=1
activation=swish
[avgpool]
[convolutional]
filters=6
size=1
activation=logistic
[scale_channels]
from=0
activation=linear
[avgpool]
[connected]
output=5
activation=linear
[softmax]
"""


def network(text: str) -> tuple[Network, Tensor]:
    """With statistics, scales and biases away from their initial values, and an input."""
    torch.manual_seed(1)
    net = Network(parse_text(text)).eval()
    for module in net.modules():
        if isinstance(module, ConvolutionalLayer) and hasattr(module, "scale"):
            nn.init.uniform_(module.scale, 0.5, 1.5)
            nn.init.uniform_(module.mean, -0.5, 0.5)
            nn.init.uniform_(module.variance, 0.3, 2)
        if isinstance(module, ConvolutionalLayer) and module.owner is module:
            nn.init.uniform_(module.bias, -1, 1)
    shape = net.graph.input
    return net, torch.rand(2, *shape)


def outputs(net: Network, x: Tensor) -> list[Tensor]:
    with torch.inference_mode():
        found = net(x)
    return [found] if isinstance(found, Tensor) else list(found)


@pytest.mark.parametrize("pack", [True, False])
@pytest.mark.parametrize("text", [CONVOLUTIONS, UNUSUAL, DETECTOR, CLASSIFIER])
def test_same_results(text: str, pack: bool) -> None:
    net, x = network(text)
    before = copy.deepcopy(net.state_dict())
    fused = fuse(net, pack=pack)
    for size in (x, x[:1], x[:, :, :24, :24]):
        for want, got in zip(outputs(net, size), outputs(fused, size), strict=True):
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


@pytest.mark.parametrize("text", [CONVOLUTIONS, UNUSUAL])
def test_same_outputs_of_every_layer(text: str) -> None:
    net, x = network(text)
    with torch.inference_mode():
        for want, got in zip(net.outputs(x), fuse(net).outputs(x), strict=True):
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_no_batch_norm_is_left() -> None:
    fused = fuse(network(CONVOLUTIONS)[0], pack=False)
    assert not any(module.spec.batch_normalize for module in fused.modules() if isinstance(module, ConvolutionalLayer))


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN")
def test_weights_are_laid_out_once() -> None:
    packed = [isinstance(layer, PackedConvolution) for layer in fuse(network(CONVOLUTIONS)[0]).layers]
    assert packed == [True, True, True, True, False, False, True]  # not the one without padding, nor the route


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_reduced_precision(dtype: torch.dtype) -> None:
    net, x = network(DETECTOR)
    for want, got in zip(outputs(net, x), outputs(fuse(net, dtype), x), strict=True):
        assert got.dtype == torch.float32
        torch.testing.assert_close(got, want, rtol=0.05, atol=0.05)


@pytest.mark.gpu
def test_on_a_gpu() -> None:
    net, x = network(DETECTOR)
    want = outputs(net, x)
    fused = fuse(net.cuda())
    for a, b in zip(want, outputs(fused, x.cuda()), strict=True):
        torch.testing.assert_close(b.cpu(), a, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("text", [DETECTOR, CLASSIFIER])
def test_compiles_as_one_graph(text: str) -> None:
    net, x = network(text)
    fused = fuse(net, pack=False)
    torch._dynamo.reset()
    compiled = torch.compile(fused, fullgraph=True, backend="eager")
    for want, got in zip(outputs(net, x), outputs(compiled, x), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("text", [DETECTOR, CLASSIFIER])
def test_exports_as_one_graph_for_any_batch(text: str) -> None:
    net, x = network(text)
    batch = {0: torch.export.Dim("batch", max=64)}
    program = torch.export.export(fuse(net, pack=False), (x,), dynamic_shapes=(batch,))
    for size in (x, torch.cat((x, x, x))):
        found = program.module()(size)
        for want, got in zip(outputs(net, size), [found] if isinstance(found, Tensor) else found, strict=True):
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(70001,), (2, 3, 151, 163), (0,), (1,)])
def test_mish_by_one_exponential(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Against its definition in float64. Relative error: a few roundings of float32, one of bfloat16."""
    x = (torch.randn(shape) * 10).clamp(-80, 80).to(dtype)
    if x.dim() == 4:
        x = x.to(memory_format=torch.channels_last)
    exact = x.double() * torch.tanh(torch.log1p(torch.exp(x.double())))
    found = mish_in_place(x.clone(memory_format=torch.preserve_format))
    torch.testing.assert_close(found.double(), exact, rtol=4e-7 if dtype == torch.float32 else 2**-7, atol=1e-30)


def test_mish_at_the_ends_and_on_parts() -> None:
    x = torch.tensor([[float("nan"), float("inf"), 2.0**100, 88.0, 20.0, 0.0, -1e30]])
    assert mish_in_place(x.clone())[0, 1:].tolist() == [float("inf"), 2.0**100, 88.0, 20.0, 0.0, 0.0]
    assert mish_in_place(x.clone())[0, 0].isnan()
    columns = torch.arange(12.0).reshape(3, 4)[:, ::2]
    exact = torch.nn.functional.mish(columns.double())
    torch.testing.assert_close(mish_in_place(columns).double(), exact, rtol=4e-7, atol=0)
