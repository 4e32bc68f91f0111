"""Layers that combine earlier outputs: [route], [shortcut], [scale_channels], [sam]; and [activation], [empty]."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darknet_py.cfg.net import NetSpec
from darknet_py.cfg.options import Options
from darknet_py.counted import counted
from darknet_py.layers.activations import ACTIVATIONS, activation_source, parse_activation
from darknet_py.layers.base import Cost, LayerArray, LayerSource, Node, Shape, ShapeError, Spec
from darknet_py.layers.plain import WeightedSum


def parse_layers(options: Options, key: str, index: int) -> tuple[int, ...]:
    """Absolute layer indices of an option of layer `index`; negative ones in the cfg count back from it."""
    if not options.text(key):
        options.error(f"expected {key}= with the layers to read, got none", key)
    layers = tuple(index + i if i < 0 else i for i in options.ints(key))
    if any(not 0 <= i < index for i in layers):
        options.error(f"{key}: expected layers 0…{index - 1} (or −{index}…−1), got {options.text(key)!r}", key)
        layers = ()
    return layers or (index - 1,)


def _check_same_size(inputs: Sequence[Shape], sources: Sequence[int]) -> None:
    first = inputs[0]
    for shape, source in zip(inputs, sources, strict=True):
        if shape[1:] != first[1:]:
            raise ShapeError(
                f"expected inputs of one width and height, got {first.w} x {first.h} from layer {sources[0]} "
                f"and {shape.w} x {shape.h} from layer {source}"
            )


def _activated(value: str, activation: str, parts: tuple[Callable[..., object], ...] = ()) -> LayerSource:
    """The source of an expression with an activation after it."""
    if activation == "linear":
        return LayerSource(value, "", parts)
    function, used = activation_source(activation)
    return LayerSource(f"{function}({value})", "", (*parts, *used))


@dataclass(frozen=True, kw_only=True)
class RouteSpec(Spec):
    """[route]: concatenates outputs along the channels; with groups one part of each (`forward_route_layer`)."""

    layers: tuple[int, ...]

    @classmethod
    def parse(cls, options: Options, net: NetSpec, index: int) -> RouteSpec:
        groups = options.int("groups", 1, 1)
        group_id = options.int("group_id", 0)
        if not 0 <= group_id < groups:
            options.error(f"group_id: expected 0…{groups - 1}, got {group_id}", "group_id")
            group_id = 0
        for key in ("stream", "wait_stream"):  # C Darknet's CUDA streams
            options.int(key)
        return cls(layers=parse_layers(options, "layers", index), groups=groups, group_id=group_id)

    @property
    def is_idle(self) -> bool:
        return len(self.layers) == 1 and self.groups == 1

    @property
    def joins_channels(self) -> bool:
        return len(self.layers) > 1 and self.groups == 1

    def inputs(self, index: int) -> tuple[int, ...]:
        return self.layers

    def infer(self, inputs: Sequence[Shape]) -> Shape:
        _check_same_size(inputs, self.layers)
        for shape, source in zip(inputs, self.layers, strict=True):
            if shape.c % self.groups:
                raise ShapeError(
                    f"groups: expected a divisor of {counted(shape.c, 'channel')} of layer {source}, got {self.groups}"
                )
        return Shape(sum(shape.c for shape in inputs) // self.groups, inputs[0].h, inputs[0].w)

    def cost(self, node: Node) -> Cost:
        return Cost(0.0, node.output.size, node.output.size)

    def source(self, node: Node) -> LayerSource:
        part = f".chunk({self.groups}, 1)[{self.group_id}]" if self.groups > 1 else ""
        parts = [f"{{{k}}}{part}" for k in range(len(self.layers))]
        return LayerSource(parts[0] if len(parts) == 1 else f"torch.cat(({', '.join(parts)}), 1)")

    def build(self, node: Node) -> nn.Module:
        return RouteLayer(self.groups, self.group_id)


class RouteLayer(nn.Module):
    def __init__(self, groups: int, group_id: int):
        super().__init__()
        self.groups = groups
        self.group_id = group_id

    def forward(self, *inputs: Tensor) -> Tensor:
        parts = inputs
        if self.groups > 1:
            parts = tuple(x.chunk(self.groups, 1)[self.group_id] for x in inputs)
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


@dataclass(frozen=True, kw_only=True)
class RouteLeftHalfSpec(RouteSpec):
    """[route_lhalf] (PyTorch_YOLOv4): the first half of each output's channels."""

    @classmethod
    def parse(cls, options: Options, net: NetSpec, index: int) -> RouteLeftHalfSpec:
        return cls(layers=parse_layers(options, "layers", index), groups=2)


