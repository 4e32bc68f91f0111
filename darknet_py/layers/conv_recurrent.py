"""[crnn], [conv_lstm], [history]: recurrent layers over feature maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from darknet_py.cfg.net import NetSpec
from darknet_py.cfg.options import Options
from darknet_py.counted import counted
from darknet_py.layers import plain
from darknet_py.layers.activations import ACTIVATIONS, activation_source, parse_activation
from darknet_py.layers.base import Cost, LayerArray, LayerSource, Node, Shape, ShapeError, Spec
from darknet_py.layers.convolutional import ConvolutionalLayer, ConvolutionalSpec, convolution_arrays
from darknet_py.layers.recurrent import Memory, RecurrentLayer, RnnCell, recurrent_source
from darknet_py.layers.weight_transforms import transform_gradient


@dataclass(frozen=True, kw_only=True)
class _ConvRecurrentSpec(Spec):
    """Base of [crnn] and [conv_lstm]: a set of equal convolutions that keep width and height."""

    channels_key: ClassVar[str] = "output"
    norm_keys: ClassVar[tuple[str, ...]] = ("batch_normalize",)

    size: int
    stride: int
    dilation: int
    padding: int
    batch_normalize: bool
    xnor: bool
    shortcut: bool
    output: int
    time_steps: int

    @staticmethod
    def _parse_shared(options: Options, net: NetSpec, activation: str) -> dict[str, Any]:
        size = options.int("size", 3, 1, 1 << 12)
        padding = options.int("padding", 0, 0)
        xnor = options.flag("xnor")
        groups = options.int("groups", 1, 1)
        return {
            "size": size,
            "stride": options.int("stride", 1, 1),
            "dilation": options.int("dilation", 1, 1),
            "padding": size // 2 if options.flag("pad") else padding,
            "groups": 1 if xnor else groups,
            "activation": parse_activation(options, activation),
            "batch_normalize": options.flag("batch_normalize"),
            "xnor": xnor,
            "shortcut": options.flag("shortcut"),
            "output": options.int("output", 1, 1),
            "time_steps": net.time_steps,
        }

    def layers(self, channels: int) -> tuple[tuple[str, int, int], ...]:
        """(name, input channels, filters) in file order."""
        raise NotImplementedError

    def _convolution(self, filters: int) -> ConvolutionalSpec:
        return ConvolutionalSpec(
            filters=filters,
            size=self.size,
            stride_x=self.stride,
            stride_y=self.stride,
            dilation=self.dilation,
            padding=self.padding,
            groups=self.groups,
            batch_normalize=self.batch_normalize,
            activation=self.activation,
            flipped=False,
            xnor=self.xnor,
        )

    def infer(self, inputs: Sequence[Shape]) -> Shape:
        (x,) = inputs
        for _, channels, filters in self.layers(x.c):
            output = self._convolution(filters).infer([x._replace(c=channels)])
            if output[1:] != x[1:]:
                raise ShapeError(
                    f"expected size, stride and padding that keep {x.w} x {x.h} pixels, as the state does, "
                    f"got {output.w} x {output.h}"
                )
        return x._replace(c=self.output)

    def workspace(self, inputs: Sequence[Shape]) -> int:
        """The outputs of all convolutions, or the workspace of one."""
        (x,) = inputs
        layers = [(self._convolution(filters), x._replace(c=channels)) for _, channels, filters in self.layers(x.c)]
        outputs = sum(layer.infer([shape]).size for layer, shape in layers)
        return max(outputs, *(layer.workspace([shape]) for layer, shape in layers))

    def arrays(self, node: Node) -> tuple[LayerArray, ...]:
        return tuple(
            array
            for name, channels, filters in self.layers(node.inputs[0].c)
            for array in convolution_arrays(self._convolution(filters), channels, f"{name}.")
        )

    def cost(self, node: Node) -> Cost:
        _, h, w = node.inputs[0]
        kernels = sum(filters * (channels // self.groups) for _, channels, filters in self.layers(node.inputs[0].c))
        flops = 2.0 * kernels * self.size**2 * h * w / (32 if self.xnor else 1)
        return Cost(flops, node.inputs[0].size, node.output.size)

    def modules(self, node: Node) -> dict[str, nn.Module]:
        return {
            name: ConvolutionalLayer(self._convolution(filters), channels)
            for name, channels, filters in self.layers(node.inputs[0].c)
        }

    def _sources(self, node: Node) -> dict[str, LayerSource]:
        (x,) = node.inputs
        return {
            name: self._convolution(filters).source(replace(node, inputs=(x._replace(c=channels),)))
            for name, channels, filters in self.layers(x.c)
        }

    def kernel(self) -> tuple[int, int, int]:
        return (self.size, self.stride, self.dilation)


@dataclass(frozen=True, kw_only=True)
class CrnnSpec(_ConvRecurrentSpec):
    """Darknet's `parse_crnn`: as [rnn], with convolutions."""

    hidden: int = 1

    @classmethod
    def parse(cls, options: Options, net: NetSpec, index: int) -> CrnnSpec:
        return cls(**cls._parse_shared(options, net, "logistic"), hidden=options.int("hidden", 1, 1))

    def layers(self, channels: int) -> tuple[tuple[str, int, int], ...]:
        hidden = self.hidden
        return (
            ("input_layer", channels, hidden),
            ("self_layer", hidden, hidden),
            ("output_layer", hidden, self.output),
        )

    def source(self, node: Node) -> LayerSource:
        return recurrent_source(plain.Rnn, self._sources(node), ", shortcut=True" if self.shortcut else "", "")

    def build(self, node: Node) -> nn.Module:
        return RnnCell(list(self.modules(node).values()), self.shortcut, self.time_steps)


