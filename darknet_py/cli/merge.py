"""`merge CFG WEIGHTS OUT.cfg OUT.weights`: parallel convolutions of a trained network become single ones."""

from __future__ import annotations

import argparse
from pathlib import Path

from darknet_py.cli.common import output_file
from darknet_py.cli.usage import UsageError
from darknet_py.counted import counted
from darknet_py.files import write_atomically
from darknet_py.graph.profile import network_profile
from darknet_py.model.load import read_trained
from darknet_py.zoo.merge_branches import find_branches, merge_branches


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("cfg", metavar="CFG", help="the cfg that was trained")
    parser.add_argument("weights", metavar="WEIGHTS", help="its .weights file or .pt checkpoint")
    parser.add_argument("out_cfg", metavar="OUT.cfg", type=output_file, help="the cfg to write")
    parser.add_argument("out_weights", metavar="OUT.weights", type=output_file, help="the .weights file to write")


def run(args: argparse.Namespace) -> int:
    for path, suffix in ((args.out_cfg, ".cfg"), (args.out_weights, ".weights")):
        if Path(path).suffix != suffix:
            raise UsageError(f"{path}: expected a file ending in {suffix}")
    net = read_trained(args.cfg, args.weights)
    merged = merge_branches(net)
    write_atomically(args.out_cfg, merged.graph.text.encode())
    merged.save_weights(args.out_weights)
    before, after = network_profile(net.graph), network_profile(merged.graph)
    print(f"merged {counted(len(find_branches(net.graph)), 'sum')} of parallel convolutions")
    print(
        f"layers {before.layers} -> {after.layers}, parameters {before.parameters} -> {after.parameters}, "
        f"BFLOPs {before.bflops:.3f} -> {after.bflops:.3f}"
    )
    print(f"wrote {args.out_cfg} and {args.out_weights}")
    return 0
