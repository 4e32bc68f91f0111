"""`graph CFG [OUT]`: draw a network as an interactive HTML page, or as an SVG or PNG diagram."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from darknet_py.cli.common import device_or_default, network_arguments, output_file
from darknet_py.cli.load_network import read_model
from darknet_py.cli.usage import UsageError
from darknet_py.counted import counted
from darknet_py.data.images import load_image
from darknet_py.files import write_atomically
from darknet_py.inference.detect import prepare
from darknet_py.model.load import build, read_graph
from darknet_py.optional import require
from darknet_py.view.graph_maps import activation_maps
from darknet_py.view.graph_page import page
from darknet_py.view.graph_png import png
from darknet_py.view.graph_svg import SvgFile, svg_file
from darknet_py.view.graph_values import weight_views


def configure(parser: argparse.ArgumentParser) -> None:
    network_arguments(parser, "HTML: weights, which the page shows")
    parser.add_argument(
        "out", type=output_file, metavar="OUT", nargs="?", help="output file, .html, .svg or .png (default: NAME.html)"
    )
    parser.add_argument("--image", metavar="FILE", help="HTML: show the activation maps of every layer for this image")
    parser.add_argument(
        "--layers", metavar="A-B", type=_layer_range, help="SVG, PNG: draw only these layers, with all blocks open"
    )
    parser.add_argument("--open", choices=("none", "all"), default="none", help="SVG, PNG: blocks to draw open")
    parser.add_argument("--theme", choices=("auto", "light", "dark"), default="auto", help="SVG, PNG: colors")
    parser.add_argument(
        "--scale", type=_scale, default=2.0, help="PNG: pixels for each unit of the diagram (default: 2; extra: png)"
    )


def _layer_range(text: str) -> range:
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
    if not match or int(match[2] or match[1]) < int(match[1]):
        raise argparse.ArgumentTypeError(f"expected layers like 2-19 or 7, got {text!r}")
    return range(int(match[1]), int(match[2] or match[1]) + 1)


def _scale(text: str) -> float:
    value = float(text)
    if not 0.1 <= value <= 10:
        raise argparse.ArgumentTypeError(f"expected a number from 0.1 to 10, got {text}")
    return value


def run(args: argparse.Namespace) -> int:
    out = Path(args.out or Path(args.cfg).stem + ".html")
    suffix = out.suffix.lower()
    if suffix not in (".html", ".svg", ".png"):
        raise UsageError(f"{out}: expected a file ending in .html, .svg or .png")
    if suffix == ".html" and args.layers:
        raise UsageError(f"{out}: --layers draws an .svg or .png; a page shows the whole network")
    if suffix != ".html" and args.image:
        raise UsageError(f"{out}: --image needs a page (.html)")
    if suffix != ".html" and args.weights:
        raise UsageError(f"{out}: --weights needs a page (.html)")
    if suffix == ".png":
        require("resvg_py", "png", "PNG images of a network")
        args.theme = "light" if args.theme == "auto" else args.theme
        diagram = _diagram(args)
        content = png(diagram.text, diagram.size, args.scale)
    else:
        content = (_page(args) if suffix == ".html" else _diagram(args).text).encode()
    write_atomically(out, content)
    print(f"wrote {out} ({counted(out.stat().st_size, 'byte')})")
    return 0


def _page(args: argparse.Namespace) -> str:
    model = read_model(args, needs_weights=bool(args.weights))  # of random ones the page says so
    weights = weight_views(model)
    if not args.image:
        return page(model.graph, weights=weights)
    net = build(model, device_or_default(args.device), random_weights=args.random_weights)
    maps = activation_maps(net, prepare(net.graph, load_image(args.image, net.graph.net.channels)))
    if net.loaded_layers < len(net.layers):
        after = f" from layer {net.loaded_layers} on" if net.loaded_layers else ""
        maps = maps._replace(note=f"{maps.note} The weights{after} are random.")
    return page(model.graph, maps, weights)


def _diagram(args: argparse.Namespace) -> SvgFile:
    graph = read_graph(args.cfg, width=args.width, height=args.height)
    if args.layers and args.layers[-1] >= len(graph.layers):
        raise UsageError(f"--layers: expected layers 0…{len(graph.layers) - 1}, got {args.layers[-1]}")
    return svg_file(graph, args.open, args.layers, args.theme)
