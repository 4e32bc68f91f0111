"""Arguments that several commands share."""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TextIO

from darknet_py.cli.usage import UsageError
from darknet_py.files import check_output_file, check_output_folder, write_atomically

JsonValue = object  # anything that `json.dumps` takes


def network_arguments(parser: argparse.ArgumentParser, weights: str = "weights") -> None:
    """CFG, --weights, --random-weights, --ignore-rest, --width, --height, --device; for `load_network.read_model`."""
    parser.add_argument("cfg", metavar="CFG", help="a Darknet cfg, or a .pt checkpoint, which contains its cfg")
    parser.add_argument("--weights", metavar="FILE", help=f"{weights}: a .weights file or a .pt checkpoint")
    weights_arguments(parser)
    size_arguments(parser)
    device_argument(parser)


def images_argument(parser: argparse.ArgumentParser) -> None:
    """IMAGE …, for `cli.detect.input_images`."""
    text = "image files, folders, globs, lists of images (.txt) or http(s) addresses; - reads them from standard input"
    parser.add_argument("images", metavar="IMAGE", nargs="+", help=text)


def darknet_argument(parser: argparse.ArgumentParser, what: str) -> None:
    """--darknet: the lines of `cli.darknet_output`."""
    parser.add_argument("--darknet", action="store_true", help=f"print what Darknet's {what}")


def weights_arguments(parser: argparse.ArgumentParser) -> None:
    """--random-weights, --ignore-rest."""
    parser.add_argument(
        "--random-weights",
        action="store_true",
        help="allow random weights: no weights at all, or a partial file (NAME.conv.N)",
    )
    parser.add_argument(
        "--ignore-rest",
        action="store_true",
        help="allow a .weights file to go on after the last layer, as in Darknet",
    )


def size_arguments(parser: argparse._ActionsContainer) -> None:
    """--width, --height."""
    parser.add_argument("--width", type=positive, help="input width (default: that of the cfg)")
    parser.add_argument("--height", type=positive, help="input height (default: that of the cfg)")


def device_argument(parser: argparse.ArgumentParser) -> None:
    """--device, for `device_or_default`."""
    parser.add_argument("--device", type=device, help="cpu, cuda, cuda:1 … (default: a GPU if there is one)")


def max_pixels_argument(parser: argparse.ArgumentParser, default: int | None = None) -> None:
    """--max-pixels, which `cli.main` puts into the environment for `data.images.max_pixels`, whose default None is."""
    text = f"refuse larger images (default: {default or 178_956_970})"
    parser.add_argument("--max-pixels", type=positive, default=default, metavar="N", help=text)


def rank_timeout_argument(parser: argparse.ArgumentParser) -> None:
    """--rank-timeout, for `joined_processes`."""
    parser.add_argument(
        "--rank-timeout",
        type=positive_seconds,
        default=120,
        metavar="S",
        help="torchrun: seconds without a sign of life after which another process is given up (default: 120)",
    )


def amp_argument(parser: argparse.ArgumentParser) -> None:
    """--amp; the value is a key of `inference.fuse.AMP`."""
    parser.add_argument("--amp", choices=("bf16", "fp16"), help="mixed precision (faster only with hardware support)")


def backend_arguments(parser: argparse.ArgumentParser) -> None:
    """--backend and --precision, for `open_backend`; their values are those of `backends.choose`."""
    parser.add_argument(
        "--backend",
        choices=("torch", "compile", "onnxruntime", "openvino", "auto"),
        default="torch",
        help="what runs the network; auto: the fastest of those installed, measured once (default: torch)",
    )
    parser.add_argument(
        "--precision",
        "--amp",
        choices=("auto", "fp32", "bf16", "fp16", "int8"),
        default="fp32",
        help="of all layers but the heads; auto: bf16 or fp16 where the hardware has it and boxes stay close; "
        "int8: by onnxruntime and openvino (default: fp32)",
    )
    calibrate_argument(parser, "for --precision int8")


def calibrate_argument(parser: argparse._ActionsContainer, use: str) -> None:
    """--calibrate, for `export.quantize`."""
    parser.add_argument(
        "--calibrate", metavar="IMAGES", default="", help=f"a folder or list of images like those to come; {use}"
    )


def letter_box_argument(parser: argparse.ArgumentParser) -> None:
    """--letter-box: True, or None where the cfg decides."""
    parser.add_argument(
        "--letter-box",
        action="store_const",
        const=True,
        help="keep the aspect ratio of images, as letter_box=1 in [net]",
    )


def stb_argument(parser: argparse.ArgumentParser) -> None:
    """--stb, for `data.images.load_image`."""
    parser.add_argument(
        "--stb", action="store_true", help="decode JPEGs exactly as a Darknet built without OpenCV (extra: stb)"
    )


# Options whose file may be missing, and how its name ends. Other words after them are arguments of the command.
OPTIONAL_FILES = {"--json": ".json", "--csv": ".csv"}


def name_standard_output(words: Sequence[str]) -> list[str]:
    """Joins options with an optional file (`OPTIONAL_FILES`) with its name, or with "-" where there is none."""
    named: list[str] = []
    for word in words:
        ending = OPTIONAL_FILES.get(named[-1]) if named else None
        if ending and (word == "-" or word.endswith(ending)):
            named[-1] += f"={word}"
        else:
            named.append(word)
    return [f"{word}=-" if word in OPTIONAL_FILES else word for word in named]


