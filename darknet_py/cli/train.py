"""`darknet_py train`: a cfg and labeled images to weights."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from darknet_py.cli.common import amp_argument, count, fraction, positive

HELP = "train a detector or a classifier (without --data on a small built-in set)"

# Shown in --help; `--set` takes every key of [net].
_NET: dict[str, Callable[[str], float]] = {
    **dict.fromkeys(("width", "height", "batch", "subdivisions", "max_batches"), positive),
    "learning_rate": float,
    "burn_in": count,
    "momentum": float,
    "decay": float,
}


def configure(parser: argparse.ArgumentParser) -> None:
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
        help="fine-tune for another number of classes: the cfg is rewritten, and what fits of the weights is loaded",
    )
    parser.add_argument(
        "--workers", type=count, metavar="N", help="processes that load images (default: by the machine)"
    )
    parser.add_argument(
        "--cache",
        action=argparse.BooleanOptionalAction,
        help="keep decoded images in memory, all that fit in half of what is free (default: small sets only)",
    )
    parser.add_argument("--limit", type=positive, metavar="N", help="use the first N images of each list")
    parser.add_argument("--skip-bad-labels", action="store_true", help="list wrong label rows and go on without them")

    measure = parser.add_argument_group("mAP (or top-1) while training")
    measure.add_argument("--map", type=_cadence, metavar="N|on|off", help="every N iterations, or Darknet's cadence")
    measure.add_argument("--map-epochs", type=positive, metavar="N", help="epochs in Darknet's cadence (default: 4)")
    measure.add_argument("--patience", type=positive, metavar="N", help="end after N measurements without a better one")
    measure.add_argument("--iou-thresh", type=fraction, metavar="T", help="IoU of a hit (default: 0.5)")
    measure.add_argument("--points", type=int, choices=(0, 11, 101), help="recall points; 0 is the area (default)")
    measure.add_argument(
        "--thresh", type=fraction, metavar="T", help="confidence for precision and recall (default: 0.25)"
    )
    net_arguments(parser)


def run_arguments(parser: argparse.ArgumentParser) -> None:
    """What every training takes."""
    parser.add_argument("--weights", metavar="FILE", help="start from a .weights file or a .pt checkpoint")
    parser.add_argument("--cutoff", type=positive, metavar="N", help="load the first N layers only, and count from 0")
    parser.add_argument("--clear", action="store_true", help="count iterations from 0, whatever the weights say")
    parser.add_argument("--resume", action="store_true", help="continue from NAME_last.state as if never stopped")
    parser.add_argument("--out", metavar="FOLDER", help="weights, state, log and chart (default: backup= of the data)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 … (default: a GPU if there is one)")
    amp_argument(parser)
    parser.add_argument("--bn-momentum", type=float, metavar="X", help="of batch norm's running statistics")
    parser.add_argument("--sync-bn", action="store_true", help="batch norm over all processes (torchrun)")
    parser.add_argument("--seed", type=int, default=0, help="of everything random (default: 0)")
    parser.add_argument("--save-every", type=positive, metavar="N", help="NAME_last every N iterations (default: 100)")
    parser.add_argument("--log-every", type=positive, metavar="N", help="a log line every N iterations")
    parser.add_argument("--quiet", action="store_true", help="print errors and the result only")
    parser.add_argument("--no-chart", action="store_true", help="do not draw chart_NAME.png")
    parser.add_argument("--tensorboard", action="store_true", help="write NAME_tensorboard too (extra: tensorboard)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def net_arguments(parser: argparse.ArgumentParser) -> None:
    """New values for keys of `[net]`."""
    net = parser.add_argument_group("instead of the cfg's [net]")
    for key, kind in _NET.items():
        net.add_argument(f"--{key.replace('_', '-')}", type=kind, metavar="N" if kind is not float else "X")
    net.add_argument("--ema", type=float, metavar="ALPHA", help="ema_alpha: average the weights, such as 0.9998")
    net.add_argument(
        "--set",
        action="append",
        default=[],
        type=_assignment,
        metavar="KEY=VALUE",
        help="another key, or a head's jitter, random",
    )


def run(args: argparse.Namespace) -> int:
    from darknet_py.errors import TrainError
    from darknet_py.training.trainer import train

    given: dict[str, Any] = {key: value for key, value in vars(args).items() if key not in _HERE}
    for key, value in args.set:
        if given.get(key) is not None or (key in given and key not in _NET):
            raise TrainError(
                f"--set {key}: expected a key of [net] without an option of its own, or not given by it too"
            )
        given[key] = value
    result = train(args.cfg, args.data, args.weights, chart=not args.no_chart, **given)
    if os.environ.get("RANK", "0") != "0":  # of several processes (torchrun) one talks
        return 0
    if args.json:
        import json

        print(json.dumps({key: _plain(value) for key, value in result._asdict().items()}))
        return 0
    accuracy = "" if result.best_map is None else f", best {result.label} {result.best_map:.2%}"
    print(f"{result.iterations} iterations, average loss {result.average:.4g}{accuracy}", file=sys.stderr)
    made = result.cfg if result.cfg != Path(args.cfg) else None
    for path in (made, result.weights, result.best, result.state, result.log, result.chart):
        if path:
            print(path)
    return 0


_HERE = ("cfg", "data", "weights", "no_chart", "set", "json", "command", "action", "run")


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, (int, float)) else str(value)


def _cadence(text: str) -> bool | int:
    return {"on": True, "off": False}[text] if text in ("on", "off") else positive(text)


def _assignment(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key or not value:
        raise argparse.ArgumentTypeError(f"expected KEY=VALUE, got {text!r}")
    return key, value
