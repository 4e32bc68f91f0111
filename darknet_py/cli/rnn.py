"""`rnn train CFG [TEXT]` and `rnn generate CFG`: recurrent networks on text, as Darknet's `rnn`; their `evaluate`."""

from __future__ import annotations

import argparse
import sys

from darknet_py.cli import train
from darknet_py.cli.common import network_arguments, positive

HELP = "train a recurrent network on a text file, or let it write"


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    learn = actions.add_parser("train", help="learn to continue a text, byte by byte")
    learn.add_argument("cfg", metavar="CFG", help="a recurrent cfg with inputs=256")
    learn.add_argument("data", metavar="TEXT", nargs="?", help="any file (default: a built-in text)")
    train.run_arguments(learn)
    train.net_arguments(learn)

    write = actions.add_parser("generate", help="write text")
    network_arguments(write, "trained weights")
    write.add_argument("--seed-text", default="\n", metavar="TEXT", help="what to continue (default: a new line)")
    write.add_argument("--length", type=positive, default=500, metavar="N", help="bytes to write (default: 500)")
    write.add_argument("--temperature", type=float, default=0.7, metavar="T", help="below 1: safer (default: 0.7)")
    write.add_argument("--seed", type=int, default=0, help="of the choices (default: 0)")


def run(args: argparse.Namespace) -> int:
    return train.run(args) if args.action == "train" else _generate(args)


def measure(args: argparse.Namespace) -> int:
    """`evaluate` of a network of texts: bits per byte of a text that it has not seen."""
    import json

    from darknet_py.cli.common import load_network
    from darknet_py.data.builtin.synthetic_text import ensure_synthetic_text
    from darknet_py.evaluation.text import evaluate_text
    from darknet_py.files import write_atomically
    from darknet_py.training.tasks.text_task import check_text_network, read_bytes

    network = load_network(args)
    check_text_network(network)
    text = args.data or str(ensure_synthetic_text().valid)
    result = evaluate_text(network, read_bytes(text, network.graph.input.size))
    report = json.dumps({"cfg": args.cfg, "weights": args.weights, "text": text, **result.to_json()})
    if args.json == "-":
        print(report)
        return 0
    print(
        f"{result.bytes} bytes: {result.bits:.3f} bits per byte (perplexity {2**result.bits:.3f}), "
        f"likeliest byte right {result.found:.2%}"
    )
    if args.json:
        write_atomically(args.json, report.encode() + b"\n")
    return 0


def _generate(args: argparse.Namespace) -> int:
    import codecs

    from darknet_py.cli.common import load_network
    from darknet_py.training.tasks.text_task import generate

    start = args.seed_text.encode("utf-8", "surrogateescape")
    letters = codecs.getincrementaldecoder("utf-8")("replace")
    found = generate(load_network(args), start, args.length, args.temperature, args.seed)
    sys.stdout.write(args.seed_text)
    for symbol in found:
        sys.stdout.write(letters.decode(bytes([symbol])))
        sys.stdout.flush()
    print(letters.decode(b"", True))
    return 0