@dataclass(frozen=True, kw_only=True)
class ShortcutSpec(Spec):
    """[shortcut]: adds outputs to the previous layer's (`shortcut_layer.c`).

    Only the common channels are added where counts differ. Where width and height differ, pjreddie's rule holds
    (`shortcut_cpu`): of a larger map every stride-th pixel is added, a smaller one is added to every stride-th pixel.
    weights_type per_feature (or per_layer) has one weight per input, per_channel one per input and channel.
    """

    layers: tuple[int, ...]
    weights_type: str
    weights_normalization: str

    @classmethod
    def parse(cls, options: Options, net: NetSpec, index: int) -> ShortcutSpec:
        kind = options.choice("weights_type", "none", ("none", "per_feature", "per_layer", "per_channel"))
        normalization = options.choice("weights_normalization", "none", ("none", "relu", "avg_relu", "softmax"))
        return cls(
            layers=parse_layers(options, "from", index),
            activation=parse_activation(options, "linear"),
            weights_type={"per_layer": "per_feature"}.get(kind, kind),
            weights_normalization={"avg_relu": "relu"}.get(normalization, normalization),
        )

    def inputs(self, index: int) -> tuple[int, ...]:
        return (index - 1, *self.layers)

    def infer(self, inputs: Sequence[Shape]) -> Shape:
        x = inputs[0]
        for shape, source in zip(inputs[1:], self.layers, strict=True):
            large_h, small_h = max(shape.h, x.h), min(shape.h, x.h)
            large_w, small_w = max(shape.w, x.w), min(shape.w, x.w)
            if large_h // small_h != large_w // small_w or (shape.h > x.h) != (shape.w > x.w):
                raise ShapeError(f"expected layer {source} at a multiple of {x.w} x {x.h}, got {shape.w} x {shape.h}")
        return x

    def arrays(self, node: Node) -> tuple[LayerArray, ...]:
        per_input = {"none": 0, "per_feature": 1, "per_channel": node.output.c}[self.weights_type]
        return (LayerArray("weight", "shortcut", (len(self.layers) + 1, per_input)),) if per_input else ()

    def cost(self, node: Node) -> Cost:
        flops = node.output.size * len(self.layers) * (1 if self.weights_type == "none" else 2)
        return Cost(float(flops), sum(shape.size for shape in node.inputs), node.output.size)

    def source(self, node: Node) -> LayerSource:
        terms = [
            f"{{{k}}}" if shape == node.output else f"fit_to({{{k}}}, {{0}})" for k, shape in enumerate(node.inputs)
        ]
        arrays = self.arrays(node)
        parts: tuple[Callable[..., object], ...] = () if set(node.inputs) == {node.output} else (fit_to,)
        if not arrays:
            return _activated(" + ".join(terms), self.activation, parts)
        activation, used = activation_source(self.activation)
        inputs, weights = arrays[0].shape
        module = f"WeightedSum({inputs}, {weights}, {self.weights_normalization!r}, activation={activation})"
        parts = (*parts, *used, WeightedSum)
        return LayerSource(f"{{layer}}({', '.join(terms)})", module, parts, {"weight": "weight"})

    def build(self, node: Node) -> nn.Module:
        return ShortcutLayer(self, node)


class ShortcutLayer(nn.Module):
    def __init__(self, spec: ShortcutSpec, node: Node):
        super().__init__()
        self.activation = spec.activation
        self.activate = ACTIVATIONS[spec.activation]
        self.normalization = spec.weights_normalization
        arrays = spec.arrays(node)
        self.weight = nn.Parameter(torch.ones(arrays[0].shape)) if arrays else None

    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        if self.weight is None:
            for other in others:
                x = x + other if other.shape == x.shape else x + fit_to(other, x)
            return self.activate(x)
        weights = self._normalized(self.weight)[:, None, :, None, None]
        total = x * weights[0]
        for other, weight in zip(others, weights[1:], strict=True):
            total = total + (other if other.shape == x.shape else fit_to(other, x)) * weight
        return self.activate(total)

    def _normalized(self, weight: Tensor) -> Tensor:
        """Weights that sum to 1; Darknet's backward pass treats the normalization as constant."""
        if self.normalization == "none":
            return weight
        w = weight.detach()
        normalized = F.relu(w) if self.normalization == "relu" else torch.exp(w - w.amax(0))
        return normalized / (normalized.sum(0) + 1e-4) + (weight - w)


