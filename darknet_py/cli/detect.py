"""`detect CFG IMAGES…`: boxes on files, folders and globs, as pictures and JSON."""

from __future__ import annotations

import argparse
import glob
import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darknet_py.cli.common import (
    amp_argument,
    fraction,
    letter_box_argument,
    network_arguments,
    positive,
    stb_argument,
)

if TYPE_CHECKING:
    from darknet_py.model.network import Network

HELP = "find objects on images: writes pictures with boxes, and JSON on request"


def configure(parser: argparse.ArgumentParser) -> None:
    finding_arguments(parser)
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="image files, folders or globs")
    parser.add_argument(
        "--out", metavar="DIR", default="predictions", help="folder of the pictures (default: predictions)"
    )
    parser.add_argument("--no-pictures", action="store_true", help="write no pictures")
    parser.add_argument(
        "--json", nargs="?", const="-", metavar="FILE", help="write Darknet's JSON to FILE, or to stdout"
    )
    parser.add_argument("--save-labels", action="store_true", help="write a label file for each image, where they go")
    stb_argument(parser)


def finding_arguments(parser: argparse.ArgumentParser) -> None:
    """The network, and what counts as found."""
    network_arguments(parser, "trained weights")
    amp_argument(parser)
    letter_box_argument(parser)
    parser.add_argument("--thresh", type=fraction, default=0.25, help="least confidence (default: 0.25)")
    parser.add_argument(
        "--nms", type=fraction, default=0.45, help="overlap above which boxes are joined (default: 0.45)"
    )
    parser.add_argument(
        "--hier", type=fraction, metavar="P", help="class trees: name classes surer than P (default: 0.5)"
    )
    parser.add_argument("--data", metavar="FILE", help=".data file, for the class names")
    parser.add_argument("--names", metavar="FILE", help="class names, one a line")
    parser.add_argument("--batch", type=positive, default=1, help="images per forward pass (default: 1)")


def run(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from darknet_py.data.images import load_image
    from darknet_py.data.labels import find_labels, save_labels
    from darknet_py.errors import DataError
    from darknet_py.files import make_folder
    from darknet_py.inference.detect import detect
    from darknet_py.view.draw import draw, is_visible_class, save_picture

    net = load_detector(args)
    paths = find_images(args.images)
    places = picture_paths(args.out, paths)
    if args.save_labels and (there := [label for label in map(find_labels, paths) if os.path.exists(label)]):
        raise DataError(f"{there[0]}: there are labels already ({len(there)} such files); --save-labels replaces none")
    if not args.no_pictures:
        make_folder(args.out)
    quiet = args.json == "-"
    frames: list[dict[str, Any]] = []
    failed = 0
    progress = tqdm(total=len(paths), unit="image", disable=len(paths) < 2 or not sys.stderr.isatty())
    for start in range(0, len(paths), args.batch):
        images = []
        for path in paths[start : start + args.batch]:
            try:
                images.append((path, load_image(path, net.graph.net.channels, args.stb)))
            except DataError as error:
                failed += 1
                progress.write(f"darknet_py: {error}", file=sys.stderr)
        results = detect(net, [image for _, image in images], args.thresh, args.nms, args.batch)
        for (path, image), all_found in zip(images, results, strict=True):
            found = [detection for detection in all_found if is_visible_class(detection.name)]
            frames.append(frame(len(frames) + 1, found, path))
            if args.save_labels:
                save_labels(find_labels(path), [(each.class_id, *each.box) for each in found])
            if not quiet:
                progress.write(f"{path}: {summary(found)}")
            if not args.no_pictures:
                save_picture(places[path], draw(image, found))
        progress.update(len(paths[start : start + args.batch]))
    progress.close()
    if args.json:
        _write_json(args.json, frames)
    if frames and not args.no_pictures:
        print(f"pictures in {args.out}/", file=sys.stderr if quiet else sys.stdout)
    return 1 if failed else 0


def load_detector(args: argparse.Namespace) -> Network:
    """The fused network that `finding_arguments` describe."""
    from darknet_py.cli.common import load_network
    from darknet_py.errors import DarknetError
    from darknet_py.inference.fuse import AMP, fuse

    net = load_network(args, class_names(args))
    if not net.detectors:
        raise DarknetError(f"{args.cfg}: this network has no detection layer")
    if args.hier is not None:
        for _, head in net.detectors:
            head.hier = args.hier
    return fuse(net, AMP.get(args.amp))


def class_names(args: argparse.Namespace) -> Sequence[str]:
    """Names from --names or --data; none leaves a checkpoint's own."""
    from darknet_py.data.datafile import read_names
    from darknet_py.data.open_dataset import open_dataset

    if args.names:
        return read_names(args.names)
    return open_dataset(args.data).class_names() if args.data else ()


def find_images(patterns: Sequence[str]) -> list[Path]:
    """Files as given, folders (their images, sorted, not deeper) and globs. Raises DataError when one finds nothing."""
    from darknet_py.data.images import IMAGE_SUFFIXES
    from darknet_py.errors import DataError

    found: list[Path] = []
    for pattern in patterns:
        path = Path(pattern)
        if path.is_dir():
            matches = sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
        elif path.exists() or not glob.has_magic(pattern):
            matches = [path]  # a missing file is reported when it is read
        else:
            matches = sorted(Path(name) for name in glob.glob(pattern, recursive=True))
        if not matches:
            raise DataError(f"{pattern}: expected images, got none")
        found.extend(matches)
    return list(dict.fromkeys(found))


def frame(frame_id: int, found: Sequence[Any], path: Path | None = None) -> dict[str, Any]:
    """One image's entry, in the layout of Darknet's `detection_to_json`; a video's frames have no path."""
    objects = [
        {
            "class_id": detection.class_id,
            "name": detection.name,
            "relative_coordinates": dict(
                zip(("center_x", "center_y", "width", "height"), detection.box, strict=True),
            ),
            "confidence": detection.confidence,
        }
        for detection in found
    ]
    return {"frame_id": frame_id, **({"filename": str(path)} if path else {}), "objects": objects}


def summary(found: Sequence[Any]) -> str:
    return ", ".join(f"{detection.name} {detection.confidence:.0%}" for detection in found) or "nothing"


def picture_paths(folder: str, paths: Sequence[Path]) -> dict[Path, Path]:
    """Where the picture of each image goes; equal file names from several folders keep apart."""
    twins = Counter(path.stem for path in paths)
    met: Counter[str] = Counter()
    places = {}
    for path in paths:
        met[path.stem] += 1
        stem = path.stem if twins[path.stem] == 1 else f"{path.stem}_{met[path.stem]}"
        places[path] = Path(folder) / f"{stem}.jpg"
    return places


def _write_json(target: str, frames: list[dict[str, Any]]) -> None:
    from darknet_py.files import write_atomically

    text = json.dumps(frames, indent=1, ensure_ascii=False)
    if target == "-":
        print(text)
        return
    write_atomically(target, text.encode() + b"\n")
    print(f"detections in {target}")
