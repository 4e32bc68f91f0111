"""`detect CFG IMAGES…`: boxes on files, folders and globs, as images and JSON."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from tqdm import tqdm

from darknet_py.backends.backend_network import BackendNetwork
from darknet_py.backends.choose import open_backend
from darknet_py.cli.common import (
    backend_arguments,
    class_threshold,
    darknet_argument,
    fraction,
    fraction_below_one,
    fraction_or_auto,
    images_argument,
    letter_box_argument,
    max_pixels_argument,
    network_arguments,
    positive,
    rank_timeout_argument,
    stb_argument,
)
from darknet_py.cli.darknet_output import box_lines, detection_layer_lines, json_text
from darknet_py.cli.detect_results import (
    REFUSE,
    SKIP,
    DetectResults,
    check_no_labels,
    check_no_urls,
    result_arguments,
    save_found_labels,
)
from darknet_py.cli.load_network import load_network
from darknet_py.cli.shard import exit_code, shared_work
from darknet_py.data.datafile import read_names
from darknet_py.data.image_sources import find_images, open_image
from darknet_py.data.images import Image
from darknet_py.data.labels import find_labels
from darknet_py.data.open_dataset import open_dataset
from darknet_py.errors import DarknetError, DataError
from darknet_py.files import write_atomically
from darknet_py.graph.graph import Graph
from darknet_py.inference.detect import DetectOptions, detect
from darknet_py.inference.detect_files import MAX_THREADS, detect_files
from darknet_py.inference.detections import Detections, JsonFrame, class_number
from darknet_py.model.network import Network
from darknet_py.view.draw import save_image
from darknet_py.view.window import check_window, show

_DARKNETS_IMAGE = "predictions.jpg"
_MAX_LIST_BATCH = 8
_LIST_BFLOPS = 2  # of a batch of a list


def configure(parser: argparse.ArgumentParser) -> None:
    detection_arguments(parser)
    images_argument(parser)
    result_arguments(parser)
    parser.add_argument(
        "--show", action="store_true", help="show the images in a window; any key goes on, Escape ends it"
    )
    stb_argument(parser)
    max_pixels_argument(parser)
    rank_timeout_argument(parser)
    parser.add_argument("--ext-output", action="store_true", help="print the pixel coordinates of each box")
    darknet_argument(parser, "`detector test` prints, and write its predictions.jpg instead of --out")


def detection_arguments(parser: argparse.ArgumentParser) -> None:
    """The network, and what counts as detected."""
    network_arguments(parser, "trained weights")
    backend_arguments(parser)
    letter_box_argument(parser)
    parser.add_argument(
        "--thresh",
        type=fraction_or_auto,
        default=0.25,
        metavar="T",
        help="minimum confidence; auto: that of the best F1, stored with NAME_best.weights (default: 0.25)",
    )
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
    parser.add_argument(
        "--class-thresh",
        type=class_threshold,
        action="append",
        default=[],
        metavar="CLASS=T",
        help="minimum confidence of one class, by name or number, instead of --thresh; may be given several times",
    )
    parser.add_argument(
        "--agnostic", action="store_true", help="suppress boxes of other classes too: one class for each box"
    )
    parser.add_argument("--data", metavar="FILE", help=".data file, for the class names")
    parser.add_argument("--names", metavar="FILE", help="class names, one a line")
    parser.add_argument(
        "--batch",
        type=positive,
        help="images per forward pass (default: 1; `detect` with a small network: two BFLOPs together, at most 8)",
    )
    parser.add_argument(
        "--tiles",
        type=positive,
        default=0,
        metavar="SIZE",
        help="search larger images in square tiles of SIZE pixels too, so that small objects keep their size",
    )
    parser.add_argument(
        "--overlap", type=fraction_below_one, default=0.2, help="share of a tile in its neighbor (default: 0.2)"
    )


def run(args: argparse.Namespace) -> int:
    """1 where an image could not be read. The processes of torchrun wait for each other, unless --shard is given."""
    with shared_work(args.shard, args.rank_timeout) as watch:
        return exit_code(_run(args), watch)


def _run(args: argparse.Namespace) -> bool:
    """Whether an image could not be read."""
    if args.show:
        check_window()
    net = load_detector(args, _list_batch)
    options = replace(detect_options(args, net.names), stb=args.stb)
    if args.darknet:
        return _run_as_darknet(args, net, options)
    failed = False
    with DetectResults(args, net.names, input_images(args.images)) as results:
        paths = results.pending
        progress = tqdm(total=len(paths), unit="image", disable=len(paths) < 2 or not sys.stderr.isatty())
        shown = args.show

        def report(path: str, found: Detections) -> None:
            if not results.on_stdout:
                summary = f"{path}: {found.visible().summary()}"
                progress.write("\n".join([path, *box_lines(found, True)]) if args.ext_output else summary)

        def draw(path: str, image: Image, found: Detections) -> None:
            if shown:
                report(path, found)  # before the window that waits for a key
            drawn = results.write_images(path, image, found.visible())
            if args.show:
                args.show = show(found.visible().plot(image) if drawn is None else drawn, milliseconds=0)

        threads = 1 if shown else MAX_THREADS
        for path, found, error in detect_files(
            net, paths, options, draw, one_at_a_time=net.is_exclusive, max_threads=threads
        ):
            if found is None:
                failed = True
                progress.write(f"darknet_py: {error}", file=sys.stderr)
            else:
                results.record(path, found.visible())
                if not shown:
                    report(path, found)
            progress.update()
        progress.close()
    return failed


def _run_as_darknet(args: argparse.Namespace, net: BackendNetwork, options: DetectOptions) -> bool:
    """`detector test`: its lines, one predictions.jpg, and images that are asked for on standard input."""
    frames: list[JsonFrame] = []
    failed = False
    for path in prompted_images() if args.images == ["-"] else find_images(args.images):
        try:
            image = open_image(path, net.graph.net.channels, args.stb)
            if args.save_labels:
                check_no_urls([path])
                check_no_labels([path] if args.existing_labels == REFUSE else [])
        except DataError as error:
            failed = True
            print(f"darknet_py: {error}", file=sys.stderr)
            continue
        print("\n".join(detection_layer_lines(net.graph)))
        start = time.perf_counter()
        (found,) = detect(net, image, options)
        print(f"{path}: Predicted in {1000 * (time.perf_counter() - start):f} milli-seconds.")
        print("".join(f"{line}\n" for line in box_lines(found, args.ext_output)), end="", flush=True)
        found = found.visible()
        frames.append(found.to_frame(len(frames) + 1, path))
        drawn = found.plot(image)
        if not args.no_images:
            save_image(_DARKNETS_IMAGE, drawn)
        args.show = args.show and show(drawn, milliseconds=0)
        if args.save_labels and not (args.existing_labels == SKIP and os.path.exists(find_labels(path))):
            save_found_labels(path, found)
    if args.json == "-":
        print(json_text(frames))
    elif args.json:
        write_atomically(args.json, json_text(frames).encode())
        print(f"detections in {args.json}", file=sys.stderr)
    return failed


def prompted_images() -> Iterator[str]:
    """Each line of standard input as it comes, after Darknet's prompt."""
    while True:
        print("Enter Image Path: ", end="", flush=True)
        line = sys.stdin.readline()
        if not line:
            return
        if line.strip():
            yield line.strip()


