"""The `[net]` section: input size, optimizer, schedule and augmentation (Darknet's `parse_net_options`)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from darknet_py.cfg.options import Options

POLICIES = ("constant", "step", "steps", "exp", "poly", "sigmoid", "random", "sgdr")
# Keys that Darknet knows and that have no effect here: they steer the memory and the printed output of the C program.
UNUSED_KEYS = ("optimized_memory", "workspace_size_limit_MB", "use_cuda_graph", "show_receptive_field")
_MAX_SIDE = 1 << 16
_MAX_INPUTS = 1 << 30


@dataclass(frozen=True)
class NetSpec:
    """The options of `[net]`, with Darknet's names and defaults.

    Attributes:
        width: input width in pixels; 0 for a network without images.
        height: input height in pixels; 0 for a network without images.
        channels: input channels.
        inputs: input values: width · height · channels, or the symbols of a text network.
        batch: images per update (all subdivisions together).
        subdivisions: mini-batches per update.
        time_steps: time steps that a recurrent network is trained on at once.
        mixup: 0 none, 1 mixup, 2 cutmix, 3 mosaic, 4 mosaic and cutmix.
        mosaic_stop: iterations after which a detector's images are no longer mixed; 0: never. C ignores this key.
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
    mixup: int = 0
    mosaic_bound: bool = False
    mosaic_stop: int = 0
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
    # numerical guards and the training chart
    try_fix_nan: bool = False
    weights_reject_freq: int = 0
    equidistant_point: int = 0
    badlabels_rejection_percentage: float = 0.0
    num_sigmas_reject_badlabels: float = 0.0
    max_chart_loss: float = 20.0

    @property
    def mini_batch(self) -> int:
        """Images per forward pass; at least one."""
        return max(self.batch // self.subdivisions, 1)

    @property
    def batch_images(self) -> int:
        """Images of one iteration. Darknet divides `seen` by it to get the iteration (`parse_net_options`)."""
        return self.mini_batch * self.subdivisions * self.time_steps

    def resized(self, width: int | None, height: int | None) -> NetSpec:
        """The same options at another input size.

        Args:
            width: input width in pixels; None keeps it.
            height: input height in pixels; None keeps it.

        Returns:
            The options; unchanged for a network whose input is no image.
        """
        if not self.channels:
            return self
        width, height = width or self.width, height or self.height
        return replace(self, width=width, height=height, inputs=width * height * self.channels)

    @classmethod
    def parse(cls, options: Options) -> NetSpec:
        """Reads the section.

        Args:
            options: the section. Faults are recorded in it.

        Returns:
            The options, with defaults in place of faulty values.
        """
        width = options.int("width", 0, 0, _MAX_SIDE)
        height = options.int("height", 0, 0, _MAX_SIDE)
        # Five published recurrent cfgs leave channels out and give inputs; image cfgs without channels mean RGB.
        channels = options.int("channels", 3 if width and height and "inputs" not in options else 0, 0, _MAX_SIDE)
        inputs = options.int("inputs", width * height * channels, 0, _MAX_INPUTS)
        if not inputs:
            missing = [key for key in ("width", "height") if key not in options]
            got = f"no {missing[0]}" if len(missing) == 1 else "none"
            options.error(f"expected width, height and channels (or inputs), got {got}")
        max_batches = options.int("max_batches", 0, 0)
        subdivisions = options.int("subdivisions", 1, 1)
        schedule = _parse_policy(options)
        adam = options.flag("adam")
        options.accept(*UNUSED_KEYS)
        return cls(
            width=width,
            height=height,
            channels=channels,
            inputs=inputs,
            batch=options.int("batch", 1, 1),
            subdivisions=subdivisions,
            time_steps=options.int("time_steps", 1, 1),
            max_batches=max_batches,
            learning_rate=options.float("learning_rate", cls.learning_rate),
            learning_rate_min=options.float("learning_rate_min", cls.learning_rate_min),
            policy=schedule.policy,
            burn_in=options.int("burn_in", 0, 0),
            power=options.float("power", cls.power),
            step=schedule.step,
            scale=schedule.scale,
            gamma=schedule.gamma,
            steps=schedule.steps,
            scales=schedule.scales,
            seq_scales=schedule.seq_scales,
            sgdr_cycle=options.int("sgdr_cycle", max_batches, 0),
            sgdr_mult=options.int("sgdr_mult", cls.sgdr_mult, 1),
            sequential_subdivisions=min(options.int("sequential_subdivisions", subdivisions, 1), subdivisions),
            momentum=options.float("momentum", cls.momentum),
            decay=options.float("decay", cls.decay),
            adam=adam,
            B1=options.float("B1", cls.B1) if adam else cls.B1,
            B2=options.float("B2", cls.B2) if adam else cls.B2,
            eps=options.float("eps", cls.eps) if adam else cls.eps,
            ema_alpha=options.float("ema_alpha", cls.ema_alpha),
            loss_scale=options.float("loss_scale", cls.loss_scale),
            dynamic_minibatch=options.flag("dynamic_minibatch"),
            flip=options.flag("flip", cls.flip),
            angle=options.float("angle", cls.angle),
            aspect=options.float("aspect", cls.aspect),
            saturation=options.float("saturation", cls.saturation),
            exposure=options.float("exposure", cls.exposure),
            hue=options.float("hue", cls.hue),
            blur=options.int("blur"),
            gaussian_noise=options.int("gaussian_noise"),
            mixup=_parse_mixup(options),
            mosaic_bound=options.flag("mosaic_bound"),
            mosaic_stop=options.int("mosaic_stop", 0, 0),
            letter_box=options.flag("letter_box"),
            max_crop=options.int("max_crop", width * 2),
            min_crop=options.int("min_crop", width),
            resize_step=int(options.float("resize_step", cls.resize_step, 1)),
            label_smooth_eps=options.float("label_smooth_eps", cls.label_smooth_eps),
            adversarial_lr=options.float("adversarial_lr", cls.adversarial_lr),
            attention=options.flag("attention"),
            contrastive=options.flag("contrastive"),
            contrastive_jit_flip=options.flag("contrastive_jit_flip"),
            contrastive_color=options.flag("contrastive_color"),
            unsupervised=options.flag("unsupervised"),
            track=options.flag("track"),
            augment_speed=options.int("augment_speed", cls.augment_speed),
            try_fix_nan=options.flag("try_fix_nan"),
            weights_reject_freq=options.int("weights_reject_freq"),
            equidistant_point=options.int("equidistant_point"),
            badlabels_rejection_percentage=options.float("badlabels_rejection_percentage"),
            num_sigmas_reject_badlabels=options.float("num_sigmas_reject_badlabels"),
            max_chart_loss=options.float("max_chart_loss", cls.max_chart_loss),
        )


class _Policy(NamedTuple):
    """The keys that only some policies read, with their defaults for the others."""

    policy: str
    step: int = NetSpec.step
    scale: float = NetSpec.scale
    gamma: float = NetSpec.gamma
    steps: tuple[int, ...] = ()
    scales: tuple[float, ...] = ()
    seq_scales: tuple[float, ...] = ()


def _parse_policy(options: Options) -> _Policy:
    """Reads the keys of the section's policy. Keys of other policies stay unread and are reported, as in Darknet."""
    policy = options.choice("policy", NetSpec.policy, POLICIES)
    if policy == "step":
        return _Policy(policy, step=options.int("step", 1, 1), scale=options.float("scale", 1.0))
    if policy == "exp":
        return _Policy(policy, gamma=options.float("gamma", 1.0))
    if policy == "sigmoid":
        return _Policy(policy, gamma=options.float("gamma", 1.0), step=options.int("step", 1, 1))
    if policy not in ("steps", "sgdr"):
        return _Policy(policy)
    steps, scales = options.ints("steps"), options.floats("scales")
    if policy == "steps" and not (steps and scales):
        missing = " and ".join(key for key, values in (("steps=", steps), ("scales=", scales)) if not values)
        options.error(f"policy=steps: expected steps= and scales=, got no {missing}")
    if len(scales) < len(steps):
        if scales:
            options.error(f"scales: expected {len(steps)} numbers, one per step, got {len(scales)}", "scales")
        scales += (1.0,) * (len(steps) - len(scales))
    seq_scales = options.floats("seq_scales")
    seq_scales += (1.0,) * (len(steps) - len(seq_scales))
    return _Policy(policy, steps=steps, scales=scales[: len(steps)], seq_scales=seq_scales[: len(steps)])


def _parse_mixup(options: Options) -> int:
    """The code of `NetSpec.mixup`, which three keys decide."""
    mixup, cutmix, mosaic = options.int("mixup"), options.flag("cutmix"), options.flag("mosaic")
    if mosaic:
        return 4 if cutmix else 3
    return 2 if cutmix else mixup
