"""`evaluate CFG --weights W`: mAP and AP of a detector, accuracy of a classifier, bits per byte of a text model."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Iterator, Sequence

import torch

from darknet_py.backends.choose import open_backend
from darknet_py.cli import rnn
from darknet_py.cli.common import (
    backend_arguments,
    count,
    darknet_argument,
    device_or_default,
    fraction,
    json_argument,
    letter_box_argument,
    max_pixels_argument,
    message_stream,
    network_arguments,
    output_folder,
    positive,
    rank_timeout_argument,
    stb_argument,
    write_json,
)
from darknet_py.cli.darknet_output import detection_layer_lines, map_lines, recall_lines, top_lines
from darknet_py.cli.load_network import check_weights
from darknet_py.cli.usage import UsageError
from darknet_py.counted import counted
from darknet_py.data.datafile import DataFile, read_names
from darknet_py.data.open_classification import open_classifier_data
from darknet_py.evaluation.classifier import evaluate_classifier, is_classifier
from darknet_py.evaluation.coco_ap import CocoResult
from darknet_py.evaluation.darknet_map import ClassResult, DarknetResult
from darknet_py.evaluation.detector import PROTOCOLS, EvalOptions, Evaluation
from darknet_py.evaluation.evaluate import are_training_images, evaluate_on, warn_of_training_images
from darknet_py.evaluation.recall import RecallResult
from darknet_py.evaluation.report import write_files, write_report, write_results
from darknet_py.evaluation.types import Ints
from darknet_py.files import make_folder
from darknet_py.inference.fuse import AMP, fuse
from darknet_py.model.load import build
from darknet_py.model.model_file import read_cfg
from darknet_py.model.network import Network
from darknet_py.training.distributed import DistContext, process_group
from darknet_py.view.evaluation_plots import evaluation_plots

_MAX_WARNINGS = 10  # lines about bad images and labels


def configure(parser: argparse.ArgumentParser) -> None:
    network_arguments(parser, "trained weights")
    parser.add_argument(
        "--data", metavar="FILE", help="data set whose `valid` list is used, or a text (default: built-in data)"
    )
    parser.add_argument("--images", metavar="LIST", help="a list of images, or a folder, instead of `valid`")
    parser.add_argument("--names", metavar="FILE", help="class names, one a line, instead of those of the .data file")
    parser.add_argument(
        "--protocol",
        choices=("darknet", "coco", "both", "recall"),
        default="both",
        help="darknet: as `detector map`; coco: pycocotools on what `detector valid` finds; recall: of boxes, whatever "
        "their class, as `detector recall` (default: both, darknet and coco)",
    )
    parser.add_argument(
        "--points",
        type=int,
        choices=(0, 11, 101),
        default=0,
        help="recall points of Darknet's mAP (default: 0, the area under the curve)",
    )
    parser.add_argument(
        "--iou-thresh", type=fraction, default=0.5, help="IoU threshold of Darknet's mAP (default: 0.5)"
    )
    parser.add_argument(
        "--thresh", type=fraction, default=0.25, help="minimum confidence of counted detections (default: 0.25)"
    )
    parser.add_argument("--batch", type=positive, default=8, help="images per forward pass (default: 8)")
    parser.add_argument("--workers", type=count, help="processes that read images (default: one per core, at most 8)")
    json_argument(parser, "write the result to FILE, or to stdout instead of tables")
    parser.add_argument(
        "--out",
        type=output_folder,
        metavar="DIR",
        help="folder for evaluation.json, precision_recall.png, confusion.png and .csv, and Darknet's result files",
    )
    backend_arguments(parser)
    letter_box_argument(parser)
    stb_argument(parser)
    max_pixels_argument(parser)
    rank_timeout_argument(parser)
    darknet_argument(parser, "`detector map` prints; with --protocol coco write the result files of `detector valid`")
    parser.add_argument(
        "--results-name",
        metavar="NAME",
        default="",
        help="--darknet: name of the result files, as -out of `detector valid`",
    )
    parser.add_argument("--loss", action="store_true", help="compute the network's loss too, in the same pass")


def run(args: argparse.Namespace) -> int:
    context = DistContext.from_environment()
    if not context.is_main_process:  # which says and writes everything for all
        logging.getLogger("darknet_py").setLevel(logging.ERROR)
    device = device_or_default(args.device)
    with process_group(context, torch.device(device), "start it again", args.rank_timeout):
        return _run(args, device, context)


def _run(args: argparse.Namespace, device: str, context: DistContext) -> int:
    if args.protocol == "recall" and args.out:
        raise UsageError("--out: --protocol recall writes no files but --json FILE")
    model = read_cfg(args.cfg, args.width, args.height)
    other: Callable[[argparse.Namespace, Network, DistContext], int] | None = None
    if model.graph.reads_text:
        other = _evaluate_text
    elif is_classifier(model.graph):
        other = _evaluate_classifier
    if other:
        for option, value in (("images", args.images), ("names", args.names)):
            if value:
                raise UsageError(f"--{option}: {args.cfg} is no detector; expected its data by --data")
    if args.weights:
        model = model.with_weights(args.weights, ignore_rest=args.ignore_rest)
    else:
        model.log_loaded()
    check_weights(args, model)
    if other:
        return other(args, build(model, device, random_weights=args.random_weights), context)
    net = build(model, device, random_weights=args.random_weights)
    predictor = None
    if not args.loss or args.backend != "torch":
        predictor = open_backend(net, args.backend, args.precision, args.batch, calibrate=args.calibrate)
    options = EvalOptions(
        protocols=PROTOCOLS if args.protocol == "both" else (args.protocol,),
        iou_thresh=args.iou_thresh,
        points=args.points,
        thresh=args.thresh,
        batch=args.batch,
        workers=args.workers,
        letter_box=args.letter_box,
        stb=args.stb,
        dtype=AMP.get(args.precision),
        predictor=predictor,
        loss=args.loss,
        progress=context.is_main_process,
    )
    classes = next((spec.classes for spec in net.graph.detection_specs), None)
    names = read_names(args.names, classes) if args.names else ()
    evaluation, data = evaluate_on(net, args.data, args.images, names, options, rank=context.rank, world=context.size)
    if not context.is_main_process:
        return 0
    _print_warnings(evaluation.skipped)
    if evaluation.recall:
        _print_recall(args, evaluation.recall, evaluation)
        return 0
    size = (net.graph.net.width, net.graph.net.height)
    matrix = evaluation.confusion(args.thresh, args.iou_thresh)
    report = as_dict(args, size, evaluation, matrix)
    report["on_training_images"] = data is not None and are_training_images(data, evaluation.boxes.paths)
    if args.darknet:
        _print_as_darknet(args, net, evaluation, data)
    elif args.json != "-":
        print("\n".join(lines(args, size, evaluation)))
    if args.json:
        write_json(args.json, report)
    if args.json and args.json != "-":
        print(f"\nresult in {args.json}")
    if args.out:
        write_files(args.out, report, evaluation, matrix, data)
        print(f"\nfiles in {args.out}/", file=message_stream(args.json))
    return 0


def _print_recall(args: argparse.Namespace, result: RecallResult, evaluation: Evaluation) -> None:
    """The lines of `detector recall`, to standard error as in C; else one line, or JSON."""
    if args.darknet:
        print("\n".join(recall_lines(result)), file=sys.stderr)
    elif args.json != "-":
        print(
            f"{counted(len(result.rows), 'image')}, {counted(result.rows[-1].truths, 'object')}: recall "
            f"{result.recall:.2%}, average IoU {result.average_iou:.2%}, {result.proposals_per_image:.2f} proposals "
            "per image"
        )
    if args.json:
        write_json(args.json, {"cfg": args.cfg, "weights": args.weights, **evaluation.to_json()})


def _print_as_darknet(args: argparse.Namespace, net: Network, evaluation: Evaluation, data: DataFile | None) -> None:
    """What `detector map` prints, and the files of `detector valid`, by protocol."""
    if evaluation.darknet:
        print("\n".join(map_lines(net.graph, evaluation.darknet)))
    if evaluation.coco:
        if not evaluation.darknet:
            print("\n".join(detection_layer_lines(net.graph)))
        folder = make_folder(data.results if data else "results")
        files = write_results(folder, evaluation, data, args.results_name)
        print(f"results in {files[0]}{' …' if len(files) > 1 else ''}", file=sys.stderr)


def _print_warnings(skipped: Sequence[str]) -> None:
    """Lines about images and labels that could not be used, the first few of them."""
    for line in skipped[:_MAX_WARNINGS]:
        print(f"warning: {line}", file=sys.stderr)
    if len(skipped) > _MAX_WARNINGS:
        print(f"warning: … and {len(skipped) - _MAX_WARNINGS} more like these", file=sys.stderr)


def as_dict(args: argparse.Namespace, size: tuple[int, int], evaluation: Evaluation, matrix: Ints) -> dict[str, object]:
    """All results, for JSON."""
    return {
        "cfg": args.cfg,
        "weights": args.weights,
        "data": args.images or args.data,
        "width": size[0],
        "height": size[1],
        "names": list(evaluation.names),
        **evaluation.to_json(),
        "confusion": {
            "what": "row: label, column: predicted class; the last of each: background",
            "boxes": next(iter(evaluation.boxes.found)),
            "thresh": args.thresh,
            "iou_thresh": args.iou_thresh,
            "matrix": matrix.tolist(),
        },
    }


def lines(args: argparse.Namespace, size: tuple[int, int], evaluation: Evaluation) -> Iterator[str]:
    """The tables on stdout."""
    images, seconds = len(evaluation.boxes.paths), evaluation.seconds
    objects = sum(len(labels.boxes) for labels in evaluation.boxes.truth)
    yield (
        f"{args.cfg} {args.weights or ''} at {size[0]}x{size[1]}: {counted(images, 'image')}, "
        f"{counted(objects, 'object')}, {images / seconds:.1f} images/s"
    )
    if evaluation.boxes.loss is not None:
        yield f"loss {evaluation.boxes.loss:.4f} per image"
    width = max(len(name) for name in (*evaluation.names, "all classes"))
    if evaluation.darknet:
        yield from ("", *_darknet_lines(evaluation.darknet, width))
    if evaluation.coco:
        yield from ("", *_coco_lines(evaluation.coco, width))


def _darknet_lines(result: DarknetResult, width: int) -> Iterator[str]:
    yield f"{result.protocol}; counts at confidence {result.thresh:g}"
    yield f"{'':{width}}  {'AP':>7}  objects      TP      FP      FN  precision  recall    F1  avg IoU  best F1  at"
    rows: list[tuple[str, float, ClassResult | DarknetResult]] = [(row.name, row.ap, row) for row in result.classes]
    for name, ap, row in [*rows, ("all classes", result.map, result)]:
        yield (
            f"{name:{width}}  {ap:7.2%}  {row.truths:7}  {row.tp:6}  {row.fp:6}  {row.fn:6}  "
            f"{row.precision:9.2f}  {row.recall:6.2f}  {row.f1:4.2f}  {row.average_iou:7.2%}  {_best(row)}"
        )
    yield f"mAP@{result.iou_thresh:.2f} {result.map:.2%}   F1 {result.f1:.2f}"
    if result.best_thresh is not None:
        yield (
            f"best F1 {result.best_f1:.2f} at confidence {result.best_thresh:g} "
            f"(precision {result.best_precision:.2f}, recall {result.best_recall:.2f})"
        )
    if result.auto_thresh != result.best_thresh:
        yield (
            f"as good, with fewer false alarms: confidence {result.auto_thresh:g} "
            f"(precision {result.auto_precision:.2f}, recall {result.auto_recall:.2f}); --thresh auto uses it"
        )


def _best(row: ClassResult | DarknetResult) -> str:
    return f"{'-':>7}" if row.best_thresh is None else f"{row.best_f1:7.2f}  {row.best_thresh:.2f}"


def _coco_lines(result: CocoResult, width: int) -> Iterator[str]:
    yield result.protocol
    yield f"{'':{width}}  {'AP':>7}  {'AP50':>7}  {'AR100':>7}  {'objects':>7}"
    for row in result.classes:
        yield f"{row.name:{width}}  {_percent(row.ap)}  {_percent(row.ap50)}  {_percent(row.ar)}  {row.truths:7}"
    all_of = [_percent(result.metrics[name]) for name in ("AP", "AP50", "AR100")]
    yield f"{'all classes':{width}}  {'  '.join(all_of)}  {result.truths:7}"
    names = list(result.metrics)
    for half in (names[:6], names[6:]):
        yield "   ".join(f"{name} {_percent(result.metrics[name]).strip()}" for name in half)


def _percent(value: float | None) -> str:
    return f"{'-':>7}" if value is None else f"{value:7.2%}"


def _evaluate_text(args: argparse.Namespace, network: Network, context: DistContext) -> int:
    """By the main process alone: a text is read from its beginning to its end."""
    return rnn.measure(args, network) if context.is_main_process else 0


def _evaluate_classifier(args: argparse.Namespace, network: Network, context: DistContext) -> int:
    """`evaluate` of a classifier: top-1 and top-5 on the validation list."""
    if args.precision in AMP:
        network = fuse(network, AMP[args.precision])
    data = open_classifier_data(args.data, network.graph.net.channels, trains=False)
    if not data.separate:
        warn_of_training_images(data.file.path)
    valid = data.valid.with_stb() if args.stb else data.valid
    result = evaluate_classifier(
        network, valid, args.batch, args.workers, data.names, args.loss, rank=context.rank, world=context.size
    )
    if not context.is_main_process:
        return 0
    _print_warnings(result.skipped)
    matrix = result.confusion()
    report = {"cfg": args.cfg, "weights": args.weights, "data": args.data, **result.to_json()}
    report["on_training_images"] = not data.separate
    report["confusion"] = {"what": "row: label, column: predicted class", "matrix": matrix.tolist()}
    if args.out:
        plots = evaluation_plots(f"top-1 {result.top(1):.2%}", result.names, matrix)
        write_report(args.out, report, result.names, matrix, plots)
    if args.json:
        write_json(args.json, report)
    if args.darknet:
        print("\n".join(top_lines(result, data.file.top)))
    if args.darknet or args.json == "-":
        return 0
    loss = "" if result.loss is None else f", loss {result.loss:.4f} per image"
    print(f"{counted(len(result.labels), 'image')}: top-1 {result.top(1):.2%}, top-5 {result.top(5):.2%}{loss}")
    return 0
