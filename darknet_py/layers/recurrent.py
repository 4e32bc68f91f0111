"""[rnn], [gru], [lstm]: recurrent fully connected layers, and the base of all recurrent layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from darknet_py.cfg.net import NetSpec
from darknet_py.cfg.options import Options
from darknet_py.counted import counted
from darknet_py.errors import DarknetError
from darknet_py.layers import plain
from darknet_py.layers.activations import parse_activation
from darknet_py.layers.base import LayerArray, LayerSource, Node, Shape, Spec
from darknet_py.layers.connected import ConnectedLayer, connected_arrays, connected_source
from darknet_py.layers.normalize import NormalizedLayer

Memory = tuple[Tensor, ...]


class RecurrentLayer(nn.Module):
    """Base of modules with a memory.

    In training a mini-batch holds `time_steps` steps of several streams, time-major as in C: row t·streams + b is step
    t of stream b. Otherwise each call is one step, a row is a stream, and the memory stays from call to call (C's
    commands set time_steps=1 for this). The memory is cleared by `reset_state`, when the number of streams changes and
    when training starts or ends. No gradient reaches back beyond a mini-batch.
    """

    memories: ClassVar[int] = 1
    carries: ClassVar[bool] = True  # the memory survives from one mini-batch of training to the next

    def __init__(self, time_steps: int):
        super().__init__()
        self.time_steps = time_steps
        self.memory: Memory | None = None

    def readers(self) -> Mapping[str, nn.Module]:
        """Sub-modules that depend on the layer's input alone, so that they can process all steps at once."""
        raise NotImplementedError

    def step(self, x: Tensor, read: Mapping[str, Tensor], memory: Memory) -> tuple[Tensor, Memory]:
        """One step: x (streams, …), the readers' outputs, the previous memory → output, next memory."""
        raise NotImplementedError

    def blank(self, x: Tensor, read: Mapping[str, Tensor]) -> Tensor:
        """An empty memory for one step's streams."""
        return torch.zeros_like(next(iter(read.values())))

    def reset_state(self, stream: int | None = None) -> None:
        """Clears the memory, or that of one stream."""
        if stream is None or self.memory is None:
            self.memory = None
            return
        row = torch.tensor([stream], device=self.memory[0].device)
        self.memory = tuple(part.index_fill(0, row, 0.0) for part in self.memory)

    def train(self, mode: bool = True) -> RecurrentLayer:
        if mode != self.training:
            self.reset_state()
        super().train(mode)
        return self

    def forward(self, x: Tensor) -> Tensor:
        steps = self.time_steps if self.training else 1
        if x.shape[0] % steps:
            raise DarknetError(
                f"expected a multiple of time_steps={counted(steps, 'row')} in a mini-batch, got {x.shape[0]}"
            )
        reads = {name: _chunks(_each_step(layer, x, steps), steps) for name, layer in self.readers().items()}
        memory: Memory | None = None
        outputs = []
        for t, part in enumerate(_chunks(x, steps)):
            read = {name: values[t] for name, values in reads.items()}
            memory = memory or self._initial_memory(self.blank(part, read))
            output, memory = self.step(part, read, memory)
            outputs.append(output)
        assert memory is not None
        self.memory = tuple(part.detach() for part in memory)
        return outputs[0] if steps == 1 else torch.cat(outputs)

    def _initial_memory(self, blank: Tensor) -> Memory:
        memory = self.memory if self.carries or not self.training else None
        if memory is None or memory[0].shape != blank.shape or memory[0].device != blank.device:
            return (blank,) * self.memories
        return memory


class ModuleTree(Protocol):
    """Anything with modules, such as an `nn.Module`."""

    def modules(self) -> Iterator[nn.Module]: ...


def reset_state(network: ModuleTree, stream: int | None = None) -> None:
    """Clears the memory of all recurrent layers, or one stream of it (`reset_network_state`)."""
    for module in network.modules():
        if isinstance(module, RecurrentLayer):
            module.reset_state(stream)


def _chunks(x: Tensor, steps: int) -> tuple[Tensor, ...]:
    """The rows of each step. One step is x itself: torch's exporter cannot chunk an open number of rows."""
    return (x,) if steps == 1 else x.chunk(steps)


def _each_step(layer: nn.Module, x: Tensor, steps: int) -> Tensor:
    """layer(x); batch norm has separate statistics for each step, as in C."""
    if steps > 1 and layer.training and isinstance(layer, NormalizedLayer) and layer.has_batch_norm:
        return torch.cat([layer(part) for part in _chunks(x, steps)])
    output: Tensor = layer(x)
    return output


