"""`data SOURCE OUT --to FORMAT`: converts a data set to another format."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tqdm import tqdm

from darknet_py.cli.common import json_argument, output_folder, write_json
from darknet_py.cli.usage import UsageError
from darknet_py.counted import counted
from darknet_py.data.builtin.shapes import open_darknet_data
from darknet_py.data.datafile import read_list, read_names
from darknet_py.data.open_dataset import DARKNET, DataSource, convert_to_darknet, data_file, detect_format
from darknet_py.data.writers import check_empty, export
from darknet_py.shipped import find

_MAX_PRINTED = 10  # problems printed


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a .data file, a COCO JSON file or folder, a VOC folder, a data.yaml, CSV files of boxes, or a folder of "
        "images with label files",
    )
    parser.add_argument(
        "out", type=output_folder, metavar="OUT", help="new folder; its images are links to the originals"
    )
    parser.add_argument("--to", required=True, choices=("darknet", "coco", "voc", "yolo"), help="the format to write")
    parser.add_argument("--names", metavar="FILE", help="class names in the order to write, one per line")
    parser.add_argument("--images", metavar="DIR", help="image folder of a COCO file (default: found next to it)")
    parser.add_argument("--crowd", action="store_true", help="keep COCO boxes marked iscrowd")
    parser.add_argument("--difficult", action="store_true", help="keep VOC objects marked as difficult")
    json_argument(parser)


def run(args: argparse.Namespace) -> int:
    source = DataSource(
        find(args.source, "data set"),
        tuple(read_names(args.names)) if args.names else (),
        Path(args.images) if args.images else None,
        args.crowd,
        args.difficult,
    )
    data_format = detect_format(source.path)
    if data_format == DARKNET and source.names:
        raise UsageError(f"{args.source}: --names is for other formats; in Darknet's format classes are numbers")
    check_empty(args.out)
    with tempfile.TemporaryDirectory() as folder:
        temporary = Path(folder)
        problems: list[str] = []
        wrong_sizes: list[str] = []
        if data_format == DARKNET:
            data = open_darknet_data(source.path and data_file(source.path))
        else:
            converted = convert_to_darknet(source, data_format, temporary)
            data, problems, wrong_sizes = converted.data, converted.left_out, converted.wrong_sizes
        test = temporary / "test.txt"
        more = {"test": read_list(test)} if test.is_file() and test != data.valid else {}
        bar = tqdm(unit="image", disable=not sys.stderr.isatty(), leave=False)
        with bar:
            result = export(data, args.out, args.to, more=more, progress=bar.update)
    problems = [*problems, *result.problems]
    files = [str(file) for file in result.files]
    if args.json:
        summary = {"from": data_format, "to": args.to, "images": result.images, "boxes": result.boxes}
        write_json(args.json, {**summary, "problems": problems, "wrong_sizes": wrong_sizes, "files": files})
    if args.json == "-":
        return 0
    for what, lines in (("left out", problems), ("wrong size", wrong_sizes)):
        for line in lines[:_MAX_PRINTED]:
            print(f"{what}: {line}", file=sys.stderr)
        if len(lines) > _MAX_PRINTED:
            print(f"{what}: {len(lines) - _MAX_PRINTED} more (--json lists all of them)", file=sys.stderr)
    print(f"{counted(result.images, 'image')} with {counted(result.boxes, 'box')}, from {data_format} to {args.to}")
    print("\n".join(files))
    return 0
