"""The command line: `darknet_py COMMAND …`, or Darknet's own (`cli.darknet`). One module per command.

A command module has HELP, `configure(parser)` and `run(args) -> exit code`; nothing heavy at its top.
Exit codes: 0 done, 1 a DarknetError (one line), 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from darknet_py.cli.darknet_compat import FORMS, translate
from darknet_py.errors import CfgWarning, DarknetError

COMMANDS = (
    "train",
    "detect",
    "video",
    "classify",
    "evaluate",
    "rnn",
    "convert",
    "info",
    "graph",
    "compare",
    "bench",
    "anchors",
    "check",
    "data",
    "design",
)


def main(argv: Sequence[str] | None = None) -> int:
    warnings.showwarning = _show_warning
    warnings.simplefilter("always", CfgWarning)
    try:
        args = _parser().parse_args(translate(sys.argv[1:] if argv is None else argv))
        exit_code: int = args.run(args)
        return exit_code
    except DarknetError as error:
        print(f"darknet_py: {error}", file=sys.stderr)
        return 1
    except ImportError as error:
        if "libGL" not in str(error):
            raise
        print("darknet_py: OpenCV cannot start without libGL: pip install opencv-python-headless", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("darknet_py: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `… | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _parser() -> argparse.ArgumentParser:
    from darknet_py import __version__

    parser = argparse.ArgumentParser(
        prog="darknet_py",
        description="Darknet networks in PyTorch: read, run, train, evaluate and convert them.",
        epilog=f"Darknet's own command lines are understood too: {', '.join(FORMS)}.",
    )
    parser.add_argument("--version", action="version", version=f"darknet_py {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        module = import_module(f"darknet_py.cli.{name}")
        sub = commands.add_parser(name, help=module.HELP, description=module.HELP)
        module.configure(sub)
        sub.set_defaults(run=module.run)
    return parser


def _show_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, file: Any = None, line: Any = None
) -> None:
    place = "" if issubclass(category, CfgWarning) else f"{filename}:{lineno}: "
    print(f"warning: {place}{message}", file=sys.stderr)
