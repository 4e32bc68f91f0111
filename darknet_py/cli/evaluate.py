"""`evaluate CFG --weights W`: mAP and AP of a detector, top-1 and top-5 of a classifier, bits per byte of a text."""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darknet_py.cli.common import (
    amp_argument,
    count,
    fraction,
    letter_box_argument,
    network_arguments,
    positive,
    stb_argument,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from darknet_py.data.datafile import DataFile
    from darknet_py.evaluation.coco_ap import CocoResult
    from darknet_py.evaluation.darknet_map import ClassResult, DarknetResult
    from darknet_py.evaluation.detector import Evaluation
    from darknet_py.view.draw import Picture

HELP = "measure a detector (Darknet's mAP, COCO's AP), a classifier (top-1, top-5), a network of texts (bits per byte)"
_SHOWN = 10  # lines about bad images and labels


def configure(parser: argparse.ArgumentParser) -> None:
    network_arguments(parser, "trained weights")
    parser.add_argument("--data", metavar="FILE", help="whose `valid` list is used, or a text (default: built-in data)")
    parser.add_argument("--images", metavar="LIST", help="another list of images, or a folder, instead of `valid`")
    parser.add_argument("--names", metavar="FILE", help="class names, one a line, instead of those of the .data file")
    parser.add_argument(
        "--protocol",
        choices=("darknet", "coco", "both"),
        default="both",
        help="darknet: as `detector map`; coco: pycocotools on what `detector valid` finds (default: both)",
    )
    parser.add_argument(
        "--points", type=int, choices=(0, 11, 101), default=0, help="of Darknet's mAP: 0 area under the curve (default)"
    )
    parser.add_argument("--iou-thresh", type=fraction, default=0.5, help="of Darknet's mAP (default: 0.5)")
    parser.add_argument(
        "--thresh", type=fraction, default=0.25, help="confidence at which boxes are counted (default: 0.25)"
    )
    parser.add_argument("--batch", type=positive, default=8, help="images per forward pass (default: 8)")
    parser.add_argument("--workers", type=count, help="processes that read images (default: one per core, at most 8)")
    parser.add_argument(
        "--json", nargs="?", const="-", metavar="FILE", help="write the result to FILE, or to stdout instead of tables"
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="folder for evaluation.json, precision_recall.png, confusion.png and .csv, and Darknet's result files",
    )
    amp_argument(parser)
    letter_box_argument(parser)
    stb_argument(parser)
    parser.add_argument("--loss", action="store_true", help="the network's loss too, from the same pass")


def run(args: argparse.Namespace) -> int:
    from darknet_py.cli import classify, rnn
    from darknet_py.cli.common import load_network
    from darknet_py.data.datafile import read_list, read_names
    from darknet_py.data.open_dataset import open_dataset
    from darknet_py.errors import CfgWarning, DarknetError
    from darknet_py.evaluation.detector import PROTOCOLS, evaluate_detector
    from darknet_py.files import write_atomically
    from darknet_py.inference.fuse import AMP
    from darknet_py.model.checkpoint import is_checkpoint
    from darknet_py.model.load import read_graph

    if not args.weights and not is_checkpoint(args.cfg):
        raise DarknetError("evaluate: expected trained weights (--weights FILE), got none")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CfgWarning)  # given when the network is loaded
        graph = read_graph(args.cfg)
    other = rnn.measure if graph.reads_text else classify.measure if classify.is_classifier(graph) else None
    if other:
        for option in ("images", "names"):
            if getattr(args, option):
                raise DarknetError(f"--{option}: {args.cfg} is no detector; expected its data by --data")
        return other(args)
    names: Sequence[str] = read_names(args.names) if args.names else ()
    data = None if args.images and not args.data else open_dataset(args.data, names=names)
    if not names and data and data.names:
        names = data.class_names()
    net = load_network(args, names)
    images = read_list(args.images) if args.images else data.valid_images() if data else []
    difficult = read_list(data.difficult) if data and data.difficult and not args.images else None
    evaluation = evaluate_detector(
        net,
        images,
        names,
        protocols=PROTOCOLS if args.protocol == "both" else (args.protocol,),
        points=args.points,
        iou_thresh=args.iou_thresh,
        thresh=args.thresh,
        difficult=difficult,
        batch=args.batch,
        workers=args.workers,
        progress=True,
        loss=args.loss,
        dtype=AMP.get(args.amp),
        stb=args.stb,
    )
    for line in evaluation.skipped[:_SHOWN]:
        print(f"warning: {line}", file=sys.stderr)
    if len(evaluation.skipped) > _SHOWN:
        print(f"warning: … and {len(evaluation.skipped) - _SHOWN} more like these", file=sys.stderr)

    size = (net.graph.net.width, net.graph.net.height)
    report = as_dict(args, size, evaluation)
    if args.json != "-":
        print("\n".join(lines(args, size, evaluation)))
    else:
        print(json.dumps(report, indent=1, ensure_ascii=False))
    if args.json and args.json != "-":
        write_atomically(args.json, (json.dumps(report, indent=1, ensure_ascii=False) + "\n").encode())
        print(f"\nresult in {args.json}")
    if args.out:
        write_files(args.out, report, evaluation, data)
        print(f"\nfiles in {args.out}/", file=sys.stderr if args.json == "-" else sys.stdout)
    return 0


