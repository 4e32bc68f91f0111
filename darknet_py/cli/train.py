"""`darknet-py train`: a cfg and labeled images to weights."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from darknet_py.cli.chart_stream import ChartStream
from darknet_py.cli.common import (
    count,
    darknet_argument,
    device_argument,
    fraction,
    json_argument,
    max_pixels_argument,
    output_folder,
    port,
    positive,
    rank_timeout_argument,
    write_json,
)
from darknet_py.cli.darknet_training import END_LINE, DarknetLines
from darknet_py.cli.usage import UsageError
from darknet_py.counted import counted
from darknet_py.files import write_atomically
from darknet_py.training.callbacks import TrainCallback
from darknet_py.training.distributed import joined_processes
from darknet_py.training.duration import parse_duration
from darknet_py.training.plan import TrainingPlan
from darknet_py.training.session import measured
from darknet_py.training.session import run as run_training
from darknet_py.training.train_options import RECIPES, NetValue, TrainOptions, given_overrides
from darknet_py.training.trainer import TrainResult

# Shown in --help; `--set` takes every key of [net].
_NET: dict[str, Callable[[str], float]] = {
    **dict.fromkeys(("width", "height", "batch", "subdivisions", "max_batches"), positive),
    "learning_rate": float,
    "burn_in": count,
    "momentum": float,
    "decay": float,
}
_NET_HELP = {
    "batch": "images per update (Darknet's batch), in `subdivisions` forward passes",
    "subdivisions": "forward passes per update",
    "max_batches": "iterations; steps and burn_in change in proportion unless they are given",
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("cfg", metavar="CFG", help="a Darknet cfg, or a .pt checkpoint (its cfg and weights)")
    parser.add_argument(
        "--data",
        metavar="FILE",
        help="a .data file, COCO JSON, VOC folder or data.yaml; a folder of folders per class (default: built-in data)",
    )
    run_arguments(parser)
    parser.add_argument(
        "--classes",
        type=positive,
        metavar="N",
        help="fine-tune for another number of classes: the cfg is rewritten, and matching weights are loaded",
    )
    parser.add_argument(
        "--recipe",
        choices=RECIPES,
        help="finetune: schedule, rate, batch, anchors and more by data and machine (default with --classes); scratch: "
        "the same without weights; darknet: the cfg word for word (default)",
    )
    parser.add_argument(
        "--split",
        type=_share,
        metavar="X|none",
        help="share of the images to hold out for validation where there is no validation list (default: 0.1 with a "
        "recipe, else none)",
    )
    parser.add_argument("--freeze", type=positive, metavar="N", help="keep the weights of the first N layers")
    parser.add_argument(
        "--workers", type=count, metavar="N", help="processes that load images (default: by the machine)"
    )
    parser.add_argument(
        "--cache",
        action=argparse.BooleanOptionalAction,
        help="keep decoded images in memory, all that fit in half of the free memory (default: small data sets only)",
    )
    parser.add_argument("--limit", type=positive, metavar="N", help="use the first N images of each list")
    parser.add_argument("--skip-bad-labels", action="store_true", help="list wrong label rows and train without them")

    evaluation = parser.add_argument_group("evaluation during training (mAP or top-1)")
    evaluation.add_argument("--map", type=_interval, metavar="N|on|off", help="every N iterations, or Darknet's rule")
    evaluation.add_argument("--map-epochs", type=positive, metavar="N", help="epochs in Darknet's rule (default: 4)")
    evaluation.add_argument(
        "--patience", type=positive, metavar="N", help="stop early after N evaluations without a better score"
    )
    evaluation.add_argument(
        "--iou-thresh", type=fraction, metavar="T", help="IoU of a correct detection (default: 0.5)"
    )
    evaluation.add_argument("--points", type=int, choices=(0, 11, 101), help="recall points; 0 is the area (default)")
    evaluation.add_argument(
        "--thresh", type=fraction, metavar="T", help="confidence threshold for precision and recall (default: 0.25)"
    )
    net_arguments(parser)


def run_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of every training."""
    # The whole command line, for the report, and when it began.
    parser.set_defaults(argv=(), started=time.monotonic())
    parser.add_argument("--weights", metavar="FILE", help="start from a .weights file or a .pt checkpoint")
    parser.add_argument(
        "--cutoff", type=positive, metavar="N", help="load the first N layers only, and count iterations from 0"
    )
    parser.add_argument("--clear", action="store_true", help="count iterations from 0, whatever the weights file says")
    parser.add_argument("--resume", action="store_true", help="continue from NAME_last.state as if never stopped")
    parser.add_argument(
        "--out",
        type=output_folder,
        metavar="FOLDER",
        help="weights, state, log and chart (default: backup= of the data)",
    )
    device_argument(parser)
    parser.add_argument(
        "--amp",
        choices=("bf16", "fp16", "fp32"),
        help="mixed precision; fp32: none (default: by a recipe bf16 where the CPU multiplies it faster, else none)",
    )
    max_pixels_argument(parser)
    parser.add_argument("--bn-momentum", type=float, metavar="X", help="momentum of batch norm's running statistics")
    rank_timeout_argument(parser)
    parser.add_argument("--sync-bn", action="store_true", help="batch norm over all processes (torchrun)")
    parser.add_argument("--seed", type=int, default=0, help="random seed (default: 0)")
    parser.add_argument("--save-every", type=positive, metavar="N", help="NAME_last every N iterations (default: 100)")
    parser.add_argument(
        "--keep", type=positive, metavar="N", help="keep the last N of the numbered weights only (default: all)"
    )
    parser.add_argument("--log-every", type=positive, metavar="N", help="a log line every N iterations")
    parser.add_argument(
        "--recover",
        action=argparse.BooleanOptionalAction,
        help="where the loss is not finite or explodes, go back and halve the learning rate, up to three times",
    )
    parser.add_argument("--quiet", action="store_true", help="print errors and the result only")
    parser.add_argument("--no-chart", action="store_true", help="do not draw chart_NAME.png")
    parser.add_argument("--mjpeg-port", type=port, metavar="PORT", help="serve the chart over HTTP, for browsers")
    parser.add_argument(
        "--stream-host",
        default="127.0.0.1",
        metavar="HOST",
        help="address of --mjpeg-port (default: this machine alone)",
    )
    parser.add_argument("--no-report", action="store_true", help="do not write NAME_report.html")
    parser.add_argument("--tensorboard", action="store_true", help="write NAME_tensorboard too (extra: tensorboard)")
    parser.add_argument("--dry-run", action="store_true", help="print what would be done, and write nothing")
    json_argument(parser, "write the result (the plan with --dry-run) as JSON (default: stdout)")
    darknet_argument(parser, "training prints, and write chart.png into the current folder too")