def recurrent_source(
    cell: type[plain.Recurrent], layers: Mapping[str, LayerSource], arguments: str, prefix: str
) -> LayerSource:
    """A recurrent layer in plain torch.

    Args:
        cell: Its class.
        layers: The layers that it is made of.
        arguments: The other arguments of the class, with a comma before them.
        prefix: Of the names of the layers' arrays, with dot.
    """
    inner = ", ".join(f'"{name}": {source.module}' for name, source in layers.items())
    parts = dict.fromkeys(part for source in layers.values() for part in source.parts)
    names = {
        f"{prefix}{name}.{array}": f"layers.{name}.{path}"
        for name, source in layers.items()
        for array, path in source.names.items()
    }
    module = f"{cell.__name__}({{{inner}}}{arguments})"
    return LayerSource("{layer}({0})", module, (*parts, plain.Recurrent, cell), names)


class RnnCell(RecurrentLayer):
    """state = input(x) + self(state) (+ state with shortcut); output(state). Used by [rnn] and [crnn].

    C starts each mini-batch of training with an empty state.
    """

    carries: ClassVar[bool] = False

    def __init__(self, layers: Sequence[nn.Module], shortcut: bool, time_steps: int):
        super().__init__(time_steps)
        self.input_layer, self.self_layer, self.output_layer = layers
        self.shortcut = shortcut

    def readers(self) -> Mapping[str, nn.Module]:
        return {"input": self.input_layer}

    def step(self, x: Tensor, read: Mapping[str, Tensor], memory: Memory) -> tuple[Tensor, Memory]:
        (state,) = memory
        next_state = read["input"] + self.self_layer(state)
        next_state = next_state + state if self.shortcut else next_state
        return self.output_layer(next_state), (next_state,)


@dataclass(frozen=True, kw_only=True)
class RnnSpec(Spec):
    """Darknet's `parse_rnn`. logistic: activation of the recurrent part; 1 logistic, 2 loggy, 0 that of the others.

    hidden: size of the state; by default that of the output, as in pjreddie's code (AlexeyAB's takes 1).
    """

    vector: ClassVar[bool] = True
    channels_key: ClassVar[str] = "output"
    norm_keys: ClassVar[tuple[str, ...]] = ("batch_normalize",)

    output: int
    hidden: int
    batch_normalize: bool
    logistic: int
    shortcut: bool
    time_steps: int

    @classmethod
    def parse(cls, options: Options, net: NetSpec, index: int) -> RnnSpec:
        output = options.int("output", 1, 1)
        return cls(
            output=output,
            hidden=options.int("hidden", output, 1),
            activation=parse_activation(options, "logistic"),
            batch_normalize=options.flag("batch_normalize"),
            logistic=options.int("logistic"),
            shortcut=options.flag("shortcut"),
            time_steps=net.time_steps,
        )

    def infer(self, inputs: Sequence[Shape]) -> Shape:
        return Shape(self.output, 1, 1)

    def _layers(self, node: Node) -> tuple[tuple[str, int, int], ...]:
        """(name, inputs, outputs) in file order."""
        hidden = self.hidden
        return (
            ("input_layer", node.inputs[0].size, hidden),
            ("self_layer", hidden, hidden),
            ("output_layer", hidden, self.output),
        )

    def arrays(self, node: Node) -> tuple[LayerArray, ...]:
        return tuple(
            array
            for name, inputs, outputs in self._layers(node)
            for array in connected_arrays(outputs, inputs, self.batch_normalize, f"{name}.")
        )

    @property
    def _activations(self) -> tuple[str, str, str]:
        """Of the layers, in file order."""
        recurrent = {1: "logistic", 2: "loggy"}.get(self.logistic, self.activation)
        return (self.activation, recurrent, self.activation)

    def source(self, node: Node) -> LayerSource:
        layers = {
            name: connected_source(inputs, outputs, activation, self.batch_normalize)
            for (name, inputs, outputs), activation in zip(self._layers(node), self._activations, strict=True)
        }
        return recurrent_source(plain.Rnn, layers, ", shortcut=True" if self.shortcut else "", "")

    def build(self, node: Node) -> nn.Module:
        layers = [
            ConnectedLayer(inputs, outputs, activation, self.batch_normalize)
            for (_, inputs, outputs), activation in zip(self._layers(node), self._activations, strict=True)
        ]
        return RnnCell(layers, self.shortcut, self.time_steps)