def as_dict(args: argparse.Namespace, size: tuple[int, int], evaluation: Evaluation) -> dict[str, Any]:
    """Everything measured, for JSON."""
    return {
        "cfg": args.cfg,
        "weights": args.weights,
        "data": args.images or args.data,
        "width": size[0],
        "height": size[1],
        "names": list(evaluation.names),
        **evaluation.to_json(),
        "confusion": {
            "what": "row: label, column: class found; the last of each: nothing",
            "boxes": next(iter(evaluation.boxes.found)),
            "thresh": args.thresh,
            "iou_thresh": args.iou_thresh,
            "matrix": evaluation.confusion(args.thresh, args.iou_thresh).tolist(),
        },
    }


def lines(args: argparse.Namespace, size: tuple[int, int], evaluation: Evaluation) -> Iterator[str]:
    """The tables on stdout."""
    images, seconds = len(evaluation.boxes.paths), evaluation.seconds
    yield (
        f"{args.cfg} {args.weights or ''} at {size[0]}x{size[1]}: {images} images, "
        f"{sum(len(labels.boxes) for labels in evaluation.boxes.truth)} objects, {images / seconds:.1f} images/s"
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
    yield f"{'':{width}}  {'AP':>7}  objects      TP      FP      FN  precision  recall    F1  avg IoU"
    rows: list[tuple[str, float, ClassResult | DarknetResult]] = [(row.name, row.ap, row) for row in result.classes]
    for name, ap, row in [*rows, ("all classes", result.map, result)]:
        yield (
            f"{name:{width}}  {ap:7.2%}  {row.truths:7}  {row.tp:6}  {row.fp:6}  {row.fn:6}  "
            f"{row.precision:9.2f}  {row.recall:6.2f}  {row.f1:4.2f}  {row.average_iou:7.2%}"
        )
    yield f"mAP@{result.iou_thresh:.2f} {result.map:.2%}   F1 {result.f1:.2f}"


def _coco_lines(result: CocoResult, width: int) -> Iterator[str]:
    yield result.protocol
    yield f"{'':{width}}  {'AP':>7}  {'AP50':>7}  {'AR100':>7}  {'objects':>7}"
    for row in result.classes:
        yield f"{row.name:{width}}  {_percent(row.ap)}  {_percent(row.ap50)}  {_percent(row.ar)}  {row.truths:7}"
    all_of = [_percent(result.figures[name]) for name in ("AP", "AP50", "AR100")]
    yield f"{'all classes':{width}}  {'  '.join(all_of)}  {result.truths:7}"
    names = list(result.figures)
    for half in (names[:6], names[6:]):
        yield "   ".join(f"{name} {_percent(result.figures[name]).strip()}" for name in half)


def _percent(value: float | None) -> str:
    return f"{'-':>7}" if value is None else f"{value:7.2%}"


def write_files(folder: str, report: dict[str, Any], evaluation: Evaluation, data: DataFile | None) -> None:
    """What --out asks for; the result files in the layout that the .data file's `eval` names (coco, else VOC)."""
    from darknet_py.evaluation.result_files import COCO_FILE, write_coco, write_voc

    boxes, names = evaluation.boxes, evaluation.names
    out = write_report(folder, report, names, report["confusion"]["matrix"], evaluation.pictures)
    if "coco" not in boxes.found:
        return
    if data and data.eval == "coco":
        write_coco(out / COCO_FILE, boxes.found["coco"], boxes.paths, boxes.sizes, len(names))
    else:
        write_voc(out, boxes.found["coco"], boxes.paths, boxes.sizes, names)


def write_report(
    folder: str,
    report: dict[str, Any],
    names: Sequence[str],
    matrix: list[list[int]],
    draw: Callable[[NDArray[np.int64]], dict[str, Picture]],
) -> Path:
    """evaluation.json, confusion.csv and the pictures. matrix: of confusion; what lies past the names is nothing."""
    import numpy as np

    from darknet_py.files import make_folder, write_atomically
    from darknet_py.view.draw import save_picture

    out = make_folder(folder)
    write_atomically(out / "evaluation.json", (json.dumps(report, indent=1, ensure_ascii=False) + "\n").encode())
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    heads = [*names, "nothing"][: len(matrix)]
    rows.writerow(["label \\ found", *heads])
    rows.writerows([name, *counts] for name, counts in zip(heads, matrix, strict=True))
    write_atomically(out / "confusion.csv", table.getvalue().encode())
    for name, picture in draw(np.array(matrix)).items():
        save_picture(out / f"{name}.png", picture)
    return out
