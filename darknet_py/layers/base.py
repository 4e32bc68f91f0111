"""The contract every layer type keeps.

A layer type is a frozen dataclass derived from `Spec`: it reads its options, says which outputs it consumes and what
shape it gives, lists its arrays in `.weights` file order, counts its cost and builds an `nn.Module`. A module takes
one tensor per consumed output, each (B, C, H, W) float; vectors are (B, N, 1, 1). Everything else (network, weights,
account) is written against this file and knows no layer type.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darknet_py.layers.c_emulation import reproduced

if TYPE_CHECKING:
    from darknet_py.cfg.net import NetSpec
    from darknet_py.cfg.options import Options


class Shape(NamedTuple):
    """Shape of one image's feature map; a vector of n values is (n, 1, 1)."""

    c: int
    h: int
    w: int

    @property
    def size(self) -> int:
        return self.c * self.h * self.w

    def __str__(self) -> str:
        return f"{self.w} x {self.h} x {self.c}"


class ShapeError(Exception):
    """Raised by `Spec.infer` when the inputs do not fit; becomes a problem with file and line."""


class LayerArray(NamedTuple):
    """One array of a layer, as the `.weights` file holds it.

    name: attribute path within the module ("weight", "wf.bias"). role: bias, scale, mean, variance, weight, shortcut
    or implicit. fan_in: inputs summed into one output value (weights only). transposable: files with a major or minor
    version above 1000 hold it transposed (connected layers). flipped: files always hold it as (fan_in, filters).
    """

    name: str
    role: str
    shape: tuple[int, ...]
    fan_in: int = 0
    transposable: bool = False
    flipped: bool = False

    @property
    def count(self) -> int:  # type: ignore[override]  # tuple.count is of no use here
        return math.prod(self.shape)


class Cost(NamedTuple):
    """What one image costs. `flops` counts as Darknet's table does (a multiply-add is two)."""

    flops: float = 0.0
    reads: int = 0  # values read, inputs only
    writes: int = 0  # values written


@dataclass(frozen=True)
class CommonOptions:
    """Options that every section may carry (end of Darknet's `parse_network_cfg_custom`)."""

    clip: float = 0.0
    onlyforward: bool = False
    dont_update: int = 0  # iterations
    burnin_update: int = 0
    stopbackward: int = 0
    train_only_bn: bool = False
    dontload: bool = False
    dontloadscales: bool = False
    learning_rate: float = 1.0

    @classmethod
    def parse(cls, o: Options) -> CommonOptions:
        return cls(
            clip=o.float("clip", 0.0),
            onlyforward=o.flag("onlyforward"),
            dont_update=o.int("dont_update"),
            burnin_update=o.int("burnin_update"),
            stopbackward=o.int("stopbackward"),
            train_only_bn=o.flag("train_only_bn"),
            dontload=o.flag("dontload"),
            dontloadscales=o.flag("dontloadscales"),
            learning_rate=o.float("learning_rate", 1.0),
        )


@dataclass(frozen=True)
class Spec:
    """Base of all layer specs. Subclasses are frozen dataclasses too."""

    vector: ClassVar[bool] = False  # Darknet's output has no height and width: net.outputs gives (B, N)
    detects: ClassVar[bool] = False  # a head whose decode() gives Predictions
    keeps_output: ClassVar[bool] = True  # Darknet fills l.output; where not, net.outputs gives None

    @classmethod
    def parse(cls, o: Options, net: NetSpec, index: int) -> Spec:
        """Reads the section. Faults go to `o.error`, and a default is used, so that all are found in one pass."""
        raise NotImplementedError

    def inputs(self, index: int) -> tuple[int, ...]:
        """Absolute indices of the outputs it consumes; -1 is the network's input."""
        return (index - 1,)

    def infer(self, inputs: Sequence[Shape]) -> Shape:
        """Its output's shape. Raises ShapeError with `expected …, got …`."""
        return inputs[0]

    def channels_for(self, classes: int) -> int | None:
        """Channels that its input must have for so many classes; None where classes mean nothing to it."""
        return None

    def arrays(self, node: Node) -> tuple[LayerArray, ...]:
        """Its arrays in `.weights` file order."""
        return ()

    def workspace(self, inputs: Sequence[Shape]) -> int:
        """Values it holds for one image while it runs, besides inputs and output; the most at once."""
        return 0

    def cost(self, node: Node) -> Cost:
        return Cost(0.0, sum(shape.size for shape in node.inputs), node.output.size)

    def build(self, node: Node) -> nn.Module:
        """A module with random weights as Darknet initializes them."""
        raise NotImplementedError

    def link(self, module: nn.Module, modules: Sequence[nn.Module], nodes: Sequence[Node]) -> None:
        """Called once all modules are built, for a layer that must know others. Raises ShapeError."""

    def only_pjreddie(self, node: Node) -> bool:
        """AlexeyAB's Darknet cannot run this layer, pjreddie's can."""
        return False

    def c_output(self, module: nn.Module, inputs: Sequence[Tensor], output: Tensor) -> Tensor | None:
        """What C Darknet keeps in l.output when the module gave `output`: (B, C, H, W), or (B, N) for vectors."""
        output = output.flatten(1) if self.vector else output
        if self.keeps_output:
            return output
        return torch.zeros_like(output) if reproduced("pjreddie") else None

    def kernel(self) -> tuple[int, int, int]:
        """(size, stride, dilation) for the receptive field and the table; (1, 1, 1) where it has none."""
        return (1, 1, 1)


