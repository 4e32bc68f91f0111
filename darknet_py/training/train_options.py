"""What a caller of `train` may ask for: options of the run, and new values for keys of `[net]`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from darknet_py.cfg.document import CfgEdit
from darknet_py.cfg.net import UNUSED_KEYS, NetSpec
from darknet_py.cfg.options import atoi, did_you_mean
from darknet_py.errors import TrainError
from darknet_py.graph.graph import Graph, build_graph
from darknet_py.layers.base import DetectionHeadSpec
from darknet_py.training.duration import parse_duration
from darknet_py.training.peers import TIMEOUT

NetValue = bool | int | float | str | Sequence[int] | Sequence[float]

FINETUNE, SCRATCH, DARKNET = RECIPES = ("finetune", "scratch", "darknet")

FLOAT32 = "fp32"  # of --amp, where a recipe would choose bf16

_ALIASES = {"ema": "ema_alpha"}
# Augmentation keys of detection layers; a new value goes into all of them.
_HEAD_KEYS = ("jitter", "random", "resize")


@dataclass(frozen=True)
class TrainOptions:
    """Options of a training run. What they leave out is decided by the cfg.

    Attributes:
        out: Folder for weights, state, log and chart. Default: `backup` of the .data file.
        device: `cpu`, `cuda`, `cuda:1` …. Default: a GPU if there is one.
        seed: Of everything random.
        workers: Processes that load images. Default: by the machine.
        cache: Keep decoded training images in memory, all that fit in half of the free memory. Default: where all of
            them take at most 2 GiB and a quarter of the free memory.
        resume: Continue from NAME_last.state in `out` as if training had never stopped.
        clear: Count iterations from 0, whatever the weights file says.
        cutoff: Load the weights of the first N layers only, and count from 0.
        classes: Fine-tune for this number of classes: the cfg is rewritten into `out`, matching weights are loaded,
            and iterations count from 0.
        recipe: `finetune`, `scratch` or `darknet` (the cfg word for word); see `training.recipe`. Default: `finetune`
            with `classes`, else `darknet`.
        epochs: Train for so many passes over the images; instead of max_batches.
        time: Train for so long, such as `20m` or `1h30m` (or a number of seconds); instead of max_batches.
        split: Share of the training images to hold out for validation where there is no validation list, or `none`.
            Default: 0.1 by the recipes `finetune` and `scratch`, else none.
        freeze: Keep the weights of the first N layers.
        map: Evaluate on the validation list every N iterations. True: at Darknet's intervals (`map_epochs`). False:
            never. Default: at Darknet's intervals where the validation list is not the training list.
        map_epochs: Epochs between evaluations, by Darknet's rule.
        iou_thresh: IoU of a correct detection, for mAP.
        points: Recall points of the AP: 0 is the area under the curve.
        thresh: Confidence threshold for precision and recall.
        save_every: Write NAME_last every N iterations. Default: `savelast` of the .data file, else 100.
        keep: Keep the last N of the numbered weights only. Default: all.
        log_every: Log every N iterations. Default: 10 on a GPU, 1 on a CPU.
        patience: Stop early after so many evaluations without a better score.
        recover: Go back to an earlier state, with half the learning rate, where the loss is not finite or explodes, up
            to three times. Default: no.
        limit: Use the first N images of each list only.
        amp: `bf16` or `fp16` for mixed precision, `fp32` for none. Default: by a recipe bf16 where the CPU
            multiplies it faster, else none.
        bn_momentum: Momentum of batch norm's running statistics. Default: see `schedule.statistics_momentum`.
        sync_bn: Batch norm over the mini-batches of all processes.
        chart: Draw chart_NAME.png and the plots of the best evaluation.
        report: Write NAME_report.html, with contact sheets of training images and of the worst validation images.
        tensorboard: Write NAME_tensorboard too.
        quiet: Log nothing and show no progress bar.
        skip_bad_labels: List wrong label rows and train without them.
        rank_timeout: Seconds without a sign of life after which another process of `torchrun` is given up.

    Raises:
        TrainError: A value is out of range.
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
    recipe: str | None = None
    epochs: int | None = None
    time: str | float | None = None
    split: str | float | None = None
    freeze: int | None = None
    map: bool | int | None = None
    map_epochs: int = 4
    iou_thresh: float = 0.5
    points: int = 0
    thresh: float = 0.25
    save_every: int | None = None
    keep: int | None = None
    log_every: int | None = None
    patience: int | None = None
    recover: bool | None = None
    limit: int | None = None
    amp: str | None = None
    bn_momentum: float | None = None
    sync_bn: bool = False
    chart: bool = True
    report: bool = True
    tensorboard: bool = False
    quiet: bool = False
    skip_bad_labels: bool = False
    rank_timeout: float = TIMEOUT

    def __post_init__(self) -> None:
        if self.amp not in (None, "bf16", "fp16", FLOAT32):
            raise TrainError(f"amp: expected bf16 or fp16 (or fp32 for neither), got {self.amp!r}")
        if self.bn_momentum is not None and not 0 < self.bn_momentum <= 1:
            raise TrainError(f"bn_momentum: expected a number above 0 and up to 1, got {self.bn_momentum}")
        if not 0 < self.rank_timeout < math.inf:
            raise TrainError(f"rank_timeout: expected more than 0 seconds, got {self.rank_timeout}")
        if self.points < 0 or self.points == 1:
            raise TrainError(f"points: expected 0 or at least 2, got {self.points}")
        if self.recipe not in (None, *RECIPES):
            raise TrainError(f"recipe: expected {', '.join(RECIPES)}, got {self.recipe!r}")
        if self.epochs is not None and self.time is not None:
            raise TrainError("expected epochs or time, got both")
        _ = self.seconds, self.held_out
        for name, fraction in {"iou_thresh": self.iou_thresh, "thresh": self.thresh}.items():
            if not 0 <= fraction <= 1:
                raise TrainError(f"{name}: expected a number from 0 to 1, got {fraction}")
        _check_integers(
            1,
            map=None if isinstance(self.map, bool) else self.map,
            map_epochs=self.map_epochs,
            save_every=self.save_every,
            keep=self.keep,
            log_every=self.log_every,
            limit=self.limit,
            cutoff=self.cutoff,
            classes=self.classes,
            epochs=self.epochs,
            freeze=self.freeze,
            patience=self.patience,
        )
        _check_integers(0, seed=self.seed, workers=self.workers)

    @property
    def seconds(self) -> float | None:
        """`time` in seconds. Raises TrainError."""
        if self.time is None:
            return None
        try:
            seconds = parse_duration(self.time) if isinstance(self.time, str) else float(self.time)
        except ValueError as error:
            raise TrainError(f"time: {error}") from None
        if not 0 < seconds < math.inf:
            raise TrainError(f"time: expected more than 0 seconds, got {seconds:g}")
        return seconds

    @property
    def held_out(self) -> float | None:
        """`split` as a share; 0 for none, and None where it was not given. Raises TrainError."""
        if self.split is None:
            return None
        if self.split == "none":
            return 0.0
        try:
            share = float(self.split)
        except ValueError:
            share = math.nan
        if not 0 < share < 1:
            raise TrainError(f"split: expected none or a number above 0 and below 1, got {self.split!r}")
        return share


