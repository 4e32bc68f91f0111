"""`convert CFG WEIGHTS OUT`."""

from __future__ import annotations

import argparse

from darknet_py.cli.common import positive
from darknet_py.data.datafile import read_names
from darknet_py.export.convert import convert


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("cfg", metavar="CFG", help="the Darknet cfg; leave it out when WEIGHTS is a .pt", nargs="?")
    parser.add_argument("weights", metavar="WEIGHTS", help="a .weights file or a .pt checkpoint")
    parser.add_argument("out", metavar="OUT", help="the file to write; its ending (.pt, .weights) chooses the format")
    parser.add_argument(
        "--cutoff", type=positive, metavar="N", help="the first N layers only, as Darknet's `partial` (NAME.conv.N)"
    )
    parser.add_argument("--names", metavar="FILE", help="class names, one a line, to keep in the checkpoint")


def run(args: argparse.Namespace) -> int:
    names = read_names(args.names) if args.names else ()
    out = convert(args.cfg, args.weights, args.out, names, args.cutoff)
    print(f"wrote {out} ({out.stat().st_size} bytes)")
    return 0
