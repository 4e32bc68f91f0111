"""`darknet_py.train`: training from Python."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from darknet_py.training.callbacks import TrainCallback
from darknet_py.training.distributed import joined_processes
from darknet_py.training.plan import TrainingPlan
from darknet_py.training.session import measured, run
from darknet_py.training.train_options import NetOverrides, NetValue, TrainOptions, given_overrides
from darknet_py.training.trainer import TrainResult

if TYPE_CHECKING:
    from typing_extensions import Unpack


def train(
    cfg: str | Path,
    data: str | Path | None = None,
    weights: str | Path | None = None,
    *,
    out: str | Path | None = None,
    device: str | None = None,
    seed: int = 0,
    workers: int | None = None,
    cache: bool | None = None,
    resume: bool = False,
    clear: bool = False,
    cutoff: int | None = None,
    classes: int | None = None,
    recipe: str | None = None,
    epochs: int | None = None,
    time: str | float | None = None,
    split: str | float | None = None,
    freeze: int | None = None,
    map: bool | int | None = None,
    map_epochs: int = 4,
    iou_thresh: float = 0.5,
    points: int = 0,
    thresh: float = 0.25,
    save_every: int | None = None,
    keep: int | None = None,
    log_every: int | None = None,
    patience: int | None = None,
    recover: bool | None = None,
    limit: int | None = None,
    amp: str | None = None,
    bn_momentum: float | None = None,
    sync_bn: bool = False,
    chart: bool = True,
    report: bool = True,
    tensorboard: bool = False,
    quiet: bool = False,
    skip_bad_labels: bool = False,
    rank_timeout: float = 120,
    callbacks: Sequence[TrainCallback] = (),
    width: int | None = None,
    height: int | None = None,
    batch: int | None = None,
    subdivisions: int | None = None,
    max_batches: int | None = None,
    learning_rate: float | None = None,
    policy: str | None = None,
    burn_in: int | None = None,
    steps: int | str | Sequence[int] | None = None,
    scales: float | str | Sequence[float] | None = None,
    momentum: float | None = None,
    decay: float | None = None,
    ema: float | None = None,
    **net: Unpack[NetOverrides],
) -> TrainResult:
    """Trains a detector, a classifier or a network of text as Darknet does.

    Progress and notes go to the logger `darknet_py` (level INFO); on a terminal a progress bar is shown. Under
    `torchrun` the processes share each batch. The files it writes are listed in `training.checkpoint_dir`.

    Args:
        cfg: A cfg, or a .pt checkpoint, which holds its own cfg and weights.
        data: Of a detector a .data file, COCO JSON, VOC folder or data.yaml; of a classifier a .data file or a folder
            of folders; else a text. Default: a built-in data set.
        weights: A .weights file or checkpoint to start from.
        out: Folder for weights, state, log and chart. Default: `backup` of the .data file.
        device: `cpu`, `cuda`, `cuda:1` …. Default: a GPU if there is one.
        seed: Of everything random.
        workers: Processes that load images. Default: by the machine.
        cache: Keep decoded training images in memory. Default: small data sets only.
        resume: Continue from NAME_last.state in `out` as if training had never stopped.
        clear: Count iterations from 0, whatever the weights file says.
        cutoff: Load the weights of the first N layers only, and count from 0.
        classes: Fine-tune for this number of classes; the cfg is rewritten into `out`.
        recipe: `finetune` (default with `classes`), `scratch` or `darknet` (default: the cfg word for word).
        epochs: Train for so many passes over the images; instead of max_batches.
        time: Train for so long, such as `20m` or `1h30m`, or a number of seconds; instead of max_batches.
        split: Share of the images to hold out for validation where there is no validation list, or `none`. Default:
            0.1 with a recipe other than `darknet`.
        freeze: Keep the weights of the first N layers.
        map: Evaluate every N iterations; True: at Darknet's intervals; False: never. Default: at Darknet's intervals
            where there is a validation list.
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
        bn_momentum: Momentum of batch norm's running statistics.
        sync_bn: Batch norm over the mini-batches of all processes.
        chart: Draw chart_NAME.png and the plots of the best evaluation.
        report: Write NAME_report.html, with contact sheets of training images and of the worst validation images.
        tensorboard: Write NAME_tensorboard too (extra `tensorboard`).
        quiet: Log nothing and show no progress bar.
        skip_bad_labels: List wrong label rows and train without them.
        rank_timeout: Seconds without a sign of life after which another process of `torchrun` is given up: this one
            ends then, with a line and exit code 1.
        callbacks: What is told about iterations and evaluations, see `TrainCallback`.
        width: Input width, instead of the cfg's; likewise the other keys of `[net]` that follow.
        height: Input height.
        batch: Images per update.
        subdivisions: Mini-batches per update.
        max_batches: Iterations; `steps` and `burn_in` change in proportion unless they are given.
        learning_rate: Learning rate after burn-in.
        policy: Schedule of the learning rate, such as `steps` or `sgdr`.
        burn_in: Iterations during which the learning rate rises.
        steps: Iterations at which the learning rate changes.
        scales: Factors of the learning rate at `steps`.
        momentum: Momentum of SGD.
        decay: Weight decay.
        ema: ema_alpha: average the weights.
        **net: Any other key of `[net]`, and jitter, random and resize of the detection layers.

    Returns:
        The files that were written and the last values.

    Raises:
        DarknetError: CfgError, WeightsError, DataError, or TrainError when training cannot start or continue.
        KeyboardInterrupt: Ctrl-C, SIGTERM or SIGHUP; the state of the last whole iteration is saved first.
    """
    call = _call({name: value for name, value in locals().items() if name not in ("callbacks", "net")} | net)
    options = TrainOptions(
        out=out,
        device=device,
        seed=seed,
        workers=workers,
        cache=cache,
        resume=resume,
        clear=clear,
        cutoff=cutoff,
        classes=classes,
        recipe=recipe,
        epochs=epochs,
        time=time,
        split=split,
        freeze=freeze,
        map=map,
        map_epochs=map_epochs,
        iou_thresh=iou_thresh,
        points=points,
        thresh=thresh,
        save_every=save_every,
        keep=keep,
        log_every=log_every,
        patience=patience,
        recover=recover,
        limit=limit,
        amp=amp,
        bn_momentum=bn_momentum,
        sync_bn=sync_bn,
        chart=chart,
        report=report,
        tensorboard=tensorboard,
        quiet=quiet,
        skip_bad_labels=skip_bad_labels,
        rank_timeout=rank_timeout,
    )
    overrides = given_overrides(
        {
            "width": width,
            "height": height,
            "batch": batch,
            "subdivisions": subdivisions,
            "max_batches": max_batches,
            "learning_rate": learning_rate,
            "policy": policy,
            "burn_in": burn_in,
            "steps": steps,
            "scales": scales,
            "momentum": momentum,
            "decay": decay,
            "ema": ema,
            **cast("Mapping[str, NetValue]", net),
        }
    )
    with joined_processes(rank_timeout):
        plan = TrainingPlan.create(cfg, data, weights, options, overrides)
        return run(plan if quiet and not options.time else measured(plan), callbacks, command=call)


def _call(values: Mapping[str, object]) -> str:
    """The call of `train` in Python, without the values that are defaults."""
    defaults = {name: parameter.default for name, parameter in inspect.signature(train).parameters.items()}
    given = {name: value for name, value in values.items() if name not in defaults or value != defaults[name]}
    words = (f"{name}={(str(value) if isinstance(value, Path) else value)!r}" for name, value in given.items())
    return f"darknet_py.train({', '.join(words)})"