def _check_integers(minimum: int, **values: object) -> None:
    for name, value in values.items():
        if value is not None and (not isinstance(value, int) or value < minimum):
            raise TrainError(f"{name}: expected an integer of at least {minimum}, got {value!r}")


class NetOverrides(TypedDict, total=False):
    """Less common keys of `[net]` that `train` takes by name; the common ones are its own parameters.

    jitter, random and resize go into all detection layers that know them.
    """

    channels: int
    inputs: int
    time_steps: int
    learning_rate_min: float
    power: float
    step: int
    scale: float
    gamma: float
    seq_scales: float | str | Sequence[float]
    sgdr_cycle: int
    sgdr_mult: int
    sequential_subdivisions: int
    adam: bool
    B1: float
    B2: float
    eps: float
    ema_alpha: float
    loss_scale: float
    dynamic_minibatch: bool
    flip: bool
    angle: float
    aspect: float
    saturation: float
    exposure: float
    hue: float
    blur: int
    gaussian_noise: int
    mixup: int
    cutmix: bool
    mosaic: bool
    mosaic_bound: bool
    mosaic_stop: int
    letter_box: bool
    max_crop: int
    min_crop: int
    resize_step: int
    label_smooth_eps: float
    adversarial_lr: float
    attention: bool
    contrastive: bool
    contrastive_jit_flip: bool
    contrastive_color: bool
    unsupervised: bool
    track: bool
    augment_speed: int
    try_fix_nan: bool
    weights_reject_freq: int
    equidistant_point: int
    badlabels_rejection_percentage: float
    num_sigmas_reject_badlabels: float
    max_chart_loss: float
    show_receptive_field: bool
    optimized_memory: int
    workspace_size_limit_MB: int
    use_cuda_graph: bool
    jitter: float
    random: float
    resize: float


