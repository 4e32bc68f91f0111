"""What a caller of `train` may ask for: options of the run, and new values for keys of `[net]`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darknet_py.cfg.document import CfgEdit
from darknet_py.cfg.net import UNUSED_KEYS
from darknet_py.cfg.options import atoi, did_you_mean
from darknet_py.errors import TrainError
from darknet_py.graph.graph import Graph, build_graph
from darknet_py.layers.base import DetectionHeadSpec

_ALIASES = {"ema": "ema_alpha"}
# What a detection section says about augmentation; a new value goes into all of them.
_HEAD_KEYS = ("jitter", "random", "resize")


@dataclass(frozen=True)
class TrainOptions:
    """Options of the run; what they leave out is the cfg's.

    out: folder for weights, state, log and chart (default: `backup` of the .data file). resume: go on from
    NAME_last.state there, as if training had never stopped. clear: count iterations from 0, whatever the weights say.
    cutoff: load the weights of the first N layers only, and count from 0. classes: fine-tuning: the cfg is rewritten
    for so many classes (into `out`, with the weights), takes over what fits of the weights, and counts from 0. map: mAP
    on the validation list every N iterations; True is Darknet's cadence (`map_epochs`), False never, None Darknet's
    cadence where the validation list is not the training list. iou_thresh, points, thresh: of that mAP. save_every:
    NAME_last every N iterations. log_every: read losses back from the device, and print a line where there is no
    terminal, every N iterations. patience: end after so many measurements in a row without a better one. limit: the
    first N images of each list only. amp: bf16 or fp16. bn_momentum: of the running statistics (None:
    `schedule.statistics_momentum`). sync_bn: batch norm over the mini-batches of all processes. workers: processes
    that load images (None: by the machine). cache: keep the training images in memory, decoded (None: where all of
    them take at most 2 GiB and a quarter of what is free). tensorboard: write NAME_tensorboard too.
    """

    out: str | Path | None = None
    device: str | None = None
    seed: int = 0
    workers: int | None = None
    cache: bool | None = None
    resume: bool = False
    clear: bool = False
    cutoff: int | None = None
    classes: int | None = None
    map: bool | int | None = None
    map_epochs: int = 4
    iou_thresh: float = 0.5
    points: int = 0
    thresh: float = 0.25
    save_every: int | None = None
    log_every: int | None = None
    patience: int | None = None
    limit: int | None = None
    amp: str | None = None
    bn_momentum: float | None = None
    sync_bn: bool = False
    chart: bool = True
    tensorboard: bool = False
    quiet: bool = False
    skip_bad_labels: bool = False

    def __post_init__(self) -> None:
        if self.amp not in (None, "bf16", "fp16"):
            raise TrainError(f"amp: expected bf16 or fp16, got {self.amp!r}")
        if self.bn_momentum is not None and not 0 < self.bn_momentum <= 1:
            raise TrainError(f"bn_momentum: expected a number above 0 and up to 1, got {self.bn_momentum}")
        if self.points < 0 or self.points == 1:
            raise TrainError(f"points: expected 0 or at least 2, got {self.points}")
        for name in ("iou_thresh", "thresh"):
            if not 0 <= getattr(self, name) <= 1:
                raise TrainError(f"{name}: expected a number from 0 to 1, got {getattr(self, name)}")
        for name in ("map", "map_epochs", "save_every", "log_every", "limit", "cutoff", "classes", "patience"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, bool) and (not isinstance(value, int) or value < 1):
                raise TrainError(f"{name}: expected an integer of at least 1, got {value!r}")
        for name in ("seed", "workers"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 0):
                raise TrainError(f"{name}: expected an integer of at least 0, got {value!r}")


def split_options(overrides: Mapping[str, Any]) -> tuple[TrainOptions, dict[str, Any]]:
    """Options of the run, and keys of `[net]`. A value of None counts as not given."""
    given = {_ALIASES.get(key, key): value for key, value in overrides.items() if value is not None}
    own = {field.name for field in dataclasses.fields(TrainOptions)}
    return TrainOptions(**{k: given[k] for k in given if k in own}), {k: given[k] for k in given if k not in own}


def override_net(graph: Graph, values: Mapping[str, Any]) -> tuple[Graph, list[str]]:
    """The graph with new values in `[net]` (jitter, random, resize: in its heads), and lines that tell what followed.

    Sequences become comma separated lists. Where max_batches is new and `steps` or `burn_in` are not, these follow in
    proportion, as Darknet's users do by hand: a schedule for 500,000 iterations teaches nothing in 500. Raises
    TrainError for a key that `[net]` does not have.
    """
    if not values:
        return graph, []
    changes = dict(values)
    told = _follow(graph, changes)
    known = _keys_read(graph)
    for key in values:
        if key not in known and key not in _HEAD_KEYS:
            own = {field.name for field in dataclasses.fields(TrainOptions)}
            hint = did_you_mean(key, sorted(known | own | set(_HEAD_KEYS)))
            raise TrainError(f"expected an option of training or a key of [net], got {key!r}{hint}")
    changed = build_graph(graph.document.with_edits(_places(graph, changes)))
    lines = [str(warning) for warning in changed.warnings]
    told += [f"warning: {line}" for key in values for line in lines if f"unknown key {key!r}" in line]
    return changed, told


def _follow(graph: Graph, changes: dict[str, Any]) -> list[str]:
    net = graph.net
    told: list[str] = []
    last = atoi(str(changes.get("max_batches", "")))
    if not last or not net.max_batches:
        return told
    factor = last / net.max_batches
    if net.steps and "steps" not in changes and factor != 1:
        changes["steps"] = [round(step * factor) for step in net.steps]
        told.append(f"steps={_text(changes['steps'])}")
    if "burn_in" not in changes and net.burn_in and factor < 1:
        changes["burn_in"] = max(round(net.burn_in * factor), min(net.burn_in, last // 10))
        told.append(f"burn_in={changes['burn_in']}")
    return [f"max_batches={last}, so {' and '.join(told)}"] if told else []


def _keys_read(graph: Graph) -> set[str]:
    """The keys that `[net]` may have: all fields of NetSpec, and Darknet's names where they differ."""
    return {field.name for field in dataclasses.fields(graph.net)} | {"cutmix", "mosaic", *UNUSED_KEYS}


def _places(graph: Graph, changes: Mapping[str, Any]) -> list[CfgEdit]:
    """Where new values go: those of head keys into all detection layers that know the key, the others into `[net]`."""
    places = []
    for key, value in changes.items():
        sections = [0]
        if key in _HEAD_KEYS:
            sections = [node.index + 1 for node in graph.layers if isinstance(node.spec, DetectionHeadSpec)]
            if not sections:
                raise TrainError(f"{graph.path}: {key}: expected a detection layer that has it, got none")
        places += [CfgEdit(section, key, _text(value)) for section in sections]
    return places


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ",".join(map(str, value))
    return str(value)
