"""The contract of a layer type.

A layer type is a frozen dataclass derived from `Spec`: it reads its options, says which outputs it consumes and what
shape it gives, lists its arrays in `.weights` file order, counts its cost and builds an `nn.Module`. A module takes
one tensor per consumed output, each (B, C, H, W) float; vectors are (B, N, 1, 1). A section with a loss derives from
`HeadSpec` (a detector's from `DetectionHeadSpec`) and builds a `HeadLayer`. The other rooms rely on this file alone
and know no layer type: what they ask of a spec or a module is declared here with its default.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import _register_namedtuple  # public for dataclasses only

from darknet_py.cfg.net import NetSpec
from darknet_py.cfg.options import Options

# Probability above which a class of a tree is reported, the most specific one: the default of C's `-hier`.
HIER_THRESH = 0.5


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
    axis: that of the output channels.
    """

    name: str
    role: str
    shape: tuple[int, ...]
    fan_in: int = 0
    transposable: bool = False
    flipped: bool = False
    axis: int = 0

    @property
    def count(self) -> int:  # type: ignore[override]  # tuple.count is of no use here
        return math.prod(self.shape)


class Cost(NamedTuple):
    """What one image costs. `flops` counts as Darknet's table does (a multiply-add is two)."""

    flops: float = 0.0
    reads: int = 0  # values read, inputs only
    writes: int = 0  # values written


class SourceError(Exception):
    """Raised by `Spec.source` when a layer cannot be written in plain torch."""


class LayerSource(NamedTuple):
    """A layer in plain torch, for the standalone export.

    output: expression of its output; `{0}`, `{1}` … are its inputs, `{layer}` is its module, `{image}` the network's
    input. For a detection head it gives boxes, objectness and scores. module: expression of its module; empty where it
    needs none. parts: classes and functions that both use; their source is copied. names: where its module has each
    array, by `LayerArray.name`. owner: the layer that has the arrays, where it is another one. buffers: other arrays of
    the module, which no `.weights` file has.
    """

    output: str
    module: str = ""
    parts: tuple[Callable[..., object], ...] = ()
    names: Mapping[str, str] = {}
    owner: int | None = None
    buffers: Mapping[str, Tensor] = {}


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
    def parse(cls, options: Options) -> CommonOptions:
        return cls(
            clip=options.float("clip", 0.0),
            onlyforward=options.flag("onlyforward"),
            dont_update=options.int("dont_update"),
            burnin_update=options.int("burnin_update"),
            stopbackward=options.int("stopbackward"),
            train_only_bn=options.flag("train_only_bn"),
            dontload=options.flag("dontload"),
            dontloadscales=options.flag("dontloadscales"),
            learning_rate=options.float("learning_rate", 1.0),
        )


@dataclass(frozen=True, kw_only=True)
class Spec:
    """Base of all layer specs. Subclasses are frozen dataclasses too.

    The fields are options of many sections; the default is the value for a section without the option.
    """

    vector: ClassVar[bool] = False  # Darknet's output has no height and width: net.outputs gives (B, N)
    spreads: ClassVar[bool] = False  # its stride enlarges the map (transposed convolution)
    reads_input: ClassVar[bool] = True  # whether its output depends on the layers that `inputs` gives
    pools: ClassVar[bool] = False  # CSPNet's memory traffic (CIO) includes it, as it does layers with weights
    channels_key: ClassVar[str] = ""  # the option that sets the number of its output channels
    norm_keys: ClassVar[tuple[str, ...]] = ()  # the options that give it batch norm, the usual one first

    groups: int = 1
    group_id: int = 0
    activation: str = "linear"

    @classmethod
    def parse(cls, options: Options, net: NetSpec, index: int) -> Spec:
        """Reads the section of layer `index`.

        Problems go to `options.error` and the default is used, so that one pass finds them all.
        """
        raise NotImplementedError

    @property
    def is_idle(self) -> bool:
        """Whether its output is its only input, outside training."""
        return False

    @property
    def joins_channels(self) -> bool:
        """Whether its output is the channels of all its inputs, one after the other."""
        return False

    @property
    def is_channelwise(self) -> bool:
        """Whether each channel of its output depends on the same channel of its input alone."""
        return False

    def inputs(self, index: int) -> tuple[int, ...]:
        """Absolute indices of the layers whose outputs it reads; -1 is the network's input."""
        return (index - 1,)

    def resolve(self, inputs: Sequence[Shape]) -> Spec:
        """The spec with what depends on the inputs' shapes; called once, before all of the following."""
        return self

    def infer(self, inputs: Sequence[Shape]) -> Shape:
        """The output's shape. Raises ShapeError with `expected …, got …`."""
        return inputs[0]

    def arrays(self, node: Node) -> tuple[LayerArray, ...]:
        """The arrays in `.weights` file order."""
        return ()

    def workspace(self, inputs: Sequence[Shape]) -> int:
        """Peak number of temporary values for one image, without inputs and output."""
        return 0

    def cost(self, node: Node) -> Cost:
        """What one image costs; by default the layer reads its inputs, writes its output and computes nothing."""
        return Cost(0.0, sum(shape.size for shape in node.inputs), node.output.size)

    def build(self, node: Node) -> nn.Module:
        """A module with random weights as Darknet initializes them."""
        raise NotImplementedError

    def link(self, module: nn.Module, modules: Sequence[nn.Module], nodes: Sequence[Node]) -> None:
        """Called once all modules are built, for a layer that uses another one. Raises ShapeError."""

    def source(self, node: Node) -> LayerSource:
        """The layer in plain torch. Raises SourceError where that is not offered."""
        raise SourceError("no source in plain torch")

    def kernel(self) -> tuple[int, int, int]:
        """(size, stride, dilation) for the receptive field and the table; (1, 1, 1) without a window."""
        return (1, 1, 1)