def given_overrides(values: Mapping[str, NetValue | None]) -> dict[str, NetValue]:
    """Overrides under Darknet's names; None counts as not given."""
    return {_ALIASES.get(key, key): value for key, value in values.items() if value is not None}


def override_edits(graph: Graph, values: Mapping[str, NetValue]) -> list[CfgEdit]:
    """The cfg edits for new values in `[net]` (jitter, random, resize: in the detection layers).

    Sequences become comma-separated lists. Where max_batches changes and `steps` or `burn_in` are not given, they
    change in proportion, as Darknet's users do by hand: a schedule for 500,000 iterations trains nothing in 500.

    Args:
        graph: The network before the changes.
        values: New values by key.

    Returns:
        The edits, in the order of `values`; what follows from max_batches comes last, with its reason.

    Raises:
        TrainError: `[net]` does not have a key.
    """
    known = net_keys()
    edits: list[CfgEdit] = []
    for key, value in values.items():
        if key in _HEAD_KEYS:
            edits += [CfgEdit(section, key, _text(value)) for section in _sections_with(graph, key)]
        elif key in known:
            edits.append(CfgEdit(0, key, _text(value)))
        else:
            options = {field.name for field in dataclasses.fields(TrainOptions)}
            hint = did_you_mean(key, sorted(known | options | set(_HEAD_KEYS)))
            raise TrainError(f"expected an option of training or a key of [net], got {key!r}{hint}")
    return edits + _schedule_edits(graph.net, values)


def override_net(graph: Graph, values: Mapping[str, NetValue]) -> Graph:
    """The same network with new values in `[net]`; see `override_edits`."""
    return build_graph(graph.document.with_edits(override_edits(graph, values)))


def net_keys() -> set[str]:
    """The keys that `[net]` may have: all fields of NetSpec, and Darknet's names where they differ."""
    return {field.name for field in dataclasses.fields(NetSpec)} | {"cutmix", "mosaic", *UNUSED_KEYS}


def _schedule_edits(net: NetSpec, values: Mapping[str, NetValue]) -> list[CfgEdit]:
    """`steps` and `burn_in` for another max_batches."""
    last = atoi(str(values.get("max_batches", "")))
    if not last or not net.max_batches:
        return []
    factor = last / net.max_batches
    reason = f"max_batches={last}"
    edits = []
    if net.steps and "steps" not in values and factor != 1:
        edits.append(CfgEdit(0, "steps", _text([round(step * factor) for step in net.steps]), reason))
    if net.mosaic_stop and "mosaic_stop" not in values and factor != 1:
        edits.append(CfgEdit(0, "mosaic_stop", str(round(net.mosaic_stop * factor)), reason))
    if "burn_in" not in values and net.burn_in and factor < 1:
        burn_in = max(round(net.burn_in * factor), min(net.burn_in, last // 10))
        edits.append(CfgEdit(0, "burn_in", str(burn_in), reason))
    return edits


def _sections_with(graph: Graph, key: str) -> list[int]:
    """Sections of the detection layers that know an augmentation key."""
    sections = [node.index + 1 for node in graph.layers if isinstance(node.spec, DetectionHeadSpec)]
    if not sections:
        raise TrainError(f"{graph.path}: {key}: expected a detection layer that has it, got none")
    return sections


def _text(value: NetValue) -> str:
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ",".join(map(str, value))
    return str(value)
