"""[convolutional]: grouped, dilated, strided convolution with batch norm and activation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from darknet_py.cfg.net import NetSpec
from darknet_py.cfg.options import Options
from darknet_py.counted import counted
from darknet_py.layers import plain
from darknet_py.layers.activations import ACTIVATIONS, IN_PLACE, activation_source, parse_activation
from darknet_py.layers.assisted_excitation import AssistedExcitation
from darknet_py.layers.base import (
    Cost,
    LayerArray,
    LayerSource,
    Node,
    Shape,
    ShapeError,
    SourceError,
    Spec,
    conv_output_size,
    is_tracing,
    pad_to_window,
    scaled_uniform,
)
from darknet_py.layers.conv_gradient import Window, conv2d
from darknet_py.layers.normalize import CrossBatchNorm, NormalizedLayer, batch_norm_arrays, norm_names
from darknet_py.layers.resample import Blur
from darknet_py.layers.weight_transforms import DeformedKernels, binarize, centralize, signs, transform_gradient

_NOT_SHARED = -1_000_000_000  # Darknet's value for a missing share_index
# The backward pass of oneDNN 3.12 (torch 2.13) writes outside its memory for a 1x1 convolution of channels-last input
# with a stride and fewer input channels than a vector has; with the input taken at the stride it does not.
_FEW_CHANNELS = 16
_DEFORMED_LIMIT = 32  # a deformation is a matrix over size² · size² pixels
_DEFORMATIONS = ("sway", "rotate", "stretch", "stretch_sway")


@dataclass(frozen=True, kw_only=True)
class ConvolutionalSpec(Spec):
    """Darknet's `parse_convolutional`. `pad=1` means padding size/2; `padding=` sets it outright.

    antialiasing: the strides belong to a blur after a layer of stride 1 (1: 3×3, 2: 2×2). share_index: absolute index
    of the layer whose arrays it uses. xnor: signs of filters and inputs, 0 outside the image as in training (C's
    bit-packed inference reads −1 there). assisted_excitation, cbn, grad_centr and deformation only act in training.

    Read but without effect, as in C's CPU build: binary (its GPU build binarizes the filters; set the module's `binary`
    to do so), coordconv (its GPU kernel writes to wrong positions), dot, bin_output (it only packs bits) and reverse.
    """

    channels_key: ClassVar[str] = "filters"
    norm_keys: ClassVar[tuple[str, ...]] = ("batch_normalize", "cbn")

    filters: int
    size: int
    stride_x: int
    stride_y: int
    dilation: int
    padding: int
    batch_normalize: bool
    flipped: bool
    antialiasing: int = 0
    share_index: int | None = None
    xnor: bool = False
    assisted_excitation: int = 0
    cbn: bool = False
    grad_centr: bool = False
    deformation: str = ""
    angle: float = 15.0

    @classmethod
    def parse(cls, options: Options, net: NetSpec, index: int) -> ConvolutionalSpec:
        size = options.int("size", 1, 1, 1 << 12)
        stride = options.int("stride", 1, 1)
        stride_x, stride_y = options.int("stride_x", -1), options.int("stride_y", -1)
        padding = options.int("padding", 0, 0)
        dilation = options.int("dilation", 1, 1)
        groups = options.int("groups", 1, 1)
        xnor = options.flag("xnor")
        norm, cbn = options.int("batch_normalize"), options.flag("cbn")
        for key in ("stream", "wait_stream", "bin_output"):  # how C Darknet runs it on a GPU
            options.int(key)
        for key in ("binary", "coordconv", "dot", "reverse"):
            if options.float(key):
                options.warn(f"{key} has no effect, as in C Darknet's CPU build", key)
        return cls(
            filters=options.int("filters", 1, 1),
            size=size,
            stride_x=stride_x if stride_x > 0 else stride,
            stride_y=stride_y if stride_y > 0 else stride,
            dilation=1 if size == 1 else dilation,
            padding=size // 2 if options.flag("pad") else padding,
            groups=1 if xnor else groups,
            batch_normalize=bool(norm) or cbn,
            activation=parse_activation(options, "logistic"),
            flipped=options.flag("flipped"),
            antialiasing=options.int("antialiasing", 0, 0),
            share_index=_parse_share_index(options, index),
            xnor=xnor,
            assisted_excitation=int(options.float("assisted_excitation", 0.0, 0.0)),
            cbn=cbn or norm == 2,
            grad_centr=options.flag("grad_centr"),
            deformation=_parse_deformation(options, size),
            angle=options.float("angle", 15.0),
        )

    def infer(self, inputs: Sequence[Shape]) -> Shape:
        (x,) = inputs
        if x.c % self.groups or self.filters % self.groups:
            raise ShapeError(
                f"groups: expected a divisor of {counted(x.c, 'input channel')} and {self.filters} filters, "
                f"got {self.groups}"
            )
        if self.deformation and self.filters * (x.c // self.groups) % DeformedKernels.stages(self.deformation):
            raise ShapeError(
                f"{self.deformation}: expected a multiple of {DeformedKernels.stages(self.deformation)} kernels, "
                f"got {self.filters} filters of {counted(x.c // self.groups, 'channel')}"
            )
        sharp = self._sharp_output(x)
        output = Blur.infer(sharp, self.antialiasing, self.stride_x, self.stride_y)
        if min(sharp.h, sharp.w, output.h, output.w) < 1:
            raise ShapeError(f"expected an input of at least {self.size} x {self.size} pixels, got {x.w} x {x.h}")
        return output

    def _sharp_output(self, x: Shape) -> Shape:
        """The shape of the output before the blur."""
        reach = self.dilation * (self.size - 1) + 1
        border = 2 * self.padding * self.dilation
        stride_y, stride_x = self.strides
        return Shape(
            self.filters,
            conv_output_size(x.h + border, reach, stride_y),
            conv_output_size(x.w + border, reach, stride_x),
        )

    def workspace(self, inputs: Sequence[Shape]) -> int:
        """The padded input, or the output before the blur."""
        (x,) = inputs
        border = 2 * self.padding * self.dilation
        reach = self.dilation * (self.size - 1) + 1  # a smaller map is padded to it
        return max(x.c * max(x.h + border, reach) * max(x.w + border, reach), self._sharp_output(x).size)

    @property
    def strides(self) -> tuple[int, int]:
        """(y, x) of the convolution itself."""
        return (1, 1) if self.antialiasing else (self.stride_y, self.stride_x)

    def arrays(self, node: Node) -> tuple[LayerArray, ...]:
        if self.share_index is not None:
            return ()
        return convolution_arrays(self, node.inputs[0].c)

    def cost(self, node: Node) -> Cost:
        weights = self.filters * (node.inputs[0].c // self.groups) * self.size**2
        sharp = self._sharp_output(node.inputs[0])
        flops = 2.0 * weights * sharp.h * sharp.w / (32 if self.xnor else 1)
        return Cost(flops, node.inputs[0].size, node.output.size)

    def build(self, node: Node) -> nn.Module:
        return ConvolutionalLayer(self, node.inputs[0].c, node.net)

    def source(self, node: Node) -> LayerSource:
        (x,), reach = node.inputs, self.dilation * (self.size - 1) + 1 - 2 * self.padding * self.dilation
        if reach > min(x.h, x.w):
            raise SourceError(f"a window larger than the map of {x.w} x {x.h}")
        stride_y, stride_x = self.strides
        activation, used = activation_source(self.activation)
        options = {
            "stride": stride_y if stride_x == stride_y else (stride_y, stride_x),
            "padding": self.padding * self.dilation,
            "dilation": self.dilation,
            "groups": self.groups,
            "norm": self.batch_normalize,
        }
        defaults = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, "norm": True}
        words = [f"{key}={value}" for key, value in options.items() if value != defaults[key]]
        kind = plain.XnorConv if self.xnor else plain.Conv
        arguments = ", ".join([str(x.c), str(self.filters), str(self.size), *words, f"activation={activation}"])
        module, prefix = f"{kind.__name__}({arguments})", ""
        parts: tuple[Callable[..., object], ...] = (*used, plain.Conv, kind)
        if self.antialiasing:
            size = 2 if self.antialiasing == 2 else 3
            module = f"nn.Sequential({module}, BlurPool({self.filters}, {size}, {(self.stride_y, self.stride_x)}))"
            prefix, parts = "0.", (*parts, plain.BlurPool)
        names = norm_names(f"{prefix}norm.") if self.batch_normalize else {"bias": f"{prefix}conv.bias"}
        return LayerSource("{layer}({0})", module, parts, {**names, "weight": f"{prefix}conv.weight"}, self.share_index)

    def link(self, module: nn.Module, modules: Sequence[nn.Module], nodes: Sequence[Node]) -> None:
        if self.share_index is None:
            return
        other = modules[self.share_index]
        assert isinstance(module, ConvolutionalLayer)
        if not isinstance(other, ConvolutionalLayer) or other.layout != module.layout:
            raise ShapeError(
                f"share_index: expected a [convolutional] layer of the same shape, got layer {self.share_index}"
            )
        module.owners = (other.owner,)

    def kernel(self) -> tuple[int, int, int]:
        return (self.size, self.stride_x, self.dilation)


@dataclass(frozen=True, kw_only=True)
class DepthwiseSpec(ConvolutionalSpec):
    """[depthwise] of SpursLipu/YOLOv3v4-ModelCompression-MultidatasetTraining-Multibackbone: a group per channel."""

    def resolve(self, inputs: Sequence[Shape]) -> DepthwiseSpec:
        return replace(self, groups=max(inputs[0].c, 1))  # 0: the layer before is wrong, and reported


def _parse_share_index(options: Options, index: int) -> int | None:
    share = options.int("share_index", _NOT_SHARED)
    if share == _NOT_SHARED:
        return None
    share = share if share >= 0 else index + share
    if not 0 <= share < index:
        options.error(
            f"share_index: expected a layer 0…{index - 1}, got {options.text('share_index')!r}", "share_index"
        )
        return None
    return share


def _parse_deformation(options: Options, size: int) -> str:
    chosen = [name for name in _DEFORMATIONS if options.flag(name)]
    if len(chosen) > 1:
        options.error(f"expected one of {', '.join(_DEFORMATIONS)}, got {' and '.join(chosen)}", chosen[1])
    if chosen and not 2 <= size <= _DEFORMED_LIMIT:
        options.error(f"{chosen[0]}: expected a size from 2 to {_DEFORMED_LIMIT}, got {size}", chosen[0])
    return chosen[0] if chosen else ""


def convolution_arrays(spec: ConvolutionalSpec, channels: int, prefix: str = "") -> tuple[LayerArray, ...]:
    """bias, scale, mean, variance, weight (`load_convolutional_weights`). prefix: path of a sub-module, with dot."""
    per_group = channels // spec.groups
    shape = (spec.filters, per_group, spec.size, spec.size)
    arrays = (
        LayerArray("bias", "bias", (spec.filters,)),
        *(batch_norm_arrays(spec.filters) if spec.batch_normalize else ()),
        LayerArray("weight", "weight", shape, per_group * spec.size**2, flipped=spec.flipped),
    )
    return tuple(array._replace(name=prefix + array.name) for array in arrays)


class ConvolutionalLayer(NormalizedLayer):
    """weight (filters, channels/groups, size, size), bias (filters), and scale, mean, variance with batch norm.

    A layer with share_index has no arrays and uses those of `owner`.
    """

    def __init__(self, spec: ConvolutionalSpec, channels: int, net: NetSpec | None = None):
        super().__init__()
        net = net or NetSpec()
        self.spec = spec
        self.layout = (spec.filters, channels // spec.groups, spec.size, spec.batch_normalize)
        strided = spec.size == 1 and spec.padding == 0 and spec.strides != (1, 1)
        self._reads_few_channels = strided and channels < _FEW_CHANNELS
        self.owners: tuple[ConvolutionalLayer, ...] = ()  # in a tuple, so that its arrays are registered once
        self.binary = spec.xnor
        if spec.share_index is None:
            self._add_arrays(channels)
        self.activation = spec.activation
        # Neither batch norm's nor the convolution's backward pass reads its own output.
        self.activate = IN_PLACE.get(spec.activation, ACTIVATIONS[spec.activation])
        self.cross_norm = CrossBatchNorm(spec.filters, net) if spec.cbn else None
        self.excite = AssistedExcitation(spec.assisted_excitation, net.burn_in) if spec.assisted_excitation else None
        self.deform = DeformedKernels(spec.deformation, spec.size, spec.angle) if spec.deformation else None
        self.blur = Blur(spec.antialiasing, spec.stride_x, spec.stride_y) if spec.antialiasing else None

    def _add_arrays(self, channels: int) -> None:
        *_, weight = convolution_arrays(self.spec, channels)
        self.weight = nn.Parameter(scaled_uniform(weight.shape, weight.fan_in))
        self.bias = nn.Parameter(torch.zeros(self.spec.filters))
        if self.spec.batch_normalize:
            self.add_batch_norm(self.spec.filters)

    @property
    def owner(self) -> ConvolutionalLayer:
        """The layer whose arrays it uses: itself without share_index."""
        return self.owners[0] if self.owners else self

    def forward(self, x: Tensor) -> Tensor:
        x = self.convolve(x)
        return x if self.blur is None else self.blur(x)

    def convolve(self, x: Tensor) -> Tensor:
        """The layer without the blur of antialiasing."""
        spec, owner = self.spec, self.owner
        norm = owner.spec.batch_normalize
        bias = None if norm else owner.bias
        pad = spec.padding * spec.dilation
        reach = spec.dilation * (spec.size - 1) + 1 - 2 * pad
        if spec.xnor:
            x = signs(x)
        strides = spec.strides
        if self._reads_few_channels and torch.is_grad_enabled() and not is_tracing():
            x, strides = x[:, :, :: strides[0], :: strides[1]], (1, 1)
        window = Window(strides, (pad, pad), (spec.dilation, spec.dilation), spec.groups)
        x = conv2d(pad_to_window(x, reach), self._filters(), bias, window)
        if norm:
            x = owner.batch_norm(x) if self.cross_norm is None else self.cross_norm(owner, x)
        x = self.activate(x)
        return x if self.excite is None else self.excite(x)

    def _filters(self) -> Tensor:
        owner = self.owner
        weight: Tensor = owner.weight
        if self.training:
            if self.spec.grad_centr and self.spec.batch_normalize:
                weight = transform_gradient(weight, centralize)
            if self.deform is not None:
                weight = self.deform(weight)
        return binarize(weight) if self.binary else weight
