"""`anchors CFG`: computes anchors for a data set and writes them into the cfg."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from darknet_py.cli.common import (
    check_one_stdout,
    darknet_argument,
    json_argument,
    message_stream,
    output_file,
    output_file_or_stdout,
    output_folder,
    positive,
    write_json,
    write_text,
)
from darknet_py.cli.darknet_output import anchor_lines, counter_line
from darknet_py.cli.usage import UsageError
from darknet_py.counted import counted
from darknet_py.data import anchor_heads
from darknet_py.data import anchors as clustering
from darknet_py.data.anchor_heads import HeadAnchors, set_anchors
from darknet_py.data.anchors import AnchorQuality, BoxSizes, Sizes
from darknet_py.data.class_count import count_classes
from darknet_py.data.labels import MAX_CLASSES
from darknet_py.data.open_dataset import open_dataset
from darknet_py.files import make_folder, write_atomically
from darknet_py.graph.graph import Graph, build_graph, parse
from darknet_py.view.figure import check_plot_path, save_figure
from darknet_py.view.plots import anchor_plot


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("cfg", metavar="CFG", nargs="?", help="cfg whose input size and number of anchors are used")
    parser.add_argument("--data", metavar="FILE", help="a .data file or another format (default: the built-in shapes)")
    parser.add_argument("--clusters", type=positive, metavar="N", help="number of anchors (default: that of the cfg)")
    parser.add_argument(
        "--width", type=positive, help="input width (default: that of the cfg); without a cfg: grid cells"
    )
    parser.add_argument("--height", type=positive, help="input height (default: that of the cfg)")
    parser.add_argument("--seed", type=int, default=0, help="random seed (default: 0)")
    parser.add_argument(
        "--masks",
        choices=("keep", "stride"),
        help="keep: as many anchors per head as now; stride: by size (default: keep if possible)",
    )
    parser.add_argument(
        "--write",
        type=output_file_or_stdout,
        metavar="OUT.cfg",
        help="write the cfg with the new anchors, everything else unchanged; - is stdout",
    )
    parser.add_argument(
        "--out",
        type=output_folder,
        metavar="FOLDER",
        default=Path("."),
        help="folder of anchors.txt (default: the current one)",
    )
    parser.add_argument("--plot", type=output_file, metavar="FILE", help="draw boxes and anchors: .svg or .png")
    json_argument(parser)
    darknet_argument(parser, "`detector calc_anchors` prints, and write its counters_per_class.txt")


def run(args: argparse.Namespace) -> int:
    graph = parse(args.cfg, width=args.width, height=args.height) if args.cfg else None
    heads = anchor_heads.anchor_heads(graph) if graph else []
    if graph is None and not (args.clusters and args.width and args.height and not args.write and not args.masks):
        raise UsageError(
            "without CFG, --clusters, --width and --height are required, and --write and --masks are not allowed"
        )
    check_one_stdout(args.write, args.json)
    if args.plot:
        check_plot_path(args.plot)
    data = open_dataset(args.data)
    images = data.train_images()
    if graph and graph.detection_specs:
        data = count_classes(data, graph.detection_specs[-1].classes, graph.path, images)
    with tqdm(total=len(images), unit="label", disable=len(images) < 500 or not sys.stderr.isatty()) as bar:
        boxes = clustering.read_boxes(images, data.classes or MAX_CLASSES, bar.update)
    input_size = anchor_heads.anchor_space(graph, heads) if graph else (args.width, args.height)
    sizes = boxes.sizes * input_size
    old = anchor_heads.current_anchors(heads) if graph else None
    count = args.clusters or (0 if old is None else len(old))
    centers = clustering.fit_anchors(sizes, count, args.seed)
    new = clustering.round_anchors(centers, input_size[0])
    fit = clustering.evaluate_anchors(sizes, new)
    masks = anchor_heads.assign_anchors(heads, new, args.masks) if heads else []
    by_size = (
        anchor_heads.assign_anchors(heads, new, anchor_heads.STRIDE) if heads and len(new) >= len(heads) else masks
    )

    files = [str(make_folder(args.out) / "anchors.txt")]
    write_atomically(files[0], clustering.format_anchors(new, input_size[0]).encode())
    if graph and args.write:
        write_text(args.write, _cfg_with_anchors(graph, args.write, heads, new, masks, input_size[0]))
        files += [args.write] if args.write != "-" else []
    if args.plot:
        name = Path(args.cfg or data.path).name
        title = f"{name}, {input_size[0]} × {input_size[1]}: new anchors"
        save_figure(args.plot, anchor_plot(title, sizes, new, fit, input_size))
        files.append(args.plot)

    anchor_sets = (
        {"new": (new, fit)}
        if old is None
        else {"old": (old, clustering.evaluate_anchors(sizes, old)), "new": (new, fit)}
    )
    if args.json:
        write_json(args.json, _report(args, anchor_sets, boxes, input_size, heads, masks, by_size, files))
    if args.darknet:
        counts, line = boxes.counts.tolist(), clustering.format_anchors(new, input_size[0])
        write_atomically(Path(args.out) / "counters_per_class.txt", counter_line(counts).encode())
        iou = clustering.evaluate_anchors(sizes, centers).average_iou  # as in C, before they are rounded
        print("\n".join(anchor_lines(input_size, len(images), len(sizes), counts, iou, line)))
    if args.darknet or args.json == "-":
        return 0
    skipped = f", {counted(len(boxes.problems), 'label')} missing or wrong (see check)" if boxes.problems else ""
    lines = [
        f"{counted(len(sizes), 'box')} of {counted(boxes.images, 'image')}, "
        f"input {input_size[0]} x {input_size[1]}{skipped}",
        f"counters_per_class = {', '.join(map(str, boxes.counts.tolist()))}\n",
    ]
    for name, (anchors, quality) in anchor_sets.items():
        lines.append(f"{name}  average IoU {quality.average_iou:.2%}, recall at IoU 0.5 {quality.recall:.2%}")
        lines.append(f"     anchors = {clustering.format_anchors(anchors, input_size[0])}")
    if heads:
        lines += ["", *_table(heads, masks, by_size, new, fit)]
    print("\n".join([*lines, f"\nwrote {', '.join(files)}"]), file=message_stream(args.write))
    return 0


def _cfg_with_anchors(
    graph: Graph, path: str, heads: list[HeadAnchors], new: Sizes, masks: list[list[int]], width: int
) -> str:
    """The cfg with the anchors. The graph is built first, so that an invalid cfg is never written."""
    document = replace(set_anchors(graph.document, heads, new, masks, width), path=path)
    build_graph(document)
    return document.text


def _table(
    heads: list[HeadAnchors], masks: list[list[int]], by_size: list[list[int]], new: Sizes, fit: AnchorQuality
) -> list[str]:
    width = max(4, *(len(",".join(map(str, mask))) for mask in masks)) + 2
    lines = [f"{'head':<22}{'stride':>6}{'boxes':>8}  {'mask':<{width}}anchors"]
    for head, mask in zip(heads, masks, strict=True):
        count = sum(fit.counts[k] for k in mask)
        sizes = "  ".join(f"{new[k][0]:g}x{new[k][1]:g}" for k in mask)
        place = f"#{head.index} [{head.type}]"
        lines.append(f"{place:<22}{head.stride:>6g}{count:>8}  {','.join(map(str, mask)):<{width}}{sizes}")
    if masks != by_size:
        quality = "; ".join(
            f"stride {head.stride:g}: {','.join(map(str, mask))}" for head, mask in zip(heads, by_size, strict=True)
        )
        lines.append(f"masks by size:  {quality}  (--masks stride)")
    return lines


def _report(
    args: argparse.Namespace,
    anchor_sets: dict[str, tuple[Sizes, AnchorQuality]],
    boxes: BoxSizes,
    input_size: tuple[int, int],
    heads: list[HeadAnchors],
    masks: list[list[int]],
    by_size: list[list[int]],
    files: list[str],
) -> dict[str, Any]:
    sets = {
        name: {
            "anchors": anchors.tolist(),
            "average_iou": quality.average_iou,
            "recall": quality.recall,
            "boxes": list(quality.counts),
        }
        for name, (anchors, quality) in anchor_sets.items()
    }
    places = [
        {"layer": head.index, "type": head.type, "stride": head.stride, "mask": mask, "mask_by_size": other}
        for head, mask, other in zip(heads, masks, by_size, strict=True)
    ]
    return {
        "cfg": args.cfg,
        "width": input_size[0],
        "height": input_size[1],
        "boxes": len(boxes.sizes),
        "images": boxes.images,
        "counters_per_class": boxes.counts.tolist(),
        **sets,
        "heads": places,
        "problems": boxes.problems,
        "files": files,
    }
