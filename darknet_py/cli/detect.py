"""`detect CFG IMAGES…`: boxes on files, folders and globs, as images and JSON."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tqdm import tqdm

from darknet_py.cli.common import (
    amp_argument,
    fraction,
    images_argument,
    letter_box_argument,
    load_network,
    network_arguments,
    positive,
    stb_argument,
)
from darknet_py.data.datafile import read_names
from darknet_py.data.image_sources import find_images, is_url
from darknet_py.data.labels import find_labels, save_labels
from darknet_py.data.open_dataset import open_dataset
from darknet_py.errors import DarknetError, DataError
from darknet_py.files import file_names, make_folder, write_atomically
from darknet_py.inference.detect import DetectOptions, as_array, detect
from darknet_py.inference.detections import JsonFrame
from darknet_py.inference.fuse import AMP, fuse
from darknet_py.model.network import Network
from darknet_py.view.draw import save_image


def configure(parser: argparse.ArgumentParser) -> None:
    detection_arguments(parser)
    images_argument(parser)
    parser.add_argument(
        "--out", metavar="DIR", default="predictions", help="folder of the images with boxes (default: predictions)"
    )
    parser.add_argument("--no-images", "--no-pictures", action="store_true", help="write no images")
    parser.add_argument(
        "--json", nargs="?", const="-", metavar="FILE", help="write Darknet's JSON to FILE, or to stdout"
    )
    parser.add_argument("--save-labels", action="store_true", help="write a label file for each image beside it")
    stb_argument(parser)


def detection_arguments(parser: argparse.ArgumentParser) -> None:
    """The network, and what counts as detected."""
    network_arguments(parser, "trained weights")
    amp_argument(parser)
    letter_box_argument(parser)
    parser.add_argument("--thresh", type=fraction, default=0.25, help="minimum confidence (default: 0.25)")
    parser.add_argument(
        "--nms", type=fraction, default=0.45, help="IoU threshold for non-maximum suppression (default: 0.45)"
    )
    parser.add_argument(
        "--hier",
        type=fraction,
        default=0.5,
        metavar="P",
        help="class trees: report the most specific class of a probability above P (default: 0.5)",
    )
    parser.add_argument("--data", metavar="FILE", help=".data file, for the class names")
    parser.add_argument("--names", metavar="FILE", help="class names, one a line")
    parser.add_argument("--batch", type=positive, default=1, help="images per forward pass (default: 1)")


def run(args: argparse.Namespace) -> int:
    """1 where an image could not be read."""
    net = load_detector(args)
    options = replace(detect_options(args), stb=args.stb)
    paths = find_images(args.images)
    targets = output_paths(args.out, paths)
    if args.save_labels and (addresses := [path for path in paths if is_url(path)]):
        raise DataError(f"{addresses[0]}: --save-labels expects image files: labels are written beside them")
    if args.save_labels and (existing := [label for label in map(find_labels, paths) if os.path.exists(label)]):
        raise DataError(
            f"{existing[0]}: there are labels already ({len(existing)} such files); --save-labels replaces none"
        )
    if not args.no_images:
        make_folder(args.out)
    json_to_stdout = args.json == "-"
    frames: list[JsonFrame] = []
    failed = False
    progress = tqdm(total=len(paths), unit="image", disable=len(paths) < 2 or not sys.stderr.isatty())
    for start in range(0, len(paths), args.batch):
        images = []
        for path in paths[start : start + args.batch]:
            try:
                images.append((path, as_array(path, net.graph.net.channels, args.stb)))
            except DataError as error:
                failed = True
                progress.write(f"darknet_py: {error}", file=sys.stderr)
        results = detect(net, [image for _, image in images], options)
        for (path, image), all_found in zip(images, results, strict=True):
            found = all_found.visible()
            frames.append(found.to_frame(len(frames) + 1, path))
            if args.save_labels:
                save_labels(find_labels(path), [(detection.class_id, *detection.box) for detection in found])
            if not json_to_stdout:
                progress.write(f"{path}: {found.summary()}")
            if not args.no_images:
                save_image(targets[path], found.plot(image))
        progress.update(len(paths[start : start + args.batch]))
    progress.close()
    if args.json:
        _write_json(args.json, frames)
    if frames and not args.no_images:
        print(f"images in {args.out}/", file=sys.stderr if json_to_stdout else sys.stdout)
    return int(failed)


def load_detector(args: argparse.Namespace) -> Network:
    """The fused network that `detection_arguments` describe."""
    net = load_network(args)
    if not net.detectors:
        raise DarknetError(f"{args.cfg}: this network has no detection layer")
    net.names = list(names_of_arguments(args, net)) or net.names
    return fuse(net, AMP.get(args.amp))


def detect_options(args: argparse.Namespace) -> DetectOptions:
    """The options that `detection_arguments` describe."""
    return DetectOptions(args.thresh, args.nms, args.letter_box, args.hier, batch=args.batch)


def names_of_arguments(args: argparse.Namespace, net: Network) -> Sequence[str]:
    """Names from --names or --data, one per class of the head; none leaves a checkpoint's own."""
    classes = max((spec.classes for spec in net.graph.detection_specs), default=0)
    if args.names:
        return read_names(args.names, classes or None)
    if not args.data:
        return ()
    data = open_dataset(args.data)
    return (data.for_network(classes, args.cfg) if classes else data).class_names()


def output_paths(folder: str, images: Sequence[str]) -> dict[str, Path]:
    """The file to write for each image; equal file names from several folders are numbered."""
    stems = [Path(unquote(urlsplit(image).path) if is_url(image) else image).stem or "image" for image in images]
    names = file_names(stems, suffix=".jpg")
    return {image: Path(folder) / name for image, name in zip(images, names, strict=True)}


def _write_json(target: str, frames: list[JsonFrame]) -> None:
    text = json.dumps(frames, indent=1, ensure_ascii=False)
    if target == "-":
        print(text)
        return
    write_atomically(target, text.encode() + b"\n")
    print(f"detections in {target}")
