"""`info CFG [CFG]`: the network's table, or two networks side by side."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from typing import TYPE_CHECKING

from darknet_py.cli.common import positive

if TYPE_CHECKING:
    from darknet_py.graph.graph import Graph

HELP = "print a cfg's layers, shapes, parameters, BFLOPs and memory traffic; of two cfgs, what differs"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("cfg", metavar="CFG")
    parser.add_argument("other", metavar="OTHER", nargs="?", help="a second cfg, to print beside the first")
    parser.add_argument("--width", type=positive, help="input width, instead of the cfg's")
    parser.add_argument("--height", type=positive, help="input height, instead of the cfg's")
    parser.add_argument("--strict", action="store_true", help="unknown keys are errors")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON instead of the table")
    form.add_argument("--csv", action="store_true", help="print a line of comma-separated values per layer")


def run(args: argparse.Namespace) -> int:
    from darknet_py.graph.profile import comparison_table, profile_table
    from darknet_py.model.load import read_graph

    paths = [path for path in (args.cfg, args.other) if path is not None]
    graphs = [read_graph(path, width=args.width, height=args.height, strict=args.strict) for path in paths]
    if args.json:
        print(json.dumps(_plain(graphs), indent=1))
    elif args.csv:
        _print_csv(graphs)
    else:
        print(profile_table(graphs[0]) if len(graphs) == 1 else comparison_table(graphs[0], graphs[1]))
    return 0


def _plain(graphs: list[Graph]) -> dict[str, object]:
    from darknet_py.graph.profile import align_layers, profile_dict

    if len(graphs) == 1:
        return profile_dict(graphs[0])
    lines = [
        {
            "first": pair.first.node.index if pair.first else None,
            "second": pair.second.node.index if pair.second else None,
            "same": pair.is_same,
        }
        for pair in align_layers(graphs[0], graphs[1])
    ]
    return {"networks": [profile_dict(graph) for graph in graphs], "pairs": lines}


def _print_csv(graphs: list[Graph]) -> None:
    from darknet_py.graph.profile import layer_dict, layer_profiles

    writer = None
    for graph in graphs:
        for profile in layer_profiles(graph):
            node = profile.node
            values = {
                "cfg": graph.path,
                **layer_dict(profile),
                "sources": " ".join(map(str, node.sources)),
                "input": "x".join(map(str, reversed(node.inputs[0]))),
                "output": "x".join(map(str, reversed(node.output))),
            }
            if writer is None:
                writer = csv.DictWriter(sys.stdout, list(values), lineterminator="\n")
                writer.writeheader()
            writer.writerow(values)
