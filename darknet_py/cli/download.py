"""`download NAME…`: published weights, into the user's cache."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import NoReturn

from tqdm import tqdm

from darknet_py.cfg.options import did_you_mean
from darknet_py.cli.common import output_folder
from darknet_py.cli.usage import UsageError
from darknet_py.model.published_weights import PUBLISHED, download_weights, weights_folder


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", metavar="NAME", nargs="*", help="such as yolov4-tiny; none: list what there is")
    parser.add_argument(
        "--out",
        type=output_folder,
        metavar="DIR",
        help="folder to write to (default: the user's cache, where --weights finds the file by its name)",
    )


def run(args: argparse.Namespace) -> int:
    folder = Path(args.out or weights_folder())
    if not args.names:
        for weights in PUBLISHED.values():
            state = "downloaded" if (folder / weights.file).exists() else ""
            print(f"{weights.name:<20} {weights.size / 1e6:7.1f} MB  {weights.url}  {state}".rstrip())
        return 0
    names = [name.removesuffix(".weights") for name in args.names]
    for name in names:
        if name not in PUBLISHED:
            raise UsageError(
                f"{name}: not known; `darknet-py download` lists what is{did_you_mean(name, [*PUBLISHED])}"
            )
    for name in names:
        weights = PUBLISHED[name]
        quiet = not sys.stderr.isatty()
        with tqdm(total=weights.size, unit="B", unit_scale=True, desc=name, disable=quiet) as bar:
            path = download_weights(weights, folder, partial(_advance, bar))
        print(path)
    return 0


def _advance(bar: tqdm[NoReturn], received: int) -> None:
    bar.update(received - bar.n)