@dataclass(frozen=True, kw_only=True)
class ConvLstmSpec(_ConvRecurrentSpec):
    """Darknet's `parse_conv_lstm`. peephole: the gates also read the cell. bottleneck: one convolution over state and
    input together feeds the gates. bottleneck, shortcut and lstm_activation exist in C's GPU build only.
    """

    peephole: bool = False
    bottleneck: bool = False
    lstm_activation: str = "tanh"
    state_constrain: float = 0.0
    time_normalizer: float = 1.0
    mini_batch: int = 1

    @classmethod
    def parse(cls, options: Options, net: NetSpec, index: int) -> ConvLstmSpec:
        lstm_activation = options.choice("lstm_activation", "tanh", sorted(ACTIVATIONS))
        return cls(
            **cls._parse_shared(options, net, "linear"),
            peephole=options.flag("peephole"),
            bottleneck=options.flag("bottleneck"),
            lstm_activation=lstm_activation,
            state_constrain=options.float("state_constrain", net.time_steps * 32.0, 0.0),
            time_normalizer=options.float("time_normalizer", 1.0),
            mini_batch=net.mini_batch,
        )

    def layers(self, channels: int) -> tuple[tuple[str, int, int], ...]:
        n = self.output
        peephole = [(f"v{gate}", n, n) for gate in "fio"] if self.peephole else []
        state = [("wf", 2 * n, n)] if self.bottleneck else [(f"w{gate}", n, n) for gate in "figo"]
        return (*peephole, *state, *((f"u{gate}", channels, n) for gate in "figo"))

    def infer(self, inputs: Sequence[Shape]) -> Shape:
        if self.bottleneck and inputs[0].c != self.output:
            raise ShapeError(
                f"bottleneck: expected an output for each of {counted(inputs[0].c, 'channel')}, got {self.output}"
            )
        return super().infer(inputs)

    def arrays(self, node: Node) -> tuple[LayerArray, ...]:
        return tuple(array._replace(name=f"gates.{array.name}") for array in super().arrays(node))

    def cost(self, node: Node) -> Cost:
        cost = super().cost(node)
        # Darknet counts the operations of the gates for the whole mini-batch.
        return cost._replace(flops=cost.flops + (12 if self.peephole else 9) * node.output.size * self.mini_batch)

    def source(self, node: Node) -> LayerSource:
        activation, parts = activation_source(self.lstm_activation)
        shortcut = ", shortcut=True" if self.bottleneck and self.shortcut else ""
        arguments = f", {self.state_constrain}{shortcut}, activation={activation}"
        source = recurrent_source(plain.ConvLstm, self._sources(node), arguments, "gates.")
        return source._replace(parts=(*parts, *source.parts))

    def build(self, node: Node) -> nn.Module:
        return ConvLstmLayer(self, nn.ModuleDict(self.modules(node)))


