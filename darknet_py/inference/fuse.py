"""Inference rewrites: batch norm folded into the convolution before it, weights packed for the machine."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from math import prod
from typing import Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darknet_py.graph.graph import Graph
from darknet_py.inference.steps import Step, inference_steps
from darknet_py.layers.base import HeadLayer, Node
from darknet_py.layers.convolutional import ConvolutionalLayer
from darknet_py.layers.normalize import EPS
from darknet_py.layers.weight_transforms import binarize

_MISH_CHUNK = 1 << 15  # values per thread, so that all passes of `mish_in_place` but the first find them in the cache

# Up to which size a convolution is computed as a product of matrices, by trials with one and two threads on a Xeon.
_PRODUCT_PIXELS = 2048  # of all images
_PRODUCT_FLOPS = 16_000_000

AMP = {"bf16": torch.bfloat16, "fp16": torch.float16}

# Their backward passes would need the input, so that training cannot use them.
_IN_PLACE: dict[str, Callable[[Tensor], Tensor]] = {
    "mish": partial(F.mish, inplace=True),
    "swish": partial(F.silu, inplace=True),
    "silu": partial(F.silu, inplace=True),
    "logistic": torch.sigmoid_,
}

# Of oneDNN's convolution, by Darknet's names: (name, arguments). They save a pass over the output.
_POINTWISE: dict[str, tuple[str, list[float]]] = {
    "linear": ("none", []),
    "leaky": ("leaky_relu", [0.1]),
    "revleaky": ("leaky_relu", [0.1]),
    "relie": ("leaky_relu", [0.01]),
    "relu": ("relu", []),
    "logistic": ("sigmoid", []),
    "tanh": ("tanh", []),
    "swish": ("swish", []),
    "silu": ("swish", []),
}
_MISH_LINEAR = 20.0  # from here on mish(x) is x in float32, and exp(x)² is still finite


class GraphModule(Protocol):
    """What `fuse` needs of a network; `Network` has it."""

    dtype: torch.dtype | None
    is_fused: bool
    steps: list[Step] | None
    names: list[str]
    layers: nn.ModuleList
    training: bool

    @property
    def graph(self) -> Graph: ...

    def modules(self) -> Iterator[nn.Module]: ...

    def eval(self) -> nn.Module: ...

    def requires_grad_(self, requires_grad: bool = True) -> nn.Module: ...


Fused = TypeVar("Fused", bound=GraphModule)


def fuse(net: Fused, dtype: torch.dtype | None = None, pack: bool = True) -> Fused:
    """Makes a faster copy for inference, with the same results. It cannot be trained or saved as `.weights`.

    Args:
        net: A network; it stays as it is.
        dtype: float16 or bfloat16 runs all layers but the heads in it, which is less exact.
        pack: Whether convolution weights are packed for oneDNN once instead of at every call, on a CPU that has it.
            Such a network stays on this machine and cannot be copied, compiled or exported.

    Returns:
        The copy, in evaluation mode.
    """
    # Weights that folding replaces need no copy first; they are most of the network.
    replaced = [module.weight for module in net.modules() if isinstance(module, ConvolutionalLayer) and _folds(module)]
    fused = copy.deepcopy(net, {id(weight): weight for weight in replaced})
    for module in fused.modules():
        if isinstance(module, ConvolutionalLayer):
            if _folds(module):
                _fold(module)
            module.activate = _IN_PLACE.get(module.spec.activation, module.activate)
    fused.is_fused = True
    fused.eval()
    fused.requires_grad_(False)
    fused.layers.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if dtype is not None:
        fused.dtype = dtype
        for layer in fused.layers:
            if not isinstance(layer, HeadLayer):
                layer.to(dtype)
    if pack and _can_pack(dtype):
        for node, layer in zip(fused.graph.layers, fused.layers, strict=True):
            if isinstance(layer, ConvolutionalLayer) and _is_plain(layer) and layer.weight.device.type == "cpu":
                fused.layers[node.index] = PackedConvolution(node, layer)
        fused.steps = inference_steps(fused.graph.layers, list(fused.layers))
    return fused


class PackedConvolution(nn.Module):
    """A folded convolution whose weights have oneDNN's own memory layout.

    `F.conv2d` converts them to that layout at every call, which takes a fifth of yolov4-tiny's time at batch 1.
    torch's own compiler calls the same two operators, with the activation as an attribute of the first. The best layout
    depends on the input's height and width (the wrong one can be three times slower), so the weights are packed again
    when these change.

    The first operator needs 20 to 50 µs besides its work, so that a small convolution of single pixels is computed as a
    product of matrices instead.
    """

    def __init__(self, node: Node, plain: ConvolutionalLayer):
        super().__init__()
        spec, pad = plain.spec, plain.spec.padding * plain.spec.dilation
        self.arguments = ((pad, pad), spec.strides, (spec.dilation, spec.dilation), spec.groups)
        self.channels = node.inputs[0].c
        self.size = (node.inputs[0].h, node.inputs[0].w)
        self.weight = self._pack(plain.weight.detach())
        self.bias = plain.bias.detach()
        self.activation, self.activation_arguments = _POINTWISE.get(spec.activation, ("none", []))
        self.activate = None if spec.activation in _POINTWISE else plain.activate
        if spec.activation == "mish":
            self.activate = mish_in_place
        self.matrix: Tensor | None = None
        is_product = (spec.size, pad, spec.groups, spec.strides) == (1, 0, 1, (1, 1))
        self.product_pixels = min(_PRODUCT_PIXELS, _PRODUCT_FLOPS // (2 * plain.weight.numel()))
        if is_product and plain.weight.dtype is torch.float32 and prod(self.size) <= self.product_pixels:
            self.matrix = plain.weight.detach().flatten(1).t().contiguous()
            self.activate_product = plain.activate

    def forward(self, x: Tensor) -> Tensor:
        if self.matrix is not None and len(x) * x.shape[2] * x.shape[3] <= self.product_pixels:
            return self._multiply(x, self.matrix)
        if x.shape[2:] != self.size:
            self.size = (x.shape[2], x.shape[3])
            self.weight = self._pack(self.weight.to_dense())
        y: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, self.weight, self.bias, *self.arguments, self.activation, self.activation_arguments, ""
        )
        return y if self.activate is None else self.activate(y)

    def _multiply(self, x: Tensor, matrix: Tensor) -> Tensor:
        b, c, h, w = x.shape
        y = torch.addmm(self.bias, x.permute(0, 2, 3, 1).reshape(-1, c), matrix)
        return self.activate_product(y).view(b, h, w, -1).permute(0, 3, 1, 2)

    def _pack(self, weight: Tensor) -> Tensor:
        shape = (1, self.channels, *self.size)
        packed: Tensor = torch.ops.mkldnn._reorder_convolution_weight(weight, *self.arguments, shape)
        return packed


def mish_in_place(x: Tensor) -> Tensor:
    """x · tanh(softplus(x)) with one exponential: e = exp(x), n = e (e + 2), x · n / (n + 2).

    2.5 times as fast as `F.mish` on a CPU, with a relative error of 2.6e-7 (`F.mish`: 2.2e-7). Values are computed in
    float32 and in pieces that stay in the cache.

    Args:
        x: A tensor of any shape, contiguous or channels-last; it is overwritten.

    Returns:
        x.
    """
    values = x.permute(0, 2, 3, 1) if x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last) else x
    if not values.is_contiguous() or not values.numel():
        return F.mish(x, inplace=True)
    size = min(_MISH_CHUNK * torch.get_num_threads(), values.numel())
    halves, sums = x.new_empty(2, size, dtype=torch.float32)
    for piece in values.view(-1).split(size):
        half, above = halves[: len(piece)], sums[: len(piece)]
        half.copy_(piece).clamp_(max=_MISH_LINEAR).exp_()
        half.addcmul_(half, half, value=0.5)  # n / 2
        torch.add(half, 1, out=above)
        piece.mul_(half.div_(above))
    return x


def _can_pack(dtype: torch.dtype | None) -> bool:
    """Whether oneDNN packs weights of this type here: bfloat16 needs AVX-512 or AVX_NE_CONVERT."""
    if dtype is torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype is None and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]


def _folds(module: ConvolutionalLayer) -> bool:
    """Whether it has arrays of its own with batch norm."""
    return module.owner is module and module.spec.batch_normalize


@torch.no_grad()
def _fold(module: ConvolutionalLayer) -> None:
    """y = scale·(w∗x − mean)/sqrt(variance + eps) + bias becomes one convolution (`fuse_conv_batchnorm`)."""
    kernel = binarize(module.weight) if module.binary else module.weight
    # In float64, so that folding adds no rounding of its own.
    factor = module.scale.double() / torch.sqrt(module.variance.double() + EPS)
    weight = torch.mul(kernel, factor[:, None, None, None], out=torch.empty_like(kernel))
    bias = module.bias.double() - module.mean.double() * factor
    module.weight = nn.Parameter(weight, requires_grad=False)
    module.bias = nn.Parameter(bias.to(module.bias.dtype), requires_grad=False)
    module.spec = replace(module.spec, batch_normalize=False)
    module.binary = False


def _is_plain(module: ConvolutionalLayer) -> bool:
    """Whether it is a convolution, bias and activation only, on inputs of any size."""
    spec = module.spec
    reach = spec.dilation * (spec.size - 1) + 1 - 2 * spec.padding * spec.dilation
    simple = not spec.xnor and not module.binary and module.blur is None and module.owner is module
    return simple and reach <= 1