def net_arguments(parser: argparse.ArgumentParser) -> None:
    """New values for keys of `[net]`."""
    net = parser.add_argument_group("instead of the cfg's [net]")
    length = net.add_mutually_exclusive_group()
    length.add_argument("--epochs", type=positive, metavar="N", help="passes over the training images")
    length.add_argument("--time", type=_duration, metavar="T", help="time to train, such as 20m, 1h30m or 90s")
    for key, kind in _NET.items():
        flag = f"--{key.replace('_', '-')}"
        group = length if key == "max_batches" else net
        group.add_argument(flag, type=kind, metavar="N" if kind is not float else "X", help=_NET_HELP.get(key))
    net.add_argument("--ema", type=float, metavar="ALPHA", help="ema_alpha: average the weights, such as 0.9998")
    net.add_argument(
        "--set",
        action="append",
        default=[],
        type=_assignment,
        metavar="KEY=VALUE",
        help="another key of [net], or jitter, random, resize of the detection layers",
    )


def run(args: argparse.Namespace) -> int:
    """Trains, or prints the plan."""
    with joined_processes(args.rank_timeout):
        return _run(args)


def _run(args: argparse.Namespace) -> int:
    # Importing torch, which parsing did, takes seconds on a busy machine; `--time` counts them.
    plan = replace(TrainingPlan.create(*plan_arguments(args)), started=args.started)
    if plan.options.time or args.dry_run or not args.quiet:
        plan = measured(plan)
    if args.dry_run:
        if plan.context.is_main_process:
            write_json(args.json, plan.to_json()) if args.json else print(plan)
        return 0
    command = shlex.join(["darknet-py", *args.argv])
    callbacks: list[TrainCallback] = [DarknetLines(plan)] if args.darknet else []
    if args.mjpeg_port is not None and plan.context.is_main_process:
        callbacks.append(ChartStream(plan, args.stream_host, args.mjpeg_port))
    result = run_training(plan, callbacks, command=command, owns_process=True)
    if plan.context.is_main_process:
        if args.darknet:
            _end_as_darknet(result, bool(plan.graph.detection_specs))
        write_json(args.json, _result_json(result)) if args.json else _print_result(plan, result, args.darknet)
    return 0


