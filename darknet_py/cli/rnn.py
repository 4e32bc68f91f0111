"""`darknet-py rnn train` and `rnn generate`: recurrent networks on text, as Darknet's `rnn`; their `evaluate`."""

from __future__ import annotations

import argparse
import codecs
import sys

from darknet_py.cli import train
from darknet_py.cli.common import network_arguments, positive, write_json
from darknet_py.cli.load_network import load_network
from darknet_py.counted import counted
from darknet_py.data.builtin.synthetic_text import ensure_synthetic_text
from darknet_py.data.text_streams import read_bytes
from darknet_py.evaluation.text import evaluate_text
from darknet_py.inference.generate import check_text_network, generate
from darknet_py.model.network import Network


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    training = actions.add_parser("train", help="train a network to continue a text, byte by byte")
    training.add_argument("cfg", metavar="CFG", help="a recurrent cfg with inputs=256")
    training.add_argument("data", metavar="TEXT", nargs="?", help="any file (default: a built-in text)")
    train.run_arguments(training)
    train.net_arguments(training)

    generation = actions.add_parser("generate", help="generate text")
    network_arguments(generation, "trained weights")
    generation.add_argument("--seed-text", default="\n", metavar="TEXT", help="text to continue (default: a new line)")
    generation.add_argument("--length", type=positive, default=500, metavar="N", help="bytes to write (default: 500)")
    generation.add_argument("--temperature", type=float, default=0.7, metavar="T", help="below 1: safer (default: 0.7)")
    generation.add_argument("--seed", type=int, default=0, help="random seed (default: 0)")


def run(args: argparse.Namespace) -> int:
    """Trains a network, or generates text."""
    return train.run(args) if args.action == "train" else _generate(args)


def measure(args: argparse.Namespace, network: Network) -> int:
    """`evaluate` of a network of text: bits per byte of a text that it was not trained on."""
    check_text_network(network)
    text = args.data or str(ensure_synthetic_text().valid)
    result = evaluate_text(network, read_bytes(text, network.graph.input.size))
    if args.json:
        write_json(args.json, {"cfg": args.cfg, "weights": args.weights, "text": text, **result.to_json()})
    if args.json == "-":
        return 0
    print(
        f"{counted(result.bytes, 'byte')}: {result.bits:.3f} bits per byte (perplexity {2**result.bits:.3f}), "
        f"likeliest byte right {result.found:.2%}"
    )
    return 0


def _generate(args: argparse.Namespace) -> int:
    start = args.seed_text.encode("utf-8", "surrogateescape")
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    sys.stdout.write(args.seed_text)
    for symbol in generate(load_network(args), start, args.length, args.temperature, args.seed):
        sys.stdout.write(decoder.decode(bytes([symbol])))
        sys.stdout.flush()
    print(decoder.decode(b"", True))
    return 0