@dataclass(frozen=True, kw_only=True)
class _GatedSpec(Spec):
    """Base of [gru] and [lstm]: gates that read the input, and gates that read the state."""

    vector: ClassVar[bool] = True
    channels_key: ClassVar[str] = "output"
    norm_keys: ClassVar[tuple[str, ...]] = ("batch_normalize",)
    names: ClassVar[tuple[str, ...]] = ()  # of the gates, in file order
    reading: ClassVar[str] = ""  # prefix of the gates that read the input

    output: int
    batch_normalize: bool
    time_steps: int
    tanh: bool = False

    @classmethod
    def parse(cls, options: Options, net: NetSpec, index: int) -> _GatedSpec:
        return cls(
            output=options.int("output", 1, 1),
            batch_normalize=options.flag("batch_normalize"),
            time_steps=net.time_steps,
        )

    def infer(self, inputs: Sequence[Shape]) -> Shape:
        return Shape(self.output, 1, 1)

    def _inputs(self, name: str, node: Node) -> int:
        return node.inputs[0].size if name.startswith(self.reading) else self.output

    def arrays(self, node: Node) -> tuple[LayerArray, ...]:
        return tuple(
            array
            for name in self.names
            for array in connected_arrays(self.output, self._inputs(name, node), self.batch_normalize, f"gates.{name}.")
        )

    def _source(self, node: Node, cell: type[plain.Recurrent], arguments: str = "") -> LayerSource:
        gates = {
            name: connected_source(self._inputs(name, node), self.output, "linear", self.batch_normalize)
            for name in self.names
        }
        return recurrent_source(cell, gates, arguments, "gates.")

    def gates(self, node: Node) -> nn.ModuleDict:
        return nn.ModuleDict(
            {
                name: ConnectedLayer(self._inputs(name, node), self.output, "linear", self.batch_normalize)
                for name in self.names
            }
        )


@dataclass(frozen=True, kw_only=True)
class GruSpec(_GatedSpec):
    """Darknet's `parse_gru`. The candidate is logistic; with tanh=1, an option of pjreddie's, it is tanh."""

    names: ClassVar[tuple[str, ...]] = ("input_z", "input_r", "input_h", "state_z", "state_r", "state_h")
    reading: ClassVar[str] = "input"

    @classmethod
    def parse(cls, options: Options, net: NetSpec, index: int) -> GruSpec:
        return cls(
            output=options.int("output", 1, 1),
            batch_normalize=options.flag("batch_normalize"),
            time_steps=net.time_steps,
            tanh=options.flag("tanh"),
        )

    def source(self, node: Node) -> LayerSource:
        return self._source(node, plain.Gru, f", torch.{'tanh' if self.tanh else 'sigmoid'}")

    def build(self, node: Node) -> nn.Module:
        return GruLayer(self.gates(node), self.tanh, self.time_steps)


class GruLayer(RecurrentLayer):
    """`forward_gru_layer`: state = z·state + (1 − z)·h. (C's CPU build has no backward pass.)"""

    def __init__(self, gates: nn.ModuleDict, tanh: bool, time_steps: int):
        super().__init__(time_steps)
        self.gates = gates
        self.candidate = torch.tanh if tanh else torch.sigmoid

    def readers(self) -> Mapping[str, nn.Module]:
        return {kind: self.gates[f"input_{kind}"] for kind in "zrh"}

    def step(self, x: Tensor, read: Mapping[str, Tensor], memory: Memory) -> tuple[Tensor, Memory]:
        (state,) = memory
        z = torch.sigmoid(read["z"] + self.gates["state_z"](state))
        r = torch.sigmoid(read["r"] + self.gates["state_r"](state))
        h = self.candidate(read["h"] + self.gates["state_h"](r * state))
        state = z * state + (1 - z) * h
        return state, (state,)


@dataclass(frozen=True, kw_only=True)
class LstmSpec(_GatedSpec):
    """Darknet's `parse_lstm`. File order of AlexeyAB: f, i, g, o (pjreddie writes i, f, o, g)."""

    names: ClassVar[tuple[str, ...]] = ("wf", "wi", "wg", "wo", "uf", "ui", "ug", "uo")
    reading: ClassVar[str] = "u"

    def source(self, node: Node) -> LayerSource:
        return self._source(node, plain.Lstm)

    def build(self, node: Node) -> nn.Module:
        return LstmLayer(self.gates(node), self.time_steps)


class LstmLayer(RecurrentLayer):
    """`forward_lstm_layer`: c = f·c + i·g, h = o·tanh(c).

    The gradient is the true one through time; C adds what its buffers held from the previous mini-batch.
    """

    memories: ClassVar[int] = 2

    def __init__(self, gates: nn.ModuleDict, time_steps: int):
        super().__init__(time_steps)
        self.gates = gates

    def readers(self) -> Mapping[str, nn.Module]:
        return {kind: self.gates[f"u{kind}"] for kind in "figo"}

    def step(self, x: Tensor, read: Mapping[str, Tensor], memory: Memory) -> tuple[Tensor, Memory]:
        h, c = memory
        f, i, g, o = (read[kind] + self.gates[f"w{kind}"](h) for kind in "figo")
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        return h, (h, c)
