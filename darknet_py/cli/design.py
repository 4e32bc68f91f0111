"""`design --backbone B …`: a cfg from its parts. `design --csp F CFG`: a plain cfg made cross stage partial."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from darknet_py.errors import DarknetError

if TYPE_CHECKING:
    from darknet_py.zoo.stages import Csp

HELP = "write a cfg from parts (backbone, CSP stages, neck, head), or make a given plain cfg cross stage partial"

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
    "elastic",
    "width",
    "height",
)
_EPILOG = """\
examples:
  darknet_py design --backbone peleenet --csp fusion-last --gamma 0.5 --neck efm --classes 80 > cfg/my.cfg
  darknet_py design --backbone darknet53 --csp --neck panet --top spp --head yolov4 > cfg/my.cfg
  darknet_py design --csp fusion-first cfg/resnet50.cfg > cfg/my-csresnet50.cfg
  darknet_py design --list
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    parser.add_argument("cfg", metavar="CFG", nargs="?", help="a plain cfg to make cross stage partial")
    parser.add_argument("--list", action="store_true", help="list backbones, necks and heads, and stop")
    parser.add_argument("--out", metavar="FILE", help="where to write the cfg (default: standard output)")
    stage = parser.add_argument_group("stages")
    stage.add_argument("--backbone", metavar="NAME", help="resnet10 … resnext101, darknet53, densenet201, peleenet, …")
    stage.add_argument(
        "--csp",
        metavar="FUSION",
        nargs="?",
        const="csp",
        help="cross stage partial stages: fusion-first (concatenate → transition), fusion-last (transition → "
        "concatenate), csp (both transitions; the default of a bare --csp)",
    )
    stage.add_argument("--gamma", type=float, metavar="G", help="share of the channels that skips the blocks (0.5)")
    stage.add_argument(
        "--split", choices=("conv", "groups"), help="by two 1x1 convolutions (default) or [route] groups"
    )
    stage.add_argument("--activation", metavar="NAME", help="of the whole network (default: that of the backbone)")
    stage.add_argument("--attention", metavar="NAME", help="se or sam, at the end of each block")
    stage.add_argument("--elastic", action="store_true", help="half of each block at half of the resolution")
    head = parser.add_argument_group("neck and head")
    head.add_argument(
        "--neck", metavar="NAME", help="fpn (default), panet, csp-panet, prn, gfm, efm, added-fpn, tiny-fpn"
    )
    head.add_argument("--top", metavar="NAME", help="spp or rfb on the coarsest level")
    head.add_argument("--head", metavar="NAME", help="yolov2, yolov3 (default), yolov4 or classifier")
    head.add_argument("--classes", type=int, metavar="N", help="number of classes (default: 80, of a classifier 1000)")
    head.add_argument("--anchors", metavar="W,H,…", help="in pixels of the input; of yolov2 in cells (default: COCO's)")
    head.add_argument("--levels", type=int, metavar="N", help="strides with a head: 1, 2 or 3 (default)")
    head.add_argument("--width", type=int, metavar="W", help="of the input (default: 416, of a classifier 256)")
    head.add_argument("--height", type=int, metavar="H", help="of the input (default: the width)")


def run(args: argparse.Namespace) -> int:
    if args.list:
        print(_listing())
        return 0
    if args.csp and args.csp not in _FUSIONS and args.csp.endswith(".cfg") and not args.cfg:
        args.cfg, args.csp = args.csp, "csp"  # `--csp CFG`
    text = _crossed(args) if args.cfg else _designed(args)
    if args.out:
        from darknet_py.files import write_atomically

        write_atomically(args.out, text.encode())
    else:
        sys.stdout.write(text)
    return 0


def _csp(args: argparse.Namespace) -> Csp | None:
    from darknet_py.zoo.stages import Csp

    if args.csp is None:
        for name in ("gamma", "split"):
            if getattr(args, name) is not None:
                raise DarknetError(f"--{name}: expected --csp with it")
        return None
    if args.csp not in _FUSIONS:
        raise DarknetError(f"--csp: expected one of fusion-first, fusion-last, csp, got {args.csp!r}")
    gamma = 0.5 if args.gamma is None else args.gamma
    return Csp(gamma, _FUSIONS[args.csp], args.split or "conv")


def _designed(args: argparse.Namespace) -> str:
    from darknet_py.zoo.design import Design

    if not args.backbone:
        raise DarknetError("expected --backbone, or a cfg and --csp; see `design --help` and `design --list`")
    try:
        anchors = [float(part) for part in (args.anchors or "").replace(",", " ").split()]
    except ValueError:
        raise DarknetError(f"--anchors: expected numbers, got {args.anchors!r}") from None
    design = Design(
        args.backbone,
        _csp(args),
        neck=args.neck or "",
        top=args.top or "",
        head=args.head or "yolov3",
        classes=args.classes or 0,
        anchors=anchors,
        levels=3 if args.levels is None else args.levels,
        activation=args.activation or "",
        attention=args.attention or "",
        elastic=args.elastic,
        size=(args.width or 0, args.height or args.width or 0),
    )
    return design.text(f"`python -m darknet_py design {_command(args)}`.")


def _crossed(args: argparse.Namespace) -> str:
    from darknet_py.zoo.csp_transform import to_csp

    csp = _csp(args)
    if csp is None:
        raise DarknetError(f"{args.cfg}: expected --csp with a cfg")
    given = [f"--{name}" for name in ("backbone", *_PARTS) if getattr(args, name)]
    if given:
        raise DarknetError(f"{', '.join(given)}: expected without a cfg, as {args.cfg} has its own")
    crossed = to_csp(args.cfg, csp)
    for change in crossed.changes:
        print(change, file=sys.stderr)
    about = f"# {Path(args.cfg).name} made cross stage partial by `python -m darknet_py design {_command(args)}`.\n"
    return about + crossed.text


def _command(args: argparse.Namespace) -> str:
    """The arguments again, for the comment in the file."""
    words = []
    for name in ("backbone", "csp", "gamma", "split", *_PARTS):
        value = getattr(args, name)
        if value is True:
            words.append(f"--{name}")
        elif value not in (None, False):
            words += [f"--{name}", str(value)]
    return shlex.join(words + ([Path(args.cfg).name] if args.cfg else []))


def _listing() -> str:
    from darknet_py.zoo.backbones import BACKBONES
    from darknet_py.zoo.design import ATTENTIONS, HEADS, NECKS, TOPS

    rows = [f"  {name:<16} {backbone.title}" for name, backbone in BACKBONES.items()]
    lines = ["backbones", *rows]
    for what, names in (("necks", NECKS), ("tops", TOPS), ("heads", HEADS), ("attention", ATTENTIONS)):
        lines.append(f"{what:<10} {', '.join(names)}")
    return "\n".join(lines)