def json_argument(
    parser: argparse._ActionsContainer, help: str = "write the result as JSON to FILE.json (default: stdout)"
) -> None:
    """--json [FILE], for `write_json`."""
    _optional_file_argument(parser, "--json", help)


def csv_argument(parser: argparse._ActionsContainer, help: str) -> None:
    """--csv [FILE], for `write_csv`."""
    _optional_file_argument(parser, "--csv", f"{help} to FILE.csv (default: stdout)")


def _optional_file_argument(parser: argparse._ActionsContainer, option: str, help: str) -> None:
    parser.add_argument(option, type=output_file_or_stdout, metavar="FILE", nargs="?", const="-", help=help)


def write_json(target: str, value: JsonValue) -> None:
    """Writes JSON to a file, or to standard output where `target` is "-"."""
    write_text(target, json.dumps(value, indent=1) + "\n")


def write_csv(target: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Writes a table with the keys of its first row as its header; as `write_text`."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(target, text.getvalue())


def write_text(target: str, text: str) -> None:
    """Writes text to a file, or to standard output where `target` is "-"."""
    content = text.encode("utf-8", "surrogateescape")  # bytes of a cfg that are not UTF-8
    if target != "-":
        write_atomically(target, content)
    elif isinstance(sys.stdout, io.TextIOWrapper) and not sys.stdout.isatty():  # a pipe gets what a file would
        sys.stdout.flush()
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
    else:
        print(text, end="")


def check_one_stdout(*targets: str | None) -> None:
    """Raises UsageError where several of the files to write are standard output."""
    if targets.count("-") > 1:
        raise UsageError("-: expected one file on standard output, got several")


def message_stream(*targets: str | None) -> TextIO:
    """Where to print messages: standard error where one of the files to write is standard output."""
    return sys.stderr if "-" in targets else sys.stdout


def device_or_default(name: str | None) -> str:
    """The device that --device names; by default a GPU if there is one, of torchrun's processes each its own."""
    import torch

    name = name or ("cuda" if torch.cuda.is_available() else "cpu")
    return f"cuda:{os.environ['LOCAL_RANK']}" if name == "cuda" and "LOCAL_RANK" in os.environ else name


def device(text: str) -> str:
    """The name of a device, for argparse."""
    import torch

    try:
        torch.device(text)
    except RuntimeError:
        raise argparse.ArgumentTypeError(f"expected a device like cpu or cuda:0, got {text!r}") from None
    return text


def output_file(text: str) -> str:
    """A file to write, for argparse. Raises DataError before any work where it cannot be."""
    check_output_file(_not_stdout(text))
    return text


def output_file_or_stdout(text: str) -> str:
    """As `output_file`, for texts; "-" is standard output."""
    return text if text == "-" else output_file(text)


def _not_stdout(text: str) -> str:
    if text == "-":
        raise argparse.ArgumentTypeError("expected a name, got - (standard output)")
    return text


def output_file_in_new_folder(text: str) -> str:
    """As `output_file`, where the command makes missing folders."""
    check_output_file(_not_stdout(text), makes_folder=True)
    return text


def output_prefix(text: str) -> str:
    """The start of the names of numbered images, for argparse; as `output_file_in_new_folder`."""
    check_output_file(f"{_not_stdout(text)}_00000001.jpg", makes_folder=True)
    return text


def output_folder(text: str) -> str:
    """A folder to write to, for argparse. Raises DataError before any work where it cannot be made."""
    check_output_folder(_not_stdout(text))
    return text


def positive(text: str) -> int:
    """An integer of at least 1, for argparse."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected an integer of at least 1, got {text}")
    return value


def count(text: str) -> int:
    """An integer of at least 0, for argparse."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"expected an integer of at least 0, got {text}")
    return value


def fraction(text: str) -> float:
    """A number in 0…1, for argparse."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, got {text}")
    return value


def fraction_below_one(text: str) -> float:
    """A number in 0…1 without 1, for argparse."""
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to below 1, got {text}")
    return value


def class_threshold(text: str) -> tuple[int | str, float]:
    """CLASS=T: the number or name of a class and a number in 0…1, for argparse."""
    name, equals, value = text.rpartition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"expected CLASS=T as in dog=0.5, got {text!r}")
    return int(name) if name.isdecimal() else name, fraction(value)


def fraction_or_auto(text: str) -> float | str:
    """A number in 0…1 or "auto", for argparse."""
    return text if text == "auto" else fraction(text)


def seconds(text: str) -> float:
    """A number of at least 0, for argparse."""
    value = float(text)
    if not value >= 0:  # NaN included
        raise argparse.ArgumentTypeError(f"expected a number of at least 0, got {text}")
    return value


def positive_seconds(text: str) -> float:
    """A number above 0, for argparse."""
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text}")
    return value


def port(text: str) -> int:
    """A port of TCP, for argparse; 0 takes a free one."""
    number = int(text)
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"expected a port from 0 to 65535, got {text}")
    return number


# argparse prints the name of the function where a text is not a number at all.
_TYPE_NAMES: dict[Callable[[str], int | float | str | tuple[int | str, float]], str] = {
    positive: "integer",
    port: "integer",
    count: "integer",
    fraction: "number",
    fraction_below_one: "number",
    class_threshold: "CLASS=T",
    fraction_or_auto: "number or auto",
    seconds: "number",
    positive_seconds: "number",
}
for _function, _name in _TYPE_NAMES.items():
    _function.__name__ = _name