def load_detector(args: argparse.Namespace, torch_batch: Callable[[Graph], int] = lambda graph: 1) -> BackendNetwork:
    """The network that `detection_arguments` describe, by the back end asked for.

    Args:
        args: Its `batch` is set where there is none.
        torch_batch: The images per forward pass then, by torch, which takes any number; other back ends compute a full
            batch each time, and take one.
    """
    net = load_network(args)
    if not net.detectors:
        raise DarknetError(f"{args.cfg}: this network has no detection layer")
    net.names = list(names_of_arguments(args, net)) or net.names
    args.thresh = net.threshold(args.thresh)
    args.batch = args.batch or (torch_batch(net.graph) if args.backend == "torch" else 1)
    return open_backend(net, args.backend, args.precision, args.batch, args.hier, args.calibrate)


def _list_batch(graph: Graph) -> int:
    """How many images of a list are fastest together: each layer costs torch some microseconds of its own."""
    return max(1, min(_MAX_LIST_BATCH, round(_LIST_BFLOPS / max(graph.bflops, 1e-3))))


def detect_options(args: argparse.Namespace, names: Sequence[str]) -> DetectOptions:
    """The options that `detection_arguments` describe; names: of the network's classes."""
    return DetectOptions(
        args.thresh,
        args.nms,
        args.letter_box,
        args.hier,
        batch=args.batch,
        agnostic=args.agnostic,
        class_thresh={class_number(name, names): thresh for name, thresh in args.class_thresh},
        tiles=args.tiles,
        overlap=args.overlap,
    )


def names_of_arguments(args: argparse.Namespace, net: Network) -> Sequence[str]:
    """Names from --names or --data, one per class of the head; none leaves a checkpoint's own."""
    classes = max((spec.classes for spec in net.graph.detection_specs), default=0)
    if args.names:
        return read_names(args.names, classes or None)
    if not args.data:
        return ()
    data = open_dataset(args.data)
    return (data.for_network(classes, args.cfg) if classes else data).class_names()


def input_images(sources: Sequence[str]) -> list[str]:
    """The images of `images_argument`, see `find_images`."""
    lines = [line.strip() for line in sys.stdin] if "-" in sources else []
    images = find_images([path for source in sources for path in (filter(None, lines) if source == "-" else [source])])
    if not images:
        raise DataError("expected images on standard input, one a line, got none")
    return images
