"""Wrong usage of a command line: exit code 2, and a hint at what was probably meant."""

from __future__ import annotations

import argparse
import re
from collections.abc import Collection, Sequence
from typing import NoReturn

from darknet_py.cfg.options import did_you_mean
from darknet_py.errors import DarknetError

# What other tools, and other commands of Darknet, call our commands and options.
_COMMANDS = {
    "predict": "detect",
    "infer": "detect",
    "inference": "detect",
    "test": "detect",
    "image": "detect",
    "demo": "video",
    "track": "video",
    "stream": "video",
    "camera": "video",
    "val": "evaluate",
    "valid": "evaluate",
    "validate": "evaluate",
    "eval": "evaluate",
    "map": "evaluate",
    "recall": "evaluate",
    "export": "convert",
    "save": "convert",
    "fit": "train",
    "finetune": "train",
    "resume": "train",
    "benchmark": "bench",
    "speed": "bench",
    "profile": "bench",
    "ops": "info",
    "summary": "info",
    "show": "graph",
    "plot": "graph",
    "visualize": "graph",
    "calc_anchors": "anchors",
    "autoanchor": "anchors",
    "audit": "check",
    "lint": "check",
}
_OPTIONS = {
    "--iterations": "--max-batches",
    "--iters": "--max-batches",
    "--steps": "--max-batches",
    "--conf": "--thresh",
    "--conf-thres": "--thresh",
    "--conf-thresh": "--thresh",
    "--conf-threshold": "--thresh",
    "--confidence": "--thresh",
    "--score": "--thresh",
    "--iou": "--nms",
    "--iou-thres": "--nms",
    "--iou-threshold": "--nms",
    "--nms-thresh": "--nms",
    "--imgsz": "--width and --height",
    "--img": "--width and --height",
    "--img-size": "--width and --height",
    "--size": "--width and --height",
    "--lr": "--learning-rate",
    "--lr0": "--learning-rate",
    "--batch-size": "--batch",
    "--bs": "--batch",
    "--gpu": "--device",
    "--gpus": "--device",
    "--cuda": "--device",
    "--num-workers": "--workers",
    "--output": "--out",
    "--save-dir": "--out",
    "--project": "--out",
    "--pretrained": "--weights",
    "--checkpoint": "--weights",
    "--ckpt": "--weights",
    "--load": "--weights",
    "--save-txt": "--save-labels",
    "--labels": "--names",
    "--val": "--map",
    "--half": "--amp fp16",
    "--fp16": "--amp fp16",
    "--view-img": "--show",
    "--nosave": "--no-images",
}


class UsageError(DarknetError):
    """A command line that cannot be understood: exit code 2.

    Attributes:
        usage: Text to print before the message.
    """

    def __init__(self, message: str, usage: str = ""):
        self.usage = usage
        super().__init__(message)


class Parser(argparse.ArgumentParser):
    """Raises UsageError where argparse would end the process; options may stand between positional arguments.

    argparse gives an optional positional argument its default where an option comes before it, and then refuses it, as
    OUT in `graph CFG --weights FILE OUT`.
    """

    _intermixed = False  # whether `parse_known_intermixed_args`, which calls `parse_known_args`, is running

    def parse_known_args(  # type: ignore[override]  # its overloads are those of the namespace's type
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        if self._subparsers or self._intermixed:
            return super().parse_known_args(args, namespace)
        self._intermixed = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._intermixed = False

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, self.format_usage().strip())


def check_command(command: str | None, commands: Collection[str], usage: str) -> None:
    """Raises UsageError for an unknown command, with the one that was probably meant."""
    if command is not None and command not in commands:
        known = _COMMANDS.get(command.lower().lstrip("-"))
        hint = f"; did you mean {known!r}?" if known else did_you_mean(command, list(commands))
        raise UsageError(f"unknown command {command!r}{hint}", usage)


def check_options(words: Sequence[str], parser: argparse.ArgumentParser) -> None:
    """Raises UsageError for the first option that a command does not have, with the one that was probably meant."""
    known = sorted(_option_strings(parser))
    for word in words:
        if word == "--":
            return
        name = word.partition("=")[0]
        is_option = re.match(r"--?[A-Za-z]", name) and " " not in name
        if is_option and name not in known and not any(option.startswith(name) for option in known if name[:2] == "--"):
            raise UsageError(f"unknown option {name!r}{_similar_option(name, known)}", parser.format_usage().strip())


def _similar_option(name: str, known: Sequence[str]) -> str:
    plain = "--" + name.lower().lstrip("-").replace("_", "-")
    other = plain if plain in known else _OPTIONS.get(plain, "")
    if other.partition(" ")[0] in known:
        return f"; did you mean {other}?"
    return did_you_mean(plain, known)


def _option_strings(parser: argparse.ArgumentParser) -> set[str]:
    """Every option of a parser and of its sub-commands."""
    found: set[str] = set()
    for action in parser._actions:
        found.update(action.option_strings)
        if isinstance(action, argparse._SubParsersAction):
            found.update(*(_option_strings(choice) for choice in action.choices.values()))
    return found
