"""`classify CFG --weights W IMAGES…`: the most likely classes of images; what `evaluate` does for classifiers."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from darknet_py.cli.common import load_network, network_arguments, positive, stb_argument

if TYPE_CHECKING:
    from darknet_py.graph.graph import Graph

HELP = "name the most likely classes of images"
_SHOWN = 10  # lines about bad images


def configure(parser: argparse.ArgumentParser) -> None:
    network_arguments(parser)
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="images, folders or globs")
    parser.add_argument(
        "--data", metavar="FILE", help="a .data file with labels= or names=, or a folder with a folder per class"
    )
    parser.add_argument("--names", metavar="FILE", help="class names, one a line, instead of those of the data")
    parser.add_argument("--top", type=positive, default=5, metavar="K", help="classes per image (default: 5)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    stb_argument(parser)


def run(args: argparse.Namespace) -> int:
    """1 where an image could not be read."""
    import torch

    from darknet_py.cli.detect import find_images
    from darknet_py.data.datafile import read_names
    from darknet_py.data.images import center_crop, load_image
    from darknet_py.data.open_classification import open_classifier_data
    from darknet_py.errors import DarknetError, DataError

    network = load_network(args)
    if not is_classifier(network.graph):
        raise DarknetError(f"{args.cfg}: expected a classifier, got another network; see `detect`")
    names = network.names
    if args.names:
        names = read_names(args.names)
    elif args.data:
        names = open_classifier_data(args.data, network.graph.net.channels).names
    net, device = network.graph.net, network.device
    rows, failed = [], False
    for path in find_images(args.images):
        try:
            image = center_crop(load_image(str(path), net.channels, args.stb), net.width, net.height)
        except DataError as error:
            print(f"darknet_py: {error}", file=sys.stderr)
            failed = True
            continue
        with torch.inference_mode():
            x = torch.from_numpy(image).to(device).permute(2, 0, 1)[None].float()
            scores = network(x)[0].flatten().float()
        best = scores.topk(min(args.top, len(scores)))
        classes = [
            {"class_id": k, "name": names[k] if k < len(names) else str(k), "confidence": round(score, 6)}
            for score, k in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]
        rows.append({"filename": str(path), "classes": classes})
        if not args.json:
            print(path)
            print("\n".join(f"  {row['confidence']:7.2%}  {row['name']}" for row in classes), flush=True)
    if args.json:
        print(json.dumps(rows, indent=1, ensure_ascii=False))
    return int(failed)


def is_classifier(graph: Graph) -> bool:
    """Whether it gives one vector per image, and no boxes."""
    return bool(graph.net.channels) and graph.layers[-1].spec.vector and not graph.detection_specs


def measure(args: argparse.Namespace) -> int:
    """`evaluate` of a classifier: top-1 and top-5 on the validation list."""
    from darknet_py.cli.evaluate import write_report
    from darknet_py.data.open_classification import open_classifier_data
    from darknet_py.evaluation.classifier import evaluate_classifier
    from darknet_py.files import write_atomically
    from darknet_py.inference.fuse import AMP, fuse

    network = load_network(args)
    if args.amp:
        network = fuse(network, AMP[args.amp])
    data = open_classifier_data(args.data, network.graph.net.channels)
    data.valid.stb = args.stb
    result = evaluate_classifier(network, data.valid, args.batch, args.workers, data.names, args.loss)
    for line in result.skipped[:_SHOWN]:
        print(f"warning: {line}", file=sys.stderr)
    matrix = result.confusion()
    report = {"cfg": args.cfg, "weights": args.weights, "data": args.data, **result.to_json()}
    report["confusion"] = {"what": "row: label, column: class found", "matrix": matrix.tolist()}
    if args.out:
        write_report(args.out, report, result.names, matrix.tolist(), result.pictures)
    if args.json == "-":
        print(json.dumps(report))
        return 0
    loss = "" if result.loss is None else f", loss {result.loss:.4f} per image"
    print(f"{len(result.labels)} images: top-1 {result.top(1):.2%}, top-5 {result.top(5):.2%}{loss}")
    if args.json:
        write_atomically(args.json, json.dumps(report).encode() + b"\n")
    return 0