@dataclass(frozen=True, kw_only=True)
class HeadSpec(Spec):
    """Base of sections with a loss: they build a `HeadLayer`."""

    filters_labels: ClassVar[bool] = False  # implements the [net] options that exclude bad labels

    classes: int = 0  # 0: the section has no such option
    class_weights: tuple[float, ...] = ()  # factor per class, from counters_per_class; empty: all 1
    tree: str = ""  # file with the hierarchy of the classes
    map: str = ""  # file that maps the labels to classes
    yolo_layer: int | None = None  # absolute index of the [yolo] whose objects it embeds

    def channels_for(self, classes: int) -> int | None:
        """Input channels for that number of classes; None where they do not depend on it."""
        return None


@dataclass(frozen=True, kw_only=True)
class DetectionHeadSpec(HeadSpec):
    """Base of detection heads: `HeadLayer.decode` gives `Predictions`.

    nms_kind and beta_nms belong to non-maximum suppression; max_boxes, jitter, resize and random to the data loader.
    """

    c_type: ClassVar[int | None] = None  # its number in C's LAYER_TYPE, where Darknet prints it
    anchors: tuple[tuple[float, float], ...] = ()  # (width, height) of all anchors; empty: a head without anchors
    mask: tuple[int, ...] | None = None  # the anchors that it predicts; None: all of them, measured in grid cells
    max_boxes: int = 200
    jitter: float = 0.2
    resize: float = 1.0
    random: float = 0.0
    nms_kind: str = "default"
    beta_nms: float = 0.6

    def channels_for(self, classes: int) -> int:
        raise NotImplementedError


@dataclass(frozen=True)
class Node:
    """A layer of the graph."""

    index: int
    type: str  # section name after aliases
    line: int
    spec: Spec
    common: CommonOptions
    sources: tuple[int, ...]
    inputs: tuple[Shape, ...]  # shapes of the sources
    output: Shape
    last_use: int = -1  # index of the last layer that reads its output; its own index when none does
    frees: tuple[int, ...] = ()  # the layers whose outputs it reads last
    net: NetSpec = field(default_factory=NetSpec, repr=False, compare=False)

    @property
    def parameters(self) -> int:
        """Number of floats in a `.weights` file."""
        return sum(array.count for array in self.spec.arrays(self))

    @property
    def bflops(self) -> float:
        """Billions of operations per image, by Darknet's count."""
        return self.spec.cost(self).flops / 1e9


class Predictions(NamedTuple):
    """Decoded candidates of a detection head, before any threshold.

    boxes: (B, N, 4) center x, center y, width, height relative to the network input. objectness: (B, N).
    scores: (B, N, classes) = objectness · class probability. Darknet keeps a candidate when objectness exceeds the
    threshold, and then each class whose score does.
    """

    boxes: Tensor
    objectness: Tensor
    scores: Tensor


_register_namedtuple(Predictions, serialized_type_name="darknet_py.Predictions")  # for `torch.export.save`


class Tracks(NamedTuple):
    """Which object each slot of a [yolo] is responsible for, both (B, anchors, H, W), −1 for none."""

    track: Tensor
    label: Tensor


@dataclass
class RunningDeltaStats:
    """Running statistics of a network's deltas, shared by all its heads; float scalars on the deltas' device."""

    largest: Tensor
    mean: Tensor
    spread: Tensor
    threshold: Tensor  # of badlabels_rejection_percentage

    @classmethod
    def start(cls, like: Tensor) -> RunningDeltaStats:
        zero = like.new_zeros(())
        return cls(zero, zero, zero, zero)


