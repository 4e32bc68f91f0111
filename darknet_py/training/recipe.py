"""Recipes: what changes in a published cfg so that it trains well on one's own images.

The `[net]` of a published cfg was written for COCO and large GPUs. A recipe replaces what depends on the data and the
machine by edits of the cfg, each with its reason; what the user asks for counts more. The cfg that is written beside
the weights is therefore the one that was trained. The recipe `darknet` changes nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from darknet_py.cfg.document import CfgDocument, CfgEdit
from darknet_py.cfg.net import NetSpec
from darknet_py.counted import counted
from darknet_py.data.anchor_heads import (
    anchor_edits,
    anchor_heads,
    anchor_space,
    assign_anchors,
    current_anchors,
)
from darknet_py.data.anchors import Sizes, evaluate_anchors, fit_anchors, round_anchors
from darknet_py.data.dataset import free_memory
from darknet_py.data.loader import largest_size
from darknet_py.errors import DataError, TrainError
from darknet_py.graph.graph import Graph, build_graph
from darknet_py.layers.base import DetectionHeadSpec
from darknet_py.layers.pool import DropoutSpec
from darknet_py.training.distributed import DistContext
from darknet_py.training.estimate import Speed
from darknet_py.training.memory import estimate_memory
from darknet_py.training.train_options import (
    DARKNET,
    FINETUNE,
    FLOAT32,
    SCRATCH,
    NetValue,
    TrainOptions,
    override_edits,
)

_EPOCHS = {FINETUNE: 100, SCRATCH: 300}  # of up to 1,000 images
_MIN_ITERATIONS = {FINETUNE: 1000, SCRATCH: 3000}
_RATE = {FINETUNE: 0.001, SCRATCH: 0.001}  # of Adam, for batches of 16
_SGD_RATE = {FINETUNE: 0.0005, SCRATCH: 0.001}  # for batches of 16
_RATE_BATCH = 16
_CPU_BFLOPS = 20.0  # per image; above, a CPU trains at a smaller input
_CPU_SIZE = 320  # not below this
_SIZE_STEP = 32
_GPU_SHARE = 0.8  # of a GPU's free memory
_BAD_FIT, _MIN_GAIN = 0.6, 0.05  # average IoU of boxes with their best anchor
_MAX_CELLS = 32  # up to here, anchors are written with digits after the point
_CLOSE_MIXING = 0.9  # of the iterations, after which images are no longer mixed
_EVALUATIONS = 20  # in a training
_EVALUATED_SHARE = 0.1  # of the time, at most
_MAX_BURN_IN = 20
_FEW_EPOCHS = 300  # up to here, dropout slows learning more than it helps
_DENSE = 200  # operations per output value from which bfloat16 pays: below, a CPU waits for its memory


class Photos(NamedTuple):
    """What a recipe asks of the training images.

    Attributes:
        images: Number of images.
        longest_side: Median of the longer side in pixels; 0 where it is not known.
        boxes: Width and height of the labeled boxes, relative to the image (N, 2).
    """

    images: int
    longest_side: int = 0
    boxes: Sizes = np.zeros((0, 2))


class Machine(NamedTuple):
    """What a recipe asks of the machine.

    Attributes:
        accelerator: Whether it trains on a GPU.
        memory: Bytes that a training may use.
        amp: Whether activations take 16 bits.
        processes: Number of processes that share a batch.
        bfloat16: Whether it is a CPU that multiplies bfloat16 faster than float32.
    """

    accelerator: bool
    memory: int
    amp: bool = False
    processes: int = 1
    bfloat16: bool = False

    @classmethod
    def find(cls, device: torch.device, context: DistContext, amp: bool = False) -> Machine:
        """The machine as it is now. Half of the free memory of a CPU counts, and most of a GPU's."""
        if device.type == "cuda":
            memory = round(torch.cuda.mem_get_info(device)[0] * _GPU_SHARE)
            return cls(True, memory, amp, context.size)
        return cls(False, free_memory() // 2 // context.size, amp, context.size, _multiplies_bfloat16())


class Length(NamedTuple):
    """How long to train, as the user said it; all None: by the recipe, or the cfg.

    Attributes:
        iterations: Number of iterations.
        epochs: Passes over the training images.
        seconds: Time from the start of the command to its end.
    """

    iterations: int | None = None
    epochs: int | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Recipe:
    """The changes to a cfg for a training: what the user asked for, and what a recipe adds.

    Attributes:
        name: One of RECIPES.
        base: The cfg as it is, or with its number of classes changed.
        overrides: New values that the user gave.
        photos: The training images.
        machine: The machine.
        options: Options of the run that the user gave.
        length: How long to train.
        done: Whether `base` is the cfg that this recipe has written; it is then taken as it is.
    """

    name: str
    base: Graph
    overrides: Mapping[str, NetValue]
    photos: Photos
    machine: Machine
    options: TrainOptions = field(default_factory=TrainOptions)
    length: Length = field(default_factory=Length)
    done: bool = False

    def graph(self, iterations: int | None = None) -> Graph:
        """The graph with all changes.

        Args:
            iterations: Number of iterations, where it is known by now.

        Returns:
            The graph; that of `base` where nothing changes.

        Raises:
            DarknetError: The changes make no network, or the user asked for a key that does not exist.
        """
        edits = _Edits(self.base, self.overrides)
        if self.done:
            return edits.graph()
        if self.options.freeze:
            edits.add(self._freeze_edits(self.options.freeze))
        if self.name == DARKNET:
            iterations = iterations or self._given_iterations(self.base.net)
            if iterations:
                edits.add(override_edits(self.base, {**self.overrides, "max_batches": iterations}))
            return edits.graph()
        if self.base.detection_specs and not self.base.detection_specs[-1].vector:
            self._choose_input(edits)
            self._choose_anchors(edits)
        self._choose_batch(edits)
        self._choose_schedule(edits, iterations)
        self._choose_augmentation(edits)
        self._choose_dropout(edits)
        return edits.graph()

    def iterations(self, net: NetSpec) -> int:
        """Iterations of the recipe where the user did not say how long to train."""
        count = self.photos.images
        epochs = _EPOCHS[self.name] * min(1.0, math.sqrt(1000 / max(count, 1)))
        return max(math.ceil(epochs * count / net.batch_images), _MIN_ITERATIONS[self.name])

    def run_options(self, net: NetSpec, valid_images: int, speed: Speed | None = None) -> TrainOptions:
        """Options of the run, with those that the recipe sets where the user did not.

        Args:
            net: `[net]` with all changes.
            valid_images: Number of images to validate on; 0 where there is no validation.
            speed: What was measured on the machine, where that is known by now.

        Returns:
            The options: recovery from a loss that explodes; bfloat16 where it is faster; about 20 evaluations, fewer
            where they would take more than about a tenth of the time; early stopping after half of them without a
            better score, unless the user said how long to train.
        """
        options = self.options
        if options.amp == FLOAT32:
            options = replace(options, amp=None)
        elif options.amp is None and self.name != DARKNET and self.machine.bfloat16 and self._is_dense():
            options = replace(options, amp="bf16")
        if self.name == DARKNET:
            return options
        if options.recover is None:
            options = replace(options, recover=True)
        if not valid_images:
            return options
        # In iterations. Unmeasured, an evaluated image takes about a third of the time of one that is trained on.
        cost = speed.evaluation / speed.iteration if speed else valid_images / 3 / net.batch_images
        interval = max(net.max_batches // _EVALUATIONS, math.ceil(cost / _EVALUATED_SHARE), 1)
        if options.map is None or options.map is True:
            options = replace(options, map=interval)
        if options.patience is None and self.length == Length():
            options = replace(options, patience=_EVALUATIONS // 2)
        return options

    def _is_dense(self) -> bool:
        """Whether the time goes into multiplications, rather than into reading and writing values."""
        return self.base.bflops * 1e9 > _DENSE * sum(node.output.size for node in self.base.layers)

    def _given_iterations(self, net: NetSpec) -> int | None:
        if self.length.epochs:
            return math.ceil(self.length.epochs * self.photos.images / net.batch_images)
        return self.length.iterations

    def _freeze_edits(self, count: int) -> list[CfgEdit]:
        """The first `count` layers keep their weights (`FrozenLayers`).

        `stopbackward=1` alone would leave the last of them to weight decay, which Adam makes as large as any gradient.
        """
        first_head = min(
            (node.index for node in self.base.layers if isinstance(node.spec, DetectionHeadSpec)),
            default=len(self.base.layers) - 1,
        )
        if count >= first_head:
            raise TrainError(f"freeze: expected fewer layers than the {first_head} before the first head, got {count}")
        words = f"the first {counted(count, 'layer')} keep their weights"
        return [CfgEdit(count, "stopbackward", "1", words), CfgEdit(count, "onlyforward", "1", words)]

    def _choose_dropout(self, edits: _Edits) -> None:
        net = edits.graph().net
        if net.max_batches * net.batch_images > _FEW_EPOCHS * self.photos.images:
            return
        for node in self.base.layers:
            if isinstance(node.spec, DropoutSpec) and node.spec.probability:
                edits.set(
                    node.index + 1, "probability", 0, f"few epochs (up to {_FEW_EPOCHS}) learn faster without dropout"
                )

    def _choose_input(self, edits: _Edits) -> None:
        """Input size and `random`: as large as the photos and, on a CPU, as the network's cost allows."""
        graph = edits.graph()
        net = graph.net
        heads = {node.index: node.spec for node in graph.layers if isinstance(node.spec, DetectionHeadSpec)}
        step = max(_SIZE_STEP, *(round(net.width / graph.layers[index].output.w) for index in heads))
        size = longer = max(net.width, net.height)
        reason = ""
        photo = math.ceil(self.photos.longest_side / step) * step
        if 0 < photo < size:
            size, reason = photo, f"the photos are about {counted(self.photos.longest_side, 'pixel')} wide"
        if not self.machine.accelerator:
            bflops = graph.bflops * (size / longer) ** 2
            affordable = math.floor(size * math.sqrt(_CPU_BFLOPS / bflops) / step) * step
            smallest = math.ceil(_CPU_SIZE / step) * step
            if max(affordable, smallest) < size:
                size = max(affordable, smallest)
                reason = f"{bflops:.0f} BFLOPs per image are slow on a CPU"
        if reason and not {"width", "height"} & self.overrides.keys():
            for key, side in (("width", net.width), ("height", net.height)):
                edits.set(0, key, max(round(side * size / longer / step), 1) * step, reason)
        for index, spec in heads.items():
            if spec.random and not self.machine.accelerator:
                edits.set(index + 1, "random", 0, "one input size; larger ones take twice the time")

    def _choose_anchors(self, edits: _Edits) -> None:
        """New anchors where those of the cfg fit the labeled boxes badly."""
        graph = edits.graph()
        try:
            heads = anchor_heads(graph)
            space = anchor_space(graph, heads)
            boxes = self.photos.boxes * np.array(space, np.float64)
            old = current_anchors(heads)
            before = evaluate_anchors(boxes, old).average_iou if len(boxes) else 1.0
            if before >= _BAD_FIT:
                return
            width = min(space[0], _MAX_CELLS) if heads[0].in_cells else space[0]
            new = round_anchors(fit_anchors(boxes, len(old)), width)
        except DataError:  # no anchors, or more of them than different boxes
            return
        after = evaluate_anchors(boxes, new).average_iou
        if after - before >= _MIN_GAIN:
            reason = f"average IoU with the boxes {before:.2f} before, {after:.2f} after"
            edits.add(anchor_edits(heads, new, assign_anchors(heads, new), width, reason))

    def _choose_batch(self, edits: _Edits) -> None:
        count = self.photos.images
        batch = 16 if count < 2_000 else 32 if count < 20_000 else 64
        edits.set(0, "batch", batch, counted(count, "image", ","))
        graph = edits.graph()
        batch = graph.net.batch
        heads = graph.detection_specs
        factor = heads[-1].random if heads and not heads[-1].vector else 0.0
        width, height = largest_size(graph.net, factor)
        scale = width * height / max(graph.net.width * graph.net.height, 1)
        choices = [k for k in range(1, batch + 1) if not batch % k and batch // k >= self.machine.processes]
        fitting = [
            k for k in choices if estimate_memory(graph, k, scale, self.machine.amp).total <= self.machine.memory
        ]
        mini_batch = max(fitting, default=1)
        edits.set(0, "subdivisions", batch // mini_batch, f"{counted(mini_batch, 'image')} at a time fit the memory")

    def _choose_schedule(self, edits: _Edits, iterations: int | None) -> None:
        net = edits.graph().net
        total = iterations or self._given_iterations(net) or self.iterations(net)
        epochs = total * net.batch_images / max(self.photos.images, 1)
        edits.set(
            0,
            "max_batches",
            total,
            "requested" if self._given_iterations(net) else counted(epochs, "epoch", ".0f"),
        )
        edits.set(0, "burn_in", min(max(total // 50, 1), _MAX_BURN_IN), "a fiftieth of the iterations")
        if "policy" not in self.overrides and "steps" not in self.overrides:
            edits.set(0, "policy", "sgdr", "the rate falls to zero along a cosine")
            if edits.graph().net.sgdr_cycle != total:
                edits.set(0, "sgdr_cycle", total, "one cycle")
        if edits.graph().net.policy != "poly":  # where power shapes the whole schedule
            edits.set(0, "power", 1, "the rate rises evenly")
        edits.set(0, "adam", 1, "steps of the same size for any loss")
        net = edits.graph().net
        factor = net.batch_images / _RATE_BATCH
        rate = _RATE[self.name] * math.sqrt(factor) if net.adam else _SGD_RATE[self.name] * factor
        edits.set(
            0,
            "learning_rate",
            f"{rate:.3g}",
            f"{'Adam' if net.adam else 'SGD'}, batches of {counted(net.batch_images, 'image')}",
        )
        if not net.adam:
            edits.set(0, "momentum", 0.9, f"batches of {counted(net.batch_images, 'image')}")
        edits.set(0, "ema_alpha", f"{1 - 1 / max(total / 50, 2):.4g}", "average of a fiftieth of the iterations")

    def _choose_augmentation(self, edits: _Edits) -> None:
        net = edits.graph().net
        if not self.base.detection_specs:
            return
        if net.letter_box and not net.track and "mosaic" not in self.overrides:
            edits.set(0, "letter_box", 0, "mosaic=1 excludes it")
        net = edits.graph().net
        if net.letter_box:
            edits.set(0, "mosaic", 0, "letter_box=1 excludes it")
        elif not net.track:
            edits.set(0, "mosaic", 1, "four images in one")
        if edits.graph().net.mixup in (1, 3, 4):
            stop = math.floor(net.max_batches * _CLOSE_MIXING)
            edits.set(0, "mosaic_stop", stop, "the last tenth trains on whole images")


def _multiplies_bfloat16() -> bool:
    """Whether the CPU has instructions for products of bfloat16 (AVX-512 or AMX). Only Linux tells."""
    with suppress(OSError):
        flags = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        return flags is not None and not {"avx512_bf16", "amx_bf16"}.isdisjoint(flags[1].split())
    return False


class _Edits:
    """Edits that are collected one after another; keys that the user gave are left alone."""

    def __init__(self, base: Graph, overrides: Mapping[str, NetValue]):
        self._given = overrides.keys()
        self._document: CfgDocument = base.document.with_edits(override_edits(base, overrides))
        self._graph = base if self._document is base.document else None
        self._width = base.net.width

    def set(self, section: int, key: str, value: object, reason: str) -> None:
        """A new value of one option, unless the user gave one."""
        if key not in self._given:
            self.add([CfgEdit(section, key, str(value), reason)])

    def add(self, edits: list[CfgEdit]) -> None:
        """More edits."""
        document = self._document.with_edits(edits)
        if document is not self._document:
            self._document, self._graph = document, None

    def graph(self) -> Graph:
        """The graph with the edits so far."""
        if self._graph is None:
            self._graph = build_graph(self._document)
        return self._graph
