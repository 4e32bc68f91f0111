"""`info CFG`: the network's table."""

from __future__ import annotations

import argparse
import json

NAME = "info"
HELP = "print a cfg's layers, shapes, parameters and BFLOPs"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("cfg", metavar="CFG")
    parser.add_argument("--width", type=int)
    parser.add_argument("--height", type=int)
    parser.add_argument("--strict", action="store_true", help="unknown keys are errors")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")


def run(args: argparse.Namespace) -> int:
    from darknet_py.cfg.account import as_dict, table
    from darknet_py.cfg.graph import parse

    graph = parse(args.cfg, width=args.width, height=args.height, strict=args.strict)
    print(json.dumps(as_dict(graph), indent=1) if args.json else table(graph))
    return 0
