"""`info CFG [CFG]`: the network's table, or two networks side by side."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from darknet_py.cli.common import csv_argument, json_argument, size_arguments, write_csv, write_json
from darknet_py.cli.usage import UsageError
from darknet_py.graph.gradient_paths import paths_dict, paths_table
from darknet_py.graph.graph import Graph
from darknet_py.graph.profile import (
    align_layers,
    comparison_table,
    layer_dict,
    layer_profiles,
    profile_dict,
    profile_table,
)
from darknet_py.model.load import read_graph


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("cfg", metavar="CFG")
    parser.add_argument("other", metavar="OTHER", nargs="?", help="a second cfg to compare with")
    size_arguments(parser)
    parser.add_argument("--strict", action="store_true", help="treat unknown keys as errors")
    parser.add_argument(
        "--paths",
        action="store_true",
        help="print the gradient paths: of each layer with weights, of each stage and of the network",
    )
    form = parser.add_mutually_exclusive_group()
    json_argument(form)
    csv_argument(form, "write a line per layer as CSV")


def run(args: argparse.Namespace) -> int:
    paths = [path for path in (args.cfg, args.other) if path is not None]
    graphs = [read_graph(path, width=args.width, height=args.height, strict=args.strict) for path in paths]
    if args.paths and args.csv:
        raise UsageError("--paths: not allowed with --csv")
    if args.paths:
        _print_paths(graphs, args.json)
    elif args.json:
        write_json(args.json, _as_json(graphs))
    elif args.csv:
        write_csv(args.csv, [row for graph in graphs for row in _csv_rows(graph)])
    else:
        print(profile_table(graphs[0]) if len(graphs) == 1 else comparison_table(graphs[0], graphs[1]))
    return 0


def _print_paths(graphs: list[Graph], json: str | None) -> None:
    if json:
        found = [{"cfg": graph.path, **paths_dict(graph)} for graph in graphs]
        write_json(json, found[0] if len(found) == 1 else {"networks": found})
        return
    for graph in graphs:
        if len(graphs) > 1:
            print(graph.path)
        print(paths_table(graph))


def _as_json(graphs: list[Graph]) -> dict[str, object]:
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


def _csv_rows(graph: Graph) -> Iterator[dict[str, object]]:
    for profile in layer_profiles(graph):
        node = profile.node
        yield {
            "cfg": graph.path,
            **layer_dict(profile),
            "sources": " ".join(map(str, node.sources)),
            "input": "x".join(map(str, reversed(node.inputs[0]))),
            "output": "x".join(map(str, reversed(node.output))),
        }