class ConvLstmLayer(RecurrentLayer):
    """`forward_conv_lstm_layer_gpu`.

    As in `backward_conv_lstm_layer_gpu` the gradient passes back in time through the cell, and through the state only
    with a bottleneck (times time_normalizer). C also clips the bottleneck's gradient to ±1; this layer does not.
    """

    memories: ClassVar[int] = 2

    def __init__(self, spec: ConvLstmSpec, gates: nn.ModuleDict):
        super().__init__(spec.time_steps)
        self.spec = spec
        self.gates = gates
        self.activate = ACTIVATIONS[spec.lstm_activation]

    def readers(self) -> Mapping[str, nn.Module]:
        return {} if self.spec.bottleneck else {gate: self.gates[f"u{gate}"] for gate in "figo"}

    def blank(self, x: Tensor, read: Mapping[str, Tensor]) -> Tensor:
        return torch.zeros_like(read["f"] if read else x)

    def step(self, x: Tensor, read: Mapping[str, Tensor], memory: Memory) -> tuple[Tensor, Memory]:
        h, c = memory
        joined = None
        if self.spec.bottleneck:
            joined = self.activate(self.gates["wf"](torch.cat((transform_gradient(h, self._through_time), x), 1)))
            sums = {gate: self.gates[f"u{gate}"](joined) for gate in "figo"}
        else:
            sums = {gate: read[gate] + self.gates[f"w{gate}"](h.detach()) for gate in "figo"}
        f = torch.sigmoid(sums["f"] + self._peephole("f", c))
        i = torch.sigmoid(sums["i"] + self._peephole("i", c))
        c = f * c + i * self.activate(sums["g"])
        o = torch.sigmoid(sums["o"] + self._peephole("o", c))
        h = o * self.activate(c)
        if self.spec.state_constrain:
            c = c.clamp(-self.spec.state_constrain, self.spec.state_constrain)
        if joined is None or not self.spec.shortcut:
            return h, (h, c)
        half = torch.zeros_like(joined)
        half[:, : joined.shape[1] // 2] = joined[:, : joined.shape[1] // 2]  # a partial residual connection
        return h + half, (h, c)

    def _peephole(self, gate: str, cell: Tensor) -> Tensor | float:
        return self.gates[f"v{gate}"](cell.detach()) if self.spec.peephole else 0.0

    def _through_time(self, gradient: Tensor) -> Tensor:
        return gradient * self.spec.time_normalizer


@dataclass(frozen=True, kw_only=True)
class HistorySpec(Spec):
    """[history]: this input and the `size` − 1 before it, newest first (`forward_history_layer`)."""

    size: int
    time_steps: int

    @classmethod
    def parse(cls, options: Options, net: NetSpec, index: int) -> HistorySpec:
        return cls(size=options.int("history_size", 4, 1), time_steps=net.time_steps)

    def infer(self, inputs: Sequence[Shape]) -> Shape:
        return inputs[0]._replace(c=inputs[0].c * self.size)

    def source(self, node: Node) -> LayerSource:
        module = f"History({self.size}, {self.time_steps > 1})"
        return LayerSource("{layer}({0})", module, (plain.Recurrent, plain.History))

    def build(self, node: Node) -> nn.Module:
        return HistoryLayer(self.size, self.time_steps)


class HistoryLayer(RecurrentLayer):
    """As in C the gradient reaches the newest input alone.

    With time_steps=1 C keeps no history and gives (input, 0, 0, …).
    """

    def __init__(self, size: int, time_steps: int):
        super().__init__(time_steps)
        self.size = size

    def readers(self) -> Mapping[str, nn.Module]:
        return {}

    def blank(self, x: Tensor, read: Mapping[str, Tensor]) -> Tensor:
        return x.new_zeros(x.shape[0], x.shape[1] * self.size, *x.shape[2:])

    def step(self, x: Tensor, read: Mapping[str, Tensor], memory: Memory) -> tuple[Tensor, Memory]:
        (before,) = memory
        if self.time_steps == 1:
            return torch.cat((x, torch.zeros_like(before)[:, x.shape[1] :]), 1), memory
        history = torch.cat((x, before[:, : before.shape[1] - x.shape[1]].detach()), 1)
        return history, (history,)