def _end_as_darknet(result: TrainResult, is_detector: bool) -> None:
    """The last line, and the charts where C writes them: chart.png and chart_NAME.png in the current folder."""
    if is_detector:
        print(END_LINE)
    if result.chart:
        for name in ("chart.png", result.chart.name):
            if Path(name).resolve() != result.chart.resolve():
                write_atomically(name, result.chart.read_bytes())


def plan_arguments(
    args: argparse.Namespace,
) -> tuple[str, str | None, str | None, TrainOptions, dict[str, NetValue]]:
    """What `TrainingPlan.create` takes, from the command line."""
    given = {key: value for key, value in vars(args).items() if key not in _OTHER and value is not None}
    options = {key: value for key, value in given.items() if key not in _NET and key != "ema"}
    overrides = given_overrides({key: value for key, value in given.items() if key not in options})
    for key, value in args.set:
        if key in overrides or (key in vars(args) and key not in _NET):
            raise UsageError(
                f"--set {key}: expected a key of [net] without an option of its own, or not given by it too"
            )
        overrides[key] = value
    return (
        args.cfg,
        args.data,
        args.weights,
        TrainOptions(**options, chart=not args.no_chart, report=not args.no_report),
        overrides,
    )


# Not options of training.
_OTHER = (
    "cfg",
    "data",
    "weights",
    "no_chart",
    "no_report",
    "argv",
    "started",
    "set",
    "json",
    "darknet",
    "dry_run",
    "mjpeg_port",
    "stream_host",
    "command",
    "action",
    "run",
)


def _print_result(plan: TrainingPlan, result: TrainResult, darknet: bool) -> None:
    best = "" if result.best_map is None else f", best {result.label} {result.best_map:.2%}"
    print(f"{counted(result.iterations, 'iteration')}, average loss {result.average:.4g}{best}", file=sys.stderr)
    rewritten = result.cfg if result.cfg != plan.source else None
    target = sys.stderr if darknet else sys.stdout
    for path in (rewritten, result.weights, result.best, result.state, result.log, result.chart):
        if path:
            print(path, file=target)


def _result_json(result: TrainResult) -> dict[str, object]:
    return {key: str(value) if isinstance(value, Path) else value for key, value in result._asdict().items()}


def _interval(text: str) -> bool | int:
    return {"on": True, "off": False}[text] if text in ("on", "off") else positive(text)


def _duration(text: str) -> str:
    try:
        parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _share(text: str) -> str | float:
    return text if text == "none" else fraction(text)


def _assignment(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key or not value:
        raise argparse.ArgumentTypeError(f"expected KEY=VALUE, got {text!r}")
    return key, value
