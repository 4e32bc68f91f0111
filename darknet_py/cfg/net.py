"""The `[net]` section: input size, optimizer, schedule and augmentation (Darknet's `parse_net_options`)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from darknet_py.cfg.options import Options

POLICIES = ("constant", "step", "steps", "exp", "poly", "sigmoid", "random", "sgdr")
_SIDE_LIMIT = 1 << 16


@dataclass(frozen=True)
class NetSpec:
    """All options of `[net]` under Darknet's names, with Darknet's defaults.

    batch: images per update (all subdivisions together). mini_batch: images per forward pass.
    """

    width: int = 0
    height: int = 0
    channels: int = 0
    inputs: int = 0
    batch: int = 1
    subdivisions: int = 1
    time_steps: int = 1
    # schedule
    max_batches: int = 0
    learning_rate: float = 0.001
    learning_rate_min: float = 0.00001
    policy: str = "constant"
    burn_in: int = 0
    power: float = 4.0
    step: int = 1
    scale: float = 1.0
    gamma: float = 1.0
    steps: tuple[int, ...] = ()
    scales: tuple[float, ...] = ()
    seq_scales: tuple[float, ...] = ()
    sgdr_cycle: int = 0
    sgdr_mult: int = 2
    sequential_subdivisions: int = 1
    # optimizer
    momentum: float = 0.9
    decay: float = 0.0001
    adam: bool = False
    B1: float = 0.9
    B2: float = 0.999
    eps: float = 0.000001
    ema_alpha: float = 0.0
    loss_scale: float = 1.0
    dynamic_minibatch: bool = False
    # augmentation
    flip: bool = True
    angle: float = 0.0
    aspect: float = 1.0
    saturation: float = 1.0
    exposure: float = 1.0
    hue: float = 0.0
    blur: int = 0
    gaussian_noise: int = 0
    mixup: int = 0  # 0 none, 1 mixup, 2 cutmix, 3 mosaic, 4 mosaic and cutmix, as Darknet codes it
    mosaic_bound: bool = False
    letter_box: bool = False
    max_crop: int = 0
    min_crop: int = 0
    resize_step: int = 32
    label_smooth_eps: float = 0.0
    adversarial_lr: float = 0.0
    attention: bool = False
    contrastive: bool = False
    contrastive_jit_flip: bool = False
    contrastive_color: bool = False
    unsupervised: bool = False
    track: bool = False
    augment_speed: int = 2
    # guards and display
    try_fix_nan: bool = False
    weights_reject_freq: int = 0
    equidistant_point: int = 0
    badlabels_rejection_percentage: float = 0.0
    num_sigmas_reject_badlabels: float = 0.0
    max_chart_loss: float = 20.0
    show_receptive_field: bool = False

    @property
    def mini_batch(self) -> int:
        """Images per forward pass; at least one."""
        return max(self.batch // self.subdivisions, 1)

    @property
    def batch_images(self) -> int:
        """Images of one iteration, which Darknet divides `seen` by to get the iteration (`parse_net_options`)."""
        return self.mini_batch * self.subdivisions * self.time_steps

    def resized(self, width: int | None, height: int | None) -> NetSpec:
        """The same net at another input size (None keeps a side)."""
        if not self.channels:  # inputs= counts, not the sides
            return self
        width, height = width or self.width, height or self.height
        return replace(self, width=width, height=height, inputs=width * height * self.channels)

    @classmethod
    def parse(cls, o: Options) -> NetSpec:
        """Reads `[net]`. Keys that only steer C Darknet's GPU memory are accepted and have no effect."""
        width = o.int("width", 0, 0, _SIDE_LIMIT)
        height = o.int("height", 0, 0, _SIDE_LIMIT)
        # Five published recurrent cfgs leave channels out and give inputs; image cfgs that do mean RGB.
        channels = o.int("channels", 3 if width and height and "inputs" not in o else 0, 0, _SIDE_LIMIT)
        max_batches = o.int("max_batches", 0, 0)
        subdivisions = o.int("subdivisions", 1, 1)
        policy = o.choice("policy", "constant", POLICIES)
        sequential = o.int("sequential_subdivisions", subdivisions, 1)
        for key in MEMORY_KEYS:
            o.float(key)
        values: dict[str, Any] = {
            "width": width,
            "height": height,
            "channels": channels,
            "inputs": o.int("inputs", width * height * channels, 0, 1 << 30),
            "batch": o.int("batch", 1, 1),
            "subdivisions": subdivisions,
            "time_steps": o.int("time_steps", 1, 1),
            "max_batches": max_batches,
            "policy": policy,
            "burn_in": o.int("burn_in", 0, 0),
            "sgdr_cycle": o.int("sgdr_cycle", max_batches, 0),
            "sgdr_mult": o.int("sgdr_mult", 2, 1),
            "sequential_subdivisions": min(sequential, subdivisions),
            "mixup": _mixing(o),
            "max_crop": o.int("max_crop", width * 2),
            "min_crop": o.int("min_crop", width),
            "resize_step": int(o.float("resize_step", 32, 1)),
            "blur": o.int("blur"),
            "gaussian_noise": o.int("gaussian_noise"),
            "augment_speed": o.int("augment_speed", 2),
            "weights_reject_freq": o.int("weights_reject_freq"),
            "equidistant_point": o.int("equidistant_point"),
        }
        for key in _FLOATS:
            values[key] = o.float(key, getattr(cls, key))
        for key in _FLAGS:
            values[key] = o.flag(key, getattr(cls, key))
        if values["adam"]:
            values.update(B1=o.float("B1", 0.9), B2=o.float("B2", 0.999), eps=o.float("eps", 0.000001))
        values.update(_policy(o, policy))
        if not values["inputs"]:
            o.error("expected width, height and channels (or inputs), got none")
        return cls(**values)


