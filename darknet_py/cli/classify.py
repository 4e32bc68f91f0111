"""`classify CFG --weights W IMAGES…`: the most likely classes of images."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence

import torch

from darknet_py.cli.common import (
    darknet_argument,
    images_argument,
    json_argument,
    max_pixels_argument,
    network_arguments,
    positive,
    stb_argument,
    write_json,
)
from darknet_py.cli.detect import input_images, prompted_images
from darknet_py.cli.load_network import load_network
from darknet_py.data.datafile import read_names
from darknet_py.data.images import center_crop
from darknet_py.data.open_classification import classifier_names
from darknet_py.errors import DarknetError, DataError
from darknet_py.evaluation.classifier import is_classifier
from darknet_py.inference.detect import as_array

_TOP = 5


def configure(parser: argparse.ArgumentParser) -> None:
    network_arguments(parser)
    images_argument(parser)
    parser.add_argument(
        "--data", metavar="FILE", help="a .data file with labels= or names=, or a folder with a folder per class"
    )
    parser.add_argument("--names", metavar="FILE", help="class names, one a line, instead of those of the data")
    parser.add_argument("--top", type=positive, metavar="K", help=f"classes per image (default: {_TOP})")
    darknet_argument(parser, "`classifier predict` prints")
    json_argument(parser)
    stb_argument(parser)
    max_pixels_argument(parser)


def run(args: argparse.Namespace) -> int:
    """1 where an image could not be read."""
    network = load_network(args)
    if not is_classifier(network.graph):
        raise DarknetError(f"{args.cfg}: expected a classifier, got another network; see `detect`")
    names, top = network.names, 1
    if args.names:
        names = read_names(args.names)
    elif args.data:
        names, top = classifier_names(args.data, network.graph.net.channels)
    top = args.top or (top if args.darknet else _TOP)
    net, device = network.graph.net, network.device
    rows, failed = [], False
    if args.darknet:
        print(f" classes = {len(names)}, output in cfg = {network.graph.layers[-1].output.c} ")
    for path in prompted_images() if args.darknet and args.images == ["-"] else input_images(args.images):
        try:
            image = center_crop(as_array(path, net.channels, args.stb), net.width, net.height)
        except DataError as error:
            print(f"darknet_py: {error}", file=sys.stderr)
            failed = True
            continue
        start = time.perf_counter()
        with torch.inference_mode():
            x = torch.from_numpy(image).to(device).permute(2, 0, 1)[None].float()
            scores = network(x)[0].flatten().float()
        seconds = time.perf_counter() - start
        best = scores.topk(min(top, len(scores)))
        classes = [
            {"class_id": k, "name": names[k] if k < len(names) else str(k), "confidence": round(score, 6)}
            for score, k in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]
        rows.append({"filename": path, "classes": classes})
        if args.darknet:
            print("\n".join(_darknet_lines(path, (net.width, net.height), 1000 * seconds, classes)), flush=True)
        elif not args.json:
            print(path)
            print("\n".join(f"  {row['confidence']:7.2%}  {row['name']}" for row in classes), flush=True)
    if args.json:
        write_json(args.json, rows)
    return int(failed)


def _darknet_lines(
    path: str, size: tuple[int, int], milliseconds: float, classes: Sequence[dict[str, int | str | float]]
) -> Iterator[str]:
    """What `predict_classifier` prints for an image."""
    yield f"{size[0]} {size[1]}"
    yield f"{path}: Predicted in {milliseconds:f} milli-seconds."
    for row in classes:
        yield f"{row['name']}: {row['confidence']:f}"
