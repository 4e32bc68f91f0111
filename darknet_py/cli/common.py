"""Arguments that several commands share."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from darknet_py.model.network import Network


def network_arguments(parser: argparse.ArgumentParser, weights: str = "weights") -> None:
    """CFG, --weights, --width, --height, --device."""
    parser.add_argument("cfg", metavar="CFG", help="a Darknet cfg, or a .pt checkpoint, which holds its own")
    parser.add_argument("--weights", metavar="FILE", help=f"{weights}: a .weights file or a .pt checkpoint")
    parser.add_argument("--width", type=positive, help="input width, instead of the cfg's")
    parser.add_argument("--height", type=positive, help="input height, instead of the cfg's")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 … (default: cpu)")


def amp_argument(parser: argparse.ArgumentParser) -> None:
    """--amp; the value is for `model.fuse.AMP`."""
    parser.add_argument(
        "--amp", choices=("bf16", "fp16"), help="reduced precision: faster where there is hardware for it"
    )


def letter_box_argument(parser: argparse.ArgumentParser) -> None:
    """--letter-box, which `load_network` looks at."""
    parser.add_argument("--letter-box", action="store_true", help="keep the images' shape, as letter_box=1 in [net]")


def stb_argument(parser: argparse.ArgumentParser) -> None:
    """--stb, for `data.images.load_image`."""
    parser.add_argument(
        "--stb", action="store_true", help="read JPEGs exactly as a Darknet built without OpenCV does (extra: stb)"
    )


def load_network(args: argparse.Namespace, names: Sequence[str] = ()) -> Network:
    """The network that `network_arguments` describe."""
    from darknet_py.model.load import load

    net = load(args.cfg, args.weights, width=args.width, height=args.height, device=args.device, names=names)
    if getattr(args, "letter_box", False):
        net.graph = replace(net.graph, net=replace(net.graph.net, letter_box=True))
    return net


def positive(text: str) -> int:
    """An integer of at least 1, for argparse."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected an integer of at least 1, got {text}")
    return value


def count(text: str) -> int:
    """An integer of at least 0, for argparse."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"expected an integer of at least 0, got {text}")
    return value


def fraction(text: str) -> float:
    """A number in 0…1, for argparse."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, got {text}")
    return value


# argparse prints the function's name when a text does not convert at all.
_NAMES: dict[Callable[[str], float], str] = {positive: "integer", count: "integer", fraction: "number"}
for _function, _name in _NAMES.items():
    _function.__name__ = _name