@dataclass(frozen=True)
class Node:
    """A layer at its place in the graph."""

    index: int
    type: str  # section name after aliases
    line: int
    spec: Spec
    common: CommonOptions
    sources: tuple[int, ...]
    inputs: tuple[Shape, ...]  # shapes of the sources
    output: Shape
    last_use: int = -1  # index of the last layer that reads its output; its own index when none does
    net: Any = field(default=None, repr=False, compare=False)  # NetSpec

    @property
    def parameters(self) -> int:
        """Floats it keeps in a `.weights` file."""
        return sum(array.count for array in self.spec.arrays(self))

    @property
    def bflops(self) -> float:
        """Billions of operations per image, by Darknet's count."""
        return self.spec.cost(self).flops / 1e9


class Predictions(NamedTuple):
    """Decoded candidates of a detection head, nothing thresholded.

    boxes: (B, N, 4) center x, center y, width, height relative to the network input. objectness: (B, N).
    scores: (B, N, classes) = objectness · class probability. Darknet keeps a candidate when objectness exceeds the
    threshold, and then each class whose score does.
    """

    boxes: Tensor
    objectness: Tensor
    scores: Tensor


@dataclass
class TrainState:
    """Where training stands; heads and a few layers read it. One object is shared by all modules of a network."""

    seen: int = 0  # images, this mini-batch not counted
    iteration: int = 0  # batches done
    max_batches: int = 0
    truth: Tensor | None = None  # rows (image, class, cx, cy, w, h) of the mini-batch, while a loss is computed
    adversarial: bool = False  # first pass of self-adversarial training: heads teach that there is nothing
    scale_delta: bool = False  # apply delta_normalizer, as Darknet's GPU build does and its CPU build does not
    tracks: dict[int, Any] = field(default_factory=dict)  # layer index of a [yolo] → which object each slot was taught
    rolling: Any = None  # running figures of `layers.reject`


class HeadLoss(NamedTuple):
    """What a head hands back for a mini-batch.

    total: scalar whose gradient with respect to the head's input is −(Darknet's delta). cost: Darknet's `*l.cost`
    (float64 scalar tensor, detached). parts: named detached scalars for logs (iou, objectness, class, count, …).
    """

    total: Tensor
    cost: Tensor
    parts: dict[str, Tensor]


def surrogate(x: Tensor, delta: Tensor, cost: Tensor) -> Tensor:
    """A scalar equal to `cost` whose gradient with respect to x is −delta (Darknet's heads write delta, not a loss)."""
    slope = -(x.float() * delta.detach().float()).sum()
    return slope - slope.detach() + cost.detach().to(slope.dtype)


class HeadLayer(nn.Module):
    """Base of modules with a loss. `forward(x)` gives what Darknet keeps in l.output."""

    is_contrastive: ClassVar[bool] = False  # its loss is about images or objects beside each other, not about each
    input_size: tuple[int, int] = (1, 1)  # (width, height) of the network's input; the network sets it

    def decode(self, output: Tensor) -> Predictions:
        """output: what forward gave, (B, C, H, W)."""
        raise NotImplementedError

    def loss(self, x: Tensor, truth: Tensor, state: TrainState) -> HeadLoss:
        """x: the head's input (B, C, H, W). truth: as `Network.loss` takes it for this kind of head."""
        raise NotImplementedError


def conv_output_size(size: int, reach: int, stride: int) -> int:
    """How many windows of `reach` cells fit into `size` cells.

    C's division rounds towards zero, so that one window that sticks out by less than a stride still counts
    (alexnet.cfg on small images).
    """
    return int((size - reach) / stride) + 1


def pad_to_window(x: Tensor, side: int) -> Tensor:
    """x (B, C, H, W) with zeros to its right and below, so that a window of `side` that sticks out of it fits."""
    height, width = x.shape[2:]
    return x if side <= min(height, width) else F.pad(x, (0, max(side - width, 0), 0, max(side - height, 0)))


def scaled_uniform(shape: Sequence[int], fan_in: int) -> Tensor:
    """Darknet's initial weights: uniform in ±sqrt(2 / fan_in) (`make_convolutional_layer`)."""
    return (torch.rand(tuple(shape)) * 2 - 1) * math.sqrt(2 / max(fan_in, 1))