@dataclass
class TrainState:
    """The progress of training. One object is shared by all modules of a network that read it."""

    seen: int = 0  # images, without those of this mini-batch
    iteration: int = 0  # finished batches
    max_batches: int = 0
    truth: Tensor | None = None  # rows (image, class, cx, cy, w, h) of the mini-batch, while a loss is computed
    adversarial: bool = False  # first pass of self-adversarial training: the target is an image without objects
    scale_delta: bool = False  # apply delta_normalizer, as Darknet's GPU build does and its CPU build does not
    tracks: dict[int, Tracks] = field(default_factory=dict)  # by layer index of the [yolo]
    delta_stats: RunningDeltaStats | None = None  # for the filter of bad labels


class StatefulLayer(nn.Module):
    """Base of modules that depend on the progress of training; `Network` gives all of them the same `state`."""

    changes_weights: ClassVar[bool] = False  # whether its forward pass in training writes the layer's weights

    def __init__(self) -> None:
        super().__init__()
        self.state = TrainState()

    def weights_restored(self) -> None:
        """Called when the weights have been put back to earlier values."""


class HeadLoss(NamedTuple):
    """The loss of a head for a mini-batch.

    total: scalar whose gradient with respect to the head's input is −(Darknet's delta). cost: Darknet's `*l.cost`
    (float64 scalar tensor, detached). parts: named detached scalars for logs (iou, objectness, class, count, …).
    """

    total: Tensor
    cost: Tensor
    parts: dict[str, Tensor]


def is_tracing() -> bool:
    """Whether torch traces: a trace must be the same with and without gradients."""
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]


def surrogate(x: Tensor, delta: Tensor, cost: Tensor) -> Tensor:
    """A scalar equal to `cost` whose gradient with respect to x is −delta (Darknet's heads write delta, not a loss)."""
    slope = -(x.float() * delta.detach().float()).sum()
    return slope - slope.detach() + cost.detach().to(slope.dtype)


class HeadLayer(nn.Module):
    """Base of modules with a loss. `forward(x)` gives what Darknet keeps in l.output."""

    is_contrastive: ClassVar[bool] = False  # its loss compares images or objects with each other
    input_size: tuple[int, int] = (1, 1)  # (width, height) of the network's input; the network sets it

    def decode(self, output: Tensor, hier: float = HIER_THRESH) -> Predictions:
        """output: what forward gave, (B, C, H, W). hier: see `HIER_THRESH`; without a class tree it does not count."""
        raise NotImplementedError

    def loss(self, x: Tensor, truth: Tensor, state: TrainState) -> HeadLoss:
        """x: the head's input (B, C, H, W). truth: as `Network.loss` takes it for this kind of head."""
        raise NotImplementedError


def conv_output_size(size: int, reach: int, stride: int) -> int:
    """The number of windows of `reach` cells in `size` cells.

    C's division rounds towards zero, so that a single window may exceed the map by less than a stride (alexnet.cfg on
    small images).
    """
    if size >= reach:  # in integers, because torch's tracers fix a size that goes through a float
        return (size - reach) // stride + 1
    return int((size - reach) / stride) + 1


def pad_to_window(x: Tensor, side: int) -> Tensor:
    """x (B, C, H, W), padded by zeros at the right and bottom to at least `side` x `side`."""
    height, width = x.shape[2:]
    return x if side <= min(height, width) else F.pad(x, (0, max(side - width, 0), 0, max(side - height, 0)))


_draws_weights = ContextVar("_draws_weights", default=True)


@contextmanager
def weights_follow() -> Iterator[None]:
    """Modules built in this context get arbitrary weights: drawing them takes longer than reading them from a file."""
    token = _draws_weights.set(False)
    try:
        yield
    finally:
        _draws_weights.reset(token)


def scaled_uniform(shape: Sequence[int], fan_in: int) -> Tensor:
    """Darknet's initial weights: uniform in ±sqrt(2 / fan_in) (`make_convolutional_layer`)."""
    if not _draws_weights.get():
        return torch.empty(tuple(shape))
    return (torch.rand(tuple(shape)) * 2 - 1) * math.sqrt(2 / max(fan_in, 1))


def scaled_normal(shape: Sequence[int], deviation: float) -> Tensor:
    """Initial weights of transposed convolutions (`make_deconvolutional_layer`)."""
    return torch.randn(tuple(shape)) * deviation if _draws_weights.get() else torch.empty(tuple(shape))
