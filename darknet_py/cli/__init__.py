"""The command line: `darknet-py COMMAND …`, or Darknet's own command lines (`cli.darknet_compat`).

There is one module per command, with `configure(parser)` and `run(args) -> exit code`; only the chosen one is imported.
Exit codes: 0 success, 1 a DarknetError (one line, no traceback), 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import TextIO

from darknet_py.cli.common import name_standard_output
from darknet_py.cli.darknet_compat import FORMS, translate
from darknet_py.cli.short_form import complete
from darknet_py.cli.usage import Parser, UsageError, check_command, check_options
from darknet_py.errors import CfgWarning, DarknetError
from darknet_py.untrusted import escaped_output, printable

PROGRAM = "darknet-py"

COMMANDS = {
    "train": "train a detector or a classifier (without --data on built-in data)",
    "detect": "detect objects in images; write annotated images, and JSON on request",
    "video": "detect objects in a video, a camera or a stream; write a video, images or JSON",
    "serve": "serve a detector: a web page and a REST API",
    "classify": "print the most likely classes of images",
    "evaluate": "evaluate a detector (Darknet's mAP, COCO AP), a classifier (top-1, top-5) or a text model",
    "rnn": "train a recurrent network on a text file, or generate text",
    "convert": "convert cfg and weights to a checkpoint (.pt), .weights, or a network for other programs (.onnx)",
    "weights": "Darknet's weight tools: average, rgbgr, rescale, reset, denormalize, normalize, oneoff, statistics",
    "merge": "merge parallel convolutions of a trained network into single ones (re-parameterization)",
    "download": "download published weights into the user's cache",
    "info": "print layers, shapes, parameters, BFLOPs and memory traffic of a cfg, or the differences of two cfgs",
    "graph": "draw a cfg as an SVG diagram, or as an HTML page with zoom, details, search and activation maps",
    "compare": "compare parameters, BFLOPs, memory traffic, activation memory and latency of several cfgs",
    "bench": "measure latency, images per second, GFLOP/s and memory; no images needed",
    "anchors": "compute anchors from labels (k-means on IoU), compare them with those of a cfg, write them into it",
    "check": "check every image and label of a data set; exit code 1 if there are errors",
    "data": "convert a data set between Darknet, COCO JSON, Pascal VOC and Ultralytics YAML",
    "design": "write a cfg from parts (backbone, CSP stages, neck, head), or convert a plain cfg to a CSP network",
}

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: The arguments without the program name (default: `sys.argv[1:]`).

    Returns:
        The exit code.
    """
    _log_to_stderr()
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")  # what it logs about damaged images, we say in one line
    try:
        args = parse_arguments(sys.argv[1:] if argv is None else argv)
        with _environment("DARKNET_PY_MAX_PIXELS", vars(args).get("max_pixels")), escaped_output():
            exit_code: int = args.run(args)
        return exit_code
    except UsageError as error:
        if error.usage:
            print(error.usage, file=sys.stderr)
        return _print_error(error, 2)
    except DarknetError as error:
        return _print_error(error, 1)
    except ImportError as error:
        if "libGL" not in str(error):
            raise
        print(f"{PROGRAM}: OpenCV needs libGL: pip install opencv-python-headless", file=sys.stderr)
        return 1
    except OSError as error:  # what the commands did not expect: a full disk, a path that the system refuses
        if isinstance(error, BrokenPipeError):  # `… | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        where = f"{error.filename!s:.300}: " if error.filename else ""
        return _print_error(DarknetError(f"{where}{error.strerror or error}"), 1)
    except KeyboardInterrupt:
        print(f"{PROGRAM}: interrupted", file=sys.stderr)
        return 130


@contextmanager
def _environment(name: str, value: int | None) -> Iterator[None]:
    """Sets a variable of the environment while a command runs, for its processes too; None leaves it as it is."""
    before = os.environ.get(name)
    if value is not None:
        os.environ[name] = str(value)
    try:
        yield
    finally:
        if value is not None:
            os.environ.pop(name)
            os.environ.update({} if before is None else {name: before})


def _print_error(error: DarknetError, exit_code: int) -> int:
    print(f"{PROGRAM}: {printable(str(error))}", file=sys.stderr)
    return exit_code


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Parses a command line, Darknet's own included. Raises UsageError; --help and --version end the process."""
    started = time.monotonic()
    darknet_commands = (form.split()[0] for form in FORMS)
    words = name_standard_output(translate(complete(argv, {*COMMANDS, *darknet_commands})))
    parser = make_parser(words)
    chosen = _command_of(words)
    check_command(chosen, COMMANDS, parser.format_usage().strip())
    args = parser.parse_args(words)
    args.argv, args.started = list(argv), started
    return args


def make_parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """The parser for a command line. Only the module of its command is imported and configured.

    Raises UsageError for an option that the command does not have.
    """
    from darknet_py import __version__

    parser = Parser(
        prog=PROGRAM,
        description="Darknet networks in PyTorch: read, run, train, evaluate and convert them.",
        epilog=f"Darknet's own command lines work as well: {', '.join(FORMS)}.",
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    chosen = _command_of(words)
    for name, summary in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary)
        if name == chosen:
            module = import_module(f"darknet_py.cli.{name}")
            module.configure(command)
            command.set_defaults(run=module.run)
            check_options(words, command)
    return parser


def _command_of(words: Sequence[str]) -> str | None:
    return next((word for word in words if not word.startswith("-")), None)


class _LevelPrefix(logging.Formatter):
    """Messages of level INFO as they are, others as `warning: …`."""

    def format(self, record: logging.LogRecord) -> str:
        text = printable(super().format(record))
        return text if record.levelno <= logging.INFO else f"{record.levelname.lower()}: {text}"


class _StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to the current `sys.stderr`, which tests and notebooks replace."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


_HANDLER = _StderrHandler()
_HANDLER.setFormatter(_LevelPrefix())


def _log_to_stderr() -> None:
    """Shows log messages and warnings of the package on stderr. A library user configures `logging` instead."""
    package = logging.getLogger("darknet_py")
    if _HANDLER not in package.handlers:
        package.addHandler(_HANDLER)
    package.setLevel(logging.INFO)
    warnings.showwarning = _show_warning
    warnings.simplefilter("always", CfgWarning)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    where = "" if issubclass(category, CfgWarning) else f"{filename}:{lineno}: "
    logger.warning("%s%s", where, message)
