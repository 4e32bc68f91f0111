"""`weights TOOL …`: Darknet's tools for files of weights."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from darknet_py.cli.common import (
    json_argument,
    message_stream,
    output_file_or_stdout,
    positive,
    write_json,
    write_text,
)
from darknet_py.export import weight_tools
from darknet_py.export.convert import convert
from darknet_py.model.model_file import ModelFile

_CHANGES: dict[str, tuple[Callable[[ModelFile], ModelFile], str]] = {
    "rgbgr": (weight_tools.rgbgr, "swap red and blue in the first filters"),
    "rescale": (weight_tools.rescale, "from pixels in -1..1 to pixels in 0..1"),
    "reset": (weight_tools.reset, "fold batch norm, but keep it as scale 1, mean 0, variance 1"),
    "denormalize": (weight_tools.denormalize, "fold batch norm and remove it; for a cfg with batch_normalize=0"),
    "normalize": (weight_tools.normalize, "add batch norm that changes nothing; for a cfg with batch_normalize=1"),
}


def configure(parser: argparse.ArgumentParser) -> None:
    tools = parser.add_subparsers(dest="tool", required=True, metavar="TOOL")
    part = _add(tools, "partial", "keep the first layers, as NAME.conv.N", "weights", "out")
    part.add_argument("layers", metavar="N", type=positive, help="how many layers to keep")
    mean = _add(tools, "average", "average several trainings of one network", "out")
    mean.add_argument("weights", metavar="WEIGHTS", nargs="+", help="two or more files of weights")
    for name, (_, summary) in _CHANGES.items():
        change = _add(tools, name, summary, "weights", "out")
        if "normalize" in name:
            change.add_argument(
                "--cfg-out",
                type=output_file_or_stdout,
                metavar="FILE",
                help="write the cfg that fits the new weights; - is stdout",
            )
    _add(tools, "oneoff", "put a classifier's class filters into a detector's head", "weights", "out")
    json_argument(_add(tools, "statistics", "print mean, variance and range of every array", "weights"))


def run(args: argparse.Namespace) -> int:
    if args.tool == "statistics":
        return _print_statistics(args)
    if args.tool == "average":
        model = weight_tools.average([ModelFile.read(args.cfg, file) for file in args.weights])
    elif args.tool == "oneoff":
        model = weight_tools.oneoff(args.cfg, args.weights)
    elif args.tool == "partial":
        print(f"wrote {convert(args.cfg, args.weights, args.out, cutoff=args.layers)}")
        return 0
    else:
        change, _ = _CHANGES[args.tool]
        model = change(ModelFile.read(args.cfg, args.weights))
    model.write(args.out)
    cfg_out = vars(args).get("cfg_out")
    print(f"wrote {args.out}", file=message_stream(cfg_out))
    if cfg_out:
        write_text(cfg_out, model.graph.document.text)
        print(f"wrote {cfg_out}", file=message_stream(cfg_out))
    return 0


def _add(
    tools: argparse._SubParsersAction[argparse.ArgumentParser], name: str, summary: str, *files: str
) -> argparse.ArgumentParser:
    helps = {"weights": "a .weights file or a .pt checkpoint", "out": "the file to write (.pt: a checkpoint)"}
    tool = tools.add_parser(name, help=summary, description=summary)
    tool.add_argument("cfg", metavar="CFG", help="the cfg of the weights")
    for file in files:
        tool.add_argument(file, metavar=file.upper(), help=helps[file])
    return tool


def _print_statistics(args: argparse.Namespace) -> int:
    # As they are: it shows where weights are not finite.
    found = weight_tools.statistics(ModelFile.read_weights(args.weights, ModelFile.read(args.cfg).graph))
    if args.json:
        write_json(args.json, [entry._asdict() for entry in found])
    if args.json != "-":
        print(f"{'layer':24}{'array':20}{'values':>10}{'rms':>12}{'mean':>12}{'variance':>12}{'min':>12}{'max':>12}")
        for entry in found:
            numbers = "".join(f"{value:12.6f}" for value in entry[4:])
            print(f"{entry.layer:<4}{entry.type:20}{entry.name:20}{entry.size:10}{numbers}")
    return 0