def fit_to(other: Tensor, x: Tensor) -> Tensor:
    """`other` (B, C2, H2, W2) on the grid and channels of x, zero where nothing is added (`shortcut_cpu`)."""
    stride = max(other.shape[3] // x.shape[3], 1)
    sample = max(x.shape[3] // other.shape[3], 1)
    channels = min(other.shape[1], x.shape[1])
    rows, columns = min(other.shape[2], x.shape[2]), min(other.shape[3], x.shape[3])
    part = other[:, :channels, ::stride, ::stride][:, :, :rows, :columns]
    if part.shape[2:] == x.shape[2:]:
        return F.pad(part, (0, 0, 0, 0, 0, x.shape[1] - channels))
    out = x.new_zeros(x.shape)
    grid = out[:, :channels, ::sample, ::sample]
    grid[:, :, :rows, :columns] = part
    return out


@dataclass(frozen=True, kw_only=True)
class ScaleChannelsSpec(Spec):
    """[scale_channels]: the output of `from` times the previous layer's value per channel (or pixel with scale_wh)."""

    layer: int
    scale_wh: bool

    @classmethod
    def parse(cls, options: Options, net: NetSpec, index: int) -> ScaleChannelsSpec:
        return cls(
            layer=parse_layers(options, "from", index)[0],
            scale_wh=options.flag("scale_wh"),
            activation=parse_activation(options, "linear"),
        )

    def inputs(self, index: int) -> tuple[int, ...]:
        return (index - 1, self.layer)

    def infer(self, inputs: Sequence[Shape]) -> Shape:
        scale, x = inputs
        expected = Shape(1, x.h, x.w) if self.scale_wh else Shape(x.c, 1, 1)
        if scale != expected:
            raise ShapeError(f"expected a previous layer of {expected}, got {scale}")
        return x

    def source(self, node: Node) -> LayerSource:
        return _activated("{1} * {0}", self.activation)

    def build(self, node: Node) -> nn.Module:
        return MultiplyLayer(self.activation)


@dataclass(frozen=True, kw_only=True)
class SamSpec(Spec):
    """[sam]: the output of `from` times the previous layer's, value by value."""

    layer: int

    @classmethod
    def parse(cls, options: Options, net: NetSpec, index: int) -> SamSpec:
        return cls(layer=parse_layers(options, "from", index)[0], activation=parse_activation(options, "linear"))

    def inputs(self, index: int) -> tuple[int, ...]:
        return (index - 1, self.layer)

    def infer(self, inputs: Sequence[Shape]) -> Shape:
        scale, x = inputs
        if scale != x:
            raise ShapeError(f"expected a previous layer of {x}, got {scale}")
        return x

    def source(self, node: Node) -> LayerSource:
        return _activated("{1} * {0}", self.activation)

    def build(self, node: Node) -> nn.Module:
        return MultiplyLayer(self.activation)


class MultiplyLayer(nn.Module):
    def __init__(self, activation: str):
        super().__init__()
        self.activation = activation
        self.activate = ACTIVATIONS[activation]

    def forward(self, scale: Tensor, x: Tensor) -> Tensor:
        return self.activate(x * scale)


@dataclass(frozen=True, kw_only=True)
class ActivationSpec(Spec):
    """[activation]: an activation alone."""

    @classmethod
    def parse(cls, options: Options, net: NetSpec, index: int) -> ActivationSpec:
        return cls(activation=parse_activation(options, "linear"))

    def source(self, node: Node) -> LayerSource:
        return _activated("{0}", self.activation)

    def build(self, node: Node) -> nn.Module:
        return ActivationLayer(self.activation)


@dataclass(frozen=True, kw_only=True)
class EmptySpec(Spec):
    """[empty] or [silence]: passes its input on."""

    @classmethod
    def parse(cls, options: Options, net: NetSpec, index: int) -> EmptySpec:
        return cls()

    @property
    def is_idle(self) -> bool:
        return True

    def cost(self, node: Node) -> Cost:
        return Cost()

    def source(self, node: Node) -> LayerSource:
        return LayerSource("{0}")

    def build(self, node: Node) -> nn.Module:
        return nn.Identity()


class ActivationLayer(nn.Module):
    def __init__(self, activation: str):
        super().__init__()
        self.activation = activation
        self.activate = ACTIVATIONS[activation]

    def forward(self, x: Tensor) -> Tensor:
        return self.activate(x)