_FLOATS = (
    "learning_rate",
    "learning_rate_min",
    "power",
    "momentum",
    "decay",
    "ema_alpha",
    "loss_scale",
    "angle",
    "aspect",
    "saturation",
    "exposure",
    "hue",
    "label_smooth_eps",
    "adversarial_lr",
    "badlabels_rejection_percentage",
    "num_sigmas_reject_badlabels",
    "max_chart_loss",
)
_FLAGS = (
    "adam",
    "dynamic_minibatch",
    "flip",
    "mosaic_bound",
    "letter_box",
    "attention",
    "contrastive",
    "contrastive_jit_flip",
    "contrastive_color",
    "unsupervised",
    "track",
    "try_fix_nan",
    "show_receptive_field",
)
MEMORY_KEYS = ("optimized_memory", "workspace_size_limit_MB", "use_cuda_graph")


def _mixing(o: Options) -> int:
    mixup, cutmix, mosaic = o.int("mixup"), o.flag("cutmix"), o.flag("mosaic")
    if mosaic:
        return 4 if cutmix else 3
    return 2 if cutmix else mixup


def _policy(o: Options, policy: str) -> dict[str, Any]:
    """The keys that one policy reads. Others are left unread, so that they show up as unused, as in Darknet."""
    if policy == "step":
        return {"step": o.int("step", 1, 1), "scale": o.float("scale", 1.0)}
    if policy == "exp":
        return {"gamma": o.float("gamma", 1.0)}
    if policy == "sigmoid":
        return {"gamma": o.float("gamma", 1.0), "step": o.int("step", 1, 1)}
    if policy not in ("steps", "sgdr"):
        return {}
    steps, scales = o.ints("steps"), o.floats("scales")
    if policy == "steps" and not (steps and scales):
        o.error("policy=steps wants steps= and scales=")
    if len(scales) < len(steps):
        if scales:
            o.error(f"scales: expected {len(steps)} numbers, one per step, got {len(scales)}", "scales")
        scales += (1.0,) * (len(steps) - len(scales))
    sequence = o.floats("seq_scales")
    sequence += (1.0,) * (len(steps) - len(sequence))
    return {"steps": steps, "scales": scales[: len(steps)], "seq_scales": sequence[: len(steps)]}
