"""`design --backbone B …` writes a cfg from its parts; `design --csp F CFG` converts a plain cfg to a CSP network."""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import replace
from pathlib import Path

from darknet_py.cli.common import output_file_or_stdout, positive, write_text
from darknet_py.cli.design_search import check_no_search_options, list_of, search, search_arguments
from darknet_py.cli.usage import UsageError
from darknet_py.errors import DarknetError
from darknet_py.zoo.backbones import BACKBONES
from darknet_py.zoo.csp_transform import to_csp
from darknet_py.zoo.design import ATTENTIONS, HEADS, NECKS, TOPS, Design
from darknet_py.zoo.stages import Csp

_FUSIONS = {"csp": "csp", "fusion-first": "first", "fusion-last": "last", "first": "first", "last": "last"}
_PARTS = (
    "neck",
    "top",
    "head",
    "classes",
    "anchors",
    "levels",
    "activation",
    "attention",
    "neck_attention",
    "elastic",
    "width",
    "height",
    "batch",
    "batches",
)
_EPILOG = """\
examples:
  darknet-py design --backbone peleenet --csp fusion-last --gamma 0.5 --neck efm --classes 80 > cfg/my.cfg
  darknet-py design --backbone darknet53 --csp --neck panet --top spp --head yolov4 > cfg/my.cfg
  darknet-py design --csp fusion-first cfg/resnet50.cfg > cfg/my-csresnet50.cfg
  darknet-py design --list
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    parser.add_argument("cfg", metavar="CFG", nargs="?", help="a plain cfg to convert to a cross stage partial one")
    parser.add_argument("--list", action="store_true", help="list backbones, necks and heads")
    parser.add_argument(
        "--write", type=output_file_or_stdout, metavar="OUT.cfg", help="file to write (default: standard output)"
    )
    stage = parser.add_argument_group("stages")
    stage.add_argument("--backbone", metavar="NAME", help="resnet10 … resnext101, darknet53, densenet201, peleenet, …")
    stage.add_argument(
        "--csp",
        metavar="FUSION",
        nargs="?",
        const="csp",
        help="cross stage partial stages: fusion-first (concatenate → transition), fusion-last (transition → "
        "concatenate), csp (both transitions; the default of --csp without a value)",
    )
    stage.add_argument("--gamma", metavar="G", help="share of the channels that skips the blocks (default: 0.5)")
    stage.add_argument(
        "--split", choices=("conv", "groups"), help="split by two 1x1 convolutions (default) or by [route] groups"
    )
    stage.add_argument("--activation", metavar="NAME", help="activation (default: that of the backbone)")
    stage.add_argument("--attention", metavar="NAME", help="se or sam at the end of each block of the backbone")
    stage.add_argument("--elastic", action="store_true", help="run half of each block at half resolution")
    stage.add_argument(
        "--scale", metavar="F", help="factor for the filters of all layers but those that feed the heads (default: 1)"
    )
    head = parser.add_argument_group("neck and head")
    head.add_argument(
        "--neck", metavar="NAME", help="fpn (default), panet, csp-panet, prn, cem, gfm, efm, added-fpn, tiny-fpn"
    )
    head.add_argument(
        "--neck-attention", metavar="NAME", help="se or sam on the features that each detection head reads"
    )
    head.add_argument("--top", metavar="NAME", help="spp or rfb on the coarsest level")
    head.add_argument("--head", metavar="NAME", help="yolov2, yolov3 (default), yolov4 or classifier")
    head.add_argument("--classes", type=int, metavar="N", help="number of classes (default: 80, classifiers 1000)")
    head.add_argument(
        "--anchors", metavar="W,H,…", help="in pixels of the input, for yolov2 in cells (default: those for COCO)"
    )
    head.add_argument("--levels", type=int, metavar="N", help="strides with a head: 1, 2 or 3 (default)")
    head.add_argument("--width", type=int, metavar="W", help="input width (default: 416, classifiers 256)")
    head.add_argument("--height", type=int, metavar="H", help="input height (default: the width)")
    schedule = parser.add_argument_group("training")
    schedule.add_argument(
        "--batch",
        type=positive,
        metavar="N",
        help="Darknet's batch, images per iteration (default: 64, classifiers 128)",
    )
    schedule.add_argument(
        "--batches",
        type=positive,
        metavar="N",
        help="iterations (default: 2000 per class and at least 6000; for 80 classes 500200; classifiers 800 per class "
        "and at least 8000)",
    )
    search_arguments(parser)


def run(args: argparse.Namespace) -> int:
    if args.list:
        print(_list_parts())
        return 0
    if args.csp and args.csp not in _FUSIONS and args.csp.endswith(".cfg") and not args.cfg:
        args.cfg, args.csp = args.csp, "csp"  # `--csp CFG`
    if args.search:
        return _search(args)
    check_no_search_options(args)
    text = _converted_cfg(args) if args.cfg else _designed_cfg(args)
    write_text(args.write or "-", text)
    return 0


def _csp(args: argparse.Namespace) -> Csp | None:
    if args.csp is None:
        for name in ("gamma", "split"):
            if vars(args)[name] is not None:
                raise UsageError(f"--{name}: expected --csp with it")
        return None
    if args.csp not in _FUSIONS:
        raise UsageError(f"--csp: expected one of fusion-first, fusion-last, csp, got {args.csp!r}")
    return Csp(_number(args.gamma, "--gamma", 0.5), _FUSIONS[args.csp], args.split or "conv")


def _number(text: str | None, option: str, default: float) -> float:
    try:
        return default if text is None else float(text)
    except ValueError:
        raise UsageError(f"{option}: expected a number, got {text!r}") from None


def _search(args: argparse.Namespace) -> int:
    if args.cfg or args.write:
        raise UsageError("--search: expected neither a cfg nor --write with it; --out names its folder")
    gammas = list_of(args.gamma or "0.25,0.5,0.75", "--gamma")
    csps: list[Csp | None] = []
    try:
        for fusion in (args.csp or "none,csp").split(","):
            if fusion != "none" and fusion not in _FUSIONS:
                raise UsageError(f"--csp: expected some of none, fusion-first, fusion-last, csp, got {fusion!r}")
            csps += (
                [None] if fusion == "none" else [Csp(gamma, _FUSIONS[fusion], args.split or "conv") for gamma in gammas]
            )
        base = replace(_design(args, _anchors(args), None, 1.0), backbone="", neck="")
    except DarknetError as error:
        raise UsageError(str(error)) from error
    return search(args, base, csps, list_of(args.scale or "1", "--scale"))


def _designed_cfg(args: argparse.Namespace) -> str:
    if not args.backbone:
        raise UsageError("expected --backbone, or a cfg and --csp; see `design --help` and `design --list`")
    anchors = _anchors(args)
    try:
        return _design(args, anchors, _csp(args), _number(args.scale, "--scale", 1.0)).text(
            f"`darknet-py design {_command(args)}`."
        )
    except DarknetError as error:  # whatever is wrong with a design is wrong with its options
        raise UsageError(str(error)) from error


def _anchors(args: argparse.Namespace) -> list[float]:
    try:
        return [float(part) for part in (args.anchors or "").replace(",", " ").split()]
    except ValueError:
        raise UsageError(f"--anchors: expected numbers, got {args.anchors!r}") from None


def _design(args: argparse.Namespace, anchors: list[float], csp: Csp | None, scale: float) -> Design:
    return Design(
        args.backbone,
        csp,
        neck=args.neck or "",
        top=args.top or "",
        head=args.head or "yolov3",
        classes=args.classes or 0,
        anchors=anchors,
        levels=3 if args.levels is None else args.levels,
        activation=args.activation or "",
        attention=args.attention or "",
        neck_attention=args.neck_attention or "",
        elastic=args.elastic,
        size=(args.width or 0, args.height or args.width or 0),
        batch=args.batch or 0,
        batches=args.batches or 0,
        scale=scale,
    )


def _converted_cfg(args: argparse.Namespace) -> str:
    csp = _csp(args)
    if csp is None:
        raise UsageError(f"{args.cfg}: expected --csp with a cfg; a new design is written by --write {args.cfg}")
    unexpected = [f"--{name.replace('_', '-')}" for name in ("backbone", "scale", *_PARTS) if vars(args)[name]]
    if unexpected:
        raise UsageError(f"{', '.join(unexpected)}: not allowed with a cfg ({args.cfg})")
    converted = to_csp(args.cfg, csp)
    for change in converted.changes:
        print(change, file=sys.stderr)
    about = f"# {Path(args.cfg).name}, converted by `darknet-py design {_command(args)}`.\n"
    return about + converted.text


def _command(args: argparse.Namespace) -> str:
    """The arguments, for the comment in the file."""
    words = []
    for name in ("backbone", "csp", "gamma", "split", "scale", *_PARTS):
        value = vars(args)[name]
        option = f"--{name.replace('_', '-')}"
        if value is True:
            words.append(option)
        elif value not in (None, False):
            words += [option, str(value)]
    return shlex.join(words + ([Path(args.cfg).name] if args.cfg else []))


def _list_parts() -> str:
    width = max(map(len, BACKBONES))
    rows = [f"  {name:<{width}}  {backbone.title}" for name, backbone in BACKBONES.items()]
    lines = ["backbones", *rows]
    for what, names in (("necks", NECKS), ("tops", TOPS), ("heads", HEADS), ("attention", ATTENTIONS)):
        lines.append(f"{what:<10} {', '.join(names)}")
    return "\n".join(lines)
