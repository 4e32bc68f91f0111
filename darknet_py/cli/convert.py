"""`convert CFG [WEIGHTS] OUT`."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from darknet_py.backends.exported import check_measurable, map_cost
from darknet_py.cli.common import calibrate_argument, fraction, output_file, positive, size_arguments, weights_arguments
from darknet_py.counted import counted
from darknet_py.data.datafile import read_names
from darknet_py.errors import DarknetError
from darknet_py.export.convert import EXPORTERS, SUFFIXES, convert, read_source
from darknet_py.export.export_options import DYNAMIC, OUTPUTS, PRECISIONS, ExportOptions
from darknet_py.graph.graph import resized
from darknet_py.model.load import build


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("cfg", metavar="CFG", help="a Darknet cfg, or a checkpoint, which contains its cfg")
    parser.add_argument(
        "weights",
        metavar="WEIGHTS",
        nargs="?",
        help="a .weights file, a checkpoint (.pt, .safetensors), or a state dict of another program "
        "(default: those of CFG, or of a network initialized with --seed)",
    )
    parser.add_argument(
        "out",
        type=output_file,
        metavar="OUT",
        help=f"the file to write; its ending ({', '.join(SUFFIXES)}) chooses the format",
    )
    parser.add_argument(
        "--cutoff", type=positive, metavar="N", help="the first N layers only, as Darknet's `partial` (NAME.conv.N)"
    )
    weights_arguments(parser)
    parser.add_argument("--seed", type=int, default=0, help="random seed of initial weights (default: 0)")
    parser.add_argument("--names", metavar="FILE", help="class names, one a line, to keep in the file")
    exported = parser.add_argument_group(f"exported networks ({', '.join(EXPORTERS)})")
    exported.add_argument(
        "--outputs",
        choices=OUTPUTS,
        help="boxes: decoded candidates; nms: detections after suppression; raw: what the heads read "
        "(default: boxes, raw without detection layers)",
    )
    exported.add_argument("--precision", choices=PRECISIONS, help="of all layers but the heads (default: fp32)")
    calibrate_argument(exported, "for --precision int8")
    exported.add_argument(
        "--data", metavar="FILE", help="labeled data on which to measure what the exported network costs in mAP"
    )
    exported.add_argument("--batch", type=positive, metavar="N", help="images per call (default: 1)")
    exported.add_argument(
        "--dynamic", choices=DYNAMIC, help="what stays open: the number of images, their size, or both (default: none)"
    )
    size_arguments(exported)
    exported.add_argument("--thresh", type=fraction, help="minimum confidence, for --outputs nms (default: 0.25)")
    exported.add_argument(
        "--nms", type=fraction, help="IoU threshold for non-maximum suppression, for --outputs nms (default: 0.45)"
    )


def run(args: argparse.Namespace) -> int:
    names = read_names(args.names) if args.names else ()
    chosen = {
        name: value
        for name in ("outputs", "precision", "calibrate", "batch", "dynamic", "width", "height", "thresh", "nms")
        if (value := vars(args)[name]) not in (None, "")
    }
    if chosen and args.cutoff:
        raise DarknetError(f"--{next(iter(chosen))}: does not apply with --cutoff")
    options = ExportOptions(**chosen)
    if args.data:
        check_measurable(Path(args.out), options)
    out = convert(
        args.cfg,
        args.weights,
        args.out,
        names,
        args.cutoff,
        options if chosen else None,
        random_weights=args.random_weights,
        ignore_rest=args.ignore_rest,
        seed=args.seed,
    )
    print(f"wrote {out} ({counted(out.stat().st_size, 'byte')})")
    if args.data:
        model = read_source(args.cfg, args.weights, names, None, args.ignore_rest)
        model = replace(model, graph=resized(model.graph, args.width, args.height))
        print(map_cost(build(model), out, options, args.data))
    return 0
